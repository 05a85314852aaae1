"""How to pack: each option of a build, once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ingest import formats
from ingest.dataset import manifest
from ingest.dataset.manifest import ENCODINGS, MAX_SHORT_SIDE, ORIENTATIONS
from ingest.errors import OptionError
from ingest.sampler import MAX_SEED
from ingest.system import worker_pool
from ingest.system.validation import Option, validate


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How to pack a source. Raises OptionError where a value, or two together, make no sense.

    ``format`` is one of ``formats.NAMES``. ``shards`` is their number, by default one for every 1250 images, 8 to 1024.
    ``workers`` is the number of processes, by default one a core, 0 for none but this one; with ``scheduler``, an
    address of dask's, its cluster packs instead. ``labels`` is the file of labels of a source that has none itself.

    ``encoding`` is ``keep`` for the JPEGs' own coefficients (what is no JPEG is converted to one), ``jpeg`` to encode
    anew at ``quality``, 1 to 100, or ``raw`` for pixels; the latter two after area-resizing the short side to
    ``resize`` pixels, where it is larger. ``exif_orientation`` says whether images are packed as they are stored,
    ``ignore``, or turned as their EXIF says, ``apply``, which encodes those anew.

    ``on_bad`` says what becomes of what cannot be decoded: it is listed in ``quarantine.tsv``, or, if it is ``fail``,
    ends the build.
    """

    format: Annotated[str, Option(choices=formats.NAMES, help="how records lie in a shard")]
    shards: Annotated[int | None, Option(help="default: one for every 1250 images, 8 to 1024")] = None
    workers: Annotated[int | None, Option(help=worker_pool.HELP)] = None
    encoding: Annotated[
        str,
        Option(
            choices=ENCODINGS,
            help="keep JPEGs' pixels exactly (default), encode all anew as JPEG, or store raw pixels",
        ),
    ] = "keep"
    resize: Annotated[
        int | None,
        Option(
            low=1,
            high=MAX_SHORT_SIDE,
            metavar="SHORT_SIDE",
            help="in pixels; larger images are reduced to it",
        ),
    ] = None
    quality: Annotated[int, Option(low=1, high=100, metavar="Q", help="of encoding jpeg, 1 to 100 (default: 90)")] = 90
    exif_orientation: Annotated[
        str,
        Option(
            choices=ORIENTATIONS,
            help="pack pixels as they are stored (default), or turn images as their EXIF says, by encoding those anew",
        ),
    ] = "ignore"
    seed: Annotated[int, Option(low=0, high=MAX_SEED, help="of the packed order (default: 0)")] = 0
    on_bad: Annotated[
        str,
        Option(
            choices=("quarantine", "fail"),
            help="list what cannot be packed in OUT/quarantine.tsv (default), or stop at the first",
        ),
    ] = "quarantine"
    labels: Annotated[str | Path | None, Option(metavar="FILE", help="for images without: a list, or the devkit")] = (
        None
    )
    scheduler: Annotated[
        str | None, Option(metavar="ADDRESS", help="have a dask cluster pack, such as tcp://node1:8786")
    ] = None

    def __post_init__(self) -> None:
        validate(self)
        worker_pool.num_workers(self.workers)
        if self.shards is not None and not 1 <= self.shards <= manifest.MAX_SHARDS:
            raise OptionError(f"{self.shards} shards: give 1 to {manifest.MAX_SHARDS}")
        if self.resize is not None and self.encoding == "keep":
            raise OptionError(
                "resize changes pixels, and the encoding 'keep' keeps them: choose the encoding jpeg or raw"
            )
