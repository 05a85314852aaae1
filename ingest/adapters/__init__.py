"""Batches for the frameworks, a module for each, which alone imports its framework.

tensorpack.py  a DataFlow
tensorflow.py  an input function for tf.estimator: a tf.data.Dataset, for Keras too
torch.py       tensors, on the device ahead of use: an IterableDataset
jax.py         arrays, on one device or over a sharding, ahead of use
"""
