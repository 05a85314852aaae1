"""What every part stands on.

paths.py        this machine's disks, or a bucket (remote.py)
atomic.py       files that are whole or absent
strict_json.py  JSON that may come from anywhere
worker_pool.py  worker processes (dask_pool.py: those of a cluster)
ahead.py        the next thing made while the last one is used
frameworks.py   which frameworks are installed
jit.py          compiled functions
validation.py   options: types, bounds, keyword arguments
terminal.py     what is printed (progress.py: the progress bar)
"""
