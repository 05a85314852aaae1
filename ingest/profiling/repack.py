"""A sample of a dataset, packed in another way: what advice about packing is predicted and proven with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ingest import formats
from ingest.dataset import manifest
from ingest.dataset.dataset import Dataset
from ingest.dataset.manifest import Shard
from ingest.errors import BadSampleError, OutputError
from ingest.loading import transforms
from ingest.packing.build import make_record
from ingest.packing.options import BuildOptions
from ingest.packing.plan import shard_names
from ingest.record import RAW, Record, Sample, serialize
from ingest.sampler import epoch_order
from ingest.system import worker_pool

_RECORDS_A_TASK = 32


class Packing(NamedTuple):
    """A way to pack: ``encoding`` and ``resize`` as ``build_shards`` has them."""

    encoding: str
    resize: int

    def __str__(self) -> str:
        return f"--encoding {self.encoding} --resize {self.resize}"


class _Task(NamedTuple):
    """A shard to write: its file's name, and the numbers of its records in the dataset."""

    name: str
    numbers: list[int]

    def __str__(self) -> str:
        return self.name


class _Packer:
    """Packs records anew; the handler of a worker process."""

    def __init__(self, shards: Path, folder: Path, packing: Packing):
        transforms.single_threaded()
        self._dataset, self._folder = Dataset(shards), folder
        self._options = BuildOptions(
            format=self._dataset.manifest.format, encoding=packing.encoding, resize=packing.resize
        )

    def __call__(self, task: _Task, report: Callable[[int], object]) -> Shard:
        try:
            written = formats.write(self._options.format, self._folder / task.name, self._payloads(task))
        except OSError as error:
            # Said here, since of a worker nobody would know that it was the disk.
            remedy = "set TMPDIR to where there is room"
            raise OutputError(
                f"{self._folder}: cannot be written ({error.strerror}): {remedy}", path=self._folder
            ) from error
        report(len(task.numbers))
        return Shard(task.name, len(task.numbers), *written)

    def _payloads(self, task: _Task) -> Iterator[bytes]:
        for number in task.numbers:
            record = self._dataset[number]
            try:
                yield serialize(self._made(record))
            except BadSampleError as error:
                raise self._dataset.describe(number, error) from error

    def _made(self, record: Record) -> Record:
        data: bytes | np.ndarray = bytes(record.encoded)
        if record.format == RAW:
            data = transforms.decode(record, record.channels)
        return make_record(Sample(record.key, record.label, data), record.synset, self._options)[0]


def repack(dataset: Dataset, folder: Path, packing: Packing, images: int, processes: int) -> Path:
    """A dataset in the new ``folder`` of so many ``images``, the first that an epoch would show, packed otherwise.

    Gives ``folder``. By so many ``processes``, 0 for none but this. Raises RecordError or OutputError.
    """
    source = dataset.manifest
    numbers = np.sort(epoch_order(len(dataset), 0, 0)[:images])
    parts = np.array_split(numbers, max(1, len(numbers) // _RECORDS_A_TASK))
    tasks = [_Task(name, part.tolist()) for name, part in zip(shard_names(len(parts), source.format), parts)]
    folder.mkdir()
    written = worker_pool.run(_Packer, (dataset.folder, folder, packing), tasks, processes, lambda images: None)
    shards = tuple(sorted(written, key=lambda shard: shard.name))
    packed = replace(
        source, encoding=packing.encoding, resize=packing.resize, records=len(numbers), quarantined=0, converted={},
        shards=shards, build=None,
    )  # fmt: skip
    manifest.save(packed, folder)
    return folder
