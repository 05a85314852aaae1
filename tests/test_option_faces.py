"""Every option of the loader, through every face: it arrives and has its effect, or is refused by name."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ingest
import train as command
from ingest import cli
from ingest.baselines import BASELINES, check
from ingest.baselines.registry import COMMON
from ingest.dataset.dataset import Dataset
from ingest.errors import OptionError
from ingest.loading.batches import iter_batches
from ingest.loading.options import LoaderOptions, TransformOptions
from ingest.profiling import stages, throughput
from ingest.system.validation import declared
from ingest.tools import contact_sheet

REQUIRED = {"batch_size": 8, "training": True}
SMALL = {**REQUIRED, "image_size": 32, "workers": 0, "epochs": 1}

TRANSFORMS = [field.name for field in fields(TransformOptions)]
OPTIONS = [field.name for field in fields(LoaderOptions)]

# What other options must be for one to make sense.
COMPANIONS = {"shard_index": {"num_shards": 2}}

# Flags of train.py that have another name than the option, or are given otherwise.
TRAIN_FLAGS = {"shuffle": ["--no-shuffle"]}
NOT_IN_TRAIN = {
    "training": "training trains",
    "epochs": "its end is counted in steps",
    "start_batch": "it goes on from its checkpoint",
    "fields": "its networks see images alone",
    "shard_index": "TF_CONFIG says which host this is",
    "num_shards": "TF_CONFIG says how many hosts there are",
}


def another(name: str, options: type = LoaderOptions) -> Any:
    """A value of an option that is neither its default nor that of SMALL."""
    kind, _, option = declared(options)[name]
    default = SMALL.get(name, next(field.default for field in fields(options) if field.name == name))
    if kind is bool:
        return not default
    if option.choices:
        return next(choice for choice in option.choices if choice != default)
    if kind is float:
        high = 1.0 if option.high is None else option.high
        return (default + high) / 2 if default < high else (default + (option.low or 0.0)) / 2
    if kind is int:
        return (default or 0) + (2 if name == "epochs" else 1)
    assert name == "fields", f"{name} has a type that this test does not know: say which value is another"
    return ("key", "width", "number")


def flags(name: str, value: Any) -> list[str]:
    """How a command line gives a transform option."""
    flag = cli.flag_of(TransformOptions, name)
    return [flag] if isinstance(value, bool) else [flag, str(value)]


def content(batches: Any) -> list[list[Any]]:
    return [[np.asarray(column).tolist() for column in batch] for batch in batches]


def changed(name: str) -> dict[str, Any]:
    return {**SMALL, **COMPANIONS.get(name, {}), name: another(name)}


def loaded(shards: Path, options: dict[str, Any]) -> list[list[Any]]:
    return content(iter_batches(shards, LoaderOptions(**options)))


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_has_an_effect(shards: dict[str, Path], name: str):
    before = loaded(shards["lmdb"], {**SMALL, **COMPANIONS.get(name, {})})
    after = loaded(shards["lmdb"], changed(name))
    # Batches are the same for any number of workers: that is promised.
    assert (after == before) == (name == "workers")


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_arrives_in_the_dataflow(shards: dict[str, Path], name: str):
    flow = ingest.dataflow(shards["lmdb"], **changed(name))
    assert getattr(flow.loader.options, name) == another(name)
    assert content(flow) == loaded(shards["lmdb"], changed(name))


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_arrives_in_the_input_function(shards: dict[str, Path], name: str):
    expected = loaded(shards["lmdb"], changed(name))
    elements = list(ingest.input_fn(shards["lmdb"], **changed(name))())
    assert len(elements) == len(expected)
    for (features, labels), (images, *others) in zip(elements, expected, strict=True):
        columns = features if isinstance(features, dict) else {"images": features}
        assert columns.pop("images").numpy().tolist() == images
        assert labels.numpy().tolist() == others[0]
        wanted = dict(zip(another("fields"), others[1:])) if name == "fields" else {}
        assert columns.keys() == wanted.keys()
        for field, column in columns.items():
            shown = [x.decode() if isinstance(x, bytes) else x for x in column.numpy().tolist()]
            assert shown == wanted[field], field


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_arrives_in_training(shards: dict[str, Path], tmp_path: Path, name: str):
    if name in NOT_IN_TRAIN:
        flag = f"--{name.replace('_', '-')}"
        parser = command._parser()
        assert name == "epochs" or flag not in parser.format_help(), f"{flag} is there: {NOT_IN_TRAIN[name]}"
        return
    value = another(name)
    given = flags(name, value) if name in TRANSFORMS else TRAIN_FLAGS.get(name, [f"--{name.replace('_', '-')}", value])
    given = [str(word) for word in given]
    place = ["--data", str(shards["lmdb"]), "--model-dir", str(tmp_path / "run"), "--model", "resnet18"]
    args = command._parser().parse_args([*place, *given])
    inputs = command._training_inputs(args, command._checked(args), 0)
    assert getattr(inputs._loader.options, name) == value


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMS)
def test_an_option_arrives_in_every_stream_of_a_profile(
    shards: dict[str, Path], monkeypatch: pytest.MonkeyPatch, name: str, capsys: pytest.CaptureFixture[str]
):
    seen: list[LoaderOptions] = []

    def spy(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            seen.extend(arg for arg in (*args, *kwargs.values()) if isinstance(arg, LoaderOptions))
            return function(*args, **kwargs)

        return call

    for module, function in ((throughput, "stream"), (throughput, "alone"), (throughput, "in_a_process")):
        monkeypatch.setattr(module, function, spy(getattr(module, function)))
    monkeypatch.setattr(stages.Stages, "__init__", spy(stages.Stages.__init__))
    value = another(name, TransformOptions)
    words = ["profile", str(shards["lmdb"]), "--workers", "1", "--seconds", "0.1", "--image-size", "32"]
    assert cli.main([*words, "--batch-size", "4", *flags(name, value)]) == 0, capsys.readouterr().err
    assert len(seen) >= 6 and {getattr(options, name) for options in seen} == {value}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_an_option_arrives_in_the_profile_s_stages(shards: dict[str, Path], name: str):
    dataset, value = Dataset(shards["lmdb"]), another(name, TransformOptions)
    sampled = stages.sampled(dataset)
    shown = {}
    for options in ({}, {name: value}):
        timed = stages.Stages(dataset, LoaderOptions(**SMALL, **options))
        shown[bool(options)] = timed._out.copy()
    assert len(sampled) == len(dataset)
    assert not np.array_equal(shown[False], shown[True])


@pytest.mark.parametrize("name", TRANSFORMS)
def test_an_option_arrives_on_the_contact_sheet(shards: dict[str, Path], tmp_path: Path, name: str):
    value = another(name, TransformOptions)
    for file, given in (("before.png", []), ("after.png", flags(name, value))):
        words = ["inspect", str(shards["lmdb"]), "--workers", "0", "--sheet", str(tmp_path / file), *given]
        assert cli.main(words) == 0
    before, after = ((tmp_path / file).read_bytes() for file in ("before.png", "after.png"))
    contact_sheet.save(shards["lmdb"], tmp_path / "expected.png", TransformOptions(**{name: value}))
    assert before != after == (tmp_path / "expected.png").read_bytes()


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("baseline", BASELINES)
def test_a_baseline_honours_an_option_or_refuses_it_by_name(shards: dict[str, Path], baseline: str, name: str):
    dataset, options = Dataset(shards["tfrecord"]), LoaderOptions(**changed(name))
    if name in COMMON | BASELINES[baseline].honours:
        check(baseline, dataset, options)
    else:
        refused = {name, *COMPANIONS.get(name, {})}
        with pytest.raises(OptionError, match=rf"^({'|'.join(refused)}): the loader {baseline} does not know it"):
            check(baseline, dataset, options)


def test_other_values_are_within_their_bounds():
    for name in OPTIONS:
        option = declared(LoaderOptions)[name].option
        value = another(name)
        if isinstance(value, int | float):
            assert (option.low or -math.inf) <= value <= (option.high or math.inf)
