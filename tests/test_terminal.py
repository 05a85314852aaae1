"""What reaches a terminal: nothing that it would obey; and outputs that are full, closed or missing."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.images import FORMATS, image_bytes, put

import ingest
from ingest.cli import guarded, main
from ingest.errors import IngestError, OptionError
from ingest.system import paths, progress, terminal
from ingest.tools.synthesize import SynthOptions, synthesize
from ingest.tools.verify import verify

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent

# Escape sequences of one byte and of two, bells, line breaks of all kinds, marks of direction, what is no text.
NASTY = "\x1b[2J\x9b31m\x07\x08\r\n\x0b\x85\u2028\u202e\u2066\x7f\udcff"


def assert_harmless(text: str) -> None:
    odd = {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")}
    assert not odd, text


@given(st.text())
def test_printable_text_is_one_harmless_line(text: str):
    shown = terminal.printable(text)
    assert shown.isprintable()
    assert (shown == text) == text.isprintable()


def run(words: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """A shell's line in which ``python`` is this one."""
    line = words.replace("python", shlex.quote(sys.executable), 1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(["bash", "-c", line], capture_output=True, cwd=folder, env=environment, timeout=120)


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    """Photographs whose classes and names hold what a terminal obeys; one is none."""
    name = NASTY.replace("\udcff", "")
    images = {f"{name}{i % 2}/{name}{i}.jpg": image_bytes("JPEG") for i in range(6)}
    return put(tmp_path / f"photos{name}", {**images, f"{name}0/{name}bad.jpg": b"no image\x1b[31m"})


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_that_a_terminal_obeys_is_written(
    nasty: Path, tmp_path: Path, format: str, capfd: pytest.CaptureFixture[str]
):
    out = tmp_path / f"out{NASTY}"
    report = tmp_path / "report.json"
    sheet = tmp_path / "s.png"
    for words, code in (
        (["build-shards", nasty, out, "--format", format, "--workers", 1, "--json", report], 0),
        (["build-shards", nasty, out, "--format", format, "--workers", 0], 0),
        (["build-shards", nasty, tmp_path / "other", "--format", format, "--on-bad", "fail", "--workers", 1], 1),
        (["inspect", out, "--workers", 0, "--sheet", sheet, "--json", tmp_path / "inspection.json"], 0),
        (["verify", out, "--decode", "--workers", 0], 0),
        (["convert", out, tmp_path / f"c{NASTY}", "--format", sorted(set(FORMATS) - {format})[0], "--workers", 0], 0),
        (["inspect", tmp_path / NASTY], 1),
        (["verify", out, "--repair", nasty / NASTY, "--workers", 0], 1),
    ):
        assert main([str(word) for word in words]) == code, capfd.readouterr()
    damaged = next(out.glob(f"*.{format}"))
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    assert main(["verify", str(out), "--workers", "0"]) == 1
    for words in (["inspect", "x", f"--{NASTY}"], [NASTY], ["profile", str(out), "--workers", NASTY]):
        with pytest.raises(SystemExit) as ending:
            main(words)
        assert ending.value.code == 2
    shown = capfd.readouterr()
    assert_harmless(shown.out)
    assert_harmless(shown.err.replace("\r", "\n"))  # the progress bar's
    assert [NASTY[:-1] in name for name in json.loads((tmp_path / "inspection.json").read_text())["classes"]] == [
        True
    ] * 2
    table = (out / "quarantine.tsv").read_bytes()
    assert_harmless(table.decode().replace("\t", ""))
    assert len(table.splitlines()) == 2


def test_errors_of_workers_and_bugs_are_escaped(capsys: pytest.CaptureFixture[str]):
    def fail(error: Exception) -> None:
        raise error

    assert guarded("x", lambda: fail(IngestError(NASTY))) == 1
    assert guarded("x", lambda: fail(OptionError(NASTY))) == 2
    assert guarded("x", lambda: fail(RuntimeError(NASTY))) == 1
    assert guarded("x", lambda: fail(KeyboardInterrupt(NASTY))) == 130
    shown = capsys.readouterr().err
    assert_harmless(shown)
    assert "RuntimeError: " in shown


def test_a_progress_bar_shows_no_escapes(capsys: pytest.CaptureFixture[str]):
    with progress.bar(10, f"reading {NASTY}") as bar:
        bar.update(10)
    assert_harmless(capsys.readouterr().err.replace("\r", ""))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
@pytest.mark.parametrize("words", ["--help", "--version", "build-shards --help", "synth {}/photos --images 40"])
def test_a_full_stdout_is_one_line(tmp_path: Path, words: str):
    done = run(f"python -m ingest {words.format(tmp_path)} > /dev/full", tmp_path)
    assert done.returncode == 1
    assert (
        done.stderr.decode()
        .splitlines()[-1]
        .endswith("error: stdout: cannot be written (No space left on device): all else is done")
    )
    assert b"Traceback" not in done.stderr


def test_work_is_not_lost_to_a_full_stdout(shards: dict[str, Path], tmp_path: Path):
    words = f"inspect {shards['lmdb']} --workers 0 --sheet s.png --json r.json"
    done = run(f"python -m ingest {words} > /dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr.count(b"error:") == 1
    assert json.loads((tmp_path / "r.json").read_text())["records"] == 36
    assert (tmp_path / "s.png").exists()
    done = run(f"python -m ingest inspect {shards['lmdb']} --workers 0 | head -1", tmp_path)
    assert b"Traceback" not in done.stderr
    assert b"error" not in done.stderr


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "2> /dev/full"])
def test_missing_outputs_end_no_work(shards: dict[str, Path], tmp_path: Path, closed: str):
    """Nor does the first file to be opened get what is meant for them."""
    put(tmp_path / "photos", {f"{i % 2}/{i}.jpg": image_bytes("JPEG") for i in range(6)})
    code = f"""
import ingest
batches = len(list(ingest.dataflow({str(shards["lmdb"])!r}, batch_size=9, image_size=32, training=False, workers=1)))
from ingest.cli import main
codes = [main(words.split()) for words in (
    "build-shards photos out --format tfrecord --workers 1",
    "build-shards photos out-2 --format lmdb --workers 0",
    "verify out --workers 1",
    "inspect nowhere",
)]
print(codes, batches, file=open("codes", "w"))
"""
    (tmp_path / "program.py").write_text(code)
    done = run(f"python program.py {closed}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "codes").read_text() == "[0, 0, 0, 1] 4\n"
    assert b"Traceback" not in done.stderr
    assert (b"whole" in done.stdout) == (">&- " not in closed)
    for name in ("out", "out-2"):
        assert verify(tmp_path / name, decode=True, workers=0).damages == ()


def test_streams_that_are_missing_or_closed_are_no_error(monkeypatch: pytest.MonkeyPatch):
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        assert guarded("x", lambda: terminal.print_results("text")) == 0
        with progress.bar(1, "x") as bar:
            bar.update(1)


def test_what_an_encoding_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch):
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii"))
    terminal.print_results("Zürich")
    assert buffer.getvalue() == b"Z\\xfcrich\n"


def test_train_says_names_harmlessly(tmp_path: Path):
    """Its errors; all that it writes goes the same way."""
    name = shlex.quote(NASTY.replace("\udcff", ""))
    done = run(f"python {shlex.quote(str(ROOT / 'train.py'))} --predict {name} --init-from {name}", tmp_path)
    assert done.returncode == 1, done.stderr
    assert_harmless(done.stderr.decode())
    source = (ROOT / "train.py").read_text()
    assert "print(" not in source
    assert "print(" not in (ROOT / "ingest" / "cli.py").read_text()


def test_home_is_home_in_quotes_and_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "here" / "~").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    synthesize("~/photos", SynthOptions(classes=2, images=10, workers=0))
    ingest.build_shards("~/photos/train", Path("~/shards"), format="tfrecord", workers=0)
    assert main(["inspect", "~/shards", "--workers", "0", "--json", "~/r.json", "--sheet", "~/s.png"]) == 0
    assert {"photos", "shards", "r.json", "s.png"} == {path.name for path in (tmp_path / "home").iterdir()}
    assert [path.name for path in (tmp_path / "here").rglob("*")] == ["~"]
    assert paths.parse_path("./~") == tmp_path / "here" / "~"
    assert paths.parse_path(paths.parse_path("./~")) == tmp_path / "here" / "~"
    assert paths.parse_path("a/~") == Path("a/~")
    assert paths.parse_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    assert paths.parse_path("~root") == Path("~root").expanduser()


def test_a_file_to_write_is_on_this_machine(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["inspect", "x", "--json", "s3://bucket/x.json"])
    assert "s3://bucket/x.json: remote: give a path on this machine's disks" in capsys.readouterr().err
