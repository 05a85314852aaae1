from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.frameworks import needs_training
from support.images import put
from support.processes import processes_of, wait_until
from support.sources import IMAGES_NAME, LABELS, LABELS_NAME, PIXELS, idx

import ingest
import train
from ingest import cli, formats
from ingest.dataset import manifest
from ingest.dataset.dataset import Dataset
from ingest.errors import IngestError, OptionError, OutputError, RecordError, WorkerError
from ingest.loading.options import LoaderOptions
from ingest.packing import resumable
from ingest.profiling import Profile, ProfileOptions, device, html_report, measure, text_report, throughput
from ingest.profiling.advice import (
    LIMITS,
    TARGETS,
    Advice,
    advise,
    consumer_verdict,
    cost_by_bottleneck,
    is_doubtful,
    slowdown,
    target,
    verdict,
    worker_counts,
)
from ingest.profiling.device import device_rate
from ingest.profiling.measure import fits_in_memory, packings
from ingest.profiling.profile import profile
from ingest.profiling.repack import Packing, repack
from ingest.record import parse, serialize

pytestmark = pytest.mark.slow

STAGES = {"read": 5.0, "parse": 4.0, "crop": 1.0, "decode": 684.0, "resize": 145.0, "batch": 2.0,
          "ipc": 1.0}  # fmt: skip


def test_each_stage_counts_for_one_limit():
    assert sorted(stage for parts in LIMITS.values() for stage in parts) == sorted(
        [*STAGES, "disk read", "unaccounted"]
    )
    costs = cost_by_bottleneck(STAGES, stream=1000.0, processes=1, slowed=1.0)
    assert costs == pytest.approx({"disk": 0, "decode": 684, "resize": 145, "Python": 12, "ipc": 159})
    assert sum(costs.values()) == pytest.approx(1e6 / 1000)


@pytest.mark.parametrize(
    ("stages", "stream", "processes", "limit"),
    [
        (STAGES, 2_300.0, 2, "decode"),
        (STAGES, 500.0, 1, "ipc"),  # what no stage explains
        ({**STAGES, "disk read": 2000.0}, 350.0, 1, "disk"),
        ({**STAGES, "decode": 0.0}, 6_000.0, 1, "resize"),
        ({**STAGES, "decode": 0.0, "read": 300.0}, 2_000.0, 1, "Python"),
    ],
)
def test_what_limits(stages: dict[str, float], stream: float, processes: int, limit: str):
    costs = cost_by_bottleneck(stages, stream, processes, slowed=1.0)
    assert max(costs, key=lambda kind: costs[kind]) == limit


def test_what_slows_the_codec_down_too_is_not_the_hand_off():
    slowed = slowdown(STAGES, together=1000.0, cores=2, decodes=True)
    assert slowed == pytest.approx(2000 / 829)
    costs = cost_by_bottleneck(STAGES, stream=950.0, processes=2, slowed=slowed)
    assert max(costs, key=lambda kind: costs[kind]) == "decode" and sum(costs.values()) == pytest.approx(2e6 / 950)
    assert slowdown(STAGES, together=10_000.0, cores=2, decodes=True) == 1
    assert slowdown({**STAGES, "decode": 0.0}, together=1000.0, cores=1, decodes=False) == pytest.approx(1000 / 150)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("decode", 1950.0, 2, 0.94, 2, True),
            "decode-bound: 1,950 images/s with 2 workers, 94% of what this CPU can decode",
        ),
        (
            ("resize", 5000.0, 1, 0.5, 4, False),
            "resize-bound: 5,000 images/s with 1 worker, 50% of what 1 core can resize",
        ),
        (
            ("ipc", 1000.0, 8, 0.25, 4, True),
            "ipc-bound: 1,000 images/s with 8 workers, 25% of what this CPU can decode",
        ),
        (
            ("decode", 3000.0, 2, 1.43, 2, True),
            "decode-bound: 3,000 images/s with 2 workers, all that this CPU can decode",
        ),
    ],
)
def test_the_verdict(arguments: tuple, line: str):
    assert verdict(*arguments) == line


def test_the_verdict_on_a_consumer():
    assert consumer_verdict("a step of 100 ms", 640.0, 5120.0) == (
        "consumer-bound: a step of 100 ms takes 640 images/s, the loader gives 8.0 times that"
    )
    assert consumer_verdict("it", 640.0, 600.0).endswith("takes 640 images/s, nearly all that the loader gives (600)")


def test_advice():
    costs = {"": 800.0, "jpeg": 400.0, "raw": 790.0}
    found = advise({1: 1000.0, 2: 1900.0, 4: 1950.0}, 1, costs, {"": 100.0, "jpeg": 40.0, "raw": 200.0}, 1000)
    assert [(each.workers, each.packing, each.predicted, each.size_bytes) for each in found] == [
        (4, None, 1950.0, None),
        (None, "jpeg", 2000.0, 40_000),
        (4, "jpeg", 3900.0, 40_000),
    ]
    assert [str(each) for each in found] == ["--workers 4", "jpeg", "--workers 4 and jpeg"]
    assert advise({2: 1900.0, 1: 1000.0}, 2, {"": 800.0}, {"": 100.0}, 1000) == ()
    # Fewer are advised, too, where so many get in each other's way.
    assert [each.workers for each in advise({2: 1900.0, 64: 900.0}, 64, {"": 800.0}, {"": 1.0}, 1)] == [2]


def test_figures_that_contradict_each_other():
    quiet = Advice(2, None, 2000.0, measured=1900.0)
    assert not is_doubtful(2100.0, 2000.0, (quiet, Advice(4, None, 9000.0)))
    assert is_doubtful(2900.0, 2000.0, (quiet,))
    assert is_doubtful(1900.0, 2000.0, (quiet, Advice(2, None, 6834.0, measured=11192.0)))
    assert is_doubtful(1900.0, 2000.0, (Advice(2, None, 3000.0, measured=1500.0),))


@pytest.mark.parametrize(("content", "limit"), [("max\n", None), ("4096\n", 4096), ("9223372036854771712", None)])
def test_a_container_has_the_memory_that_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, limit: int | None
):
    (tmp_path / "limit").write_text(content)
    monkeypatch.setattr(measure, "_LIMITS", (tmp_path / "none", tmp_path / "limit"))
    assert measure.memory_bytes() == (limit or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def test_what_fits_into_memory():
    assert fits_in_memory(1e6) and not fits_in_memory(1e18)


@given(st.integers(1, 2000), st.integers(0, 1024))
def test_the_workers_that_are_measured(cores: int, workers: int):
    counts = worker_counts(workers, cores)
    assert counts == sorted(set(counts)) and {workers, cores, 1} <= set(counts) and len(counts) < 14
    assert max(counts) == max(workers, cores)


def test_cores_for_a_target():
    costs = {"": 800.0, "jpeg": 400.0}
    found = target("5000", {1: 1000.0, 2: 1900.0}, costs, cores=2)
    assert (found.images_per_second, found.cores, found.cores_by_packing) == (5000, 6, {"jpeg": 3})
    assert target("A100", {1: 1000.0}, costs, cores=1).images_per_second == TARGETS["a100"][0]


@pytest.fixture(scope="module")
def measured(shards: dict[str, Path]) -> Profile:
    """A profile with all that can be asked for."""
    options = ProfileOptions(
        batch_size=8,
        image_size=32,
        workers=1,
        seconds=1,
        against=("naive", "tf.data", "tensorpack"),
        target="v100",
        apply=True,
    )
    return profile(shards["tfrecord"], options)


def test_a_profile_of_real_shards(measured: Profile):
    assert (measured.records, measured.format, measured.encoding, measured.workers) == (36, "tfrecord", "keep", 1)
    assert list(measured.stages) == list(STAGES) and all(cost >= 0 for cost in measured.stages.values())
    assert max(measured.stages, key=lambda stage: measured.stages[stage]) == "decode"
    assert {1, measured.cores} <= set(measured.by_workers)
    assert list(measured.against) == ["ingest", "naive", "tf.data", "tensorpack"]
    rates = [
        *measured.by_workers.values(),
        *measured.against.values(),
        measured.alone,
        measured.ceiling,
        measured.feed_microseconds,
    ]
    assert all(rate > 0 for rate in rates)
    assert measured.target is not None and measured.target.cores >= 1
    assert any(each.packing == "--encoding raw --resize 37" for each in measured.advice)
    assert all(each.measured is not None and each.measured > 0 for each in measured.advice)


def test_a_profile_as_text_and_for_machines(measured: Profile):
    shown = text_report.text(measured)
    for words in ("us of a core an image", "  decode  ", "  1 worker ", "  tf.data, into TensorFlow ",
                  "-bound: ", "advice", "measured",
                  "--encoding raw --resize 37", "for 1,270 images/s (ResNet-50",
                  "decode alone", "libjpeg-turbo"):  # fmt: skip
        assert words in shown, shown
    assert measured.verdict in shown
    assert json.loads(json.dumps(dataclasses.asdict(measured)))["verdict"] == measured.verdict


def test_a_profile_as_a_page_needs_nothing_else(measured: Profile):
    shown = html_report.render(measured)
    assert not re.search(r"https?:|<script|url\(|@import|src=", shown)
    for stage, cost in measured.stages.items():
        assert f"<td>{stage}</td>" in shown and f"{cost:,.1f}" in shown
    for each in measured.advice:
        assert str(each) in shown and f"{each.measured:,.0f}" in shown


def test_pixels_are_not_decoded_and_a_slow_consumer_is_the_limit(tmp_path: Path):
    put(tmp_path / "source", {IMAGES_NAME: idx(PIXELS), LABELS_NAME: idx(LABELS)})
    ingest.build_shards(tmp_path / "source", tmp_path / "shards", format="lmdb", workers=0)
    result = profile(
        tmp_path / "shards", ProfileOptions(batch_size=4, image_size=28, workers=1, seconds=0.5, step_milliseconds=100)
    )
    assert result.stages["decode"] == 0 and result.encoding == "raw" and result.ceiling is None
    assert result.consumer is not None and (result.limit == "consumer") == (result.consumer.waiting < 0.1)
    if result.limit == "consumer":  # a machine that stalls may make it wait
        assert result.verdict.startswith("consumer-bound: a step of 100 ms takes 40 images/s")
        assert result.advice == () and "Nothing in the loader needs changing" in text_report.text(result)
    assert packings(Dataset(tmp_path / "shards"), 28) == {}


@pytest.mark.parametrize("packing", [Packing("jpeg", 37), Packing("raw", 37)])
@pytest.mark.parametrize("processes", [0, 2])
def test_a_sample_packed_otherwise(shards: dict[str, Path], tmp_path: Path, packing: Packing, processes: int):
    for name, folder in shards.items():
        source = Dataset(folder)
        made = Dataset(repack(source, tmp_path / name, packing, 20, processes))
        assert (len(made), made.manifest.encoding, made.manifest.resize) == (20, packing.encoding, 37)
        records = {record.key: record for record in map(source.__getitem__, range(len(source)))}
        for record in map(made.__getitem__, range(len(made))):
            assert record.label == records[record.key].label and min(record.height, record.width) == 37


def test_no_room_for_a_sample(shards: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(formats, "write", full)
    with pytest.raises(OutputError, match=r"No space left on device.*set TMPDIR"):
        repack(Dataset(shards["lmdb"]), tmp_path / "sample", Packing("raw", 37), 20, 0)


def test_an_image_that_cannot_be_decoded_is_named(shards: dict[str, Path], tmp_path: Path):
    copy = shutil.copytree(shards["tfrecord"], tmp_path / "copy")
    dataset = Dataset(copy)
    wrong = [parse(dataset.payload(i)) for i in dataset.ranges()[0]]
    wrong[3] = wrong[3]._replace(encoded=b"\xff\xd8 no JPEG", segments=b"")
    known = dataset.manifest
    formats.write("tfrecord", copy / known.shards[0].name, map(serialize, wrong))
    described = resumable.describe(copy / known.shards[0].name, len(wrong))
    manifest.save(dataclasses.replace(known, shards=(described, *known.shards[1:])), copy)
    with pytest.raises(RecordError, match=rf"{known.shards[0].name}, record 3, byte \d+, key '{wrong[3].key}'"):
        profile(copy, ProfileOptions(image_size=32, batch_size=4, seconds=0.5, workers=0))


def test_what_cannot_be_measured_is_refused(shards: dict[str, Path], tmp_path: Path):
    for options in (
        {"seconds": 0.0}, {"seconds": float("nan")}, {"batch_size": 0}, {"workers": -1}, {"against": ("dali",)},
        {"target": "fast"}, {"target": "0"}, {"step_milliseconds": 0.0}, {"step_milliseconds": 5.0, "model": "lenet"},
    ):  # fmt: skip
        with pytest.raises(OptionError):
            ProfileOptions(**options)
    with pytest.raises(OptionError, match=r"tf\.data reads tfrecord, and these shards are lmdb"):
        profile(shards["lmdb"], ProfileOptions(against=("tf.data",), model="vgg"))  # the first of both to be looked at
    with pytest.raises(OptionError, match=r"^argument --model: invalid choice: 'vgg' \(choose from [^()]*\)$"):
        profile(shards["lmdb"], ProfileOptions(model="vgg"))
    with pytest.raises(OptionError, match=r"^argument --model: invalid choice: '' \(choose from"):
        profile(shards["lmdb"], ProfileOptions(model=""))
    with pytest.raises(OptionError, match=r"^--image-size 16: too small for resnet18: give at least 32$"):
        profile(shards["lmdb"], ProfileOptions(model="resnet18", image_size=16))
    folder = shutil.copytree(shards["lmdb"], tmp_path / "copy")
    (folder / "00000-of-00005.lmdb").unlink()
    with pytest.raises(RecordError):
        profile(folder, ProfileOptions())


TRAIN = """
import os, sys, time
import models
from ingest.errors import IngestError
def device_rate(words):
    print(words, flush=True)
    os.write(2, b"noise")
    what = words[words.index("--model") + 1]
    if what == "refused":
        raise IngestError("refused", path="place", key="key")
    if what == "broken":
        os._exit(3)
    if what == "slow":
        time.sleep(60)
    return float(os.environ.get("OMP_NUM_THREADS", 42))
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose train.py answers at once. What else is called so, or its models, cannot be used."""
    project = b'[project]\nname = "ingest-toolkit"\n'
    folder = put(tmp_path / "checkout", {"train.py": TRAIN.encode(), "models.py": b"", "pyproject.toml": project})
    monkeypatch.setattr(device, "ROOT", folder)
    wrong = dict.fromkeys(("train.py", "models.py"), b"raise SystemExit('the wrong one')")
    monkeypatch.syspath_prepend(put(tmp_path / "path", wrong))
    monkeypatch.chdir(put(tmp_path / "here", wrong))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return folder


def test_the_rate_of_a_device_comes_as_data(stand_in: Path, capfd: pytest.CaptureFixture[str]):
    assert device_rate("any", ProfileOptions(), classes=10) == 42
    with pytest.raises(IngestError, match=r"^refused$") as caught:
        device_rate("refused", ProfileOptions(), classes=10)
    assert (type(caught.value), caught.value.path, caught.value.key) == (IngestError, "place", "key")
    with pytest.raises(WorkerError, match=r"^training broken: worker process \d+ ended with status 3$"):
        device_rate("broken", ProfileOptions(), classes=10)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_what_measures_a_device_does_not_outlive_its_parent(stand_in: Path, tmp_path: Path, how: signal.Signals):
    there = tmp_path / "there"
    there.mkdir()
    code = f"import pathlib; from ingest.profiling import ProfileOptions, device; device.ROOT = pathlib.{stand_in!r}"
    code += "; device.device_rate('slow', ProfileOptions(), 10)"
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"]
    parent = subprocess.Popen(command, cwd=there, stderr=subprocess.DEVNULL)
    assert wait_until(lambda: len(processes_of(there)) == 2, 30)
    parent.send_signal(how)
    parent.wait(10)
    assert wait_until(lambda: processes_of(there) == [], 5)


@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"train.py": b""},
        {"train.py": b"", "pyproject.toml": b'[project]\nname = "other"\n'},
        {"pyproject.toml": b'[project]\nname = "ingest-toolkit"\n'},
    ],
)
def test_without_the_checkout_there_is_no_device_to_measure(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: dict[str, bytes]
):
    monkeypatch.setattr(device, "ROOT", put(tmp_path / "site-packages", {"ingest/__init__.py": b"", **beside}))
    with pytest.raises(OptionError, match=r"^--model needs train\.py, which is not in the installed package"):
        device_rate("any", ProfileOptions(), classes=10)


@needs_training
def test_train_measures_a_device():
    words = ["--model", "lenet", "--classes", "10", "--batch-size", "4", "--image-size", "28", "--steps"]
    assert train.device_rate([*words, "3"]) > 0
    with pytest.raises(IngestError, match=r"^one step is not enough"):
        train.device_rate([*words, "1"])


class _Clock:
    """Time that passes only as measurements say."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("workers", [0, 1, 2, 16])
@pytest.mark.parametrize(("seconds", "turns"), [(0.1, 1), (1.0, 1), (15.0, 3), (600.0, 3)])
def test_measuring_takes_the_seconds_that_it_is_given(
    monkeypatch: pytest.MonkeyPatch, seconds: float, turns: int, workers: int
):
    """Eight streams of 1,000 images/s a worker, by a clock that only they move; what was made ready comes at once."""
    clock = _Clock()
    monkeypatch.setattr(throughput, "time", clock)
    pace = 1000 * max(1, workers)

    def make(shards: object, options: LoaderOptions) -> Iterator[None]:
        made = 0.0  # when the batch before was ready; workers have two each to do
        while True:
            made = max(made, clock.now - 2 * workers * options.batch_size / pace) + options.batch_size / pace
            clock.now = max(clock.now, made)
            yield

    with ExitStack() as stack:
        options = LoaderOptions(batch_size=64, training=True, workers=workers)
        measures = {i: throughput.stream(stack, "", options, make) for i in range(8)}
        begun, reports = clock.now, []
        found = throughput.medians(measures, seconds, reports.append)
        assert len(reports) == 8 * turns
        # At the least two batches of each, one of every worker, and what workers were told to do meanwhile.
        least = 8 * (max(2, workers) + 2 * workers) * 64 / pace
        assert clock.now - begun <= 1.1 * max(seconds, least) + 8 * turns * 64 / pace
        assert all(rate == pytest.approx(pace, rel=0.02) for rate in found.values())


def test_a_profile_of_a_second_takes_about_a_second(shards: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    """Of which only the measuring is looked at: how long programs take to start is the machine's."""
    spent = []
    medians = throughput.medians

    def timed(measures: dict, seconds: float, report: object) -> dict:
        start = time.perf_counter()
        found = medians(measures, seconds, report)
        spent.append((seconds, time.perf_counter() - start))
        return found

    monkeypatch.setattr(throughput, "medians", timed)
    result = profile(shards["lmdb"], ProfileOptions(batch_size=8, image_size=32, workers=1, seconds=1))
    assert all(cost > 0 for stage, cost in result.stages.items() if stage != "crop")
    # A machine that has other things to do may take some times as long.
    assert [seconds for seconds, _ in spent] == [1]
    assert spent[0][1] < 5


def test_usage_errors_come_before_data_and_tensorflow(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    cases = {
        "--seconds 0": "0.0 seconds: give 0.1 to 86400", "--seconds inf": "inf seconds", "--seconds nan": "nan seconds",
        "--step-ms -5": "-5.0 ms a step", "--step-ms nan": "nan ms a step", "--against dali": "'dali' is no loader",
        "--against naive,": "'' is no loader", "--target fast": "target 'fast': give images/s",
        "--target -1": "target '-1'", "--step-ms 5 --model lenet": "give one at a time",
        "--workers -1": "-1 workers: give 0", "--batch-size 0": "batch_size is 0",
        "--image-size 20000": "image_size is 20000",
    }  # fmt: skip
    # A look at the data would show that there are none.
    for words, message in cases.items():
        assert cli.main(["profile", str(tmp_path / "nowhere"), *words.split()]) == 2, words
        out, err = capsys.readouterr()
        assert (out, len(err.splitlines())) == ("", 1)
        assert message in err
    code = "import sys; from ingest import cli; sys.exit(cli.main() + 100 * ('tensorflow' in sys.modules))"
    command = [sys.executable, "-c", code, "profile", str(tmp_path / "nowhere"), "--seconds", "0"]
    assert subprocess.run(command, capture_output=True).returncode == 2
