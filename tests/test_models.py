"""The networks: their sizes, that they compute what their papers say, and that the model function trains them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image

from models import NETWORKS, classifier, summary
from models.classifier import Params
from models.recipes import Ablation, TrainingRecipe

pytestmark = pytest.mark.slow

# Trainable parameters, of the data that each network was published for.
PARAMETERS = {
    "lenet": 61_706,
    "alexnet": 62_378_344,
    "alexnet-two-tower": 60_965_224,
    "alexnet-lecture": 61_006_376,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}


def full_size(name: str) -> tuple[int, int, int]:
    network = NETWORKS[name]
    return network.image_size, network.channels, network.classes


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters(name: str):
    layers = summary.table(name, *full_size(name))
    assert sum(layer.parameters for layer in layers) == PARAMETERS[name]
    with tf.Graph().as_default():
        size, channels, classes = full_size(name)
        classifier.build(tf.placeholder(tf.uint8, [None, size, size, channels]), params(name, classes), True)
        assert sum(np.prod(v.shape.as_list()) for v in tf.trainable_variables()) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("lenet", [(28, 28, 6), (14, 14, 6), (10, 10, 16), (5, 5, 16), (120,), (84,), (10,)]),
        (
            "alexnet",
            [(55, 55, 96), (27, 27, 96), (27, 27, 256), (13, 13, 256), (13, 13, 384), (13, 13, 384), (13, 13, 256),
             (6, 6, 256), (4096,), (4096,), (1000,)],
        ),
    ],
)  # fmt: skip
def test_outputs(name: str, sizes: list[tuple[int, ...]]):
    assert [layer.output for layer in summary.table(name, *full_size(name))] == sizes


def test_a_resnets_stages():
    layers = {layer.name: layer.output for layer in summary.table("resnet50", 224, 3, 1000)}
    assert layers["conv1"] == (112, 112, 64)
    assert layers["pool1"] == (56, 56, 64)
    last = [layers[f"stage{i}_block{n}/conv3"] for i, n in ((1, 3), (2, 4), (3, 6), (4, 3))]
    assert last == [(56, 56, 256), (28, 28, 512), (14, 14, 1024), (7, 7, 2048)]
    # v1.5: the 3x3 halves the size, the 1x1 before it does not.
    assert (layers["stage2_block1/conv1"], layers["stage2_block1/conv2"]) == ((56, 56, 128), (28, 28, 128))


@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.startswith("resnet")])
def test_one_pixel_less_than_the_least_is_too_small(name: str):
    least = NETWORKS[name].min_image_size
    summary.table(name, least, 3, 10)
    with pytest.raises(ValueError, match="Negative dimension size"):
        summary.table(name, least - 1, 3, 10)


def logits(name: str, images: np.ndarray, training: bool = False) -> np.ndarray:
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        result, _ = classifier.build(tf.constant(images), params(name, 5), training)
        session.run(tf.global_variables_initializer())
        return session.run(result)


@pytest.mark.parametrize("name", ["lenet", "alexnet", "alexnet-two-tower", "alexnet-lecture", "resnet18", "resnet50"])
def test_logits_depend_on_each_image_alone_in_evaluation(name: str):
    size = NETWORKS[name].min_image_size
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    together = logits(name, images)
    assert together.shape == (3, 5)
    assert np.isfinite(together).all()
    assert together[1:2] == pytest.approx(logits(name, images[1:2]), rel=1e-3, abs=1e-4)
    assert not np.allclose(together[0], together[1])


def test_pixels_are_normalised_on_the_device():
    with tf.Session() as session:
        colours, greys = np.array([[[[124, 116, 104]]]], np.uint8), np.array([[[[0], [255]]]], np.uint8)
        colour = session.run(classifier._scaled(tf.constant(colours), "standard"))
        grey = session.run(classifier._scaled(tf.constant(greys), "standard"))
        raw = session.run([classifier._scaled(tf.constant(greys), pixel_range) for pixel_range in ("1", "255")])
    assert np.abs(colour).max() < 0.02
    assert grey.ravel().tolist() == pytest.approx([-0.1, 1.175])
    assert [values.ravel().tolist() for values in raw] == [[0, 1], [0, 255]]


RECIPE = TrainingRecipe(
    batch_size=8, epochs=1, learning_rate=0.1, weight_decay=1e-4, schedule="cosine", warm_up=0.05, momentum=0.9
)


def params(name: str, classes: int, recipe: TrainingRecipe = RECIPE) -> Params:
    return Params(
        network=name,
        classes=tuple(map(str, range(classes))),
        recipe=recipe,
        learning_rate=0.1,
        steps=100,
        steps_per_epoch=10,
        variant=Ablation(),
    )


PARAMS = params("resnet18", 5)


def spec(mode: str, params: Params = PARAMS) -> tf.estimator.EstimatorSpec:
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8))
    return classifier.model_fn(images, tf.constant([0, 1, 2, 3, 4, 0, 1, 2], tf.int32), mode, params)


def test_a_step_moves_weights_and_running_means_and_lowers_the_loss():
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        step = spec(tf.estimator.ModeKeys.TRAIN)
        session.run(tf.global_variables_initializer())
        mean = next(v for v in tf.global_variables() if v.op.name == "conv1_norm/moving_mean")
        before = session.run([mean, *tf.trainable_variables()])
        losses = [session.run([step.loss, step.train_op])[0] for _ in range(15)]
        after = session.run([mean, *tf.trainable_variables()])
        assert session.run(tf.train.get_global_step()) == 15
    assert all(not np.array_equal(a, b) for a, b in zip(before, after))
    assert losses[-1] < losses[0] / 2


def test_weight_decay_spares_biases_and_batch_norm():
    with tf.Graph().as_default():
        classifier.build(tf.placeholder(tf.uint8, [None, 32, 32, 3]), PARAMS, True)
        decayed = {kernel.op.name for kernel in classifier._kernels(tf.trainable_variables())}
        others = {v.op.name.rsplit("/", 1)[1] for v in tf.trainable_variables() if v.op.name not in decayed}
        assert others == {"bias", "beta", "gamma"}
        assert len(decayed) == 21  # 17 in the blocks and before, three shortcuts, one dense layer


def test_the_learning_rate_warms_up_and_falls_to_zero():
    with tf.Graph().as_default(), tf.Session() as session:
        at = tf.placeholder(tf.int64, [])
        rate = classifier._learning_rate(at, PARAMS)
        rates = [float(session.run(rate, {at: step})) for step in range(101)]
    assert rates[0] == pytest.approx(0.02, rel=0.01)
    assert max(rates) == pytest.approx(0.1, rel=0.01)
    assert rates.index(max(rates)) == 4
    assert rates[50] == pytest.approx(0.05) and rates[100] == pytest.approx(0, abs=1e-8)
    assert rates[5:] == sorted(rates[5:], reverse=True)


@pytest.mark.parametrize("classes", [3, 10])
def test_evaluation_counts_top1_and_top5(classes: int, tmp_path: Path):
    labels = np.arange(8, dtype=np.int32) % classes
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        images = tf.constant(np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8))
        evaluation = classifier.model_fn(
            images, tf.constant(labels), tf.estimator.ModeKeys.EVAL, params("resnet18", classes)
        )
        with tf.variable_scope(tf.get_variable_scope(), reuse=True):
            scores, _ = classifier.build(images, params("resnet18", classes), False)
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        session.run([update for _, update in evaluation.eval_metric_ops.values()])
        found = session.run({name: value for name, (value, _) in evaluation.eval_metric_ops.items()})
        ranks = np.argsort(-session.run(scores), axis=1)
    assert found["top1"] == pytest.approx(np.mean(ranks[:, 0] == labels))
    assert found["top5"] == pytest.approx(np.mean([label in ranks[i, :5] for i, label in enumerate(labels)]))


def evaluated(logits: np.ndarray, labels: list[int], count: int) -> list[float]:
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(classifier._hits(tf.constant(logits, tf.float32), tf.constant(labels), count)).tolist()


def test_equal_logits_are_hits_no_more_often_than_by_chance():
    equal = np.zeros((10, 10))
    assert evaluated(equal, list(range(10)), 5) == [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    assert evaluated(equal, list(range(10)), 1) == [1, *[0] * 9]
    # Two are ahead, one is behind: three of the seven that are equal are among the first five.
    some = np.where(np.arange(10) == 9, -1.0, np.where(np.arange(10) >= 7, 1.0, 0.0))[np.newaxis].repeat(10, axis=0)
    assert evaluated(some, list(range(10)), 5) == [1, 1, 1, 0, 0, 0, 0, 1, 1, 0]
    assert evaluated(np.zeros((3, 3)), [0, 1, 2], 5) == [1, 1, 1]  # of three classes each is among the first five


def test_a_logit_that_is_no_number_is_no_hit():
    logits = np.zeros((4, 10))
    logits[0], logits[1, 7], logits[2, 0] = np.nan, np.nan, np.inf
    assert evaluated(logits, [0, 0, 0, 0], 1) == evaluated(logits, [0, 0, 0, 0], 5) == [0, 0, 0, 1]


def test_weights_of_zero_without_intercepts_are_right_by_chance():
    dumb = Params(*(getattr(params("lenet", 10), name) for name in ("network", "classes", "recipe")), 0.1, 1, 1,
                  Ablation(initializer="zeros", bias=False))  # fmt: skip
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.constant(np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), np.uint8))
        labels = tf.constant(np.arange(20, dtype=np.int32) % 10)
        spec = classifier.model_fn(images, labels, tf.estimator.ModeKeys.EVAL, dumb)
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        session.run([update for _, update in spec.eval_metric_ops.values()])
        found = session.run({name: value for name, (value, _) in spec.eval_metric_ops.items()})
    assert (found["top1"], found["top5"]) == (pytest.approx(0.1), pytest.approx(0.5))


@pytest.fixture(scope="module")
def pictures(photos: Path) -> np.ndarray:
    """Drawn photographs, uint8 [9, 63, 63, 3]."""
    files = sorted((photos / "val").rglob("*.JPEG"))
    return np.stack([np.asarray(Image.open(file).convert("RGB").resize((63, 63))) for file in files])


@pytest.mark.parametrize("pixel_range", ["standard", "255", "1"])
def test_response_normalisation_spreads_as_on_the_papers_pixels(pictures: np.ndarray, pixel_range: str):
    """Krizhevsky et al. (2012): pixels of 0 to 255 less the mean (section 2), divided as in section 3.3."""
    network = Params(
        network="alexnet-two-tower",
        classes=("a", "b"),
        recipe=RECIPE,
        learning_rate=0.1,
        steps=1,
        steps_per_epoch=1,
        variant=Ablation(pixel_range=pixel_range),
    )
    with tf.Graph().as_default() as graph, tf.Session() as session:
        tf.set_random_seed(1)
        classifier.build(tf.constant(pictures), network, False)
        norms = [operation for operation in graph.get_operations() if operation.type == "LRN"]
        kernel = next(v for v in tf.trainable_variables() if v.op.name == "conv1/kernel")
        mean = classifier._IMAGENET_MEAN if pixel_range == "standard" else 0.0
        pixels = tf.pad(pictures.astype(np.float32) - np.float32(mean), [[0, 0], [2, 2], [2, 2], [0, 0]])
        maps = tf.nn.relu(tf.nn.conv2d(pixels, kernel, 4, "VALID"))
        session.run(tf.global_variables_initializer())
        found = session.run([(norm.inputs[0], norm.outputs[0]) for norm in norms])
        paper = session.run(maps).astype(np.float64)
    squares = np.pad(paper**2, [(0, 0), (0, 0), (0, 0), (2, 2)])
    wanted = (2 + 1e-4 * sum(squares[..., i : i + 96] for i in range(5))) ** 0.75
    before, after = found[0]
    divisors = (before[after > 0] / after[after > 0]).astype(np.float64)
    assert divisors.std() == pytest.approx(wanted[paper > 0].std(), rel=0.05)
    assert divisors.mean() == pytest.approx(wanted[paper > 0].mean(), rel=0.02)
    # It does something: a tenth of all values are divided by half as much again as another tenth, and in norm2, too.
    for before, after in found:
        low, high = np.quantile(before[after > 0] / after[after > 0], [0.1, 0.9])
        assert high > 1.1 * low
