"""Small real images, and folders of files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from ingest import formats

FORMATS = formats.NAMES


def image_bytes(kind: str, size: tuple[int, int] = (60, 40), mode: str = "RGB", **options: object) -> bytes:
    """A file of Pillow's format ``kind`` with smooth, not uniform, content; ``size`` is (width, height)."""
    y, x = np.mgrid[: size[1], : size[0]]
    channels = np.stack([x * 255 // size[0], y * 255 // size[1], (x + y) % 256], axis=2).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(channels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def put(folder: Path, files: dict[str, bytes]) -> Path:
    """Write ``files`` below ``folder``."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
