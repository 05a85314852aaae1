"""How to pack."""

from __future__ import annotations

from dataclasses import dataclass

from ingest import formats
from ingest.dataset import manifest
from ingest.dataset.manifest import ENCODINGS, ORIENTATIONS
from ingest.errors import OptionError
from ingest.sampler import MAX_SEED
from ingest.system import worker_pool
from ingest.system.validation import validate_types


@dataclass(frozen=True)
class BuildOptions:
    """How to pack. ``resize`` is a short side in pixels, ``quality`` that of ``encoding="jpeg"``, 1 to 100.

    ``exif_orientation`` says whether images are turned as their EXIF says: ``ignore`` or ``apply``.
    """

    format: str
    shards: int | None = None
    workers: int | None = None
    encoding: str = "keep"
    resize: int | None = None
    quality: int = 90
    seed: int = 0
    on_bad: str = "quarantine"
    scheduler: str | None = None
    exif_orientation: str = "ignore"

    def __post_init__(self) -> None:
        validate_types(self)
        _require(self.format in formats.NAMES, f"format {self.format!r}: give one of {', '.join(formats.NAMES)}")
        _require(self.encoding in ENCODINGS, f"encoding {self.encoding!r}: give one of {', '.join(ENCODINGS)}")
        _require(self.on_bad in ("quarantine", "fail"), f"on_bad {self.on_bad!r}: give quarantine or fail")
        _require(
            self.exif_orientation in ORIENTATIONS, f"exif_orientation {self.exif_orientation!r}: give ignore or apply"
        )
        most = manifest.MAX_SHARDS
        _require(self.shards is None or 1 <= self.shards <= most, f"{self.shards} shards: give 1 to {most}")
        _require(self.resize is None or 1 <= self.resize <= 65_500, f"resize {self.resize}: give 1 to 65500 pixels")
        _require(1 <= self.quality <= 100, f"quality {self.quality}: give 1 to 100")
        _require(0 <= self.seed <= MAX_SEED, f"seed {self.seed}: give 0 to {MAX_SEED}")
        _require(
            self.resize is None or self.encoding != "keep",
            "resize changes pixels, and the encoding 'keep' keeps them: choose the encoding jpeg or raw",
        )
        worker_pool.num_workers(self.workers)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise OptionError(message)
