"""A training from its first step, or from where it was interrupted, to its export."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf
from tensorflow import config  # v1 has no determinism

from models import ModelError, run_dir, serving
from models.classifier import HEAD, Params, model_fn
from models.devices import Devices, Peers, restart, session_config, strategy, without_cluster
from models.hooks import Checkpoints, EpochEndListener, ThroughputHook
from models.recipes import TrainingRecipe
from models.run_dir import Entry, ResumePoint, RunConfig, Trained

_KEPT_CHECKPOINTS = 2

_SUMMARIES_AN_EPOCH = 10

_STARVED = 0.1
"""Share of the time spent waiting for images from which on the loader is called the limit."""

_TELLING_SECONDS = 30.0
"""Of timed steps, from which on a training that starved is worth a closer look at its loader."""

# Weights, but neither the optimiser's memory nor the step.
_WEIGHTS = r"(.*/(kernel|bias|gamma|beta|moving_mean|moving_variance)|levels):0$"


@dataclass(frozen=True)
class TrainingJob:
    """A training that has been checked: what, how, where and on what."""

    config: RunConfig
    recipe: TrainingRecipe
    learning_rate: float
    steps: int
    folder: Path
    devices: Devices
    init_from: Trained | None = None
    patience: int | None = None
    deterministic: bool = False

    @property
    def params(self) -> Params:
        """What the model function is told."""
        config = self.config
        return Params(
            network=config.model,
            classes=config.classes,
            recipe=self.recipe,
            learning_rate=self.learning_rate,
            steps=self.steps,
            steps_per_epoch=self.steps_per_epoch,
            variant=config.variant,
            tune=config.tune,
            half_precision=config.mixed_precision and self.devices.kind == "GPU",
        )

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which an epoch is through, rounded up."""
        return math.ceil(self.config.records / self.config.batch_size)

    def epoch_at(self, step: int) -> float:
        """How many epochs ``step`` batches are."""
        return step * self.config.batch_size / self.config.records


def change_of_rate(job: TrainingJob, start: int) -> tuple[float, float] | None:
    """The learning rate that a training had, and that with which ``job`` goes on from ``start``; None if they agree,
    to three digits.

    They do not where the earlier steps were of another schedule: of another length, above all.
    """
    history = [entry for entry in run_dir.load_history(job.folder, start) if entry.get("learning_rate") is not None]
    if not history or start >= job.steps:
        return None
    step, was = history[-1]["step"], history[-1]["learning_rate"]
    by_now = job.recipe.rate(step - 1, job.steps, job.learning_rate)
    # The graph computes in float32.
    if math.isclose(by_now, was, rel_tol=1e-3, abs_tol=1e-6 * job.learning_rate):
        return None
    now = job.recipe.rate(start, job.steps, job.learning_rate)
    return None if f"{was:.3g}" == f"{now:.3g}" else (was, now)


class Outcome(NamedTuple):
    """What a training gave.

    ``images_per_second`` and ``waiting``, the share of the time in which the device waited for images, are of the steps
    taken now, without the first, in ``seconds`` together; None if there were none. ``saved_model`` is what was
    exported, of the checkpoint of ``saved_step``; None if nothing was. ``best`` is the entry of the best checkpoint,
    which need not be in the history; None if there is none.
    """

    step: int
    seconds: float
    images_per_second: float | None
    data_wait_share: float | None
    history: list[Entry]
    best: Entry | None = None
    saved_model: Path | None = None
    saved_step: int | None = None


def train(
    job: TrainingJob, resume_point: ResumePoint, inputs: Any, evaluation: Any | None,
    show: Callable[[float, float], object], stop: Callable[[], bool],
) -> Outcome:  # fmt: skip
    """Train from the last checkpoint to the last step, evaluating after each epoch; then export the best.

    ``resume_point`` is that checkpoint, as run_dir.find_start gives it. ``inputs`` and ``evaluation`` are input
    functions; those of training begin with the batch that comes next. ``show`` is called after each step with its loss
    and top-1. After the step in which ``stop`` became true, training is saved, and ends without an export. Raises
    ModelError, and errors of TensorFlow.
    """
    is_chief = job.devices.is_chief
    watch = ThroughputHook(
        folder=job.folder if is_chief else None,
        batch_size=job.config.batch_size,
        summary_steps=_summary_steps(job),
        show=show,
        stop=stop,
    )
    evaluate = _evaluator(job, evaluation) if evaluation else None
    start, history = resume_point.step, run_dir.load_history(job.folder, resume_point.step)
    epochs = EpochEndListener(
        folder=job.folder,
        history=history,
        epoch_at=job.epoch_at,
        last_step=job.steps,
        watch=watch,
        evaluate=evaluate,
        patience=job.patience,
    )
    if is_chief:
        _prepare(job, resume_point)
    if start < job.steps and not epochs.is_exhausted:
        _fit(job, inputs, watch, epochs, start)
    step = start + watch.steps
    if not is_chief or stop():
        return Outcome(
            step=step,
            seconds=watch.seconds,
            images_per_second=watch.images_per_second,
            data_wait_share=watch.waiting,
            history=history,
        )
    epochs.catch_up(step)  # of a training that was through already
    trained, best = run_dir.find(job.folder), run_dir.load_best(job.folder)
    exported = serving.export(trained, job.folder, session_config(job.devices))
    saved_step = int(exported.name)
    return Outcome(
        step=step,
        seconds=watch.seconds,
        images_per_second=watch.images_per_second,
        data_wait_share=watch.waiting,
        history=history,
        best=best,
        saved_model=exported,
        saved_step=saved_step,
    )


def measure(job: TrainingJob, seconds: float) -> float:
    """Images/s of training on one random batch that stays on the device: what the network allows at the most.

    Over ``seconds`` or the job's steps, whichever is less, but over two steps at the least.
    """

    def is_enough() -> bool:
        return watch.timed > 1 and watch.seconds >= seconds

    watch = ThroughputHook(
        folder=None, batch_size=job.config.batch_size, summary_steps=1, show=lambda loss, top1: None, stop=is_enough
    )
    with tempfile.TemporaryDirectory() as scratch:
        estimator = _estimator(job, scratch, saves=False, model=_on_one_batch(job.config, job.devices.count))
        # A strategy takes no tensors. What it would copy to the device in each step is this number, not the batch.
        estimator.train(lambda: tf.data.Dataset.from_tensors(0).repeat(), hooks=[watch], max_steps=job.steps)
    if watch.images_per_second is None:
        raise ModelError("one step is not enough to measure a rate: give --steps 2 or more")
    return watch.images_per_second


def is_starved(outcome: Outcome) -> bool:
    """Whether the loader was the limit, of a training that was long enough to tell, and for it to matter."""
    return (
        outcome.data_wait_share is not None
        and outcome.data_wait_share >= _STARVED
        and outcome.seconds >= _TELLING_SECONDS
    )


def bottleneck_message(waiting: float, seconds: float) -> str:
    """One line: whether the loader or the device limits a training that waits for that share of so many seconds."""
    if seconds < _TELLING_SECONDS:
        return (
            f"the device waited for images in {waiting:.0%} of {seconds:.1f} s: "
            f"what the limit is shows after {_TELLING_SECONDS:.0f} s"
        )
    who = "loader" if waiting >= _STARVED else "device"
    return f"the {who} is the limit: the device waited for images in {waiting:.0%} of the time"


def _fit(job: TrainingJob, inputs: Any, watch: ThroughputHook, epochs: EpochEndListener, start: int) -> None:
    if job.deterministic:
        config.experimental.enable_op_determinism()
    peers = Peers(job.devices)
    peers.watch()
    hooks: list[Any] = [watch, ReleasePeersHook(job.steps - start, peers)]
    if job.devices.is_chief:
        hooks.append(Checkpoints(job.folder, epochs))
    init_from = job.init_from if start == 0 else None
    kept = init_from and tf.estimator.WarmStartSettings(init_from.checkpoint, [_kept_names(job)])
    try:
        estimator = _estimator(job, str(job.folder), warm_start_from=kept)
        if start and job.devices.is_chief:
            # Not earlier: an evaluation settles which devices TensorFlow has.
            epochs.catch_up(start)
            if epochs.is_exhausted:
                return
        if job.devices.hosts == 1:
            estimator.train(inputs, hooks=hooks, max_steps=job.steps)
        else:
            # It is what starts the servers; the chief evaluates by itself, with the others.
            spec = tf.estimator.TrainSpec(inputs, job.steps, hooks)
            tf.estimator.train_and_evaluate(estimator, spec, tf.estimator.EvalSpec(inputs, steps=1))
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        if job.devices.hosts == 1:
            raise
        restart(f"another host is lost ({str(error).splitlines()[0]})")
    except ValueError as error:
        if init_from is None or "checkpoint" not in str(error):
            raise
        raise ModelError(
            f"{init_from.checkpoint}: its weights are not those of the network that its run.json tells of",
            path=init_from.checkpoint,
        ) from error
    finally:
        peers.release()


class ReleasePeersHook(tf.train.SessionRunHook):
    """Lets go of the other hosts as soon as the last step is done, before this host saves and evaluates."""

    def __init__(self, steps: int, peers: Peers):
        self._left, self._peers = steps, peers

    def after_run(self, context: Any, values: Any) -> None:
        """Count a step."""
        self._left -= 1
        if self._left <= 0 or context.stop_requested:
            self._peers.release()


def _estimator(
    job: TrainingJob, folder: str, saves: bool = True, warm_start_from: Any = None, model: Callable[..., Any] = model_fn
) -> tf.estimator.Estimator:
    # A cluster of one host is none to us; to TensorFlow it would be.
    with without_cluster() if job.devices.hosts == 1 else nullcontext():
        return tf.estimator.Estimator(model, folder, _config(job, saves), job.params, warm_start_from=warm_start_from)


def _config(job: TrainingJob, saves: bool) -> tf.estimator.RunConfig:
    return tf.estimator.RunConfig(
        tf_random_seed=job.config.seed % 2**31,
        # Our own hook saves; this is for the number that is kept.
        save_checkpoints_secs=None,
        save_checkpoints_steps=None,
        keep_checkpoint_max=_KEPT_CHECKPOINTS,
        save_summary_steps=_summary_steps(job) if saves else 1_000_000,
        log_step_count_steps=None,
        session_config=session_config(job.devices, job.config.mixed_precision),
        train_distribute=strategy(job.devices),
    )


def _summary_steps(job: TrainingJob) -> int:
    return max(1, min(100, job.steps_per_epoch // _SUMMARIES_AN_EPOCH))


def _kept_names(job: TrainingJob) -> str:
    same = job.init_from is not None and job.init_from.config.classes == job.config.classes
    return _WEIGHTS if same else f"(?!{HEAD}/){_WEIGHTS}"


def _prepare(job: TrainingJob, resume_point: ResumePoint) -> None:
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        run_dir.save_config(job.folder, job.config)
        run_dir.resume_from(job.folder, resume_point)
    except OSError as error:
        raise ModelError(
            f"{job.folder}: cannot be used ({error.strerror}): give another --model-dir", path=job.folder
        ) from error


def _evaluator(job: TrainingJob, evaluation: Any) -> Callable[[str], dict[str, float]]:
    def evaluate(checkpoint: str) -> dict[str, float]:
        config = session_config(job.devices)
        return serving.evaluate(Trained(checkpoint, job.config), evaluation, job.folder, config)

    return evaluate


def _on_one_batch(run_config: RunConfig, devices: int) -> Callable[..., Any]:
    """A model function that trains on a batch of its own, an equal part on each of ``devices``, whatever comes in.

    The batch is made where the network is: by variables of the device, so that nothing is copied there in a step.
    """
    size = run_config.image_size
    shape = (run_config.batch_size // devices, size, size, run_config.channels)

    def train_on_it(features: Any, labels: Any, mode: str, params: Params, config: Any) -> Any:
        images = tf.random.stateless_uniform(shape, (0, 0), 0, 256, tf.int32)
        labels = tf.random.stateless_uniform(shape[:1], (1, 0), 0, len(run_config.classes), tf.int32)
        kept = [
            tf.get_variable(
                name, dtype=value.dtype, initializer=value, trainable=False, collections=[tf.GraphKeys.LOCAL_VARIABLES]
            ).read_value()
            for name, value in (("images", tf.cast(images, tf.uint8)), ("labels", labels))
        ]
        return model_fn(kept[0], kept[1], mode, params, config)

    return train_on_it
