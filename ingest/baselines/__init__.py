"""The ways in which people usually load such shards: other feeds of the same training, to compare with.

registry.py        their names, and what each honours
naive.py           Python's own loop with Pillow
tf_data.py         tf.data, as its performance guide recommends
tensorpack.py      tensorpack, as its tutorial recommends
from_generator.py  from batches that Python makes to TensorFlow
"""

from ingest.baselines.registry import BASELINES, OURS, check, input_fn

__all__ = ["BASELINES", "OURS", "check", "input_fn"]
