"""From a source to shards.

options.py      how to pack: each option, once
plan.py         which images go into which shard: a pure function
build.py        worker processes carry the plan out; the manifest is last
area_resize.py  the resize in packing
resumable.py    the folder while it is written: what is done already stays
dry_run.py      what a build would give, measured on a sample
"""
