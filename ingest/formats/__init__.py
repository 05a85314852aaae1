"""How records lie in a file. A format frames opaque bytes and knows nothing of images.

A shard is two files: NAME, as its format has it, and NAME.index, where each record lies and its checksum. With the
index every format is read in the same way: mapped into memory, at random, and checked.

shard.py     what all formats have in common: a shard is written whole, opened, checked
index.py     the file NAME.index
tfrecord.py  a format
lmdb.py      a format

To add a format, add a module: ``shard.Format`` says what it holds. Its name is the format's.
"""

from ingest.formats.index import (
    INDEX_SUFFIX,
    MAX_RECORDS,
    RecordLocation,
    index_bytes,
    index_path,
    load_index,
)
from ingest.formats.shard import (
    NAMES,
    Format,
    Shard,
    ShardFault,
    Written,
    find_faults,
    load,
    mapped,
    open,
    open_copy,
    open_remote,
    remote_formats,
    rewrite_index,
    write,
)

__all__ = [
    "INDEX_SUFFIX",
    "MAX_RECORDS",
    "NAMES",
    "Format",
    "RecordLocation",
    "Shard",
    "ShardFault",
    "Written",
    "find_faults",
    "index_bytes",
    "index_path",
    "load",
    "load_index",
    "mapped",
    "open",
    "open_copy",
    "open_remote",
    "remote_formats",
    "rewrite_index",
    "write",
]
