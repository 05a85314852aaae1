"""What the batches of a dataset are: each option of the loader, once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any

from ingest.errors import OptionError
from ingest.loading.augment import AREA
from ingest.loading.columns import ALWAYS, COLUMNS
from ingest.sampler import MAX_SEED
from ingest.system import worker_pool
from ingest.system.validation import Option, validate


@dataclass(frozen=True, kw_only=True)
class TransformOptions:
    """How an image becomes what training sees. Evaluation has no options.

    ``augment`` shows random crops and flips; without it training sees what evaluation sees. ``min_crop_area`` is the
    least share of an image's area that a random crop has.
    """

    augment: Annotated[bool, Option(help="show whole images, neither cropped at random nor flipped")] = True
    min_crop_area: Annotated[
        float, Option(low=0.001, high=1, metavar="SHARE", help="of an image's area that a random crop has")
    ] = AREA[0]

    def __post_init__(self) -> None:
        validate(self)

    @property
    def transform_options(self) -> dict[str, Any]:
        """These options alone, by name: keyword arguments of another class that has them."""
        return {field.name: getattr(self, field.name) for field in fields(TransformOptions)}


@dataclass(frozen=True, kw_only=True)
class LoaderOptions(TransformOptions):
    """What the batches are; raises OptionError where a value makes no sense.

    ``workers`` is the number of processes, by default one a core, 0 for none but this one.

    Training: in the order of each epoch, or by class in each if ``shuffle`` is off; without end if ``epochs`` is None.
    Evaluation: in packed order, one epoch if ``epochs`` is None.

    ``fields`` are more columns of the batch, besides images and labels: names of ``loading.columns.COLUMNS``.

    The first batch is number ``start_batch``. Of ``num_shards`` processes, such as one a GPU, the one with
    ``shard_index`` has the rows ``shard_index``, ``shard_index + num_shards``, ... of each batch: ``batch_size`` is the
    size of what all of them have together, and their number does not change what that is.
    """

    batch_size: Annotated[int, Option(low=1, high=1_000_000)]
    training: bool
    image_size: Annotated[int, Option(low=1, high=10_000)] = 224
    seed: Annotated[int, Option(low=0, high=MAX_SEED)] = 0
    workers: int | None = None
    start_batch: Annotated[int, Option(low=0, high=2**53)] = 0
    epochs: Annotated[int | None, Option(low=1, high=2**31)] = None
    shuffle: bool = True
    fields: tuple[str, ...] = ()
    shard_index: Annotated[int, Option(low=0, high=1_000_000)] = 0
    num_shards: Annotated[int, Option(low=1, high=1_000_000)] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        worker_pool.num_workers(self.workers)
        unknown = [name for name in self.fields if name not in COLUMNS or name in ALWAYS]
        if unknown or len(set(self.fields)) < len(self.fields):
            choices = ", ".join(name for name in COLUMNS if name not in ALWAYS)
            raise OptionError(f"fields {self.fields!r}: give some of {choices}, each once")
        if self.shard_index >= self.num_shards:
            raise OptionError(f"shard_index is {self.shard_index}: give 0 to {self.num_shards - 1}, below num_shards")
        if self.batch_size % self.num_shards:
            raise OptionError(
                f"batch_size is {self.batch_size}: give a multiple of num_shards, {self.num_shards}, which share it"
            )

    @property
    def num_epochs(self) -> int | None:
        """The number of epochs of an iteration, or None for no end."""
        return self.epochs if self.training or self.epochs else 1

    @property
    def rows(self) -> int:
        """The images that this process has of a whole batch."""
        return self.batch_size // self.num_shards

    def last_rows(self, records: int) -> int:
        """The images of the last batch of an iteration over ``records`` records that is not whole; 0: all are."""
        return (self.num_epochs or 0) * records % self.batch_size

    def num_batches(self, records: int, first_batch: int) -> int | None:
        """How many batches ``records`` records give in an iteration from ``first_batch`` on; None: they never end."""
        if self.num_epochs is None:
            return None
        return max(0, -(-self.num_epochs * records // self.batch_size) - first_batch)
