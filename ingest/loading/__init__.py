"""From a dataset to batches.

options.py        what the batches are: each option, once
augment.py        which part of an image is shown, and how: pure functions
transforms.py     from a record to what the network sees
columns.py        what a batch has for each image
batches.py        worker processes fill batches, in order
shared_memory.py  the memory that they fill
loader.py         iteration after iteration of them, and where the next one begins
"""
