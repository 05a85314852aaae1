"""Small sources of each kind."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from support.images import put

PIXELS = np.arange(12 * 5 * 4, dtype=np.uint8).reshape(12, 5, 4)


LABELS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 10], np.uint8)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


IMAGES_NAME, LABELS_NAME = "t-images-idx3-ubyte", "t-labels-idx1-ubyte"


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def by_class(photos: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    result: dict[str, dict[str, bytes]] = {}
    for key, data in photos.items():
        folder, name = key.split("/")
        result.setdefault(folder, {})[name] = data
    return result


def parquet_of(photos: dict[str, bytes], names: list[str] | None, **options: object) -> bytes:
    classes = names or sorted(by_class(photos))
    rows = [{"bytes": data, "path": key} for key, data in photos.items()]
    labels = [classes.index(key.split("/")[0]) for key in photos]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, image), "label": pa.array(labels, pa.int64())})
    if names:
        info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=10, **options)
    return buffer.getvalue()


def as_tar_of_tars(photos: dict[str, bytes], root: Path) -> Path:
    inner = {f"{name}.tar": tar_of(files) for name, files in by_class(photos).items()}
    return put(root, {"ILSVRC2012_img_train.tar": tar_of(inner)}) / "ILSVRC2012_img_train.tar"


def as_parquet(photos: dict[str, bytes], root: Path) -> Path:
    halves = [dict(list(photos.items())[i::2]) for i in range(2)]
    names = sorted(by_class(photos))
    return put(root, {f"train-0000{i}-of-00002.parquet": parquet_of(half, names) for i, half in enumerate(halves)})
