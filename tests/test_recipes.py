"""How networks are trained: the recipes' numbers, what the graph makes of them, starts and dropout from seeds alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from unittest.mock import Mock, patch

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from models import NETWORKS, classifier, layers
from models.classifier import Params
from models.recipes import ALEXNET, LENET, RESNET, Ablation, TrainingRecipe

Values = dict[str, np.ndarray]


def params(
    network: str = "lenet", recipe: TrainingRecipe = LENET, variant: Ablation | None = None, **others: object
) -> Params:
    options = {"classes": ("a", "b", "c"), "learning_rate": 0.1, "steps": 90, "steps_per_epoch": 9, **others}
    return Params(network, recipe=recipe, variant=variant or Ablation(), **options)


def images(size: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, size, size, channels), np.uint8)


def test_every_network_has_the_recipe_that_is_documented():
    alike = {"optimizer": "sgd", "momentum": 0.9, "label_smoothing": 0}
    lenet = {"batch_size": 64, "epochs": 10, "learning_rate": 0.05, "weight_decay": 5e-4, "warm_up": 0.05}
    alexnet = {"batch_size": 128, "epochs": 90, "learning_rate": 0.01, "weight_decay": 5e-4, "warm_up": 0}
    resnet = {"batch_size": 256, "epochs": 90, "learning_rate": 0.1, "weight_decay": 1e-4, "warm_up": 5 / 90}
    families = {
        "lenet": {**alike, **lenet, "schedule": "cosine", "transforms": {"augment": False}},
        "alexnet": {**alike, **alexnet, "schedule": "step", "transforms": {}},
        "resnet": {**alike, **resnet, "schedule": "step", "transforms": {}},
    }
    for name, network in NETWORKS.items():
        documented = [recipe for family, recipe in families.items() if name.startswith(family)]
        assert len(documented) == 1, f"{name} has no recipe here: add it to families, with the paper's numbers"
        assert vars(network.recipe) == documented[0], name


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        *[("batch_size", 0), ("batch_size", -1), ("epochs", 0), ("epochs", -1), ("epochs", math.inf)],
        *[("learning_rate", -1e-9), ("learning_rate", math.inf), ("weight_decay", -1), ("momentum", 1)],
        *[("warm_up", -0.1), ("warm_up", 1.1), ("label_smoothing", -0.1), ("label_smoothing", 1)],
        *[("optimizer", "lamb"), ("schedule", "linear")],
        *[(name, math.nan) for name in ("epochs", "learning_rate", "weight_decay", "warm_up", "momentum")],
    ],
)
def test_a_number_that_makes_no_sense_is_named(field: str, bad: object):
    with pytest.raises(ValueError, match=rf"^{field.replace('_', '-')} {bad}: give "):
        replace(RESNET, **{field: bad})


def test_the_peak_is_in_proportion_to_the_batch():
    for network in NETWORKS.values():
        recipe = network.recipe
        assert recipe.peak(recipe.batch_size) == recipe.learning_rate
        peaks = [recipe.peak(size) for size in (1, 2, 32, 1024)]
        assert peaks == pytest.approx([recipe.peak(1) * size for size in (1, 2, 32, 1024)])
    assert RESNET.peak(8192) == pytest.approx(3.2)  # Goyal et al. (2017)


def rates(recipe: TrainingRecipe, steps: int) -> list[float]:
    with tf.Graph().as_default(), tf.Session() as session:
        at = tf.placeholder(tf.int64, [])
        rate = classifier._learning_rate(at, params(recipe=recipe, steps=steps))
        return [float(session.run(rate, {at: step})) for step in range(steps + 1)]


@pytest.mark.parametrize("steps", [90, 900])
def test_the_steps_of_the_rate(steps: int):
    part = steps // 90
    sharp = [0.1] * (30 * part) + [0.01] * (30 * part) + [1e-3] * (20 * part) + [1e-4] * (10 * part + 1)
    assert rates(replace(RESNET, warm_up=0), steps) == pytest.approx(sharp)
    warm = round(5 / 90 * steps)
    rise = [0.1 * (step + 1) / warm for step in range(warm)]
    assert rates(RESNET, steps) == pytest.approx(rise + sharp[warm:])


def test_the_cosine_of_the_rate():
    fall = [0.1 * 0.5 * (1 + math.cos(math.pi * step / 200)) for step in range(201)]
    assert rates(replace(LENET, warm_up=0), 200) == pytest.approx(fall, abs=1e-7)
    rise = [rate * (step + 1) / 10 for step, rate in enumerate(fall[:10])]
    assert rates(LENET, 200) == pytest.approx(rise + fall[10:], abs=1e-7)
    assert rates(replace(LENET, warm_up=1), 4) == pytest.approx(
        [0.1 * (step + 1) / 4 * 0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4)] + [0], abs=1e-7
    )


@pytest.mark.parametrize("recipe", [LENET, RESNET, ALEXNET], ids=["lenet", "resnet", "alexnet"])
@pytest.mark.parametrize("steps", [1, 7, 90])
def test_a_rate_is_the_same_as_a_number_and_in_the_graph(recipe: TrainingRecipe, steps: int):
    with tf.Graph().as_default(), tf.Session() as session:
        at = tf.placeholder(tf.int64, [])
        rate = classifier._learning_rate(at, params(recipe=recipe, steps=steps))
        graphs = [float(session.run(rate, {at: step})) for step in range(steps + 2)]
    peak = params(recipe=recipe).learning_rate
    assert [recipe.rate(step, steps, peak) for step in range(steps + 2)] == pytest.approx(graphs, rel=1e-4, abs=1e-8)


def test_a_rate_is_that_of_the_last_step_ever_after():
    with tf.Graph().as_default(), tf.Session() as session:
        for recipe, last in ((replace(RESNET, warm_up=0), 1e-4), (LENET, 0)):
            rate = classifier._learning_rate(tf.constant(1000, tf.int64), params(recipe=recipe))
            assert session.run(rate) == pytest.approx(last, abs=1e-8)


LABELS = np.array([0, 1, 2, 2, 1, 0], np.int32)

BY_HAND = {
    "sgd": TrainingRecipe(
        6, 1, 0.1, weight_decay=0.3, schedule="cosine", warm_up=0.5, momentum=0.7, label_smoothing=0.2
    ),
    "adam": TrainingRecipe(
        6, 1, 0.1, weight_decay=0.3, schedule="step", warm_up=0, momentum=0.7, label_smoothing=0.2, optimizer="adam"
    ),
    "plain": TrainingRecipe(6, 1, 0.1, weight_decay=0, schedule="step", warm_up=0, momentum=0),
}


def training_values(recipe: TrainingRecipe, steps: int) -> list[Values]:
    """What a training of LeNet computes in each step, and the head before each, and after the last."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(3)
        pixels, all_params = tf.constant(images(12, 1)), params(recipe=recipe, steps=4)
        spec = classifier.model_fn(pixels, tf.constant(LABELS), tf.estimator.ModeKeys.TRAIN, all_params)
        with tf.variable_scope(tf.get_variable_scope(), reuse=True):
            logits, features = classifier.build(pixels, all_params, False)
        head = {v.op.name.split("/")[1]: v for v in tf.trainable_variables() if v.op.name.startswith("head/")}
        kernels = [v for v in tf.trainable_variables() if v.op.name.endswith("/kernel")]
        squares = tf.add_n([tf.reduce_sum(tf.square(kernel)) for kernel in kernels])
        fetches = {"loss": spec.loss, "logits": logits, "features": features, "squares": squares, **head}
        session.run(tf.global_variables_initializer())
        found = [session.run(fetches)]
        for _ in range(steps):
            session.run(spec.train_op)
            found.append(session.run(fetches))
    return [{name: value.astype(np.float64) for name, value in values.items()} for values in found]


@pytest.mark.parametrize("name", BY_HAND)
def test_optimizer_weight_decay_and_label_smoothing_are_as_by_hand(name: str):
    recipe = BY_HAND[name]
    found = training_values(recipe, steps=3)
    targets = np.eye(3)[LABELS] * (1 - recipe.label_smoothing) + recipe.label_smoothing / 3
    moved = {part: {"first": 0.0, "second": 0.0} for part in ("kernel", "bias")}
    for step in range(3):
        before, after = found[step], found[step + 1]
        shares = np.exp(before["logits"]) / np.exp(before["logits"]).sum(axis=1, keepdims=True)
        loss = -(targets * np.log(shares)).sum(axis=1).mean() + recipe.weight_decay / 2 * before["squares"]
        assert before["loss"] == pytest.approx(loss, rel=1e-5)
        # Four steps in all, of which the warm-up, if there is one, takes two.
        rate = 0.1 * 0.1 ** [0, 0, 1][step]
        if recipe.schedule == "cosine":
            rate = 0.1 * min(1, (step + 1) / 2) * 0.5 * (1 + math.cos(math.pi * step / 4))
        slopes = {
            "kernel": before["features"].T @ (shares - targets) / 6 + recipe.weight_decay * before["kernel"],
            "bias": (shares - targets).mean(axis=0),
        }
        for part, slope in slopes.items():
            memory = moved[part]
            if recipe.optimizer == "adam":  # Kingma and Ba (2015), algorithm 1, with the epsilon of its last lines
                memory["first"] = recipe.momentum * memory["first"] + (1 - recipe.momentum) * slope
                memory["second"] = 0.999 * memory["second"] + 0.001 * slope**2
                scale = math.sqrt(1 - 0.999 ** (step + 1)) / (1 - recipe.momentum ** (step + 1))
                change = scale * memory["first"] / (np.sqrt(memory["second"]) + 1e-8)
            else:
                memory["first"] = change = recipe.momentum * memory["first"] + slope
            assert after[part] == pytest.approx(before[part] - rate * change, rel=1e-4, abs=1e-6), (step, part)


SCALED = tf.train.experimental.MixedPrecisionLossScaleOptimizer


def test_a_step_that_a_scaled_loss_leaves_out_counts():
    """Its images were shown; what is saved, and where a training goes on, counts batches."""
    heavy = replace(LENET, weight_decay=1e6)  # its slopes, times the scale, are more than a float32 holds
    trained = params(recipe=heavy, learning_rate=1e-9, half_precision=True)
    with (
        tf.Graph().as_default(),
        tf.Session() as session,
        patch.object(tf.train.experimental, "MixedPrecisionLossScaleOptimizer", scaled := Mock()),
    ):
        too_much = tf.train.experimental.DynamicLossScale(initial_loss_scale=1e36)
        scaled.side_effect = lambda optimizer, scale: SCALED(optimizer, too_much)
        pixels = tf.constant(images(12, 1))
        spec = classifier.model_fn(pixels, tf.constant(LABELS), tf.estimator.ModeKeys.TRAIN, trained)
        head = next(v for v in tf.trainable_variables() if v.op.name == "head/bias")
        step = tf.train.get_global_step()
        session.run(tf.global_variables_initializer())
        found = []
        for _ in range(30):
            session.run(spec.train_op)
            found.append((int(session.run(step)), bool(session.run(head).any())))
    # At first no step is taken; then the scale has come down.
    assert [moved for _, moved in found] == sorted(moved for _, moved in found)
    assert (found[0][1], found[-1][1]) == (False, True)
    assert [count for count, _ in found] == list(range(1, 31))


def started(network: str, size: int, channels: int, variant: Ablation | None = None, **options: object) -> Values:
    """All variables of a network as they start."""
    seed, before = options.pop("seed", 1), options.pop("before", lambda: None)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(seed)
        before()
        pixels = tf.placeholder(tf.uint8, [None, size, size, channels])
        classifier.build(pixels, params(network, variant=variant, **options), True)
        session.run(tf.global_variables_initializer())
        return session.run({v.op.name: v for v in tf.global_variables()})


def equal(these: Values, those: Values) -> dict[str, bool]:
    assert these.keys() == those.keys()
    return {name: np.array_equal(these[name], those[name]) for name in these}


@pytest.fixture(scope="module")
def start() -> Values:
    return started("resnet18", 32, 3)


@pytest.mark.parametrize(("network", "size", "channels", "count"), [("lenet", 28, 1, 5), ("resnet18", 32, 3, 21)])
def test_zeros_are_all_kernels_and_nothing_else(network: str, size: int, channels: int, count: int, start: Values):
    zeros = started(network, size, channels, Ablation(initializer="zeros"))
    own = start if network == "resnet18" else started(network, size, channels)
    kernels = {name for name in own if name.endswith("/kernel")}
    assert len(kernels) == count
    assert {name for name in kernels if zeros[name].any()} == set()
    assert {name for name in kernels if not own[name].any()} == set()
    assert {name for name, same in equal(own, zeros).items() if not same} == kernels


@pytest.mark.parametrize(("network", "size", "channels"), [("lenet", 28, 1), ("resnet18", 32, 3), ("alexnet", 63, 3)])
def test_without_bias_no_intercept_is_trained(network: str, size: int, channels: int):
    with tf.Graph().as_default():
        pixels = tf.placeholder(tf.uint8, [None, size, size, channels])
        classifier.build(pixels, params(network, variant=Ablation(bias=False)), True)
        trained = {v.op.name for v in tf.trainable_variables()}
        intercepts = {v.op.name for v in tf.global_variables() if v.op.name.endswith(("/bias", "/beta"))}
    assert {name.rsplit("/", 1)[1] for name in trained} == {"kernel", *(["gamma"] if network == "resnet18" else [])}
    assert len(intercepts) == {"lenet": 5, "resnet18": 21, "alexnet": 8}[network]


def test_intercepts_that_are_not_trained_stay_zero():
    without = params(recipe=replace(LENET, warm_up=0), variant=Ablation(bias=False))
    with tf.Graph().as_default(), tf.Session() as session:
        spec = classifier.model_fn(
            tf.constant(images(12, 1)), tf.constant(LABELS), tf.estimator.ModeKeys.TRAIN, without
        )
        weights = {v.op.name: v for v in tf.global_variables() if v.op.name.endswith(("/kernel", "/bias"))}
        session.run(tf.global_variables_initializer())
        before = session.run(weights)
        session.run(spec.train_op)
        session.run(spec.train_op)
        after = session.run(weights)
    assert equal(before, after) == {name: name.endswith("/bias") for name in weights}
    assert {name for name, value in after.items() if not value.any()} == {n for n in weights if n.endswith("/bias")}


def test_a_start_depends_on_seed_and_name_alone(start: Values):
    def others() -> None:
        tf.get_variable("another", initializer=tf.random_normal([3]))
        tf.random_uniform([2])

    digits = started("lenet", 28, 1)
    assert set(equal(digits, started("lenet", 28, 1)).values()) == {True}
    beside = started("lenet", 28, 1, before=others)
    assert set(equal(digits, {name: beside[name] for name in digits}).values()) == {True}
    of_another_seed = equal(digits, started("lenet", 28, 1, seed=2))
    assert of_another_seed == {name: not name.endswith("/kernel") for name in digits}
    of_more_classes = started("lenet", 28, 1, classes=("a", "b", "c", "d"))
    assert {n for n in digits if not np.array_equal(digits[n], of_more_classes[n])} == {"head/kernel", "head/bias"}
    assert not np.array_equal(start["stage1_block1/conv1/kernel"], start["stage1_block1/conv2/kernel"])


def test_a_start_is_as_wide_as_he_et_al_say(start: Values):
    for name in ("stage2_block1/conv2/kernel", "stage4_block2/conv1/kernel"):
        inputs = math.prod(start[name].shape[:3])
        assert start[name].std() == pytest.approx(math.sqrt(2 / inputs), rel=0.02)
        assert start[name].mean() == pytest.approx(0, abs=0.01 * start[name].std())
    assert start["head/kernel"].std() == pytest.approx(0.01, rel=0.1)
    scales = {name: set(value) for name, value in start.items() if name.endswith("/gamma")}
    assert scales == {name: {0.0} if "/conv2_norm/" in name else {1.0} for name in scales}


def dropped(step: int, name: str, seed: int = 1, before: Callable[[], object] = lambda: None) -> np.ndarray:
    """Ones after dropout, in a graph and a session of its own; asked twice, it is the same twice."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(seed)
        before()
        result = layers.dropout(tf.ones([200, 500]), True, name)
        session.run(tf.global_variables_initializer())
        session.run(tf.assign(tf.train.get_global_step(), step))
        first, second = session.run(result), session.run(result)
    assert np.array_equal(first, second)
    return first


def test_dropout_is_a_function_of_seed_step_and_name():
    mask = dropped(7, "drop6")
    assert np.array_equal(mask, dropped(7, "drop6"))
    assert np.array_equal(mask, dropped(7, "drop6", before=lambda: tf.random_normal([3])))
    assert set(np.unique(mask)) == {0.0, 2.0}
    # A hundred thousand coins: a deviation of 0.16 %.
    assert np.mean(mask == 0) == pytest.approx(0.5, abs=0.01)
    for other in (dropped(8, "drop6"), dropped(7, "drop7"), dropped(7, "drop6", seed=2), dropped(7 + 2**21, "drop6")):
        assert np.mean(other == 0) == pytest.approx(0.5, abs=0.01)
        assert np.mean(other == mask) == pytest.approx(0.5, abs=0.01)


def test_dropout_is_of_training_alone():
    with tf.Graph().as_default():
        x = tf.ones([2, 3])
        assert layers.dropout(x, False, "drop6") is x


@pytest.mark.parametrize("network", ["alexnet", "alexnet-two-tower", "alexnet-lecture"])
def test_each_dropout_has_a_name_of_its_own(network: str):
    """With one name for both, the same units would go in both layers."""
    with tf.Graph().as_default() as graph:
        classifier.build(tf.placeholder(tf.uint8, [None, 63, 63, 3]), params(network), True)
        drawn = [op.name.split("/")[0] for op in graph.get_operations() if op.type.startswith("StatelessRandomUniform")]
    assert len(drawn) == 2
    assert len(set(drawn)) == 2
