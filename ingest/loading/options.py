"""What the batches of a dataset are."""

from __future__ import annotations

from dataclasses import dataclass

from ingest.errors import OptionError
from ingest.loading.augment import AREA
from ingest.sampler import MAX_SEED
from ingest.system.validation import validate_types
from ingest.system.worker_pool import num_workers


@dataclass(frozen=True)
class BatchOptions:
    """What the batches of a dataset are. ``workers`` is the number of processes, by default one a core; 0 for none.

    Training: in the order of each epoch, or by class in each if ``shuffle`` is off, with random crops of at least
    ``crop`` of the area and flips unless ``augment`` is off; without end if ``epochs`` is None. Evaluation: in packed
    order, one epoch if ``epochs`` is None. The first batch is number ``start_batch``, the next ``every`` later: of
    several hosts, each takes its own.
    """

    batch_size: int
    training: bool
    image_size: int = 224
    seed: int = 0
    workers: int | None = None
    start_batch: int = 0
    epochs: int | None = None
    augment: bool = True
    crop: float = AREA[0]
    shuffle: bool = True
    every: int = 1

    def __post_init__(self) -> None:
        validate_types(self)
        for name, low, high in (
            ("batch_size", 1, 1_000_000),
            ("image_size", 1, 10_000),
            ("seed", 0, MAX_SEED),
            ("start_batch", 0, 2**53),
            ("epochs", 1, 2**31),
            ("crop", 0.001, 1),
            ("every", 1, 1_000_000),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise OptionError(f"{name} is {value}: give {low} to {high}")
        num_workers(self.workers)

    @property
    def num_epochs(self) -> int | None:
        """The number of epochs, or None for no end."""
        return self.epochs if self.training or self.epochs else 1

    def first_epoch(self, iteration: int) -> int:
        """The epoch that an iteration, from 0, begins with: those of training go on, evaluation is the same again."""
        return iteration * self.epochs if self.training and self.epochs else 0

    def first_batch(self, iteration: int) -> int:
        """The batch that an iteration begins with, counted from its first epoch on."""
        return self.start_batch % self.every if self.first_epoch(iteration) else self.start_batch

    def num_batches(self, records: int, iteration: int = 0) -> int | None:
        """How many batches ``records`` records give in an iteration, or None if they never end."""
        if self.num_epochs is None:
            return None
        last = -(-self.num_epochs * records // self.batch_size)
        return max(0, -(-(last - self.first_batch(iteration)) // self.every))
