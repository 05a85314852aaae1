"""What to measure, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from ingest import baselines
from ingest.errors import OptionError
from ingest.loading.options import LoaderOptions, TransformOptions
from ingest.profiling import advice
from ingest.profiling.advice import Advice, Target
from ingest.system import worker_pool
from ingest.system.validation import Option


@dataclass(frozen=True, kw_only=True)
class ProfileOptions(TransformOptions):
    """What to measure, and for how many ``seconds``, beside starting.

    As many again are taken by each of ``against``, ``apply`` and ``step_milliseconds``, and ten by ``model``.

    ``model`` is a network of train.py, whose training on one batch that stays on the device is measured, too;
    ``step_milliseconds`` stands for a consumer that takes so long for a batch; ``target`` is a rate that is wanted, as
    ``advice.wanted`` takes it. ``against`` are loaders of ``ingest.baselines``. ``apply`` tries what is advised.
    """

    batch_size: Annotated[int, Option(help="images a batch (default: 64)")] = 64
    image_size: Annotated[int, Option(help="pixels a side (default: 224)")] = 224
    workers: Annotated[int | None, Option(help=worker_pool.HELP)] = None
    seconds: Annotated[float, Option(metavar="S", help="time to measure, besides starting (default: 15)")] = 15.0
    against: Annotated[
        tuple[str, ...], Option(metavar="NAME,...", help=f"other loaders: {', '.join(baselines.BASELINES)}")
    ] = ()
    model: Annotated[
        str | None, Option(metavar="NAME", help="of train.py, as the consumer: how fast is the device alone")
    ] = None
    step_milliseconds: Annotated[
        float | None, Option(flag="--step-ms", metavar="MS", help="a consumer that takes so long for a batch")
    ] = None
    target: Annotated[
        str | None, Option(metavar="RATE", help="images/s, or v100, a100 and the like: how many cores would it take")
    ] = None
    apply: Annotated[bool, Option(help="try what is advised, on a sample in a temporary folder")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        worker_pool.num_workers(self.workers)
        if not 0.1 <= self.seconds <= 86_400:
            raise OptionError(f"{self.seconds} seconds: give 0.1 to 86400")
        if self.step_milliseconds is not None and not 0 < self.step_milliseconds <= 60_000:
            raise OptionError(f"{self.step_milliseconds} ms a step: give more than 0, 60000 at the most")
        if self.step_milliseconds is not None and self.model is not None:
            raise OptionError("--model and --step-ms: give one at a time")
        if unknown := [name for name in self.against if name not in baselines.BASELINES]:
            raise OptionError(f"{unknown[0]!r} is no loader: give some of {','.join(baselines.BASELINES)}")
        if self.target is not None:
            advice.wanted(self.target)
        self.training(self.workers)

    def training(self, workers: int | None) -> LoaderOptions:
        """The endless training batches that are measured."""
        # An order of their own for each number of workers: none has the records in memory that another has just read.
        return LoaderOptions(
            batch_size=self.batch_size, training=True, image_size=self.image_size, seed=workers or 0, workers=workers,
            **self.transform_options,
        )  # fmt: skip


INTO_TENSORFLOW = "into TensorFlow"
"""The measurement of TensorFlow taking batches, in ``Profile.left_out``."""


@dataclass(frozen=True)
class Consumer:
    """Who takes the batches: what it takes alone, in images/s, and the share of its time that it waits for them."""

    name: str
    images_per_second: float
    waiting: float


@dataclass(frozen=True)
class Profile:
    """What was measured of a dataset, and what follows from it.

    ``stages`` are microseconds of a core an image; with one worker their sum is the time of an image in the stream.
    ``disk_read_microseconds`` is the waiting for an image that is not in memory, one of the stages where the dataset
    does not fit there; ``feed_microseconds`` what TensorFlow takes for an image in the process that trains.
    ``by_workers`` are images/s of the stream for each number of workers, ``alone`` what all ``cores`` can decode
    and resize and nothing else, ``ceiling`` the same by libjpeg-turbo, None where nothing is decoded. ``against`` are
    other loaders' images/s with ``workers`` workers, and "ingest"'s beside them, all as TensorFlow sees them; empty if
    none was asked for. ``transforms`` are the options of what is shown.
    ``left_out`` are measurements that could not be made here, and what they need; such a figure is None.
    """

    shards: str
    format: str
    encoding: str
    records: int
    size_bytes: int
    batch_size: int
    image_size: int
    channels: int
    workers: int
    cores: int
    stages: dict[str, float]
    disk_read_microseconds: float | None
    fits_in_memory: bool
    feed_microseconds: float | None
    by_workers: dict[int, float]
    alone: float
    ceiling: float | None
    against: dict[str, float]
    consumer: Consumer | None
    limit: str
    verdict: str
    advice: tuple[Advice, ...]
    target: Target | None
    machine: dict[str, str]
    transforms: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def images_per_second(self) -> float:
        """The stream's rate with the workers that were asked for."""
        return self.by_workers[self.workers]
