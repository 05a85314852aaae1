"""From shards to batches: worker processes fill slots of shared memory, the parent lends them in order.

The batches are a function of the dataset and the options alone: the same bytes for any number of workers.

    parent     order -> job (slot, records) -> worker's queue            ... -> slot filled -> batch, in order
    worker                                     record -> view -> slot
"""

from __future__ import annotations

import os
import selectors
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ingest import jpeg, sampler
from ingest.dataset.dataset import Dataset
from ingest.errors import BadSampleError, IngestError, RecordError, WorkerError, fields_of
from ingest.loading import transforms
from ingest.loading.columns import COLUMNS, Batch, Layout, Row
from ingest.loading.options import LoaderOptions
from ingest.loading.shared_memory import MAX_LENT_BATCHES, SharedBatchPool, anonymous_shared_memory
from ingest.sampler import Span
from ingest.system.worker_pool import Worker, num_workers

_QUEUED = 2
"""Jobs a worker has at a time: the one it does, and the next, so that it need not wait for the parent."""


class BatchPart(NamedTuple):
    """A part of a batch within one epoch: where it stands in the epoch, and the records it shows."""

    span: Span
    records: list[int]


class _Job(NamedTuple):
    """A batch to fill, and the slot to fill it in."""

    slot: int
    rows: list[BatchPart]

    def __str__(self) -> str:
        if not self.rows:
            return "an empty batch"
        return f"batch at position {self.rows[0].span.first} of epoch {self.rows[0].span.epoch}"


class Position(NamedTuple):
    """A place in the sequence of batches: so many batches after the beginning of an epoch."""

    epoch: int
    batch: int


@dataclass(eq=False)
class _Pending:
    """A batch that a worker has been told to fill."""

    job: _Job
    size: int
    is_filled: bool = False
    text: dict[str, np.ndarray] = field(default_factory=dict)
    failure: IngestError | None = None


def iter_batches(
    shards: str | Path, options: LoaderOptions, start: Position | None = None
) -> Generator[Batch, None, None]:
    """The batches of an iteration over the dataset in the folder ``shards``, in order, from ``start`` on.

    By default ``start`` is batch ``options.start_batch`` of epoch 0.

    Raises RecordError, naming shard, record and key, for a damaged record; WorkerError if a worker process dies. Worker
    processes start with the first batch and end with the iterator.
    """
    dataset = Dataset(shards)
    if not len(dataset):
        raise RecordError(f"{shards}: the dataset has no records", path=shards)
    if num_workers(options.workers):
        yield from _filled_by_workers(dataset, options, _Filler, start)
        return
    layout = _layout(dataset, options)
    _compile(dataset, layout.shape)
    for rows in plan_batches(dataset, options, start):
        arrays = layout.empty()
        arrays["images"] = arrays["images"].reshape(layout.shape)
        columns = {**arrays, **_fill(dataset, options, rows, arrays)}
        size = _size(rows)
        yield Batch({name: columns[name][:size] for name in layout.names})


def iter_unfilled_batches(shards: str | Path, options: LoaderOptions) -> Generator[Batch, None, None]:
    """The batches of ``iter_batches``, but not filled: what is left is what passes between the processes.

    ``options.workers`` is 1 at the least.
    """
    yield from _filled_by_workers(Dataset(shards), options, _NoOpFiller)


def _layout(dataset: Dataset, options: LoaderOptions) -> Layout:
    shape = options.rows, options.image_size, options.image_size, dataset.manifest.channels
    return Layout(shape, options.fields)


def _size(batch: list[BatchPart]) -> int:
    return sum(part.span.length for part in batch)


def plan_batches(dataset: Dataset, options: LoaderOptions, start: Position | None = None) -> Iterator[list[BatchPart]]:
    """What this process shows of each batch of an iteration from ``start`` on, in order."""
    n, start = len(dataset), start or Position(0, options.start_batch)
    by_class = _by_class(dataset) if options.training and not options.shuffle else None
    for spans in sampler.batches(n, options.batch_size, start.batch, options.num_epochs):
        own = [
            span._replace(epoch=start.epoch + span.epoch)
            for span in sampler.share(spans, options.shard_index, options.num_shards)
        ]
        yield [BatchPart(span, _records(span, options, n, by_class)) for span in own]


def _by_class(dataset: Dataset) -> np.ndarray:
    """The records in the order of their labels, those of a class as they are packed: int64 [records]."""
    return np.argsort([dataset[i].label for i in range(len(dataset))], kind="stable")


def _records(span: Span, options: LoaderOptions, n: int, by_class: np.ndarray | None) -> list[int]:
    positions = span.positions
    part = slice(positions.start, positions.stop, positions.step)
    if by_class is not None:
        return by_class[part].tolist()
    if options.training:
        return sampler.epoch_order(n, options.seed, span.epoch)[part].tolist()
    return list(range(n)[part])


def _fill(
    dataset: Dataset, options: LoaderOptions, batch: list[BatchPart], arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Write the columns of ``batch`` into ``arrays``; gives those that are text."""
    images, labels = arrays["images"], arrays["labels"]
    text = {name: np.empty(_size(batch), object) for name in options.fields if name not in arrays}
    others = [(COLUMNS[name].value, {**arrays, **text}[name]) for name in options.fields]
    position = 0
    for span, numbers in batch:
        uniforms = sampler.random_draws(options.seed, *span).tolist()
        for i, number in enumerate(numbers):
            record = dataset[number]
            try:
                if options.training:
                    transforms.train_transform(record, uniforms[i], images[position], options)
                else:
                    transforms.eval_transform(record, images[position])
                labels[position] = record.label
                for value, array in others:
                    array[position] = value(Row(record, number))
            except Exception as error:  # of ours, or of the decoder or the resize
                raise dataset.describe(number, error) from error
            position += 1
    return text


class _Filler:
    """Fills slots; the handler of a worker process. Gives the columns that are text."""

    def __init__(self, folder: Path, options: LoaderOptions, descriptor: int, layout: Layout):
        transforms.single_threaded()
        self._dataset = Dataset(folder)
        self._options, self._layout = options, layout
        self._pool = SharedBatchPool(descriptor, layout)

    def __call__(self, job: _Job, report: Callable[[int], object]) -> dict[str, np.ndarray]:
        arrays = self._pool.arrays(job.slot)
        arrays["images"] = arrays["images"].reshape(self._layout.shape)
        return _fill(self._dataset, self._options, job.rows, arrays)


class _NoOpFiller(_Filler):
    """Leaves slots as they are."""

    def __call__(self, job: _Job, report: Callable[[int], object]) -> dict[str, np.ndarray]:
        self._pool.arrays(job.slot)
        return {name: np.full(_size(job.rows), "", object) for name in self._layout.text()}


def _filled_by_workers(
    dataset: Dataset, options: LoaderOptions, filler: type[_Filler], start: Position | None = None
) -> Iterator[Batch]:
    layout = _layout(dataset, options)
    todo, workers = plan_batches(dataset, options, start), num_workers(options.workers)
    _compile(dataset, layout.shape)
    descriptor = anonymous_shared_memory((_QUEUED * workers + MAX_LENT_BATCHES) * layout.size_bytes)
    with ExitStack() as stack:
        stack.callback(os.close, descriptor)
        pool = SharedBatchPool(descriptor, layout)
        queues: dict[Worker, deque[_Pending]] = {}
        for _ in range(workers):
            worker = Worker(filler, dataset.folder, options, descriptor, layout, descriptors=(descriptor,))
            queues[stack.enter_context(closing(worker))] = deque()
        selector = stack.enter_context(selectors.DefaultSelector())
        for worker in queues:
            selector.register(worker, selectors.EVENT_READ)
        line: deque[_Pending] = deque()  # all batches that are under way, in order
        while True:
            _send_jobs(todo, pool, queues, line)
            if not line:
                return
            # Without waiting if there is a batch to give: those who are done should get their next job first.
            ready = selector.select(0 if line[0].is_filled else None)
            for key, _ in ready:
                _collect(dataset, key.fileobj, queues[key.fileobj])  # type: ignore[arg-type, index]
            if line[0].is_filled and not ready:
                batch = line.popleft()
                if batch.failure:
                    raise batch.failure
                yield pool.lend(batch.job.slot, batch.size, batch.text)


def _compile(dataset: Dataset, shape: tuple[int, ...]) -> None:
    """Make a view for nothing: what that has compiled is kept on disk, and need not be compiled in each worker."""
    with suppress(BadSampleError, RecordError):  # the worker that meets it will say it in its turn
        record = dataset[0]
        if record.has_segments:
            jpeg.compile_decoder()
        transforms.eval_transform(record, np.empty(shape[1:], np.uint8))


def _send_jobs(
    todo: Iterator[list[BatchPart]], pool: SharedBatchPool, queues: dict[Worker, deque[_Pending]], line: deque[_Pending]
) -> None:
    while True:
        worker, queue = min(queues.items(), key=lambda item: len(item[1]))
        slot = pool.take() if len(queue) < _QUEUED else None
        if slot is None:
            return
        rows = next(todo, None)
        if rows is None:
            return  # and nobody needs the slot any more
        pending = _Pending(_Job(slot, rows), _size(rows))
        worker.send(pending.job)
        queue.append(pending)
        line.append(pending)


def _collect(dataset: Dataset, worker: Worker, queue: deque[_Pending]) -> None:
    try:
        queue[0].text = worker.receive()
    except WorkerError as error:
        dataset.check_sizes()  # a shard that was cut short while it was read is what may have killed it
        job = f"{queue[0].job}: " if queue else ""
        raise WorkerError(f"{dataset.folder}: {job}{error}", **fields_of(error, path=dataset.folder)) from error
    except IngestError as error:
        # Raised in its turn, after the batches before it.
        queue[0].failure = error
    queue.popleft().is_filled = True
