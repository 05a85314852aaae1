"""What goes on around the steps of a training: progress, checkpoints, evaluation at the end of each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow.compat.v1 as tf

from models import run_dir
from models.classifier import ARRIVED, PROGRESS
from models.run_dir import Entry

_SAVE_SECONDS = 600
"""Between two checkpoints at the most: what a crash costs."""


class ThroughputHook(tf.train.SessionRunHook):
    """Times the steps, and how long each waited for its images.

    ``show`` is called after each with loss and top-1; training ends after the step in which ``stop`` became true. The
    first step, which starts workers and compiles, is not timed. Every ``summary_steps`` the rates go to TensorBoard.
    ``learning_rate`` is that of the last step, None before the first.
    A loss that is no number raises NanLossDuringTrainingError: this hook is the first, so that nothing of it is saved.
    """

    def __init__(
        self, folder: Path | None, batch_size: int, summary_steps: int, show: Callable[[float, float], object],
        stop: Callable[[], bool],
    ):  # fmt: skip
        self._folder, self._batch_size, self._summary_steps = folder, batch_size, summary_steps
        self._show, self._stop = show, stop
        self.steps = self.timed = 0
        self.seconds = self.waited = 0.0
        self.learning_rate: float | None = None
        self._sums: list[tuple[float, float]] = []
        self._before = (0, 0.0, 0.0)
        self._last: float | None = None

    def begin(self) -> None:
        """Find what to look at in the graph."""
        self._fetches = [tf.get_collection(PROGRESS)[0], tf.get_collection(ARRIVED)[0], tf.train.get_global_step()]

    def before_run(self, context: Any) -> Any:
        """Ask for it."""
        self._started = time.time()
        return tf.train.SessionRunArgs(self._fetches)

    def after_run(self, context: Any, values: Any) -> None:
        """Count the step."""
        (loss, top1, rate), arrived, step = values.results
        now = time.time()
        if not math.isfinite(loss):
            raise tf.train.NanLossDuringTrainingError
        if self._last is not None:
            self.timed += 1
            self.seconds += now - self._last
            self.waited += max(0.0, arrived - self._started)
        self._last = now
        self.steps += 1
        self.learning_rate = float(rate)
        self._sums.append((float(loss), float(top1)))
        self._show(float(loss), float(top1))
        if self._folder and self.steps % self._summary_steps == 0:
            self._summarize(int(step))
        if self._stop():
            context.request_stop()

    def pause(self) -> None:
        """What was done until the next step is not a part of it."""
        self._last = None

    def means(self) -> tuple[float, float] | None:
        """Loss and top-1, averaged since this was last asked; None if there was no step."""
        sums, self._sums = self._sums, []
        return (sum(loss for loss, _ in sums) / len(sums), sum(top1 for _, top1 in sums) / len(sums)) if sums else None

    @property
    def images_per_second(self) -> float | None:
        """Rate of the timed steps; None if there was none."""
        return self.timed * self._batch_size / self.seconds if self.timed else None

    @property
    def waiting(self) -> float | None:
        """Share of the timed steps' time that was spent waiting for images."""
        return min(1.0, self.waited / self.seconds) if self.timed else None

    def _summarize(self, step: int) -> None:
        timed, seconds, waited = self._before
        self._before = (self.timed, self.seconds, self.waited)
        if self.timed == timed:
            return
        passed = self.seconds - seconds
        values = {
            "images_per_second": (self.timed - timed) * self._batch_size / passed,
            "data_wait_share": min(1.0, (self.waited - waited) / passed),
        }
        summary = tf.Summary(value=[tf.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        tf.summary.FileWriterCache.get(str(self._folder)).add_summary(summary, step)


class EpochEndListener(tf.train.CheckpointSaverListener):
    """At the end of an epoch, when its checkpoint is saved: evaluates, keeps the best, writes history.

    ``epoch_at`` gives the epochs that are done at a step; the end is where their whole number changes, and at
    ``last_step``. ``evaluate`` gives the metrics of a checkpoint; None for no evaluation. Training stops if the top-1
    has not risen for ``patience`` evaluations.
    """

    def __init__(
        self, folder: Path, history: list[Entry], epoch_at: Callable[[int], float], last_step: int,
        watch: ThroughputHook,
        evaluate: Callable[[str], dict[str, float]] | None, patience: int | None,
    ):  # fmt: skip
        self._folder, self.history = folder, history
        self._epoch_at, self._last_step = epoch_at, last_step
        self._watch, self._evaluate, self._patience = watch, evaluate, patience

    def is_end(self, step: int) -> bool:
        """Whether an epoch, or all, ends with ``step``."""
        return step >= self._last_step or (step > 0 and int(self._epoch_at(step)) > int(self._epoch_at(step - 1)))

    def after_save(self, session: Any, step: int) -> bool:
        """Whether to stop."""
        self.catch_up(step)
        return self.is_exhausted

    def catch_up(self, step: int) -> None:
        """Evaluate the checkpoint of ``step``, the last, and write history: if an epoch ends with it, and only once."""
        last = self.history[-1] if self.history else None
        is_done = last and last["step"] >= step and ("eval_top1" in last or not self._evaluate)
        if self.is_end(step) and not is_done:
            self._add(int(step))

    def _add(self, step: int) -> None:
        loss, top1 = self._watch.means() or (None, None)
        entry: Entry = {"step": step, "epoch": round(self._epoch_at(step), 3), "loss": loss, "top1": top1}
        if self.history and self.history[-1]["step"] == step:  # of when there was nothing to evaluate on
            entry = self.history.pop()
        if self._watch.learning_rate is not None:
            entry["learning_rate"] = self._watch.learning_rate
        if self._evaluate:
            metrics = self._evaluate(str(self._folder / f"model.ckpt-{step}"))
            loss = float(metrics["cross_entropy"])
            entry |= {
                "eval_loss": loss if math.isfinite(loss) else None,
                "eval_top1": float(metrics["top1"]),
                "eval_top5": float(metrics["top5"]),
            }
            best = run_dir.load_best(self._folder)
            if math.isfinite(loss) and (best is None or entry["eval_top1"] > best["eval_top1"]):
                run_dir.keep_best(self._folder, entry)
        self.history.append(entry)
        run_dir.save_history(self._folder, self.history)
        self._watch.pause()

    @property
    def is_exhausted(self) -> bool:
        """Whether patience has run out."""
        top1s = _top1s(self.history)
        return self._patience is not None and bool(top1s) and len(top1s) - 1 - top1s.index(max(top1s)) >= self._patience


class Checkpoints(tf.train.CheckpointSaverHook):
    """Saves at the beginning, at the end of each epoch, every ten minutes, and at the end of training.

    Weights and the like that are no numbers are never saved: they raise NanLossDuringTrainingError.
    """

    def __init__(self, folder: Path, epochs: EpochEndListener):
        super().__init__(str(folder), save_secs=_SAVE_SECONDS, listeners=[epochs])
        self._is_end = epochs.is_end

    def begin(self) -> None:
        """Add to the graph what tells whether the weights are numbers, and all else that is saved."""
        super().begin()
        saved = [variable for variable in tf.global_variables() if variable.dtype.is_floating]
        finite = [tf.reduce_all(tf.math.is_finite(variable)) for variable in saved]
        self._are_finite = tf.reduce_all(tf.stack(finite))

    def after_create_session(self, session: Any, coordinator: Any) -> None:
        """Save where training begins."""
        self._step = int(session.run(self._global_step_tensor))
        if self._step == 0:
            super().after_create_session(session, coordinator)
        else:
            # What it goes on from is saved: to write it again would only put it at risk.
            self._timer.update_last_triggered_step(self._step)

    def after_run(self, context: Any, values: Any) -> None:
        """Save if it is time to."""
        # Counted, because what a step reads may be the number before it as well as after.
        self._step += 1
        if self._is_end(self._step) or self._timer.should_trigger_for_step(self._step):
            self._timer.update_last_triggered_step(self._step)
            if self._save(context.session, self._step):
                context.request_stop()

    def _save(self, session: Any, step: int) -> bool:
        if not session.run(self._are_finite):
            raise tf.train.NanLossDuringTrainingError
        return bool(super()._save(session, step))


def _top1s(history: list[Entry]) -> list[float]:
    return [entry["eval_top1"] for entry in history if "eval_top1" in entry]
