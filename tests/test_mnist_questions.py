"""benchmarks/mnist_questions.py: verdicts and the page, from results that are made up."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from support.images import put
from support.sources import idx

import ingest
from ingest.errors import IngestError, SourceError

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "mnist_questions.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mnist_questions", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


questions = load()
BASELINE, *_ = questions.TRAININGS
SETTING = questions.Setting(
    10, Counter({"0": 29_000, "1": 31_000}), Counter({"0": 4_321, "1": 5_679}), "2 cores, no GPU, with a Python"
)


def outcome(error: float, loss: float = 0.0123, steps: int = 9_375, seconds: float = 50, epochs: float = 10):
    """A training that ended with a test error of ``error`` percent, and was at twice that after each earlier epoch."""
    history = [
        {"epoch": epoch, "step": steps * epoch // epochs, "loss": loss * 2, "top1": 0.5, "eval_top1": 1 - error / 50}
        for epoch in range(1, int(epochs))
    ]
    history.append({"epoch": epochs, "step": steps, "loss": loss, "top1": 0.9, "eval_top1": 1 - error / 100})
    result = {"steps": steps, "epochs": epochs, "eval_top1": 1 - error / 100, "history": history}
    return questions.Outcome(seconds, result)


GOOD = outcome(0.8)
DIVERGED = questions.Outcome(7.4, None, "the loss is no number any more: give a lower rate")


def page(*others: object) -> str:
    return questions.document([GOOD, *others], SETTING)


def sections(text: str) -> list[str]:
    """The sections of a page, each in one line."""
    return [" ".join(part.split()) for part in text.split("\n## ")[1:]]


def test_a_verdict_is_a_function_of_error_and_time():
    for given, expected in (
        (DIVERGED, "diverged"),
        (outcome(50.1), "fails"),
        (outcome(50), "hurts"),
        (outcome(1.61), "hurts"),
        (outcome(1.61, seconds=500), "hurts"),
        (outcome(1.59), "no harm"),
        (outcome(0.8, seconds=100), "no harm"),
        (outcome(0.8, seconds=101), "slower"),
        (outcome(0.8, seconds=31, epochs=3), "slower"),
        (outcome(0.1), "no harm"),
    ):
        assert questions.verdict(given, GOOD) == expected, given


def test_every_number_shows_up():
    others = [outcome(10 + i, loss=2 + i / 8, steps=1_000 + i, seconds=20 + i) for i in range(6)]
    text = page(*others)
    table = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert table[0] == "| baseline | 10 | 9,375 | 50 | 0.80 % | 0.0123 |  |"
    assert table[1] == "| raw pixels: `--pixel-range 255` | 10 | 1,000 | 20 | 10.00 % | 2.0000 | hurts |"
    for i, (line, section) in enumerate(zip(table[1:], sections(text))):
        for number in (f"1,{i:03d}", f"{10 + i}.00 %", f"{2 + i / 8:.4f}"):
            assert number in line
            assert number in section
        assert f"| {20 + i} |" in line
        assert "0.80 %" in section
        assert "0.0123" in section
    for words in ("60,000 images", "10,000 others", "10 epochs", "2 cores, no GPU", "(mnist-questions.png)"):
        assert words in " ".join(text.split())


@pytest.mark.parametrize(
    ("given", "word", "agreeing"),
    [
        (DIVERGED, "**diverged**", {"raw pixels"}),
        (outcome(88.65), "**fails**", {question.name for question in questions.QUESTIONS}),
        (outcome(3), "**hurts**", {question.name for question in questions.QUESTIONS} - {"weights of zero"}),
        (outcome(0.8, seconds=500), "**slower**, 50.0 s an epoch in place of 5.0 s", {"batches of one"}),
        (outcome(0.8), "**no harm**", set()),
    ],
)
def test_what_is_said_follows_from_what_was_measured(given: object, word: str, agreeing: set[str]):
    for question, text in zip(questions.QUESTIONS, sections(page(*[given] * 6))):
        assert text.startswith(f"... {question.title} The usual answer: {question.usual} Measured")
        assert word in text
        agrees = question.name in agreeing
        assert (": the measurement agrees." in text) == agrees
        assert (": the measurement disagrees." in text) != agrees
        assert "{" not in text


def test_a_training_that_diverged_shows_as_such_and_has_no_numbers():
    text = page(DIVERGED, *[GOOD] * 5)
    assert "| raw pixels: `--pixel-range 255` | - | - | 7 | - | - | diverged |" in text
    expected = 'Measured: train.py ended with "the loss is no number any more: give a lower rate". It has **diverged**'
    assert expected in sections(text)[0]


def test_the_error_of_one_answer_to_everything_is_called_that():
    zeros = sections(page(GOOD, outcome(43.21), *[GOOD] * 4))[1]
    assert "It is the error of answering 1 always, as if" in zeros
    assert "answering 1 always is wrong on 43.21 % of the test set" in zeros
    assert "the error of answering" not in sections(page(*[outcome(43.3)] * 6))[1]


def test_a_shorter_training_is_compared_with_as_many_epochs_of_the_baseline():
    one = sections(page(*[GOOD] * 3, outcome(0.9, epochs=2), *[GOOD] * 2))[3]
    assert "given 2 of 10 epochs; after as many the baseline stood at 1.60 %" in one


def test_a_training_that_diverges_is_told_by_a_field(tmp_path: Path):
    """Of train.py itself, on a set that is small and a rate that is large."""
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        pixels, labels = rng.integers(0, 256, (20, 28, 28), np.uint8), np.arange(20, dtype=np.uint8) % 10
        put(tmp_path / "idx" / name, {"a-images-idx3-ubyte": idx(pixels), "a-labels-idx1-ubyte": idx(labels)})
        ingest.build_shards(tmp_path / "idx" / name, tmp_path / name, format="tfrecord", workers=0)
    wild = BASELINE._replace(options=("--batch-size", "10", "--learning-rate", "1e6", "--workers", "0"))
    found = questions.train(wild, tmp_path, 20)
    assert found.result is None
    assert found.diverged.startswith("the loss is no number any more: give a lower --learning-rate")
    assert questions.verdict(found, GOOD) == "diverged"
    assert json.loads((tmp_path / "baseline.json").read_text()) == {
        "model": "lenet", "diverged": True, "error": found.diverged,
    }  # fmt: skip


def answering(monkeypatch: pytest.MonkeyPatch, place: Path, code: int, result: dict | None, said: str) -> None:
    """Have train.py end like that."""
    if result is not None:
        (place / "baseline.json").write_text(json.dumps(result))
    monkeypatch.setattr(
        questions.subprocess, "run", lambda words, **_: subprocess.CompletedProcess(words, code, "", said)
    )


def test_what_a_training_says_decides_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    words = "train.py: error: the loss became NaN, is no number any more, has diverged\n"
    for result in (None, {}, {"diverged": False}):
        answering(monkeypatch, tmp_path, 1, result, words)
        with pytest.raises(IngestError, match=r"train\.py failed: .* the loss became NaN"):
            questions.train(BASELINE, tmp_path, 1)
    answering(monkeypatch, tmp_path, 1, {"diverged": True, "error": "in other words"}, "")
    assert questions.train(BASELINE, tmp_path, 1).diverged == "in other words"


def test_a_baseline_that_fails_is_nothing_to_compare_with():
    questions.refuse_bad(outcome(49))
    for bad, what in (
        (DIVERGED, "diverged \\(the loss is no number"),
        (outcome(51), "fails \\(a test error of 51.00 %"),
    ):
        with pytest.raises(IngestError, match=f"the baseline {what}"):
            questions.refuse_bad(bad)


def test_a_chart_is_small_and_takes_what_diverged(tmp_path: Path):
    pytest.importorskip("matplotlib")
    questions.draw_chart([GOOD, DIVERGED, *[outcome(10 + i) for i in range(5)]], tmp_path / "chart.png")
    assert 10_000 < (tmp_path / "chart.png").stat().st_size < 150_000


def test_a_failed_training_ends_all_with_its_last_line(tmp_path: Path):
    with pytest.raises(IngestError, match=r"train.py failed: .*holds no finished dataset"):
        questions.train(BASELINE, tmp_path, 1)


def test_wrong_use_is_one_line(tmp_path: Path):
    for status, words, message in (
        (1, (tmp_path,), "holds no train-images-idx3-ubyte, gzipped or not"),
        (2, (tmp_path, "--epochs", 0), "--epochs 0: give 1 or more"),
        (2, (tmp_path, "--out", tmp_path / "nowhere"), "nowhere: no folder"),
        (2, (), "MNIST_FOLDER"),
    ):
        done = subprocess.run([sys.executable, SCRIPT, *map(str, words)], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_what_is_kept_goes_into_a_new_folder(tmp_path: Path):
    with questions.workplace(tmp_path / "new" / "one") as folder:
        (folder / "file").touch()
    assert (tmp_path / "new" / "one" / "file").exists()
    with pytest.raises(IngestError, match="give a new folder"), questions.workplace(tmp_path):
        pass
    with questions.workplace(None) as folder:
        assert folder.is_dir()
    assert not folder.exists()


def test_both_names_of_an_idx_file(tmp_path: Path):
    with pytest.raises(SourceError):
        questions.images_file(tmp_path, "train")
    for name in ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"):
        (tmp_path / name).touch()
        assert questions.images_file(tmp_path, "train") == tmp_path / name
