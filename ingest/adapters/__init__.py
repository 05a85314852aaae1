"""Batches for the frameworks, a module for each, which alone imports its framework.

tensorpack.py  a DataFlow
tensorflow.py  an input function for tf.estimator: a tf.data.Dataset
"""
