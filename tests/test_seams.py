"""What people add is added in one place: a copy of the code with one of each, as docs/CONTRIBUTING.md says, works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.images import image_bytes, put

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent

FORMAT = '''
"""Payloads one after the other, each behind its length in eight bytes."""

import struct
from crc32c import crc32c
from ingest.errors import RecordError
from ingest.formats.index import RecordLocation

LOCAL_BECAUSE = "plain files are mapped"
_LENGTH = struct.Struct("<Q")


def write(path, payloads):
    with path.open("wb") as file:
        for payload in payloads:
            file.write(_LENGTH.pack(len(payload)) + payload)


def find(data):
    offset = 0
    while offset < len(data):
        if offset + 8 > len(data):
            raise RecordError(f"byte {offset}: cut short")
        start, size = offset + 8, _LENGTH.unpack_from(data, offset)[0]
        if start + size > len(data):
            raise RecordError(f"byte {offset}: cut short")
        yield RecordLocation(start, size, crc32c(data[start : start + size]))
        offset = start + size


def fits(data, index):
    return all(_LENGTH.unpack_from(data, offset - 8)[0] == size for offset, size, _ in index.tolist())
'''

SOURCE = '''
"""A NumPy archive of pixels: images, uint8 [N, H, W, C], and labels."""

from functools import partial
from pathlib import Path
import numpy as np
from ingest.record import Sample
from ingest.sources.base import Entries, Entry, Source, numbered

KIND = "a NumPy archive of pixels"


def open_source(path):
    if not path.is_file() or path.suffix != ".npz":
        return None
    labels = np.load(path)["labels"].tolist()
    entries = Entries(Entry(numbered(i, len(labels)), label, (i,)) for i, label in enumerate(labels))
    return Source(tuple("abc"[: max(labels) + 1]), entries, partial(_read, path))


def _read(path, entry):
    return Sample(entry.key, entry.label, np.load(path)["images"][entry.location[0]])
'''

NETWORK = """
import tensorflow.compat.v1 as tf
from models.layers import HE


def mean_colour(images, training):
    return tf.layers.dense(tf.reduce_mean(images, [1, 2]), 4, name="fc1", **HE)  # 4
"""

# In which file what is put after, or before, which line.
ADDITIONS = {
    "ingest/sources/detect.py": [('_MODULES = ("idx",', '_MODULES = ("npz", "idx",')],
    "models/__init__.py": [
        (
            "NETWORKS = {\n",
            'NETWORKS = {\n    "mean-colour": Network(module="mean", function="mean_colour", recipe=RESNET, '
            "min_image_size=1, is_resizable=True),\n",
        )
    ],
    "ingest/loading/options.py": [
        (
            "    def __post_init__(self) -> None:\n        validate(self)\n",
            '    flip: Annotated[float, Option(low=0, high=1, metavar="SHARE", help="of views flipped")] = 0.5\n\n'
            "    def __post_init__(self) -> None:\n        validate(self)\n",
        )
    ],
    "ingest/loading/augment.py": [("uniforms[4 * TRIES] < 0.5", "uniforms[4 * TRIES] < options.flip")],
    "ingest/record.py": [
        (
            '    segments: Annotated[Buffer, Field("image/segments")] = b""\n',
            '    segments: Annotated[Buffer, Field("image/segments")] = b""\n'
            '    size_bytes: Annotated[int | None, Field("image/bytes", of=lambda sample: len(sample.data))] = None\n',
        )
    ],
    "ingest/loading/columns.py": [
        (
            '    "number": Column(np.int64, lambda row: row.number),\n',
            '    "number": Column(np.int64, lambda row: row.number),\n'
            '    "is_tall": Column(np.bool_, lambda row: row.record.height > row.record.width),\n',
        )
    ],
}

SCRIPT = """
import json
from pathlib import Path
import numpy as np
import ingest
from ingest import cli
from ingest.dataset.dataset import Dataset
from models import NETWORKS, summary

manifest = ingest.build_shards("photos", "plain", format="plain", workers=0)
ingest.build_shards("pixels.npz", "pixels", format="tfrecord", workers=0)
old = Dataset("old")[0]
batch, = ingest.input_fn(
    "plain", batch_size=9, training=False, image_size=32, workers=0, fields=("size_bytes", "is_tall", "key")
)()
features, _ = batch
flips = {
    share: [images.tolist() for images, _ in ingest.dataflow(
        "plain", batch_size=9, training=True, epochs=1, image_size=32, workers=0, flip=share)]
    for share in (0, 0.5, 1)
}
print(json.dumps({
    "shards": [shard.name.rpartition(".")[2] for shard in manifest.shards][:1],
    "pixels": [np.frombuffer(r.encoded, np.uint8).tolist() for r in map(Dataset("pixels").__getitem__, range(3))],
    "without": old.size_bytes,
    "sizes": dict(zip([k.decode() for k in features["key"].numpy()], features["size_bytes"].numpy().tolist())),
    "tall": features["is_tall"].numpy().tolist(),
    "summary": sum(layer.parameters for layer in summary.table("mean-colour", 224, 3, 1000)),
    "networks": "mean-colour" in NETWORKS,
    "flips": len({json.dumps(images) for images in flips.values()}),
    "mirrored": np.array_equal(np.array(flips[0][0])[:, :, ::-1], flips[1][0]),
}))
"""


def changed(text: str, additions: list[tuple[str, str]]) -> str:
    for before, after in additions:
        assert text.count(before) == 1, f"{before!r} is there {text.count(before)} times"
        text = text.replace(before, after)
    return text


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code, and of what is compiled of it, with a format, a source, a network and so on more."""
    root = tmp_path_factory.mktemp("extended")
    for name in ("ingest", "models"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copy(ROOT / "train.py", root)
    for name, additions in ADDITIONS.items():
        (root / name).write_text(changed((root / name).read_text(), additions))
    (root / "ingest/formats/plain.py").write_text(FORMAT)
    (root / "ingest/sources/npz.py").write_text(SOURCE)
    (root / "models/mean.py").write_text(NETWORK)
    return root


def run(root: Path, folder: Path, *words: object) -> str:
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(extended: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import numpy as np

    import ingest

    folder = tmp_path_factory.mktemp("work")
    sizes = [(60, 40), (40, 60), (50, 50)]
    put(folder / "photos", {f"{c}/{i}.JPEG": image_bytes("JPEG", size) for c in "ab" for i, size in enumerate(sizes)})
    images = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4, 1)
    np.savez(folder / "pixels.npz", images=images, labels=np.array([0, 1, 1]))
    ingest.build_shards(folder / "photos", folder / "old", format="lmdb", workers=0)
    return folder


def test_what_is_added_works_without_more(extended: Path, folder: Path):
    import numpy as np

    result = json.loads(run(extended, folder, "-c", SCRIPT))
    assert result["shards"] == ["plain"] and result["networks"] and result["without"] is None
    assert (
        result["pixels"] == np.arange(48).reshape(3, 16).tolist()
        or sorted(result["pixels"]) == np.arange(48).reshape(3, 16).tolist()
    )
    assert result["sizes"] == {
        path.relative_to(folder / "photos").as_posix(): path.stat().st_size
        for path in (folder / "photos").rglob("*.JPEG")
    }
    assert sum(result["tall"]) == 2
    assert result["summary"] == (3 + 1) * 4 + (4 + 1) * 1000
    helps = {
        name: run(extended, folder, "-m", "ingest", name, "--help") for name in ("build-shards", "convert", "profile")
    }
    assert "a NumPy archive of pixels" in helps["build-shards"]
    assert "{lmdb,plain,tfrecord}" in helps["build-shards"] and "{lmdb,plain,tfrecord}" in helps["convert"]
    assert "--flip SHARE" in helps["profile"] and "--flip SHARE" in run(extended, folder, "-m", "train", "--help")
    run(extended, folder, "-m", "ingest", "convert", "plain", "back", "--format", "lmdb", "--workers", 0)
    assert "whole: 6 records" in run(extended, folder, "-m", "ingest", "verify", "plain", "--decode", "--workers", 0)
    run(extended, folder, "-m", "ingest", "inspect", "back", "--sheet", "sheet.png", "--flip", 1, "--workers", 0)
    trained = run(
        extended, folder, "-m", "train", "--model", "mean-colour", "--data", "plain", "--model-dir", "run",
        "--steps", 2, "--batch-size", 3, "--image-size", 32, "--workers", 0, "--flip", 0.25, "--learning-rate", 0.01,
    )  # fmt: skip
    assert json.loads(trained)["steps"] == 2


def test_an_unfinished_addition_is_an_error_with_its_name(extended: Path, folder: Path):
    """A flag that is given outside its bounds, and a baseline that does not know the option, name it."""
    code = (
        "from ingest.baselines import check; from ingest.dataset.dataset import Dataset;"
        "from ingest.loading.options import LoaderOptions; from ingest.errors import OptionError\n"
        "try: LoaderOptions(batch_size=1, training=True, flip=2)\n"
        "except OptionError as error: print(error)\n"
        "try: check('naive', Dataset('old'), LoaderOptions(batch_size=1, training=True, flip=1))\n"
        "except OptionError as error: print(error)\n"
    )
    bounds, baseline = run(extended, folder, "-c", code).splitlines()
    assert bounds == "flip is 2.0: give 0 to 1"
    assert baseline.startswith("flip: the loader naive does not know it")
