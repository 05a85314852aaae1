"""From shards to batches: worker processes fill slots of shared memory, the parent hands them on in order.

The batches are a function of the dataset and the options alone: the same bytes for any number of workers.

    parent     order -> job (slot, records) -> worker's queue            ... -> slot filled -> batch, in order
    worker                                     record -> view -> slot
"""

from __future__ import annotations

import os
import selectors
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ingest import sampler
from ingest.dataset.dataset import Dataset
from ingest.errors import BadSampleError, IngestError, RecordError, WorkerError, fields_of
from ingest.loading import transforms
from ingest.loading.options import BatchOptions
from ingest.loading.shared_memory import MAX_LENT_BATCHES, Batch, SharedBatchPool, anonymous_shared_memory, slot_bytes
from ingest.sampler import Span
from ingest.system.worker_pool import Worker, num_workers

_QUEUED = 2
"""Jobs a worker has at a time: the one it does, and the next, so that it need not wait for the parent."""


class Rows(NamedTuple):
    """A part of a batch within one epoch: where it stands in the epoch, and the records it shows."""

    span: Span
    records: list[int]


class _Job(NamedTuple):
    """A batch to fill, and the slot to fill it in."""

    slot: int
    rows: list[Rows]

    def __str__(self) -> str:
        return f"batch at position {self.rows[0].span.first} of epoch {self.rows[0].span.epoch}"


@dataclass(eq=False)
class _Pending:
    """A batch that a worker has been told to fill."""

    job: _Job
    size: int
    is_filled: bool = False
    failure: IngestError | None = None


def iter_batches(shards: str | Path, options: BatchOptions, iteration: int = 0) -> Generator[Batch, None, None]:
    """The batches of the dataset in the folder ``shards``, in order: those of an iteration, the first or a later one.

    Raises RecordError, naming shard, record and key, for a damaged record; WorkerError if a worker process dies. Worker
    processes start with the first batch and end with the iterator.
    """
    dataset = Dataset(shards)
    if not len(dataset):
        raise RecordError(f"{shards}: the dataset has no records", path=shards)
    if num_workers(options.workers):
        yield from _filled_by_workers(dataset, options, _Filler, iteration)
        return
    shape = _shape(dataset, options)
    for rows in plan_batches(dataset, options, iteration):
        batch = Batch(np.empty(shape, np.uint8), np.empty(shape[0], np.int32))
        size = _fill(dataset, options, rows, batch)
        yield Batch(batch.images[:size], batch.labels[:size])


def iter_unfilled_batches(shards: str | Path, options: BatchOptions) -> Generator[Batch, None, None]:
    """The batches as ``batches`` hands them on, but as nobody has filled them: what is left is the hand-off.

    ``options.workers`` is 1 at the least.
    """
    yield from _filled_by_workers(Dataset(shards), options, _NoOpFiller)


def _shape(dataset: Dataset, options: BatchOptions) -> tuple[int, ...]:
    return options.batch_size, options.image_size, options.image_size, dataset.manifest.channels


def plan_batches(dataset: Dataset, options: BatchOptions, iteration: int = 0) -> Iterator[list[Rows]]:
    """What each batch of an iteration shows, in order."""
    n, begin, first_epoch = len(dataset), options.first_batch(iteration), options.first_epoch(iteration)
    by_class = _by_class(dataset) if options.training and not options.shuffle else None
    for spans in sampler.batches(n, options.batch_size, begin, options.num_epochs, options.every):
        spans = [span._replace(epoch=first_epoch + span.epoch) for span in spans]
        yield [Rows(span, _records(span, options, n, by_class)) for span in spans]


def _by_class(dataset: Dataset) -> np.ndarray:
    """The records in the order of their labels, those of a class as they are packed: int64 [records]."""
    return np.argsort([dataset[i].label for i in range(len(dataset))], kind="stable")


def _records(span: Span, options: BatchOptions, n: int, by_class: np.ndarray | None) -> list[int]:
    part = slice(span.first, span.first + span.length)
    if by_class is not None:
        return by_class[part].tolist()
    if options.training:
        return sampler.epoch_order(n, options.seed, span.epoch)[part].tolist()
    return list(range(n)[part])


def _fill(dataset: Dataset, options: BatchOptions, batch: list[Rows], out: Batch) -> int:
    """Write the views and labels of ``batch`` into ``out``; gives the number of images."""
    at = 0
    for span, records in batch:
        draws = sampler.random_draws(options.seed, span.epoch, span.first, span.length).tolist()
        for i, number in enumerate(records):
            record = dataset[number]
            try:
                if options.training and options.augment:
                    transforms.train_transform(record, draws[i], out.images[at], options.crop)
                else:
                    transforms.eval_transform(record, out.images[at])
            except Exception as error:  # of ours, or of the decoder or the resize
                raise dataset.describe(number, error) from error
            out.labels[at] = record.label
            at += 1
    return at


class _Filler:
    """Fills slots; the handler of a worker process."""

    def __init__(self, folder: Path, options: BatchOptions, descriptor: int, shape: tuple[int, ...]):
        transforms.single_threaded()
        self._dataset = Dataset(folder)
        self._options, self._shape = options, shape
        self._slots = SharedBatchPool(descriptor, shape)

    def __call__(self, job: _Job, report: Callable[[int], object]) -> None:
        images, labels = self._slots.batch(job.slot)
        _fill(self._dataset, self._options, job.rows, Batch(images.reshape(self._shape), labels))


class _NoOpFiller(_Filler):
    """Leaves slots as they are."""

    def __call__(self, job: _Job, report: Callable[[int], object]) -> None:
        self._slots.batch(job.slot)


def _filled_by_workers(
    dataset: Dataset, options: BatchOptions, filler: type[_Filler], iteration: int = 0
) -> Iterator[Batch]:
    shape = _shape(dataset, options)
    todo, workers = plan_batches(dataset, options, iteration), num_workers(options.workers)
    _compile(dataset, shape)
    descriptor = anonymous_shared_memory((_QUEUED * workers + MAX_LENT_BATCHES) * slot_bytes(shape))
    with ExitStack() as stack:
        stack.callback(os.close, descriptor)
        slots = SharedBatchPool(descriptor, shape)
        queues: dict[Worker, deque[_Pending]] = {}
        for _ in range(workers):
            worker = Worker(filler, dataset.folder, options, descriptor, shape, descriptors=(descriptor,))
            queues[stack.enter_context(closing(worker))] = deque()
        selector = stack.enter_context(selectors.DefaultSelector())
        for worker in queues:
            selector.register(worker, selectors.EVENT_READ)
        line: deque[_Pending] = deque()  # all batches that are under way, in order
        while True:
            _hand_on_jobs(todo, slots, queues, line)
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
                yield slots.lend(batch.job.slot, batch.size)


def _compile(dataset: Dataset, shape: tuple[int, ...]) -> None:
    """Make a view for nothing: what that has compiled is kept on disk, and need not be compiled in each worker."""
    with suppress(BadSampleError, RecordError):  # the worker that meets it will say it in its turn
        transforms.eval_transform(dataset[0], np.empty(shape[1:], np.uint8))


def _hand_on_jobs(
    todo: Iterator[list[Rows]], slots: SharedBatchPool, queues: dict[Worker, deque[_Pending]], line: deque[_Pending]
) -> None:
    while True:
        worker, queue = min(queues.items(), key=lambda item: len(item[1]))
        slot = slots.take() if len(queue) < _QUEUED else None
        if slot is None:
            return
        rows = next(todo, None)
        if rows is None:
            return  # and nobody needs the slot any more
        pending = _Pending(_Job(slot, rows), sum(part.span.length for part in rows))
        worker.send(pending.job)
        queue.append(pending)
        line.append(pending)


def _collect(dataset: Dataset, worker: Worker, queue: deque[_Pending]) -> None:
    try:
        worker.receive()
    except WorkerError as error:
        dataset.check_sizes()  # a shard that was cut short while it was read is what may have killed it
        job = f"{queue[0].job}: " if queue else ""
        raise WorkerError(f"{dataset.folder}: {job}{error}", **fields_of(error, path=dataset.folder)) from error
    except IngestError as error:
        # Raised in its turn, after the batches before it.
        queue[0].failure = error
    queue.popleft().is_filled = True
