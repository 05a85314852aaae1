#!/usr/bin/env python3
"""What happens if ...: LeNet-5 on MNIST seven times, once as it should be, six times with one thing changed.

MNIST_FOLDER holds the four IDX files, gzipped or not. Both sets are packed, train.py runs once for each question, and
OUT gets mnist-questions.md, in which every number and verdict comes from these runs, and its chart:

    python benchmarks/mnist_questions.py ~/mnist
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import ingest
from ingest.cli import Parser, guarded
from ingest.dataset.dataset import Dataset
from ingest.errors import IngestError, SourceError
from models.recipes import LENET

ROOT = Path(__file__).parent.parent

DIVERGED, FAILS, HURTS, SLOWER, NO_HARM = "diverged", "fails", "hurts", "slower", "no harm"
FAILING_ERROR = 50.0
"""In percent of the test set: above it, a training has failed."""
MUCH = 2.0
"""Times the baseline's test error, or its time for an epoch: more is harm, or slowness."""

# A step for every image takes minutes an epoch.
EPOCHS_OF_ONE = 2

# The smallest test error of those tried: ten steps, each on the first 6,000 images.
WHOLE_SET_RATE = 0.1
TRIED_RATES = "0.02, 0.05, 0.1, 0.2, 0.5 and 1"


class Question(NamedTuple):
    """A training: what is changed, with which options, and what is said about it.

    ``usual`` is the usual answer, ``expected`` the verdicts that agree with it. ``agrees`` and ``disagrees`` say why,
    and ``note`` what else is to be known. They are filled with ``facts``, the note with those of the baseline alone.
    """

    name: str
    options: tuple[str, ...] = ()
    most_epochs: int | None = None
    title: str = ""
    usual: str = ""
    expected: tuple[str, ...] = ()
    agrees: str = ""
    disagrees: str = ""
    note: str = ""

    def epochs(self, epochs: int) -> int:
        """How many it is given where the baseline is given ``epochs``."""
        return min(epochs, self.most_epochs or epochs)


BASELINE = Question("baseline")

QUESTIONS = (
    Question(
        "raw pixels",
        ("--pixel-range", "255"),
        title="the pixels stay raw, 0 to 255?",
        usual="inputs two hundred times as large make gradients too large, and training diverges or crawls.",
        expected=(DIVERGED, FAILS, HURTS),
        agrees="A weight's gradient is proportional to its input, and in place of -0.1 to 1.2 that is 0 to 255; the "
        "outputs that later layers see grow as much. The learning rate is the same, so steps go too far, and a ReLU "
        "that such a step leaves silent for every image has no gradient by which to come back.",
        disagrees="ReLUs and maxima pass a factor on, so that a scale of the inputs is but a scale of the first "
        "weights and later intercepts: the network can represent the same functions. At this rate, with its warm-up, "
        "the larger steps did not go too far.",
    ),
    Question(
        "weights of zero",
        ("--initializer", "zeros"),
        title="all weights start at zero?",
        usual="the units of a layer all get the same gradient and stay alike, and the network does not learn.",
        expected=(FAILS,),
        agrees="Behind ReLUs they get none at all: every hidden output is 0, so that neither the last layer's weights "
        "nor any before them have a gradient. Only the last intercepts learn, and all that they can say is how "
        "frequent the classes are: answering {frequent} always is wrong on {frequent_error:.2f} % of the test set.",
        disagrees="Behind ReLUs they should get none at all, as every hidden output is 0, and only the last "
        "intercepts should learn: answering {frequent} always is wrong on {frequent_error:.2f} % of the test set. "
        "Something breaks the tie.",
    ),
    Question(
        "no intercepts",
        ("--no-bias",),
        title="there are no intercepts?",
        usual="the threshold of every unit is stuck at zero, so that the network can tell less apart.",
        expected=(FAILS, HURTS),
        agrees="The boundary of every unit goes through the origin, and twice the input gives twice the logits but "
        "never another answer. The intercepts are 236 of 61,706 parameters, and here they matter.",
        disagrees="Twice the input gives twice the logits and never another answer, but digits ask for no more: the "
        "background is -0.1 and not 0, so that it can do what an intercept does, and the classes are about equally "
        "frequent. The intercepts are 236 of 61,706 parameters.",
    ),
    Question(
        "batches of one",
        ("--batch-size", "1", "--learning-rate", f"{LENET.peak(1):g}"),
        EPOCHS_OF_ONE,
        title="every batch is a single image?",
        usual="the gradient of one image is so noisy that training wavers, and it takes long.",
        expected=(FAILS, HURTS, SLOWER),
        agrees="One image's gradient points only roughly where the mean of a batch does; and what a step costs "
        "whatever its size, such as the calls into TensorFlow and the update of all weights, is paid for every image.",
        disagrees="The noise of small steps averages out along the way.",
        note="The rate is in proportion to the batch, so that many small steps go about as far as a large one. With a "
        "step for every image this run was given {own_epochs} of {epochs} epochs; after as many the baseline stood at "
        "{early_error:.2f} %.",
    ),
    Question(
        "the whole set as one batch",
        ("--batch-size", "all", "--learning-rate", f"{WHOLE_SET_RATE:g}"),
        title="the whole set is one batch?",
        usual="the gradient is exact, but with one step an epoch there are far too few of them.",
        expected=(FAILS, HURTS),
        agrees="It has seen as many images as the baseline, with {steps:,} updates in place of {base_steps:,}. A "
        "larger batch takes noise off the gradient; but how far a step may go is limited by the curvature of the loss, "
        "too, so that better steps do not make up for fewer.",
        disagrees="It has seen as many images as the baseline, with {steps:,} updates in place of {base_steps:,}, and "
        "they were enough.",
        note=f"The rate is {WHOLE_SET_RATE:g}, of {TRIED_RATES} the one with the smallest test error after ten steps "
        "on the first 6,000 images; in proportion to the batch it would be {whole_rate:.3g}.",
    ),
    Question(
        "no shuffling",
        ("--no-shuffle",),
        title="the images come class by class, unshuffled?",
        usual="the network learns one class at a time, and forgets those before.",
        expected=(FAILS, HURTS),
        agrees="For about {class_steps:,} steps on end all images are of one class, and the shortest way down is to "
        "answer it whatever the image; then comes the next. The training loss is the mean over such steps and says "
        "nothing about the classes that came earlier.",
        disagrees="For about {class_steps:,} steps on end all images are of one class, but they do not overwrite what "
        "the network knows of the others.",
    ),
)

TRAININGS = (BASELINE, *QUESTIONS)


class Outcome(NamedTuple):
    """What train.py came to, and in what time: its result, or where it diverged, the error that it ended with."""

    seconds: float
    result: dict[str, Any] | None
    diverged: str = ""

    @property
    def error(self) -> float:
        """On the test set, in percent."""
        return 100 * (1 - self.result["eval_top1"])

    @property
    def loss(self) -> float:
        """In training, the mean of the last epoch."""
        return self.result["history"][-1]["loss"]

    @property
    def epoch_seconds(self) -> float:
        """For an epoch and its share of the rest."""
        return self.seconds / self.result["epochs"]

    def error_after(self, epochs: float) -> float:
        """On the test set, in percent, at the end of the epoch that is nearest."""
        entry = min(self.result["history"], key=lambda entry: abs(entry["epoch"] - epochs))
        return 100 * (1 - entry["eval_top1"])


class Setting(NamedTuple):
    """In what the trainings are alike. ``train`` and ``test`` count the images of each class."""

    epochs: int
    train: Counter[str]
    test: Counter[str]
    machine: str

    def error_of(self, name: str) -> float:
        """Test error in percent of whoever answers the class ``name`` always."""
        return 100 * (1 - self.test[name] / self.test.total())


def main() -> int:
    """The command; returns its exit code."""
    args = parse()
    return guarded("mnist_questions.py", lambda: run(args))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = Parser(prog="mnist_questions.py", description=__doc__.splitlines()[0], epilog=__doc__.split("\n", 2)[2])
    parser.add_argument("mnist", metavar="MNIST_FOLDER", type=Path, help="with the four IDX files")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="a folder (default: docs)")
    parser.add_argument("--epochs", type=int, default=LENET.epochs, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="a new folder, to keep shards, checkpoints and results"
    )
    args = parser.parse_args()
    if args.epochs < 1:
        parser.error(f"--epochs {args.epochs}: give 1 or more")
    if not args.out.is_dir():
        parser.error(f"--out {args.out}: no folder")
    return args


def run(args: argparse.Namespace) -> None:
    """Pack, train, write the document and its chart."""
    if find_spec("matplotlib") is None:
        raise IngestError("the chart needs matplotlib: pip install 'ingest-toolkit[bench]'")
    sources = [images_file(args.mnist, name) for name in ("train", "t10k")]
    with workplace(args.keep) as folder:
        for source, name in zip(sources, ("train", "test")):
            ingest.build_shards(source, folder / name, format="tfrecord")
        outcomes = [train(BASELINE, folder, args.epochs)]
        refuse_bad(outcomes[0])
        outcomes += [train(question, folder, args.epochs) for question in QUESTIONS]
        setting = Setting(args.epochs, classes(folder / "train"), classes(folder / "test"), machine())
    draw_chart(outcomes, args.out / "mnist-questions.png")
    (args.out / "mnist-questions.md").write_text(document(outcomes, setting))


def images_file(folder: Path, name: str) -> Path:
    """The IDX file of the images of a set; its labels lie beside it."""
    for path in (folder / f"{name}-images-idx3-ubyte{suffix}" for suffix in (".gz", "")):
        if path.is_file():
            return path
    raise SourceError(f"{folder}: holds no {name}-images-idx3-ubyte, gzipped or not")


@contextmanager
def workplace(keep: Path | None) -> Iterator[Path]:
    """A folder to work in, which goes with the block unless it is to be kept."""
    if keep is None:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
        return
    try:
        # A folder that exists may hold another training, which train.py would go on with.
        keep.mkdir(parents=True)
    except OSError as error:
        raise IngestError(f"{keep}: cannot be made ({error.strerror}): give a new folder") from error
    yield keep


def train(question: Question, folder: Path, epochs: int) -> Outcome:
    """Run train.py for a question. Raises IngestError where it fails, other than by diverging."""
    epochs = question.epochs(epochs)
    print(f"{question.name}: {' '.join(['train.py', '--epochs', str(epochs), *question.options])}", file=sys.stderr)
    place = folder / question.name.replace(" ", "-")
    result = place.with_suffix(".json")
    words = ["--model", "lenet", "--data", folder / "train", "--eval-data", folder / "test", "--model-dir", place,
             "--epochs", epochs, "--json", result, *question.options]  # fmt: skip
    command = [sys.executable, str(ROOT / "train.py"), *map(str, words)]
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - start
    found = json.loads(result.read_text()) if result.exists() else {}
    if done.returncode == 0:
        return Outcome(seconds, found)
    if found.get("diverged"):
        return Outcome(seconds, None, found["error"])
    raise IngestError(f"train.py failed: {(done.stderr.splitlines() or ['without a word'])[-1]}")


def refuse_bad(baseline: Outcome) -> None:
    """Raises IngestError if the baseline is no better than a change that fails."""
    if (word := verdict(baseline, baseline)) in (DIVERGED, FAILS):
        what = baseline.diverged or f"a test error of {baseline.error:.2f} %"
        raise IngestError(f"the baseline {word} ({what}): there is nothing to compare with: try more --epochs")


def classes(shards: Path) -> Counter[str]:
    """How many images there are of each class."""
    return Counter(record.synset for record in Dataset(shards))


def machine() -> str:
    """What it ran on and with: cores, GPUs, versions."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from tensorflow import config

    gpus = len(config.list_physical_devices("GPU"))
    versions = f"Python {platform.python_version()} and TensorFlow {version('tensorflow')}"
    return f"{len(os.sched_getaffinity(0))} cores, {gpus or 'no'} GPU{'s' if gpus > 1 else ''}, with {versions}"


def verdict(outcome: Outcome, baseline: Outcome) -> str:
    """What a change did, in a word or two: a function of the measurements and the thresholds above."""
    if outcome.result is None:
        return DIVERGED
    if outcome.error > FAILING_ERROR:
        return FAILS
    if outcome.error > MUCH * baseline.error:
        return HURTS
    return SLOWER if outcome.epoch_seconds > MUCH * baseline.epoch_seconds else NO_HARM


def document(outcomes: list[Outcome], setting: Setting) -> str:
    """The page, from the outcomes of TRAININGS, in their order."""
    verdicts = [verdict(outcome, outcomes[0]) for outcome in outcomes]
    sections = [section(question, outcome, outcomes[0], setting) for question, outcome in zip(QUESTIONS, outcomes[1:])]
    rows = [row(*columns) for columns in zip(TRAININGS, outcomes, ["", *verdicts[1:]])]
    return "\n".join([introduction(setting), *rows, CHART, *sections])


def introduction(setting: Setting) -> str:
    """What was run, how, and what the verdicts mean; ends with the table's head."""
    option = "" if setting.epochs == LENET.epochs else f" --epochs {setting.epochs}"
    what = (
        "LeNet-5 learns the digits of MNIST seven times: once as it should, the baseline, and six times with one thing "
        f"changed. It is trained on {setting.train.total():,} images and tested on {setting.test.total():,} others: "
        f"{setting.epochs} epochs in batches of {LENET.batch_size}, by SGD with momentum, at a rate that warms up to "
        f"{LENET.learning_rate:g} and then falls to zero along a cosine. The command"
    )
    how = (
        "packs both sets, trains, and writes this page. All numbers and verdicts in it are what it measured on "
        f"{setting.machine}. Seconds are those of the whole command, with its start and a test after each epoch. Each "
        "training is a single run of one seed: small differences mean little."
    )
    verdicts = (
        f"A change **fails** if the test error is above {FAILING_ERROR:g} %; it **hurts** if it is more than {MUCH:g} "
        f"times the baseline's; it is **slower** if it does neither, but takes more than {MUCH:g} times as long for an "
        "epoch; else there is **no harm**. Where the loss was no number any more, training has **diverged** and ended."
    )
    command = f"```sh\npython benchmarks/mnist_questions.py MNIST_FOLDER{option}\n```"
    return "\n\n".join(["# What happens if ...", wrapped(what), command, wrapped(how), wrapped(verdicts), HEAD])


def wrapped(text: str) -> str:
    """A paragraph in lines as long as those of other pages."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


HEAD = """\
| what was changed | epochs | steps | seconds | test error | training loss, last epoch | verdict |
| --- | --- | --- | --- | --- | --- | --- |"""

CHART = """
![Test error by epoch and training loss by step of the seven trainings](mnist-questions.png)
"""


def row(question: Question, outcome: Outcome, word: str) -> str:
    """A line of the table."""
    change = question.name + (f": `{' '.join(question.options)}`" if question.options else "")
    epochs = steps = error = loss = "-"
    if result := outcome.result:
        epochs, steps = f"{result['epochs']:g}", f"{result['steps']:,}"
        error, loss = f"{outcome.error:.2f} %", f"{outcome.loss:,.4f}"
    return f"| {change} | {epochs} | {steps} | {outcome.seconds:,.0f} | {error} | {loss} | {word} |"


def section(question: Question, outcome: Outcome, baseline: Outcome, setting: Setting) -> str:
    """A question's usual answer, what was measured, whether the two agree, and why."""
    word = verdict(outcome, baseline)
    agrees = word in question.expected
    why = question.agrees if agrees else LOST if word == DIVERGED else question.disagrees
    known = facts(question, outcome, baseline, setting)
    conclusion, why, note = (text.format(**known) for text in (CONCLUSIONS[word], why, question.note))
    told = [
        f"The usual answer: {question.usual}",
        measured(outcome, baseline, setting),
        f"{conclusion}: the measurement {'agrees' if agrees else 'disagrees'}.",
        why,
        note,
    ]
    return f"## ... {question.title}\n\n{wrapped(' '.join(filter(None, told)))}\n"


LOST = "The steps went further than the curvature of the loss allows, each further than the one before."

CONCLUSIONS = {
    DIVERGED: "It has **diverged**",
    FAILS: "It **fails**",
    HURTS: "It **hurts**",
    SLOWER: "It is **slower**, {epoch_seconds:.1f} s an epoch in place of {base_epoch_seconds:.1f} s, without harm to "
    "the error",
    NO_HARM: "There is **no harm**",
}


def measured(outcome: Outcome, baseline: Outcome, setting: Setting) -> str:
    """The numbers of a training beside the baseline's, and whether they are those of one answer to everything."""
    if outcome.result is None:
        return f'Measured: train.py ended with "{outcome.diverged}".'
    numbers = (
        f"Measured after {outcome.result['steps']:,} steps: a test error of {outcome.error:.2f} %, the baseline's is "
        f"{baseline.error:.2f} %, and a training loss of {outcome.loss:,.4f}, the baseline's is {baseline.loss:,.4f}."
    )
    answer = only_answer(outcome, setting)
    blind = f" It is the error of answering {answer} always, as if the image made no difference."
    return numbers + blind if answer else numbers


def only_answer(outcome: Outcome, setting: Setting) -> str | None:
    """The class that is as often wrong as the training if answered always; None if there is none."""
    half_a_digit = 0.005
    return next((name for name in setting.test if abs(setting.error_of(name) - outcome.error) < half_a_digit), None)


def facts(question: Question, outcome: Outcome, baseline: Outcome, setting: Setting) -> dict[str, Any]:
    """What the prose may name; of one that diverged, only what is the baseline's and the data's."""
    frequent = setting.train.most_common(1)[0][0]
    own_epochs = question.epochs(setting.epochs)
    known = {
        "base_steps": baseline.result["steps"],
        "base_epoch_seconds": baseline.epoch_seconds,
        "epochs": setting.epochs,
        "own_epochs": own_epochs,
        "early_error": baseline.error_after(own_epochs),
        "frequent": frequent,
        "frequent_error": setting.error_of(frequent),
        "whole_rate": LENET.peak(setting.train.total()),
        "class_steps": round(baseline.result["steps"] / baseline.result["epochs"] / len(setting.train)),
    }
    own = outcome.result and {"steps": outcome.result["steps"], "epoch_seconds": outcome.epoch_seconds}
    return {**known, **(own or {})}


# Okabe and Ito's colours, which colour-blind people tell apart; each has a mark of its own, too.
STYLES = (
    ("#000000", "o"), ("#e69f00", "s"), ("#56b4e9", "^"), ("#009e73", "v"), ("#0072b2", "D"), ("#d55e00", "P"),
    ("#cc79a7", "X"),
)  # fmt: skip


def draw_chart(outcomes: list[Outcome], path: Path) -> None:
    """Test error by epoch, training loss by step; of one that diverged there is but its name."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (errors, losses) = pyplot.subplots(1, 2, figsize=(9.6, 4.4))
    for question, outcome, (color, mark) in zip(TRAININGS, outcomes, STYLES):
        history = outcome.result["history"] if outcome.result else []
        look = {"color": color, "marker": mark, "markersize": 4, "linewidth": 1.4}
        label = question.name if outcome.result else f"{question.name}: diverged"
        errors.plot([entry["epoch"] for entry in history], [100 * (1 - entry["eval_top1"]) for entry in history],
                    label=label, **look)  # fmt: skip
        losses.plot([entry["step"] for entry in history], [entry["loss"] for entry in history], **look)
    errors.set(title="test error in %, by epoch", yscale="log")
    errors.xaxis.get_major_locator().set_params(integer=True)
    losses.set(title="training loss since the last mark, by step", xscale="log", yscale="log")
    errors.yaxis.set_major_formatter("{x:g}")
    for panel in (errors, losses):
        panel.title.set_fontsize(10)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    figure.legend(loc="lower center", ncol=4, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
