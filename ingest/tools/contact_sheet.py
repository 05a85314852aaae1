"""A contact sheet: images of a dataset beside what training sees of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ingest import sampler
from ingest.dataset.dataset import Dataset
from ingest.errors import OutputError, RecordError
from ingest.loading import augment, transforms
from ingest.loading.augment import View
from ingest.loading.options import TransformOptions
from ingest.record import Record
from ingest.system import paths

IMAGES = 12
"""That are shown, from the first to the last in equal steps."""

EPOCHS = 3
"""The views of the first so many epochs of seed 0 are shown."""

IMAGE_SIZE = 224
"""Of the views, in pixels a side; smaller where all images shown are."""

_CELL, _GAP, _FRAME, _OUTLINE, _LINE, _TEXT = 224, 16, 4, 3, 20, 15
"""In pixels: a view's place, the space around it, its frame, a region's outline, a line of text and its letters."""

_SOURCE = 320
_NAME_LENGTH = 100

# Okabe and Ito, "Color Universal Design" (2008): all can tell them apart.
_COLOURS = ("#e69f00", "#56b4e9", "#cc79a7")


class Shown(NamedTuple):
    """What an epoch shows of a record: its pixels, uint8 [S, S, C], and what of the image they are."""

    pixels: np.ndarray
    view: View


def save(shards: str | Path, path: Path, options: TransformOptions) -> None:
    """Draw the dataset in the folder ``shards``, as ``options`` have it, and write the image to ``path``.

    Its format is the one that the suffix names.

    Raises RecordError where a record cannot be decoded, OutputError where the file cannot be written.
    """
    sheet = draw(Dataset(shards), options)
    try:
        sheet.save(paths.local(path))
    except (OSError, ValueError) as error:  # ValueError: a suffix that is none of an image
        raise OutputError(f"{path}: cannot be written ({error}): give a FILE.png", path=path) from error


def draw(dataset: Dataset, options: TransformOptions) -> Image.Image:
    """The contact sheet: a row for each image. Raises RecordError where the dataset has none, or one is damaged."""
    if not len(dataset):
        raise RecordError(f"{dataset.folder}: the dataset has no records", path=dataset.folder)
    numbers = np.unique(np.linspace(0, len(dataset) - 1, IMAGES).round().astype(int)).tolist()
    records = [dataset[number] for number in numbers]
    size = min(IMAGE_SIZE, max(max(record.height, record.width) for record in records))
    orders = epoch_orders(dataset)
    rows = []
    for number, record in zip(numbers, records, strict=True):
        try:
            rows.append(_row(dataset, record, views_of(dataset, number, orders, size, options)))
        except Exception as error:  # of ours, or of the decoder
            raise dataset.describe(number, error) from error
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def epoch_orders(dataset: Dataset) -> list[np.ndarray]:
    """The orders of EPOCHS, int64 [records] each; made once, since each is a sort of all records."""
    return [sampler.epoch_order(len(dataset), 0, epoch) for epoch in range(EPOCHS)]


def views_of(
    dataset: Dataset, number: int, orders: list[np.ndarray], size: int, options: TransformOptions
) -> list[Shown]:
    """What training shows of record ``number``, ``size`` pixels a side, where each of the ``orders`` comes to it."""
    record, views = dataset[number], []
    for epoch, records in enumerate(orders):
        position = int(np.flatnonzero(records == number)[0])
        uniforms = sampler.random_draws(0, epoch, position, 1)[0].tolist()
        view = augment.train_view(record.height, record.width, size, uniforms, options)
        pixels = np.empty((size, size, dataset.manifest.channels), np.uint8)
        transforms.render(record, view, pixels)
        views.append(Shown(pixels, view))
    return views


def _row(dataset: Dataset, record: Record, views: list[Shown]) -> Image.Image:
    width = _GAP + _SOURCE + len(views) * (_GAP + _CELL) + _GAP
    row = Image.new("RGB", (width, _CELL + 3 * _LINE + _GAP), "white")
    pen, font = ImageDraw.Draw(row), ImageFont.load_default(_TEXT)
    name = f"{dataset.manifest.classes[record.label]}   {record.key}   {record.width} x {record.height}"
    pen.text((_GAP, _GAP // 2), _shortened(name), "black", font)
    row.paste(_source(record, dataset.manifest.channels, views), (_GAP, 2 * _LINE))
    for i, sample in enumerate(views):
        left = _GAP + _SOURCE + _GAP + i * (_CELL + _GAP)
        row.paste(_enlarged(sample.pixels), (left, 2 * _LINE))
        pen.rectangle((left, 2 * _LINE, left + _CELL - 1, 2 * _LINE + _CELL - 1), None, _COLOURS[i], _FRAME)
        caption = f"epoch {i}" + (", flipped" if sample.view.is_flipped else "")
        pen.text((left, 2 * _LINE + _CELL + 2), caption, "black", font)
    return row


def _source(record: Record, channels: int, views: list[Shown]) -> Image.Image:
    """The whole image in its box, with the regions that were shown."""
    image = _image(transforms.decode(record, channels))
    scale = min(_SOURCE / image.width, _CELL / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    image = image.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(image)
    for sample, colour in zip(views, _COLOURS, strict=True):
        region = sample.view.region
        left, top = region.left * scale, region.top * scale
        right, bottom = left + region.width * scale, top + region.height * scale
        box = (left, top, max(left, min(right, size[0]) - 1), max(top, min(bottom, size[1]) - 1))
        pen.rectangle(box, None, colour, _OUTLINE)
    return image


def _enlarged(pixels: np.ndarray) -> Image.Image:
    return _image(pixels).resize((_CELL, _CELL), Image.Resampling.NEAREST)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")


def _shortened(name: str) -> str:
    # Names may hold anything; what has no shape in the font is a box, and what is not printable would break the line.
    printable = "".join(c if c.isprintable() else "?" for c in name)
    return printable if len(printable) <= _NAME_LENGTH else f"{printable[: _NAME_LENGTH - 3]}..."
