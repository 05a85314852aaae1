"""What an option may be: each is of its type, or refused in one line that names it, before anything is begun."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ingest
from ingest.dataset.dataset import Dataset
from ingest.errors import OptionError
from ingest.loading.options import LoaderOptions
from ingest.packing import build
from ingest.packing.options import BuildOptions
from ingest.profiling import ProfileOptions
from ingest.tools import convert, inspection, verify
from ingest.tools.synthesize import SynthOptions

WHOLE = ["64", "", 32.0, np.float32(3), True, np.True_, (64, 48), [64], {}, np.array([1, 2]), float("nan"), 1j, b"1"]
NUMBERS = ["0.5", True, (0.5,), np.array([0.5, 0.6]), 1j, float("nan"), 10**400]
FLAGS = ["no", "yes", "", 0, 1, 1.0, None, [], np.array([True, False])]
STRINGS = [1, None, b"lmdb", ["lmdb"], ("keep",), True, float("nan")]

BUILD = {"format": "lmdb"}
BATCH = {"batch_size": 4, "training": True}
CASES = [
    *[
        (LoaderOptions, BATCH, name, value)
        for name in ("batch_size", "image_size", "seed", "start_batch", "num_shards", "workers", "epochs")
        for value in (*WHOLE, -1, 2**70, *([] if name in ("workers", "epochs") else [None]))
    ],
    *[(LoaderOptions, BATCH, "min_crop_area", value) for value in (*NUMBERS, None, 0, -1, 1.5, float("inf"))],
    *[(LoaderOptions, BATCH, name, value) for name in ("training", "augment", "shuffle") for value in FLAGS],
    *[
        (BuildOptions, BUILD, name, value)
        for name in ("seed", "quality", "shards", "workers", "resize")
        for value in (*WHOLE, -1, 2**70, *([None] if name in ("seed", "quality") else []))
    ],
    *[(BuildOptions, BUILD, name, value) for name in ("format", "encoding", "on_bad") for value in STRINGS],
    *[(BuildOptions, BUILD, "scheduler", value) for value in STRINGS if value is not None],
    *[(SynthOptions, {}, name, value) for name in ("classes", "images", "seed", "workers") for value in (*WHOLE, -1)],
    *[(ProfileOptions, {}, name, value) for name in ("batch_size", "image_size", "workers") for value in (*WHOLE, -1)],
    *[
        (ProfileOptions, {}, name, value)
        for name in ("seconds", "step_milliseconds")
        for value in (*NUMBERS, 0, -1, float("inf"))
    ],
    *[(ProfileOptions, {}, "against", value) for value in ("naive", None, 1, [1], (None,), ("dali",))],
    *[(ProfileOptions, {}, name, value) for name in ("model", "target") for value in (1, b"100", ["100"], True)],
    *[(ProfileOptions, {}, "apply", value) for value in FLAGS],
]


@pytest.mark.parametrize(("options", "others", "name", "value"), CASES, ids=repr)
def test_what_is_no_value_is_refused_by_name(options: type, others: dict[str, Any], name: str, value: object):
    with pytest.raises(OptionError) as refused:
        options(**{**others, name: value})
    said = str(refused.value)
    assert name.removesuffix("_milliseconds") in said or (name, value) == ("against", ("dali",)), said
    assert ": give " in said and "\n" not in said and len(said) < 200, said


@pytest.mark.parametrize("face", [ingest.dataflow, ingest.input_fn])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("image_size", "64", "image_size is '64': give a whole number"),
        ("image_size", (64, 48), "image_size is (64, 48): give a whole number"),
        ("batch_size", 32.0, "batch_size is 32.0: give a whole number"),
        ("batch_size", 0, "batch_size is 0: give 1 to 1000000"),
        ("workers", True, "workers is True: give a whole number"),
        ("min_crop_area", float("nan"), "min_crop_area is nan: give 0.001 to 1"),
        ("training", "yes", "training is 'yes': give True or False"),
        ("shuffle", None, "shuffle is None: give True or False"),
    ],
)
def test_both_faces_refuse_it(shards: dict[str, Path], face: Any, name: str, value: object, message: str):
    with pytest.raises(OptionError) as refused:
        face(shards["lmdb"], **{**BATCH, name: value})
    assert str(refused.value) == message or str(refused.value).startswith(f"{message},")


def test_numbers_of_numpy_are_numbers(shards: dict[str, Path]):
    given = LoaderOptions(
        batch_size=np.int64(7),
        training=np.True_,
        image_size=np.uint8(32),
        seed=np.uint64(2**64 - 1),
        workers=np.int32(0),
        min_crop_area=np.float32(0.5),
        epochs=np.array(2),
    )
    assert given == LoaderOptions(
        batch_size=7, training=True, image_size=32, seed=2**64 - 1, workers=0, min_crop_area=0.5, epochs=2
    )
    assert {type(getattr(given, field.name)) for field in fields(given)} == {int, bool, float, tuple}
    assert type(LoaderOptions(batch_size=1, training=True, min_crop_area=1).min_crop_area) is float
    assert len(list(ingest.dataflow(shards["lmdb"], batch_size=np.int16(36), training=False, workers=np.int8(0)))) == 1


def test_a_build_with_numbers_of_numpy_is_the_same_build(photos: Path, tmp_path: Path):
    made = [
        ingest.build_shards(photos / "val", tmp_path / str(i), format="lmdb", seed=seed, shards=shards, workers=0)
        for i, (seed, shards) in enumerate(((np.int64(3), np.int32(2)), (3, 2)))
    ]
    assert made[0] == made[1]
    assert [json.loads((tmp_path / str(i) / "manifest.json").read_text())["seed"] for i in range(2)] == [3, 3]


@pytest.mark.parametrize("workers", ["2", 2.0, True, (2,), -1, 1025])
def test_workers_are_refused_before_anything_is_begun(shards: dict[str, Path], tmp_path: Path, workers: object):
    for use in (
        lambda: convert.convert(shards["lmdb"], tmp_path / "out", format="tfrecord", workers=workers),
        lambda: verify.verify(tmp_path / "nowhere", workers=workers),
        lambda: inspection.inspect(tmp_path / "nowhere", workers=workers),
        lambda: ingest.build_shards(tmp_path / "nowhere", tmp_path / "out", format="lmdb", workers=workers),
    ):
        with pytest.raises(OptionError, match="workers"):
            use()
    assert list(tmp_path.iterdir()) == []


def test_other_arguments(shards: dict[str, Path], tmp_path: Path):
    for value in (1, None, ["lmdb"]):
        with pytest.raises(OptionError, match="format"):
            convert.convert(shards["lmdb"], tmp_path / "out", format=value)
    with pytest.raises(OptionError, match="decode is 'no': give True or False"):
        verify.verify(shards["lmdb"], decode="no")


@pytest.mark.parametrize("name", ["batch_size", "seed", "workers", "epochs", "min_crop_area"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_number_too_long_to_write_down(name: str, sign: int):
    with pytest.raises(OptionError, match=f"^{name} is a number of 16,610 bits: give one of 64 at the most$"):
        LoaderOptions(**{**BATCH, name: sign * 10**5000})


class _Path:
    """A path of another library's."""

    def __init__(self, path: Path):
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


def test_an_empty_path_is_not_the_current_folder(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for use in (
        lambda: ingest.dataflow("", **BATCH),
        lambda: build.build_shards(photos / "val", "", format="lmdb", workers=0),
    ):
        with pytest.raises(OptionError, match="an empty path"):
            use()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [None, 5, b"shards", ["shards"], 1.5, True, {"a": "b" * 500}])
def test_what_is_no_path(path: Any, photos: Path, shards: dict[str, Path], tmp_path: Path):
    for use in (
        lambda: ingest.dataflow(path, **BATCH),
        lambda: ingest.input_fn(path, **BATCH),
        lambda: ingest.load_manifest(path),
        lambda: Dataset(path),
        lambda: verify.verify(path),
        lambda: inspection.inspect(path),
        lambda: convert.convert(path, tmp_path / "out", format="lmdb"),
        lambda: convert.convert(shards["lmdb"], path, format="tfrecord"),
        lambda: build.build_shards(path, tmp_path / "out", format="lmdb"),
        lambda: build.build_shards(photos / "val", path, format="lmdb", workers=0),
    ):
        with pytest.raises(OptionError, match=r"is no path: give a string or a pathlib\.Path$") as refused:
            use()
        assert len(str(refused.value)) < 200
    assert list(tmp_path.iterdir()) == []


def test_paths_of_any_kind(shards: dict[str, Path]):
    for path in (str(shards["lmdb"]), shards["lmdb"], _Path(shards["lmdb"])):
        assert len(Dataset(path)) == ingest.load_manifest(path).records == 36


def test_functions_that_take_options_have_their_signature(shards: dict[str, Path]):
    names = list(inspect.signature(ingest.build_shards).parameters)
    assert names == ["src", "out", *(field.name for field in fields(BuildOptions))]
    assert list(inspect.signature(ingest.dataflow).parameters) == ["shards", *(f.name for f in fields(LoaderOptions))]
    for arguments, message in (
        ({"out": "y", "format": "lmdb"}, "missing a required argument: 'src'"),
        ({"src": "x", "out": "y"}, "missing a required argument: 'format'"),
        ({"src": "x", "out": "y", "format": "lmdb", "nothing": 1}, "got an unexpected keyword argument 'nothing'"),
    ):
        with pytest.raises(TypeError, match=message):
            ingest.build_shards(**arguments)
    flow = ingest.dataflow(shards=shards["lmdb"], batch_size=4, training=False)
    assert flow.loader.options == LoaderOptions(batch_size=4, training=False)
