"""A finished dataset, open for reading.

dataset.py       record i of all its shards
manifest.py      what it holds: manifest.json and build.json
record_check.py  whether a record is one of it
quarantine.py    what could not be packed, and why
cache.py         copies of the shards of a remote one
"""

from ingest.dataset.dataset import Dataset
from ingest.dataset.manifest import BuildConfig, Manifest, Shard, load_manifest

__all__ = ["BuildConfig", "Dataset", "Manifest", "Shard", "load_manifest"]
