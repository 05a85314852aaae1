"""What cannot be done is said in one line, before anything is begun: each wrong flag of train.py, and each pair."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from support.images import image_bytes, put
from support.sources import idx
from support.trainings import one_line, said, train

import ingest

pytestmark = pytest.mark.slow

WEIGHTS = "variables/variables.data-00000-of-00001"


def pack(folder: Path, classes: int, format: str = "tfrecord") -> Path:
    """Grey images of 28 x 28."""
    labels = np.arange(40, dtype=np.uint8) % classes
    pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8)
    put(folder / "idx", {"t-images-idx3-ubyte": idx(pixels), "t-labels-idx1-ubyte": idx(labels)})
    ingest.build_shards(folder / "idx", folder / "shards", format=format, workers=0)
    return folder / "shards"


def untrained(folder: Path, **description: object) -> Path:
    """What a training of AlexNet leaves, but for its weights: what is checked first does not look at them."""
    folder.mkdir()
    with tf.Graph().as_default(), tf.Session() as session:
        tf.train.create_global_step()
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(folder / "model.ckpt"), global_step=1)
    shown = {"model": "alexnet", "image_size": 64, "channels": 3, "classes": ["a", "b"], "data": "", "records": 4}
    trained = {"batch_size": 4, "seed": 0, "tune": "all", "optimizer": "sgd", "mixed_precision": False}
    trained["variant"] = {"pixel_range": "1"}
    (folder / "run.json").write_text(json.dumps(shown | trained | description))
    return folder


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Shards, a training of LeNet, and what is broken, by the names that the words below have for them."""
    folder = tmp_path_factory.mktemp("flags")
    files = {f"{name}/{i}.png": image_bytes("PNG") for name in "ab" for i in range(2)}
    put(folder, {"text": b"text", "photo.png": image_bytes("PNG"), "two/manifest.json": b"{"})
    ingest.build_shards(put(folder / "photos", files), folder / "colours", format="tfrecord", workers=0)
    digits = pack(folder / "digits", 10)
    words = ("--model", "lenet", "--data", digits, "--model-dir", folder / "lenet", "--steps", 1, "--batch-size", 20)
    done = train(*words, "--workers", 0)
    assert done.returncode == 0, done.stderr
    export = folder / "lenet" / "saved_model" / "1"
    cut, changed, foreign, lost = (shutil.copytree(export, folder / n) for n in ("cut", "changed", "foreign", "lost"))
    (cut / WEIGHTS).write_bytes((cut / WEIGHTS).read_bytes()[:1000])
    flip(changed / WEIGHTS, (changed / WEIGHTS).stat().st_size // 2)
    shutil.rmtree(foreign / "assets.extra")
    shutil.rmtree(lost / "variables")
    # Weights of another network than run.json says.
    untrained(folder / "mixed", model="lenet", image_size=28, channels=1, classes=[str(i) for i in range(10)])
    untrained(folder / "vgg", model="vgg")
    (untrained(folder / "nameless") / "run.json").unlink()
    damaged = shutil.copytree(folder / "lenet", folder / "damaged")
    for data in damaged.glob("model.ckpt-*.data*"):
        data.write_bytes(b"")
    (folder / "empty").mkdir()
    names = ("lenet", "colours", "nowhere", "text", "empty", "run", "cut", "changed", "foreign", "lost", "mixed", "vgg")
    names += ("nameless",)
    others = {"nine": pack(folder / "nine", 9), "lmdb": pack(folder / "lmdb", 10, "lmdb"), "broken": folder / "two"}
    others |= {"digits": digits, "photo": folder / "photo.png", "export": export, "damaged": damaged}
    return {name: folder / name for name in names} | others | {"alexnet": untrained(folder / "alexnet")}


LENET = "--model lenet --data {digits} --model-dir {run} --workers 0"
RESNET = "--model resnet18 --data {colours} --model-dir {run} --image-size 32 --workers 0"
ALEXNET = "--model alexnet --data {colours} --model-dir {run} --workers 0"
PREDICT = "--predict {photo} --init-from {lenet}"
EVALUATE = "--evaluate --eval-data {digits} --init-from {lenet}"
FEATURES = "--features {digits} --out {run} --init-from {lenet}"
START = "--tune all --init-from"
HERE = f"{LENET} --model-dir {{lenet}} --batch-size 20"

USAGE = [
    # What is asked for.
    ("", "give --model NAME: lenet, alexnet, "),
    ("--summary", "give --model NAME: lenet, alexnet, "),
    ("--data {digits} --model-dir {run}", "give --model NAME: lenet, alexnet, "),
    ("--model lenet", "give --data SHARDS and --model-dir DIR, or --summary"),
    ("--model lenet --data {digits}", "error: give --model-dir DIR"),
    ("--model lenet --model-dir {run}", "error: give --data SHARDS"),
    ("--model vgg --data {digits} --model-dir {run}", "argument --model: invalid choice: 'vgg'"),
    (f"{LENET} --verbose", "unrecognized arguments: --verbose"),
    (f"{LENET} more", "unrecognized arguments: more"),
    (f"{LENET} --epoch 3", "unrecognized arguments: --epoch 3"),
    (f"{LENET} --tune", "argument --tune: expected one argument"),
    ("--predict --init-from {lenet}", "argument --predict: expected at least one argument"),
    (f"{EVALUATE} --predict {{photo}}", "--predict and --evaluate: give one at a time"),
    (f"{EVALUATE} --features {{digits}} --out {{run}}", "--features and --evaluate: give one at a time"),
    (f"{PREDICT} --features {{digits}} --out {{run}}", "--predict and --features: give one at a time"),
    (f"{PREDICT} --features {{digits}} --evaluate", "--predict and --features and --evaluate: give one at a time"),
    (f"{PREDICT} --summary", "--predict and --summary: give one at a time"),
    ("--model lenet --summary --synthetic", "--summary and --synthetic: give one at a time"),
    ("--model lenet --synthetic --evaluate --eval-data {digits}", "--evaluate and --synthetic: give one at a time"),
    # A trained network.
    ("--predict {photo}", "--predict needs --init-from CHECKPOINT|SAVEDMODEL"),
    ("--evaluate --eval-data {digits}", "--evaluate needs --init-from CHECKPOINT|SAVEDMODEL"),
    ("--features {digits} --out {run}", "--features needs --init-from CHECKPOINT|SAVEDMODEL"),
    ("--evaluate --init-from {lenet}", "--evaluate needs --eval-data SHARDS"),
    ("--features {digits} --init-from {lenet}", "--features needs --out FILE.npz"),
    (f"{PREDICT} --out {{run}}", "--out goes with --features"),
    ("--out {run}", "--out goes with --features"),
    (f"{LENET} --out {{nowhere}}", "--out goes with --features"),
    ("--features {digits} --init-from {lenet} --out {empty}", "argument --out: {empty}: a folder, or in a folder that"),
    ("--features {digits} --init-from {lenet} --out {nowhere}/x", "argument --out: {nowhere}/x: a folder, or in a fol"),
    *[
        (f"{PREDICT} {words}", f"{words.split()[0]} does not go with --predict: the network is trained")
        for words in (
            *("--data {digits}", "--eval-data {digits}", "--model-dir {run}", "--epochs 3", "--steps 3", "--tune all"),
            *("--batch-size 3", "--image-size 28", "--patience 3", "--optimizer adam", "--learning-rate 0.1"),
            *(
                "--schedule step",
                "--warm-up 0",
                "--weight-decay 0",
                "--label-smoothing 0",
                "--min-crop-area 1",
                "--no-bias",
            ),
            *("--pixel-range 1", "--initializer own", "--no-shuffle", "--loader naive", "--mixed-precision"),
            *("--deterministic", "--devices cpu:1", "--classes 10"),
        )
    ],
    (f"{FEATURES} --epochs 3", "--epochs does not go with --features: the network is trained"),
    (f"{FEATURES} --eval-data {{digits}}", "--eval-data does not go with --features: the network is trained"),
    (f"{EVALUATE} --image-size 28", "--image-size does not go with --evaluate: the network is trained"),
    (f"{EVALUATE} --batch-size all", "--batch-size all: give 1 or more, or, in training, 'all'"),
    (f"{EVALUATE} --batch-size 0", "--batch-size 0: give 1 or more"),
    (f"{EVALUATE} --model resnet18", "{lenet}: is of lenet, and --model is resnet18"),
    (f"{PREDICT} --model alexnet", "{lenet}: is of lenet, and --model is alexnet"),
    (f"{LENET} --init-from {{lenet}}", "give --init-from CHECKPOINT|SAVEDMODEL and --tune head|all together"),
    (f"{LENET} --tune head", "give --init-from CHECKPOINT|SAVEDMODEL and --tune head|all together"),
    (f"{LENET} --init-from {{lenet}} --tune body", "argument --tune: invalid choice: 'body'"),
    # The recipe.
    (f"{LENET} --epochs 3 --steps 3", "argument --steps: not allowed with argument --epochs"),
    (f"{LENET} --epochs 0", "--epochs 0.0: give "),
    (f"{LENET} --epochs nan", "--epochs nan: give "),
    (f"{LENET} --epochs inf", "--epochs inf: give "),
    (f"{LENET} --epochs many", "argument --epochs: invalid float value: 'many'"),
    (f"{LENET} --steps 0", "--steps 0: give 1 or more"),
    (f"{LENET} --steps -1", "--steps -1: give 1 or more"),
    (f"{LENET} --steps 1.5", "argument --steps: invalid int value: '1.5'"),
    (f"{LENET} --batch-size x", "--batch-size x: give 1 or more, or, in training, 'all'"),
    (f"{LENET} --batch-size 0", "--batch-size 0: give 1 or more"),
    (f"{LENET} --batch-size -1", "--batch-size -1: give 1 or more"),
    (f"{LENET} --batch-size 1.5", "--batch-size 1.5: give 1 or more"),
    (f"{LENET} --batch-size 10000000", "--batch-size 10000000: give 1 to 1,000,000"),
    (f"{LENET} --learning-rate -1", "--learning-rate -1.0: give 0 to 1,000,000"),
    (f"{LENET} --learning-rate nan", "--learning-rate nan: give 0 to 1,000,000"),
    (f"{LENET} --weight-decay -1", "--weight-decay -1.0: give 0 to 1,000,000"),
    (f"{LENET} --warm-up 2", "--warm-up 2.0: give 0 to 1"),
    (f"{LENET} --label-smoothing 2", "--label-smoothing 2.0: give 0 to 0.99"),
    (f"{LENET} --label-smoothing -0.1", "--label-smoothing -0.1: give 0 to 0.99"),
    (f"{RESNET} --min-crop-area 0", "min_crop_area is 0.0: give 0.001 to 1"),
    (f"{RESNET} --min-crop-area 1.5", "min_crop_area is 1.5: give 0.001 to 1"),
    (f"{LENET} --min-crop-area 0.5", "--min-crop-area does nothing where whole images are shown"),
    (f"{LENET} --optimizer adam", "--optimizer adam needs --learning-rate R: the recipe's is for sgd"),
    ("--model lenet --synthetic --optimizer adam", "--optimizer adam needs --learning-rate R: the recipe's is for sgd"),
    (f"{LENET} --no-bias {START} {{lenet}}", "--no-bias: --init-from has intercepts"),
    (f"{LENET} --pixel-range 255 {START} {{lenet}}", "--pixel-range 255: --init-from was trained on standard"),
    (f"{LENET} --optimizer lamb", "argument --optimizer: invalid choice: 'lamb'"),
    (f"{LENET} --schedule linear", "argument --schedule: invalid choice: 'linear'"),
    (f"{LENET} --patience 3", "--patience needs --eval-data SHARDS"),
    (f"{LENET} --patience 0", "--patience 0: give 1 or more"),
    (f"{LENET} --patience 0 --eval-data {{digits}}", "--patience 0: give 1 or more"),
    (f"{LENET} --patience -1 --eval-data {{digits}}", "--patience -1: give 1 or more"),
    (f"{LENET} --pixel-range 2", "argument --pixel-range: invalid choice: '2'"),
    (f"{LENET} --initializer ones", "argument --initializer: invalid choice: 'ones'"),
    # What is shown.
    (f"{LENET} --image-size 11", "--image-size 11: too small for lenet: give at least 12"),
    (f"{LENET} --image-size 0", "--image-size 0: too small for lenet"),
    (f"{LENET} --image-size -28", "--image-size -28: too small for lenet"),
    (f"{LENET} --image-size 100000", "--image-size 100000: give 10,000 at the most"),
    (f"{RESNET} --image-size 31", "--image-size 31: too small for resnet18: give at least 32"),
    (f"{ALEXNET} --image-size 62", "--image-size 62: too small for alexnet: give at least 63"),
    (
        "--model alexnet-lecture --summary --image-size 60",
        "--image-size 60: too small for alexnet-lecture: give at lea",
    ),
    ("--model lenet --synthetic --image-size 11", "--image-size 11: too small for lenet: give at least 12"),
    (f"{LENET} --classes 10", "--classes goes with --summary and --synthetic"),
    ("--model lenet --summary --classes 0", "--classes 0: give 1 or more"),
    ("--model lenet --summary --classes 1000001", "--classes 1000001: give 1,000,000 at the most"),
    ("--model lenet --summary --image-size 10001", "--image-size 10001: give 10,000 at the most"),
    ("--model resnet18 --synthetic --image-size 999999", "--image-size 999999: give 10,000 at the most"),
    ("--model lenet --synthetic --classes -1", "--classes -1: give 1 or more"),
    (f"{LENET} --seed -1", "seed is -1: give 0 to "),
    (f"{LENET} --seed 18446744073709551616", "seed is 18446744073709551616: give 0 to "),
    (f"{LENET} --workers -1", "-1 workers: give 0 (all in this process) to "),
    (f"{LENET} --json {{nowhere}}/x.json", "argument --json: {nowhere}/x.json: a folder, or in a folder that does not"),
    # What computes and what loads.
    (f"{LENET} --devices cpu:3", "--batch-size 64: cannot be divided among 3 devices"),
    (f"{LENET} --loader dali", "argument --loader: invalid choice: 'dali'"),
    (f"{LENET} --loader naive --devices cpu:2", "--loader naive feeds one device: give --devices cpu:1"),
    (f"{LENET} --loader naive --no-shuffle", "--no-shuffle: one class after the other is not in --loader naive"),
    (f"{LENET} --data {{lmdb}} --loader tf.data", "{lmdb}: tf.data reads tfrecord, and these shards are lmdb"),
    ("--model lenet --synthetic --devices cpu:3", "--batch-size 64: cannot be divided among 3 devices"),
    ("--model lenet --synthetic --steps 0", "--steps 0: give 1 or more"),
    ("--model lenet --synthetic --batch-size all", "--batch-size all: give a number with --synthetic"),
    ("--model lenet --synthetic --batch-size 0", "--batch-size 0: give 1 or more"),
    *[
        (f"--model lenet --synthetic {words}", f"{words.split()[0]} does not go with --synthetic: it is one batch")
        for words in (
            *("--data {digits}", "--eval-data {digits}", "--model-dir {run}", "--epochs 3", "--patience 3"),
            *("--init-from {lenet}", "--tune all", "--no-shuffle", "--loader naive"),
        )
    ],
    # Devices.
    (f"{LENET} --devices tpu:1", "--devices tpu:1: give cpu:N, for N logical devices, or gpu:N"),
    (f"{LENET} --devices cpu", "--devices cpu: give cpu:N"),
    (f"{LENET} --devices cpu:0", "--devices cpu:0: give cpu:N"),
    (f"{LENET} --devices cpu:65", "--devices cpu:65: give cpu:N"),
    (f"{LENET} --devices gpu:64", "--devices gpu:64: TensorFlow finds "),
]

ERRORS = [
    # Data.
    (f"{LENET} --data {{nowhere}}", "holds no finished dataset"),
    (f"{LENET} --data {{text}}", "holds no finished dataset"),
    (f"{LENET} --data {{broken}}", "{broken}/manifest.json: cannot be read"),
    (f"{LENET} --eval-data {{empty}}", "holds no finished dataset"),
    (f"{LENET} --eval-data {{colours}}", "{colours}: its classes are not those of {digits}"),
    (f"{LENET} --eval-data {{nine}}", "{nine}: its classes are not those of {digits}, so its labels mean other things"),
    ("--evaluate --eval-data {nine} --init-from {lenet}", "{nine}: its classes are not those of {lenet}"),
    ("--evaluate --eval-data {colours} --init-from {export}", "{colours}: its classes are not those of {export}"),
    ("--evaluate --eval-data {nowhere} --init-from {lenet}", "holds no finished dataset"),
    ("--features {colours} --init-from {lenet} --out {run}", "{colours}: 3 channels, and {lenet} is of others"),
    ("--features {nowhere} --init-from {lenet} --out {run}", "holds no finished dataset"),
    ("--predict {nowhere} --init-from {lenet}", "{nowhere}: cannot be read (No such file or directory)"),
    ("--predict {text} {nowhere} --init-from {lenet}", "{text}: no image that can be decoded"),
    # What training starts from.
    (f"{LENET} {START} {{nowhere}}", "{nowhere}: no such checkpoint: give a --model-dir of train.py"),
    (f"{LENET} {START} {{text}}", "{text}: no such checkpoint: give a --model-dir of train.py"),
    (f"{LENET} {START} {{empty}}", "{empty}: neither a SavedModel nor a folder of checkpoints"),
    (f"{LENET} {START} {{digits}}", "{digits}: neither a SavedModel nor a folder of checkpoints"),
    (f"{LENET} {START} {{lenet}}/model.ckpt-2", "{lenet}/model.ckpt-2: no such checkpoint"),
    (f"{LENET} {START} {{cut}}", "{cut}/variables/variables: damaged"),
    (f"{LENET} {START} {{lost}}", "{lost}/variables/variables: damaged"),
    (f"{LENET} {START} {{foreign}}", "{foreign}/assets.extra: its checkpoints are none of ours"),
    (f"{LENET} {START} {{vgg}}", "{vgg}/run.json: its content is none of this version's (its model is 'vgg')"),
    (f"{RESNET} {START} {{lenet}}", "--init-from is of lenet, and --model is resnet18"),
    (f"{LENET} {START} {{alexnet}}", "--init-from is of alexnet, and --model is lenet"),
    (f"{LENET} --data {{colours}} {START} {{lenet}}", "--init-from is of images with 1 channels, and the data have 3"),
    (f"{LENET} --image-size 32 {START} {{lenet}}", "--image-size 32: --init-from has weights for 28"),
    (f"{ALEXNET} --image-size 96 {START} {{alexnet}}", "--image-size 96: --init-from has weights for 64"),
    # What is used.
    *[
        (f"{words} --init-from {{{place}}}", message)
        for words in ("--predict {photo}", "--evaluate --eval-data {digits}", "--features {digits} --out {run}")
        for place, message in (
            *(("nowhere", "no such checkpoint"), ("empty", "neither a SavedModel nor"), ("text", "no such checkpoint")),
            *(("cut", "{cut}/variables/variables: damaged"), ("foreign", "its checkpoints are none of ours")),
            *(("changed", "Checksum does not match"), ("mixed", "not found in checkpoint")),
        )
    ],
    # Where it is kept.
    (f"{LENET} --model-dir {{text}}", "{text}: cannot be used (File exists): give another --model-dir"),
    (f"{LENET} --model-dir {{damaged}} --batch-size 20", "{damaged}/model.ckpt-1: damaged ("),
    (
        f"{LENET} --model-dir {{vgg}}",
        "{vgg}/run.json: its content is none of this version's (its model is 'vgg'): put back",
    ),
    (f"{LENET} --model-dir {{nameless}}", "{nameless}: its checkpoints are none of ours: it has no run.json"),
    (f"{LENET} --model-dir {{lenet}}", "{lenet}: holds a run of other options (batch_size 20, now 64): give another"),
    (
        f"{LENET} --model-dir {{lenet}} --seed 1",
        "of other options (batch_size 20, now 64; seed 0, now 1): give another",
    ),
    (f"{HERE} --image-size 32", "{lenet}: holds a run of other options (image_size 28, now 32): give another"),
    (f"{HERE} --no-bias", "{lenet}: holds a run of other options (other variant): give another --model-dir"),
    (f"{HERE} --data {{nine}}", "{lenet}: holds a run of other options (other classes; other data): give another"),
    (f"{HERE} --optimizer adam --learning-rate 1", "{lenet}: holds a run of other options (optimizer sgd, now adam)"),
    (f"{HERE} --mixed-precision", "{lenet}: holds a run of other options (mixed_precision False, now True)"),
    (f"{RESNET} --model-dir {{lenet}}", "{lenet}: holds a run of other options (model lenet, now resnet18; "),
    (f"{LENET} --model-dir {{alexnet}} {START} {{lenet}}", "options (model alexnet, now lenet; "),
]


def contents(places: dict[str, Path]) -> dict[str, list[tuple[str, int]]]:
    """What must be as it was."""
    return {
        name: [(str(path), path.stat().st_mtime_ns) for path in sorted(places[name].rglob("*"))]
        for name in ("lenet", "damaged", "vgg", "alexnet", "empty")
    }


@pytest.mark.parametrize(("code", "words", "message"), [(2, *case) for case in USAGE] + [(1, *case) for case in ERRORS])
def test_what_cannot_be_done_is_one_line(places: dict[str, Path], code: int, words: str, message: str):
    before = contents(places)
    found, out, err = said([word.format(**places) for word in words.split()])
    assert (found, out) == (code, ""), err
    assert message.format(**places) in one_line(err)
    assert one_line(err).startswith("train.py: error: ")
    assert not places["run"].exists()
    assert contents(places) == before


TWO_HOSTS = '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}'


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--devices cpu:2", "--devices cpu:2: of several hosts (TF_CONFIG) each trains on one CPU: give cpu:1"),
        ("--loader naive", "--loader naive feeds one device: unset TF_CONFIG"),
        ("--loader naive --devices cpu:1", "--loader naive feeds one device: unset TF_CONFIG"),
    ],
)
def test_what_several_hosts_cannot_have_is_one_line(
    places: dict[str, Path], words: str, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TF_CONFIG", TWO_HOSTS)
    code, out, err = said([word.format(**places) for word in f"{LENET} {words}".split()])
    assert (code, out) == (2, "")
    assert message in one_line(err)
    assert not places["run"].exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "TF_CONFIG: cannot be used ("),
        ('{"task": {"type": "worker", "index": 0}}', "TF_CONFIG: cannot be used ('cluster')"),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "all hosts must be of the type worker"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "(worker 1 of 1)"),
        ('{"cluster": {"worker": ["a:1", "b:1", "c:1"]}, "task": {"type": "worker", "index": 0}}', "among 3 devices"),
    ],
)
def test_what_cannot_be_a_cluster_is_one_line(
    places: dict[str, Path], config: str, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TF_CONFIG", config)
    code, out, err = said([word.format(**places) for word in LENET.split()] + ["--devices", "cpu:1"])
    assert (code, out) == (2, "")
    assert message in one_line(err)
    assert not places["run"].exists()


def test_what_is_missing_is_asked_for_alone(places: dict[str, Path]):
    for words, missing in (("--data {digits}", "--model-dir DIR"), ("--model-dir {run}", "--data SHARDS")):
        code, _, err = said(["--model", "lenet", *(word.format(**places) for word in words.split())])
        assert (code, err) == (2, f"train.py: error: give {missing}\n")


def test_as_it_is_typed(places: dict[str, Path]):
    """In processes of their own, and of weights that are looked at only when training begins."""
    cases = [
        (
            1,
            f"{LENET} {START} {{changed}}",
            "{changed}/variables/variables: damaged (TensorBundle at {changed}/variables/variables shard 0",
        ),
        (
            1,
            f"{LENET} --model-dir {{run}}2 {START} {{mixed}}",
            "{mixed}/model.ckpt-1: its weights are not those of the",
        ),
        (2, f"{LENET} --patience 0", "--patience 0: give 1 or more"),
    ]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda case: train(*(word.format(**places) for word in case[1].split())), cases))
    assert [(each.returncode, each.stdout) for each in done] == [(code, "") for code, _, _ in cases]
    lines = [one_line(each.stderr) for each in done]
    assert [message.format(**places) in line for (_, _, message), line in zip(cases, lines, strict=True)] == [True] * 3
    assert list(places["run"].parent.glob("run*/model.ckpt*")) == []
    assert not places["run"].exists()
