"""Batches as numpy arrays, iteration after iteration: what all adapters for frameworks stand on."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from ingest.dataset.dataset import Dataset
from ingest.errors import OptionError
from ingest.loading.batches import Position, iter_batches
from ingest.loading.columns import Batch, Layout
from ingest.loading.options import LoaderOptions
from ingest.system.validation import takes, typed

T = TypeVar("T")

_COUNTING = threading.Lock()
"""Held while an iteration is counted. Not the loader's own: a lock cannot be copied to another process."""

_SAME = ("batch_size", "training", "seed", "shuffle", "epochs")
"""The options that decide which records a batch shows: a state is of these alone."""

_MAX = 2**53


class _Progress:
    """How far a loader has come: where the next iteration begins, and where the next batch comes from."""

    def __init__(self, start: Position):
        self.iteration = self.batch = start


class Loader:
    """The batches of the dataset in the folder ``shards``: a ``Batch`` (images, labels) for each step.

    The options are those of ``ingest.loading.options.LoaderOptions``, as keyword arguments; ``batch_size`` and
    ``training`` must be given.

    Images are uint8 [N, S, S, C], S being ``image_size`` pixels, C 1 for a dataset of grey images alone and 3 (RGB)
    otherwise; labels are int32 [N]; after these come the columns that ``fields`` names. The batches are the same for
    any number of ``workers`` processes (by default one a core, 0 for none) and in both formats. What a batch holds is
    the consumer's for as long as it keeps it.

    ``training``: every epoch is a permutation of all records, drawn from (``seed``, epoch). Images are random resized
    crops, half of them flipped (``min_crop_area`` to all of the area, aspect 3/4 to 4/3), drawn from (seed, epoch,
    position), or evaluation views if ``augment`` is off. With ``shuffle`` off an epoch goes from class to class
    instead, for which all labels are read first. Batches are whole and run on across the end of an epoch; with
    ``epochs`` only the very last may be smaller, without there is no end.

    Otherwise: every record once, in packed order (``epochs`` times if given): the short side to 256/224 of the image
    size, then the centre. An image of exactly that size is shown as it is.

    One iteration gives ``epochs`` epochs of training, and the next one those that follow: ten passes of a loop show ten
    permutations and new crops. Iterations are counted as they begin, those that are broken off too; without ``epochs``
    the next one begins with the batch after the last that was given. Evaluation is the same every time. The first
    iteration begins with batch ``start_batch``: what is before it is skipped at no cost.

    Of ``num_shards`` processes, such as one a GPU, the one with ``shard_index`` has the rows ``shard_index``,
    ``shard_index + num_shards``, ... of each batch, N of them being ``batch_size / num_shards``. All have the same
    number of batches; the last one of an evaluation may be empty for some.

    Every iteration has worker processes of its own, which begin with its first batch and end with it. A loader can be
    pickled, and iterated in threads and in other processes; a copy goes on by itself from where the original was.

    Raises OptionError, ManifestError or RecordError; while iterating, RecordError, naming shard, record and key, and
    WorkerError.
    """

    @takes(LoaderOptions)
    def __init__(self, shards: str | Path, options: LoaderOptions):
        # Opened here, so that an unusable dataset is met before any training starts.
        dataset = Dataset(shards)
        self.shards = shards
        self.options = options
        self.records = len(dataset)
        self.channels = dataset.manifest.channels
        self.classes = dataset.manifest.classes
        self.names = Layout.names_of(options.fields)
        self._fingerprint = dataset.manifest.fingerprint
        self._progress = _Progress(Position(0, options.start_batch))
        _check_last_batch(options, self.records)

    @classmethod
    def of(cls, shards: str | Path, options: LoaderOptions) -> Loader:
        """The loader with these ``options``."""
        return cls(shards, **{field.name: getattr(options, field.name) for field in fields(options)})

    def shard(self, index: int, count: int) -> Loader:
        """The part of this loader that is for one of ``count`` processes: every so many-th of its rows, from ``index``.

        The two go on together: what one has given, the other has.
        """
        own = self.options
        part = copy(self)
        part.options = replace(
            own, num_shards=own.num_shards * count, shard_index=own.shard_index + own.num_shards * index
        )
        part._progress = self._progress
        _check_last_batch(part.options, part.records)
        return part

    def __iter__(self) -> Iterator[Batch]:
        return self.hand_out(self.numbered())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_progress": copy(self._progress)}  # a copy's own

    def __len__(self) -> int:
        """Batches in the next iteration. Raises TypeError where they never end."""
        total = self.options.num_batches(self.records, self._progress.iteration.batch)
        if total is None:
            raise TypeError("training without epochs has no end, and so no length")
        return total

    def __repr__(self) -> str:
        given = {field.name: getattr(self.options, field.name) for field in fields(self.options)}
        shown = {field.name for field in fields(self.options) if given[field.name] != field.default}
        options = "".join(f", {name}={value!r}" for name, value in given.items() if name in shown)
        return f"<Loader({str(self.shards)!r}{options}): {self.records} records>"

    def numbered(self) -> Generator[tuple[Batch, Position], None, None]:
        """The batches of the next iteration, each with the position after it, taken but not yet counted as given."""
        with _COUNTING:
            start = self._progress.batch = self._progress.iteration
            self._progress.iteration = self._after(start)
        for number, batch in enumerate(iter_batches(self.shards, self.options, start), 1):
            yield batch, Position(start.epoch, start.batch + number)

    def hand_out(self, numbered: Iterable[tuple[T, Position]]) -> Generator[T, None, None]:
        """Give what was made of the batches of ``numbered``, perhaps ahead of use, and count each as given by then."""
        for item, after in numbered:
            self._progress.batch = after
            if self.options.num_epochs is None:
                self._progress.iteration = after
            yield item
        self._progress.batch = self._progress.iteration

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch comes from: what ``load_state_dict`` takes, fit for JSON.

        The same for all processes that share the batches, and for any number of them and of workers.
        """
        return {**self._progress.batch._asdict(), **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the next iteration begin where ``state`` says: with the rest of the one that the state is from.

        Raises OptionError where it is of another dataset, or of options that give other batches.
        """
        if not isinstance(state, Mapping):
            raise OptionError(f"the state is a {type(state).__name__}: give what state_dict() gave")
        for name, here in self._identity().items():
            if name not in state or not _is_same(name, state[name], here):
                raise OptionError(
                    f"the state is of {name} {state.get(name)!r}, and the loader has {here!r}: "
                    "go on with the dataset and the options of before"
                )
        there = Position(*(typed(name, state.get(name), int) for name in Position._fields))
        if not (0 <= there.epoch < _MAX and 0 <= there.batch < _MAX and self._is_beginning(there.epoch)):
            raise OptionError(f"{there}: no iteration of this loader begins there: give what state_dict() gave")
        self._progress.iteration = self._progress.batch = there

    def _identity(self) -> dict[str, Any]:
        return {"dataset": self._fingerprint, **{name: getattr(self.options, name) for name in _SAME}}

    def _is_beginning(self, epoch: int) -> bool:
        """Whether an iteration begins with this epoch."""
        goes_on = self.options.training and self.options.epochs
        return epoch % goes_on == 0 if goes_on else epoch == 0

    def _after(self, start: Position) -> Position:
        """Where the iteration begins that follows one from ``start``, as far as that is known yet."""
        if not self.options.training:
            return Position(0, self.options.start_batch)
        return start if self.options.epochs is None else Position(start.epoch + self.options.epochs, 0)


def _is_same(name: str, value: Any, here: Any) -> bool:
    """Whether an option of a state has the value ``here``. Raises OptionError where it has none of that type."""
    if value is None or here is None:
        return value is here
    return typed(name, value, type(here)) == here


def _check_last_batch(options: LoaderOptions, records: int) -> None:
    """Raise OptionError where the last batch of training has no image for some of the processes that share it."""
    last = options.last_rows(records)
    if options.training and 0 < last < options.num_shards:
        raise OptionError(
            f"{records} records in batches of {options.batch_size} leave a last batch of {last}, too few for "
            f"num_shards, {options.num_shards}: give another batch_size, or no epochs"
        )
