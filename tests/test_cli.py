"""The command line as it is typed: exit codes, one line for an error, results on stdout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.images import image_bytes, put

from ingest.cli import main

pytestmark = pytest.mark.slow


def ingest(*words: object) -> int:
    """Run the command here; argparse's exits count, too."""
    try:
        return main([str(word) for word in words])
    except SystemExit as end:
        return int(end.code or 0)


def one_line(text: str) -> str:
    """The one line that is not a progress bar."""
    lines = [line for line in text.replace("\r", "\n").splitlines() if line and "images/s" not in line]
    assert len(lines) == 1, text
    return lines[0]


def test_from_nothing_to_a_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert ingest("synth", tmp_path / "photos", "--classes", 2, "--images", 20, "--seed", 3) == 0
    assert capsys.readouterr().out.startswith("drew 16 pictures into")
    for name in ("tfrecord", "lmdb"):
        out, report = tmp_path / name, tmp_path / f"{name}.json"
        assert ingest("build-shards", tmp_path / "photos/train", out, "--format", name, "--json", report) == 0
        shown = capsys.readouterr()
        assert shown.out.startswith("packed 16 of 16 files (0 converted, 0 quarantined, 0 passed over)\n")
        assert "16/16" in shown.err and "images/s" in shown.err
        assert json.loads(report.read_text())["records"] == 16
    page = tmp_path / "profile.html"
    words = ("--image-size", 32, "--batch-size", 4, "--workers", 1, "--seconds", 0.5, "--json", report, "--html", page)
    assert ingest("profile", tmp_path / "lmdb", *words) == 0
    shown = capsys.readouterr()
    result = json.loads(report.read_text())
    assert result["verdict"] in shown.out.splitlines() and "measuring" in shown.err
    assert all(stage in shown.out for stage in result["stages"])
    assert result["verdict"] in page.read_text()


def test_what_is_built_is_not_called_packed_again(
    photos: Path, shards: dict[str, Path], capsys: pytest.CaptureFixture[str]
):
    assert ingest("build-shards", photos / "train", shards["lmdb"], "--format", "lmdb", "--shards", 5) == 0
    assert capsys.readouterr().out.startswith(
        "nothing to do: 36 of 36 files (0 quarantined, 0 passed over)\nlie in 5 lmdb shards"
    )


def test_verify_convert_and_inspect(
    photos: Path, shards: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    report = tmp_path / "report.json"
    assert ingest("convert", shards["lmdb"], tmp_path / "out", "--format", "tfrecord") == 0
    assert capsys.readouterr().out.startswith("converted 36 records to tfrecord, ")
    assert ingest("verify", tmp_path / "out", "--decode", "--json", report) == 0
    assert capsys.readouterr().out.startswith("whole: 36 records in 5 shards, ")
    assert json.loads(report.read_text())["damages"] == []
    (tmp_path / "out" / "00001-of-00005.tfrecord").unlink()
    assert ingest("verify", tmp_path / "out", "--json", report) == 1
    shown = capsys.readouterr()
    assert shown.out == "00001-of-00005.tfrecord: cannot be read (No such file or directory)\n"
    assert "1 file is damaged: mend it with 'ingest verify" in shown.err
    assert json.loads(report.read_text())["damages"][0]["file"] == "00001-of-00005.tfrecord"
    assert ingest("verify", tmp_path / "out", "--repair", photos / "train") == 0
    assert capsys.readouterr().out.splitlines()[1:2] == ["repaired 00001-of-00005.tfrecord"]
    assert ingest("inspect", tmp_path / "out", "--compare-to", shards["lmdb"], "--json", report) == 0
    assert "images in both: 36" in capsys.readouterr().out
    assert json.loads(report.read_text())["classes"] == {"bricks": 12, "cells": 12, "checks": 12}


def test_the_quarantine_is_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = put(tmp_path / "source", {"a/1.JPEG": image_bytes("JPEG"), "a/2.JPEG": b"text"})
    assert ingest("build-shards", source, tmp_path / "out", "--format", "lmdb", "--workers", 0) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("packed 1 of 2 files (0 converted, 1 quarantined, 0 passed over)\n")
    assert shown.endswith(f"what was quarantined, and why: {tmp_path / 'out' / 'quarantine.tsv'}\n")
    out = tmp_path / "again"
    assert ingest("build-shards", source, out, "--format", "lmdb", "--workers", 0, "--on-bad", "fail") == 1
    assert one_line(capsys.readouterr().err).startswith("ingest build-shards: error: a/2.JPEG: not an image")


@pytest.mark.parametrize("name", ["tfrecord", "lmdb"])
def test_a_dry_run_writes_nothing_and_is_right(
    photos: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    out, report = tmp_path / "out", tmp_path / "report.json"
    words = ("build-shards", photos / "train", out, "--format", name, "--json", report)
    assert ingest(*words, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert not out.exists()
    estimate = json.loads(report.read_text())
    assert shown.startswith(
        "would pack 36 images of 3 classes, if all of them can be\n"
        f"into 8 {name} shards, {estimate['size_bytes']:,} bytes"
    )
    assert (estimate["found"], estimate["classes"], estimate["shards"]) == (36, 3, 8)
    assert estimate["seconds"] > 0 and estimate["free_bytes"] > 0
    assert ingest(*words) == 0
    assert json.loads(report.read_text())["size_bytes"] == estimate["size_bytes"]


def test_a_disk_that_is_too_small_is_refused_before_anything_is_packed(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))
    words = ("build-shards", photos / "train", tmp_path / "out", "--format", "lmdb")
    assert ingest(*words, "--dry-run") == 1
    assert "too small: 10,000 bytes are free" in capsys.readouterr().err
    assert ingest(*words) == 1
    assert "bytes are to be written, and 10,000 are free" in one_line(capsys.readouterr().err)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["build.json"]


def test_errors_are_one_line_and_end_with_1(
    photos: Path, shards: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "empty").mkdir()
    damaged = shutil.copytree(shards["lmdb"], tmp_path / "damaged")
    (damaged / "manifest.json").write_text("{}")
    cut = shutil.copytree(shards["tfrecord"], tmp_path / "cut")
    os.truncate(cut / "00001-of-00005.tfrecord", 10)
    missing = shutil.copytree(shards["lmdb"], tmp_path / "missing")
    (missing / "00003-of-00005.lmdb").unlink()
    build = ("build-shards", "--format", "lmdb")
    for words, message in (
        ((*build, tmp_path / "nowhere", tmp_path / "out"), "nowhere: no such file or folder"),
        ((*build, tmp_path / "empty", tmp_path / "out"), "empty: no images in it"),
        ((*build, photos, tmp_path / "out"), "hold folders, not images"),
        (
            (*build, photos / "train", shards["lmdb"]),
            "dataset of other options (shards 5, now 8): remove it first",
        ),
        ((*build, photos / "train", tmp_path / "missing" / "manifest.json"), "cannot be made"),
        (("profile", tmp_path / "nowhere"), "make one with 'ingest build-shards'"),
        (("profile", damaged), "manifest.json: damaged"),
        (("profile", cut), "00001-of-00005.tfrecord: 10 bytes, its manifest says"),
        (("profile", missing), "00003-of-00005.lmdb: cannot be read"),
        (("synth", photos), "not empty"),
    ):
        assert ingest(*words) == 1, words
        assert message in one_line(capsys.readouterr().err)


def test_wrong_usage_is_one_line_and_ends_with_2(
    photos: Path, shards: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    build = ("build-shards", photos / "train", tmp_path / "out")
    for words, message in (
        ((), "required: COMMAND"),
        (("fly",), "invalid choice: 'fly'"),
        (build, "required: --format"),
        (("build-shards", "", tmp_path / "out", "--format", "lmdb"), "argument SRC: an empty path, as of a variable"),
        (("build-shards", photos / "train", "", "--format", "lmdb"), "argument OUT: an empty path"),
        ((*build, "--format", "lmdb", "--labels", ""), "argument --labels: an empty path"),
        (("verify", ""), "argument SHARDS: an empty path"),
        ((*build, "--format", "zip"), "invalid choice: 'zip'"),
        ((*build, "--format", "lmdb", "--shards", "many"), "invalid int value: 'many'"),
        ((*build, "--format", "lmdb", "--shards", 0), "0 shards: give 1 to 99999"),
        ((*build, "--format", "lmdb", "--workers", -2), "-2 workers"),
        ((*build, "--format", "lmdb", "--resize", 256), "choose the encoding jpeg or raw"),
        ((*build, "--format", "lmdb", "--quality", 80), "--quality is of the encoding jpeg"),
        ((*build, "--format", "lmdb", "--json", tmp_path / "no" / "j"), "in a folder that does not exist"),
        (("profile", shards["lmdb"], "--seconds", "nan"), "nan seconds"),
        (("profile", shards["lmdb"], "--batch-size", 0), "batch_size is 0"),
        (("synth", tmp_path / "out", "--classes", 99), "99 classes: give 2 to 12"),
    ):
        assert ingest(*words) == 2, words
        shown = capsys.readouterr()
        assert shown.out == ""
        assert message in one_line(shown.err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["synth", "build-shards", "verify", "convert", "inspect", "profile"])
def test_every_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]):
    assert ingest(command, "--help") == 0
    shown = capsys.readouterr().out
    assert f"  ingest {command} " in shown[shown.index("example") :]


def test_a_reader_that_has_had_enough_is_no_error(shards: dict[str, Path]):
    """As in ``ingest profile ... | head -0``."""
    command = [sys.executable, "-m", "ingest", "profile", str(shards["lmdb"]), "--seconds", "0.2", "--workers", "0"]
    for unbuffered in ("", "1"):
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
            process.stdout.close()
            assert b"Broken" not in process.stderr.read()
        assert process.returncode == 1


def test_a_build_does_not_need_the_callers_script_to_be_guarded(photos: Path, tmp_path: Path):
    """Worker processes do not run the user's script again, as those of multiprocessing would."""
    script = tmp_path / "script.py"
    script.write_text(
        "import ingest\n"
        f"ingest.build_shards({str(photos / 'val')!r}, {str(tmp_path / 'out')!r}, format='lmdb', workers=2)\n"
        "print('once')\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == "once\n"
