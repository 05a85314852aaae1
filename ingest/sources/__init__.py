"""Where photographs come from.

detect.py         which kind of source a path is
base.py           what every source gives: classes, entries, and how to read one
folder.py         a folder of CLASS/IMAGE files
tar.py            tars of images, or a folder of such (tar_headers.py)
listing.py        a list of paths and labels, and images whose labels lie apart (list_parser.py, labels.py)
parquet.py        parquet files (parquet_pages.py)
idx.py            IDX files, such as MNIST's
ignored.py        files that systems leave beside photographs
"""

from ingest.sources.base import NO_CLASS, Entries, Entry, Source
from ingest.sources.detect import open_source

__all__ = ["NO_CLASS", "Entries", "Entry", "Source", "open_source"]
