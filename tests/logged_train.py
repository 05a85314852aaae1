"""train.py, which also writes down what it sees: run as a script by the tests of resume and devices.

Lines of the file that LOG names: ``records`` and their numbers, as they are handed to workers; ``batch`` and the
checksums of its images and labels, as TensorFlow takes it; ``step`` and its loss.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

sys.path.insert(0, str(Path(__file__).parent.parent))

import ingest.batches
import ingest.feed
import train
from models import hooks


def main() -> int:
    with open(os.environ["LOG"], "a", buffering=1) as log:
        return logged(log)


def logged(log: TextIO) -> int:
    records_of, batches_of, after_run = (
        ingest.batches._records, ingest.feed.InputFunction._batches, hooks.Watch.after_run
    )  # fmt: skip

    def records(span: Any, options: Any, *rest: Any) -> list[int]:
        found = records_of(span, options, *rest)
        if options.training:
            log.write(f"records {' '.join(map(str, found))}\n")
        return found

    def batches(self: Any, flow: Any, parts: int) -> Iterator[Any]:
        for images, labels in batches_of(self, flow, parts):
            if flow.options.training:
                log.write(f"batch {zlib.crc32(images.tobytes())} {zlib.crc32(labels.tobytes())}\n")
            yield images, labels

    def step(self: Any, context: Any, values: Any) -> None:
        after_run(self, context, values)
        log.write(f"step {float(values.results[0][0])!r}\n")

    ingest.batches._records = records
    ingest.feed.InputFunction._batches = batches
    hooks.Watch.after_run = step
    return train.main()


if __name__ == "__main__":
    sys.exit(main())
