"""A photo set without a download: procedurally drawn pictures that a network can learn, though not by colour.

A class is a pattern, a function from the plane to [0, 1]. Position, rotation, scale, colours, light and grain are drawn
for each picture alike in all classes, so that the pattern is all there is to learn.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np

from ingest import jpeg
from ingest.errors import OptionError, OutputError
from ingest.sampler import MAX_SEED
from ingest.system import paths, progress, worker_pool
from ingest.system.validation import Option, validate

SIDES = (300, 600)
"""Shortest and longest side of a picture in pixels; ImageNet's average is about 400 x 350."""

FILE_BYTES = (40_000, 150_000)

_VALIDATION_EVERY = 5
_GREY_SHARE = 0.04
_QUALITIES = (90, 95, 98, 80, 70, 55, 40)  # the first that gives a file of the right size
_TASK_IMAGES = 10

Pattern = Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray]
"""From two coordinates [H, W], of about -1 to 1 before rotation and scaling, to values [H, W] in [0, 1]."""


def _stripes(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    bend = rng.uniform(0, 0.15) * np.sin(rng.uniform(1, 3) * v)
    return _wave(rng.uniform(3, 8) * (u + bend))


def _checks(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    scale = rng.uniform(2, 5)
    return (np.floor(scale * u) + np.floor(scale * v)) % 2


def _rings(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _wave(rng.uniform(4, 9) * np.hypot(u, v))


def _dots(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    scale, radius = rng.uniform(3, 6), rng.uniform(0.22, 0.36)
    return _inside(radius - np.hypot(scale * u % 1 - 0.5, scale * v % 1 - 0.5), 0.03)


def _triangles(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    picture = np.zeros_like(u)
    for _ in range(rng.integers(8, 18)):
        centre, turn, size = rng.uniform(-1.2, 1.2, 2), rng.uniform(0, 2 * np.pi), rng.uniform(0.12, 0.3)
        angles = turn + np.array([0, 2, 4]) * np.pi / 3
        sides = [np.cos(a) * (u - centre[0]) + np.sin(a) * (v - centre[1]) for a in angles]
        picture = np.where(np.maximum.reduce(sides) < size / 2, rng.uniform(0.5, 1), picture)
    return picture


def _cells(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    nearest, second = np.full_like(u, np.inf), np.full_like(u, np.inf)
    for x, y in rng.uniform(-1.5, 1.5, (rng.integers(25, 50), 2)).astype(u.dtype):
        distance = (u - x) ** 2 + (v - y) ** 2
        second = np.minimum(second, np.maximum(nearest, distance))
        nearest = np.minimum(nearest, distance)
    return _inside(np.sqrt(second) - np.sqrt(nearest) - 0.05, 0.03)


def _julia(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    # Points just outside the main cardioid of the Mandelbrot set have the richest Julia sets.
    angle = rng.uniform(0, 2 * np.pi)
    c = np.complex64(1.05 * (np.exp(1j * angle) / 2 - np.exp(2j * angle) / 4))
    z = (1.2 * u + 1.2j * v).astype(np.complex64)
    steps = np.zeros(u.shape, u.dtype)
    for _ in range(24):
        z = np.where(np.abs(z) < 4, z * z + c, z)
        steps += np.abs(z) < 4
    return np.sqrt(steps / 24)


def _clouds(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    picture = sum(_noise(rng, u.shape, 2 << octave) / (1 << octave) for octave in range(6))
    low, high = np.quantile(picture, (0.02, 0.98))
    return np.clip((picture - low) / (high - low), 0, 1)


def _spirals(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    arms = rng.integers(2, 6) * rng.choice([-1, 1])
    return _wave(rng.uniform(1.5, 4) * np.hypot(u, v) + arms * np.arctan2(v, u) / (2 * np.pi))


def _bricks(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    rows, mortar = rng.uniform(4, 8) * v, rng.uniform(0.06, 0.12)
    columns = rng.uniform(1.5, 3) * u + 0.5 * (np.floor(rows) % 2)
    return _inside(np.minimum(rows % 1 - mortar, (columns % 1 - mortar / 2)), 0.02)


def _gaskets(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    # Sierpinski's carpet: a point is left out if its digits in base 3 are both 1 in some place.
    scale, kept = rng.uniform(0.4, 0.8), np.ones(u.shape, bool)
    for power in 3 ** np.arange(1, 5):
        kept &= ~((np.floor(scale * power * u) % 3 == 1) & (np.floor(scale * power * v) % 3 == 1))
    return kept.astype(u.dtype)


def _stars(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    picture = np.zeros_like(u)
    for _ in range(rng.integers(4, 9)):
        centre, points, size = rng.uniform(-1.1, 1.1, 2), rng.integers(5, 9), rng.uniform(0.2, 0.5)
        angle = np.arctan2(v - centre[1], u - centre[0]) + rng.uniform(0, np.pi)
        edge = size * (0.6 + 0.4 * np.cos(points * angle))
        picture = np.maximum(picture, _inside(edge - np.hypot(u - centre[0], v - centre[1]), 0.02))
    return picture


PATTERNS: dict[str, Pattern] = {
    "bricks": _bricks,
    "cells": _cells,
    "checks": _checks,
    "clouds": _clouds,
    "dots": _dots,
    "julia": _julia,
    "rings": _rings,
    "stripes": _stripes,
    "gaskets": _gaskets,
    "spirals": _spirals,
    "stars": _stars,
    "triangles": _triangles,
}
"""Classes in the order in which ``--classes N`` takes them."""


@dataclass(frozen=True, kw_only=True)
class SynthOptions:
    """How many classes and pictures, and the seed that they are drawn from."""

    classes: Annotated[int, Option(help=f"2 to {len(PATTERNS)} (default: 8)")] = 8
    images: Annotated[int, Option(help="every fifth for validation (default: 2000)")] = 2000
    seed: Annotated[int, Option(low=0, high=MAX_SEED, help="another seed, other pictures (default: 0)")] = 0
    workers: int | None = None

    def __post_init__(self) -> None:
        validate(self)
        if not 2 <= self.classes <= len(PATTERNS):
            raise OptionError(f"{self.classes} classes: give 2 to {len(PATTERNS)}")
        if not self.classes * _VALIDATION_EVERY <= self.images <= 10_000_000:
            raise OptionError(f"{self.images} images: give at least {self.classes * _VALIDATION_EVERY}, five a class")
        worker_pool.num_workers(self.workers)


class _Task(NamedTuple):
    pattern: str
    numbers: range

    def __str__(self) -> str:
        return f"{self.pattern} {self.numbers.start} to {self.numbers.stop - 1}"


def synthesize(out: str | Path, options: SynthOptions) -> dict[str, int]:
    """Draw a photo set into ``out``: ``train/CLASS/NAME.JPEG`` and ``val/...``, every fifth picture of a class.

    JPEGs of 300 to 600 pixels a side and 40 to 150 KB, 4:4:4 and 4:2:0, a few of them grey; a function of the options.
    Returns the number of pictures in ``train`` and ``val``. Raises OutputError if ``out`` is not new or empty.
    """
    folder = paths.local(out)
    counts = [len(range(i, options.images, options.classes)) for i in range(options.classes)]
    validation = sum(len(range(_VALIDATION_EVERY - 1, count, _VALIDATION_EVERY)) for count in counts)
    tasks = [
        _Task(name, range(start, min(start + _TASK_IMAGES, count)))
        for name, count in zip(PATTERNS, counts)
        for start in range(0, count, _TASK_IMAGES)
    ]
    _prepare_folders(folder, [task.pattern for task in tasks])
    try:
        with progress.bar(options.images, "drawing") as bar:
            for _ in worker_pool.run(
                _Painter, (folder, options.seed), tasks, worker_pool.num_workers(options.workers), bar.update
            ):
                pass
    except BaseException:
        # Half a photo set would be taken for a whole one.
        for split in ("train", "val"):
            shutil.rmtree(folder / split, ignore_errors=True)
        raise
    return {"train": options.images - validation, "val": validation}


def picture(pattern: str, seed: int, number: int) -> bytes:
    """Picture ``number`` of a class, as a JPEG file."""
    rng = np.random.default_rng([seed, list(PATTERNS).index(pattern), number])
    height, width = rng.integers(SIDES[0], SIDES[1], 2, endpoint=True)
    pixels = _colored(rng, PATTERNS[pattern](rng, *_plane(rng, height, width)))
    if rng.random() < _GREY_SHARE:
        pixels = pixels.mean(axis=2, keepdims=True).astype(np.uint8)
    subsampling = "4:4:4" if rng.random() < 0.75 else "4:2:0"
    files = (jpeg.encode(pixels, quality, subsampling) for quality in _QUALITIES)
    return next((file for file in files if FILE_BYTES[0] <= len(file) <= FILE_BYTES[1]), None) or jpeg.encode(
        pixels, _QUALITIES[-1], subsampling
    )


class _Painter:
    """Draws pictures; the handler of a worker process."""

    def __init__(self, folder: Path, seed: int):
        self._folder, self._seed = folder, seed

    def __call__(self, task: _Task, report: Callable[[int], object]) -> None:
        for number in task.numbers:
            split = "val" if number % _VALIDATION_EVERY == _VALIDATION_EVERY - 1 else "train"
            path = self._folder / split / task.pattern / f"{task.pattern}_{number:06d}.JPEG"
            try:
                path.write_bytes(picture(task.pattern, self._seed, number))
            except OSError as error:
                raise OutputError(
                    f"{path}: cannot be written ({error.strerror}): start again elsewhere", path=path
                ) from error
            report(1)


def _prepare_folders(folder: Path, patterns: list[str]) -> None:
    try:
        if folder.exists() and any(folder.iterdir()):
            raise OutputError(f"{folder}: not empty: give a new or empty folder", path=folder)
        for split in ("train", "val"):
            for pattern in patterns:
                (folder / split / pattern).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}): give another folder", path=folder) from error


def _plane(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of each pixel: the short side from about -1 to 1, then moved, rotated and scaled at random."""
    y, x = np.mgrid[:height, :width].astype(np.float32) * np.float32(2 / min(height, width)) - 1
    angle, scale, shift = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.4), rng.uniform(-0.4, 0.4, 2)
    cos, sin = np.float32(scale * np.cos(angle)), np.float32(scale * np.sin(angle))
    return cos * x - sin * y + np.float32(shift[0]), sin * x + cos * y + np.float32(shift[1])


def _colored(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3]: ``values`` blended between two colours that can be told apart, lit from a side, with grain."""
    shape = values.shape
    dark, light = rng.uniform(0, 255, (2, 3))
    while abs(dark.mean() - light.mean()) < 60:
        dark, light = rng.uniform(0, 255, (2, 3))
    light_from = 1 + rng.uniform(0.1, 0.35) * (_noise(rng, shape, 2) - 0.5)
    pixels = (dark + (light - dark) * values[:, :, None]) * light_from[:, :, None]
    grain = rng.normal(0, rng.uniform(6, 14), shape)[:, :, None] + rng.normal(0, 3, (*shape, 3))
    return np.clip(pixels + grain, 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, shape: tuple[int, ...], cells: int) -> np.ndarray:
    """Random values in [0, 1] on a grid of ``cells`` x ``cells``, interpolated linearly to ``shape``."""
    grid = rng.random((cells + 1, cells + 1))
    for axis, size in enumerate(shape):
        positions = np.linspace(0, cells, size, endpoint=False)
        low = positions.astype(int)
        share = (positions - low).reshape((-1, 1) if axis == 0 else (1, -1))
        grid = grid.take(low, axis) * (1 - share) + grid.take(low + 1, axis) * share
    return grid


def _wave(phase: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.sin(2 * np.pi * phase)


def _inside(distance: np.ndarray, softness: float) -> np.ndarray:
    """1 well inside (a positive distance from the edge), 0 well outside."""
    return np.clip(0.5 + distance / (2 * softness), 0, 1)
