"""train.py, which also writes down what it sees: run as a script by the tests of resume and devices.

Lines of the file that LOG names: ``records`` and their numbers, as they are handed to workers; ``batch`` and the
checksums of its images and labels, as TensorFlow takes it; ``step`` and its loss.

With ONE_GPU in the environment the CPU stands in for a GPU: all that is done for one is done, float16 included.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator
from typing import Any, TextIO

import train
from ingest.adapters import tensorflow
from ingest.loading import batches as plan
from models import hooks


def main() -> int:
    if "ONE_GPU" in os.environ:
        pretend_one_gpu()
    with open(os.environ["LOG"], "a", buffering=1) as log:
        return logged(log)


def logged(log: TextIO) -> int:
    records_of, batches_of, after_run = (
        plan._records, tensorflow.InputFunction._batches, hooks.ThroughputHook.after_run
    )  # fmt: skip

    def records(span: Any, options: Any, *rest: Any) -> list[int]:
        found = records_of(span, options, *rest)
        if options.training:
            log.write(f"records {' '.join(map(str, found))}\n")
        return found

    def batches(self: Any, loader: Any, parts: int) -> Iterator[Any]:
        for images, labels in batches_of(self, loader, parts):
            if loader.options.training:
                log.write(f"batch {zlib.crc32(images.tobytes())} {zlib.crc32(labels.tobytes())}\n")
            yield images, labels

    def step(self: Any, context: Any, values: Any) -> None:
        after_run(self, context, values)
        log.write(f"step {float(values.results[0][0])!r}\n")

    plan._records = records
    tensorflow.InputFunction._batches = batches
    hooks.ThroughputHook.after_run = step
    return train.main()


def pretend_one_gpu() -> None:
    import tensorflow.compat.v1 as tf
    from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
    from tensorflow.python.client import session

    from models import devices

    on_one, options_of = tf.distribute.OneDeviceStrategy, session.tf_session.TF_NewSessionOptions

    def in_float16(target: Any, config: tf.ConfigProto) -> Any:
        rewrites = config.graph_options.rewrite_options
        if rewrites.auto_mixed_precision == RewriterConfig.ON:
            # What TensorFlow does to a graph on a GPU, with arithmetic that a CPU has.
            rewrites.auto_mixed_precision_cpu = RewriterConfig.ON
            rewrites.auto_mixed_precision = RewriterConfig.OFF
        return options_of(target=target, config=config)

    devices.find = lambda wanted, tf_config: devices.Devices("GPU", 1)
    tf.distribute.OneDeviceStrategy = lambda device: on_one(device.replace("GPU", "CPU"))
    session.tf_session.TF_NewSessionOptions = in_float16


if __name__ == "__main__":
    sys.exit(main())
