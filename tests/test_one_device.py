"""One GPU, for which a CPU stands in; and what sessions and the synthetic batch are like on any device."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest
import tensorflow.compat.v1 as tf
from support.trainings import finish, read, start
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

import ingest
from models import NETWORKS, devices, run_dir, serving, training
from models.devices import Devices
from models.recipes import Ablation
from models.run_dir import RunConfig

pytestmark = pytest.mark.slow

STEPS = 30
HALF_PRECISION = {
    "auto_mixed_precision",
    "auto_mixed_precision_cpu",
    "auto_mixed_precision_mkl",
    "auto_mixed_precision_onednn_bfloat16",
}


@pytest.fixture(scope="module")
def trained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the same training without a strategy, on one GPU, and there with mixed precision."""
    folder = tmp_path_factory.mktemp("trained")
    words = ("--model", "lenet", "--data", digits, "--eval-data", digits, "--batch-size", 20, "--workers", 1)
    ways = {"cpu": ((), {}), "gpu": ((), {"ONE_GPU": "1"}), "half": (("--mixed-precision",), {"ONE_GPU": "1"})}
    for name, (more, environment) in ways.items():
        (folder / name).mkdir()
        log = folder / name / "log"
        arguments = (*words, *more, "--steps", STEPS, "--model-dir", folder / name / "run")
        finish(start(log, *arguments, **environment), log)
    return {name: folder / name for name in ways}


def test_one_gpu_trains_as_one_cpu(trained: dict[str, Path]):
    one, other = (read(trained[name] / "log") for name in ("cpu", "gpu"))
    assert len(other.losses) == STEPS
    assert other.losses == pytest.approx(one.losses, rel=1e-4)
    assert other.batches[:STEPS] == one.batches[:STEPS]


def test_only_training_is_in_16_bits(digits: Path, trained: dict[str, Path]):
    whole, half = (read(trained[name] / "log").losses for name in ("gpu", "half"))
    assert half != pytest.approx(whole, rel=1e-5)
    assert half == pytest.approx(whole, rel=0.1, abs=0.05)
    folder = trained["half"] / "run"
    history = json.loads((folder / "history.json").read_text())
    assert [entry["step"] for entry in history] == [10, 20, 30]
    # As --evaluate sees it, in a process that has never heard of float16.
    checkpoint = run_dir.Trained(str(folder / f"model.ckpt-{STEPS}"), run_dir.load_config(folder))
    found = serving.evaluate(checkpoint, ingest.input_fn(digits, batch_size=20, image_size=28, training=False))
    assert history[-1]["eval_loss"] == pytest.approx(float(found["cross_entropy"]), rel=1e-6)


def test_16_bits_are_off_unless_asked_for():
    def on(config: tf.ConfigProto) -> set[str]:
        rewrites = config.graph_options.rewrite_options
        states = {name: getattr(rewrites, name) for name in HALF_PRECISION}
        assert set(states.values()) <= {RewriterConfig.ON, RewriterConfig.OFF}  # and not DEFAULT
        return {name for name, state in states.items() if state == RewriterConfig.ON}

    cpu, gpu = Devices("CPU", 2), Devices("GPU", 1)
    configs = [devices.session_config(), *(devices.session_config(each, False) for each in (cpu, gpu))]
    assert [on(config) for config in configs] == [set(), set(), set()]
    assert on(devices.session_config(cpu, True)) == {"auto_mixed_precision_onednn_bfloat16"}
    assert on(devices.session_config(gpu, True)) == {"auto_mixed_precision"}
    used = serving._estimator(description(4), Path("unused"))
    assert on(used.config.session_config) == set()


def description(batch_size: int) -> RunConfig:
    return RunConfig(
        model="lenet",
        image_size=28,
        channels=1,
        classes=("a", "b"),
        data="",
        records=batch_size,
        batch_size=batch_size,
        seed=0,
        tune="all",
        optimizer="sgd",
        mixed_precision=False,
        variant=Ablation(),
    )


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        ((), {"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}'}),
        (("--mixed-precision",), {"ONE_GPU": "1"}),
        (("--devices", "cpu:2"), {}),
    ],
    ids=["no strategy", "one device", "two devices"],
)
def test_one_batch_is_trained_on_by_any_device(words: tuple[str, ...], environment: dict[str, str], tmp_path: Path):
    log = tmp_path / "log"
    arguments = (
        "--model",
        "lenet",
        "--synthetic",
        "--batch-size",
        8,
        "--steps",
        4,
        "--json",
        tmp_path / "json",
        *words,
    )
    finish(start(log, *arguments, **environment), log)
    assert len(read(log).losses) == 4
    assert json.loads((tmp_path / "json").read_text())["images_per_second"] > 0


def test_the_batch_is_where_the_network_is():
    """As the graph has it: no such device is needed for that."""
    job = training.TrainingJob(
        config=description(8),
        recipe=NETWORKS["lenet"].recipe,
        learning_rate=0.1,
        steps=10,
        folder=Path(),
        devices=Devices("GPU", 1),
    )
    with tf.Graph().as_default(), tf.distribute.OneDeviceStrategy("/GPU:0").scope():
        model = training._on_one_batch(job.config, 1)
        train_mode = tf.estimator.ModeKeys.TRAIN
        tf.distribute.get_strategy().extended.call_for_each_replica(
            model, (tf.constant(0), None, train_mode, job.params, tf.estimator.RunConfig(model_dir="unused"))
        )
        kept = {variable.op.name: variable for variable in tf.local_variables()}
        kernel = tf.trainable_variables()[0]
    assert [kept[name].shape.as_list() for name in ("images", "labels")] == [[8, 28, 28, 1], [8]]
    assert {kept["images"].device, kept["labels"].device} == {kernel.device}
    assert kernel.device.endswith("GPU:0")


def test_on_a_cpu_no_gpu_is_seen():
    """Nor more than asked for, where there are four."""
    four = [f"gpu{i}" for i in range(4)]
    with (
        patch.object(tf.config, "list_physical_devices", lambda kind: four if kind == "GPU" else ["cpu"]),
        patch.object(tf.config, "set_visible_devices") as see,
        patch.object(tf.config, "set_logical_device_configuration"),
        patch.object(tf.distribute, "MirroredStrategy"),
        patch.object(tf.distribute, "OneDeviceStrategy"),
        patch.object(tf.distribute.experimental, "MultiWorkerMirroredStrategy"),
        patch.object(devices.signal, "signal"),
    ):
        for found, visible in (
            (Devices("CPU", 1), []),
            (Devices("CPU", 2), []),
            (Devices("CPU", 1, host=1, hosts=2), []),
            (Devices("GPU", 1), four[:1]),
            (Devices("GPU", 3, hosts=2), four[:3]),
        ):
            see.reset_mock()
            devices.strategy(found)
            see.assert_called_once_with(visible, "GPU")
    assert devices.session_config(Devices("CPU", 2)).device_count == {"CPU": 2, "GPU": 0}
    assert devices.session_config(Devices("GPU", 3)).gpu_options.visible_device_list == "0,1,2"


def clustered(workers: object, index: object = 0, **more: object) -> str:
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}, **more})


TWO = ["a:1", "b:1"]


def test_a_cluster_is_read():
    assert devices.find("cpu:1", clustered(TWO, 1)) == Devices("CPU", 1, 1, 2)
    assert devices.find("cpu:1", clustered(TWO, "1", environment="cloud")) == Devices("CPU", 1, 1, 2)
    assert devices.find("cpu:1", clustered(["[::1]:2222", "node-2.x:65535"])).replicas == 2
    assert devices.find("cpu:2", clustered(TWO[:1])).replicas == 2
    assert devices.find("cpu:2", None).replicas == devices.find("cpu:2", "").replicas == 2


NO_JSON_OF_OURS = ("{", "[]", "1", "null", '"worker"', "{}", "[" * 100_000)
NO_LISTS = ("a:1", {"0": "a:1"}, None, 1)
NO_ADDRESSES = (1, None, "", "a", "a:", "a:0", "a:65536", "a\n:1", [], {}, ":1", "a:1 ", "a:\u0661", "\x1b[2J:1")
NO_INDICES = (0.0, 0.5, True, None, [], {}, "", "x", "0.5", -1, 2, 10**30, float("inf"), float("nan"), "9" * 5000)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        *[(text, "") for text in NO_JSON_OF_OURS],
        *[(clustered(each), "all hosts must be of the type worker") for each in NO_LISTS],
        *[(clustered([each, "b:1"]), f"worker {each!r}") for each in NO_ADDRESSES],
        *[(clustered(TWO, each), "") for each in NO_INDICES],
        (clustered([]), "worker 0 of 0)"),
        (clustered(["a:1", "a:1"]), "a worker is there twice"),
        (clustered(["a" * 10_000, "b:1"]), "worker 'aaa"),
        (json.dumps({"cluster": ["worker"], "task": {"type": "worker"}}), ""),
        (json.dumps({"cluster": {"worker": TWO}, "task": "worker"}), ""),
    ],
)
def test_what_is_no_cluster_is_refused(config: str, message: str):
    with pytest.raises(devices.ModelError) as raised:
        devices.find("cpu:1", config)
    assert f"TF_CONFIG: cannot be used ({message}" in str(raised.value)
    assert str(raised.value).isprintable() and len(str(raised.value)) < 400


def test_a_host_of_several_has_one_cpu():
    with pytest.raises(devices.ModelError, match=r"--devices cpu:2: of several hosts .* give cpu:1"):
        devices.find("cpu:2", clustered(TWO))
    for wanted in ("cpu:\u0661", "cpu:01x", "cpu:" + "9" * 5000):
        with pytest.raises(devices.ModelError, match="give cpu:N"):
            devices.find(wanted, None)
