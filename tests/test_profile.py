from __future__ import annotations

from pathlib import Path

import pytest

from ingest.errors import OptionError, RecordError
from ingest.profile import ProfileOptions, profile, stage_microseconds, verdict

RATES = {"read": 10_000.0, "decode": 1000.0, "view": 800.0, "batch": 800.0}


def test_stages_add_up_to_the_stream():
    costs = stage_microseconds(RATES, 1000.0, cores=2)
    assert costs == pytest.approx({"read": 100, "decode": 900, "view": 250, "batch": 0, "hand-off": 750})
    assert sum(costs.values()) == pytest.approx(2 * 1e6 / 1000)


def test_a_stage_never_costs_less_than_nothing():
    costs = stage_microseconds({**RATES, "batch": 900.0}, 2000.0, cores=2)
    assert costs["batch"] == costs["hand-off"] == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("decode", 900.0, 2000.0, 2, 2),
            "decode-bound: 2,000 images/s with 2 workers, 90% of what 2 cores can decode",
        ),
        (("read", 100.0, 5000.0, 0, 1), "read-bound: 5,000 images/s with 0 workers, 50% of what 1 core can read"),
        (
            ("hand-off", 500.0, 1000.0, 4, 4),
            "hand-off-bound: 1,000 images/s with 4 workers, 12% of their time in the hand-off",
        ),
    ],
)
def test_the_verdict_names_the_slowest_stage(arguments: tuple, line: str):
    assert verdict(*arguments) == line


@pytest.mark.parametrize("workers", [0, 1])
def test_a_profile_of_real_shards(shards: dict[str, Path], workers: int):
    result = profile(shards["tfrecord"], ProfileOptions(batch_size=8, image_size=32, workers=workers, seconds=1))
    assert (result.records, result.format, result.encoding, result.workers) == (36, "tfrecord", "keep", workers)
    assert list(result.prefix_images_per_second) == ["read", "decode", "view", "batch"]
    assert result.prefix_images_per_second["read"] > 2 * result.prefix_images_per_second["decode"] > 0
    assert result.slowest == "decode"
    assert result.verdict.startswith(f"decode-bound: {result.stream_images_per_second:,.0f} images/s")


def test_what_cannot_be_measured_is_refused(shards: dict[str, Path], tmp_path: Path):
    for options in ({"seconds": 0.0}, {"seconds": float("nan")}, {"batch_size": 0}, {"workers": -1}):
        with pytest.raises(OptionError):
            ProfileOptions(**options)
    import shutil

    folder = shutil.copytree(shards["lmdb"], tmp_path / "copy")
    (folder / "00000-of-00005.lmdb").unlink()
    with pytest.raises(RecordError):
        profile(folder, ProfileOptions())
