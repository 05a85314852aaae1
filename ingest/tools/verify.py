"""Whether a dataset is whole, to the bit; where it is not; and what is damaged made again from the source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ingest.dataset import manifest
from ingest.errors import ManifestError
from ingest.packing import plan
from ingest.system import paths
from ingest.system.validation import typed
from ingest.system.worker_pool import num_workers
from ingest.tools.repair import build_options, load_known, open_same_source, repair_shards
from ingest.tools.shard_check import (
    Corruption,
    check_head,
    check_shards,
    exists,
    expected_shards,
)


@dataclass(frozen=True)
class VerifyReport:
    """What was looked at, every damage found, the files that were made again, and the damages that are left."""

    shards: int
    records: int
    size_bytes: int
    damages: tuple[Corruption, ...]
    repaired: tuple[str, ...]
    left: tuple[Corruption, ...]


def verify(
    shards: str | Path,
    *,
    decode: bool = False,
    repair: str | Path | None = None,
    labels: str | Path | None = None,
    workers: int | None = None,
) -> VerifyReport:
    """Read every byte of the dataset in the folder ``shards``, and say what is damaged.

    The manifest and the build configuration against their own sums and each other; of each shard the size, the SHA-256,
    the crc32c of each record, the index; the number of lines of the quarantine. With ``decode`` every record is checked
    as the loader does, and every image decoded to its end: where nothing is damaged then, training can read it all.

    ``repair`` is the source that the dataset was built from, with the ``labels`` that it had: what is damaged
    is packed anew from it, byte for byte as it was, and verified again. Raises SourceError where it is another source,
    or has changed; ManifestError where neither the manifest nor the build configuration can be read, or
    the dataset is not finished.
    """
    num_workers(workers)  # what is no number of processes is refused before anything is read
    decode = typed("decode", decode, bool)
    folder = paths.parse_path(shards)
    source = None
    if repair is None:
        _check_finished(folder)
    elif config := load_known(folder)[1]:
        # Before all is read for nothing.
        source = open_same_source((repair, labels), config, build_options(config, workers))
    corruptions = list(check_head(folder))
    expected = expected_shards(folder)
    corruptions += check_shards(folder, expected, expected.shards, decode, workers)
    repaired, left = set[str](), corruptions
    if repair is not None and corruptions:
        repaired = repair_shards(folder, corruptions, (repair, labels), source, decode, workers)
        expected = expected_shards(folder)  # of a manifest that was lost, only now
        again = expected.touched(repaired | {corruption.file for corruption in corruptions})
        left = [*check_head(folder), *check_shards(folder, expected, again, decode, workers)]
    return VerifyReport(
        shards=len(expected.shards),
        records=sum(shard.records for shard in expected.shards),
        size_bytes=sum(shard.size_bytes for shard in expected.shards),
        damages=tuple(corruptions),
        repaired=tuple(sorted(repaired)),
        left=tuple(left),
    )


def _check_finished(folder: Path) -> None:
    """A build that was cut short lacks what was still to come: that is no damage."""
    try:
        config = None if exists(folder / manifest.NAME) else manifest.load_build_config(folder)
    except ManifestError:
        return
    if config is None:
        return
    wanted = set(plan.shard_names(config.shards, config.format))
    present = wanted & set(paths.list_dir(folder))
    if present < wanted:
        raise ManifestError(
            f"{folder}: an unfinished build, of {len(wanted):,} shards {len(present):,} are there: "
            "give the same 'ingest build-shards' command again, and it goes on",
            path=folder,
        )
