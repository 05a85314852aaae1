"""What tests share: images, files, servers, fuzzers, the check of the documents."""
