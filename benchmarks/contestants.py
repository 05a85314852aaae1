"""A loader, measured in a process of its own: started by loaders.py, with the Python that has its packages.

    contestants.py NAME FOLDER WORKERS

All have the same task: images from FOLDER, random resized crop to 224 (bilinear, without antialias), flip, uint8,
batches of 64. When ready, a line is written to stdout; then, for each number of seconds read from stdin, a line with
the images/s of so long.

FOLDER holds ``tfrecord`` and ``lmdb``, datasets of ours, and ``files``, the same images as CLASS/KEY.jpg.
"""

from __future__ import annotations

import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BATCH, SIZE = 64, 224
AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)

Batches = Iterator[Any]


def main() -> None:
    """Start the contestant, then measure it as often as asked."""
    name, folder, workers = sys.argv[1:]
    # Stdout is for the measurements; what libraries print goes to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    batches = CONTESTANTS[name](Path(folder), int(workers))
    next(batches)
    print(versions(name), file=answers)
    for line in sys.stdin:
        print(rate(batches, float(line)), file=answers)


def rate(batches: Batches, seconds: float) -> float:
    """Images/s, once what was made ready while others were measured is used up."""
    for _ in range(20):
        next(batches)
    start, images = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds:
        images += next(batches)
    return images / passed


def ours(format: str) -> Callable[[Path, int], Batches]:
    """Our own stream."""

    def start(folder: Path, workers: int) -> Batches:
        from ingest.loading.batches import iter_batches
        from ingest.loading.options import LoaderOptions

        options = LoaderOptions(batch_size=BATCH, training=True, image_size=SIZE, workers=workers)
        return (len(batch.images) for batch in iter_batches(folder / format, options))

    return start


def ceiling(folder: Path, workers: int) -> Batches:
    """What one process can do that only decodes regions, cut out before, and resizes them; loaders.py runs as many as
    there are workers."""
    import cv2
    import numpy as np
    import simplejpeg

    from ingest import jpeg, sampler
    from ingest.dataset.dataset import Dataset
    from ingest.loading import augment, transforms

    dataset = Dataset(folder / "tfrecord")
    cv2.setNumThreads(1)
    cv2.ipp.setUseIPP_NotExact(True)  # as the stream resizes
    out = np.empty((SIZE, SIZE, 3), np.uint8)
    crops = []
    for i, draws in zip(sampler.epoch_order(len(dataset), 0, 0).tolist(), sampler.random_draws(0, 0, 0, 1000).tolist()):
        record = dataset[i]
        region = augment.random_resized_crop(record.height, record.width, draws)
        part = jpeg.crop_jpeg(record.encoded, record.segments, region) if record.segments else None
        crops.append((part, region, None if part else transforms.decode_region(record, 3, region).copy()))

    def view(part: Any, region: Any, pixels: Any) -> None:
        if part:
            pixels = simplejpeg.decode_jpeg(part.encoded, "RGB")
            pixels = pixels[part.top : part.top + region.height, part.left : part.left + region.width]
        cv2.resize(pixels, (SIZE, SIZE), dst=out, interpolation=cv2.INTER_LINEAR)

    while True:
        for start in range(0, len(crops) - BATCH + 1, BATCH):
            for crop in crops[start : start + BATCH]:
                view(*crop)
            yield BATCH


def tf_data(folder: Path, workers: int) -> Batches:
    """As tf.data's performance guide recommends: parallel map of a fused decode and crop, AUTOTUNE, prefetch."""
    import tensorflow as tf

    def view(payload: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        fields = {"image/encoded": tf.string, "image/class/label": tf.int64}
        record = tf.io.parse_single_example(payload, {k: tf.io.FixedLenFeature([], v) for k, v in fields.items()})
        encoded = record["image/encoded"]
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(encoded), tf.zeros([1, 0, 4]), area_range=AREA, aspect_ratio_range=ASPECT,
            max_attempts=10, use_image_if_no_bounding_boxes=True,
        )  # fmt: skip
        crop = tf.io.decode_and_crop_jpeg(encoded, tf.concat([begin[:2], size[:2]], 0), channels=3)
        image = tf.image.random_flip_left_right(tf.image.resize(crop, [SIZE, SIZE]))
        return tf.cast(image + 0.5, tf.uint8), tf.cast(record["image/class/label"], tf.int32)

    options = tf.data.Options()
    options.threading.private_threadpool_size = workers
    dataset = (
        tf.data.Dataset.list_files(str(folder / "tfrecord" / "*.tfrecord"), seed=0)
        .interleave(tf.data.TFRecordDataset, num_parallel_calls=tf.data.AUTOTUNE)
        .repeat()
        .shuffle(256, seed=0)
        .map(view, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(BATCH, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
        .with_options(options)
    )
    return (len(images) for images, _ in dataset)


def tensorpack(folder: Path, workers: int) -> Batches:
    """Wired as tensorpack's ImageNet example: files, cv2, augmentors, processes that send over ZMQ, batches."""
    import cv2
    import tensorpack.dataflow as flow
    from tensorpack.dataflow import imgaug

    names = sorted(path.name for path in (folder / "files").iterdir())
    files = [[str(path), names.index(path.parent.name)] for path in sorted((folder / "files").glob("*/*"))]

    class Photos(flow.DataFromList):
        def __iter__(self) -> Iterator[list[Any]]:
            for path, label in super().__iter__():
                yield [cv2.imread(path, cv2.IMREAD_COLOR), label]

    augmentors = [
        imgaug.GoogleNetRandomCropAndResize(AREA, ASPECT, SIZE, interp=cv2.INTER_LINEAR),
        imgaug.Flip(horiz=True),
    ]
    stream = flow.AugmentImageComponent(Photos(files, shuffle=True), augmentors, copy=False)
    stream = flow.MultiProcessRunnerZMQ(stream, workers)
    stream = flow.BatchData(flow.RepeatedData(stream, -1), BATCH)
    stream.reset_state()
    return (len(images) for images, _ in stream)


def dali(folder: Path, workers: int) -> Batches:
    """NVIDIA DALI on the CPU alone, with its fused decode and crop."""
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=BATCH, num_threads=workers, device_id=None, prefetch_queue_depth=2)
    def pipeline() -> Any:
        encoded, labels = fn.readers.file(file_root=str(folder / "files"), random_shuffle=True, name="reader")
        images = fn.decoders.image_random_crop(
            encoded, device="cpu", output_type=types.RGB, random_area=list(AREA), random_aspect_ratio=list(ASPECT)
        )
        images = fn.resize(images, size=[SIZE, SIZE], interp_type=types.INTERP_LINEAR, antialias=False)
        return fn.flip(images, horizontal=fn.random.coin_flip()), labels

    running = pipeline()
    running.build()
    while True:
        images, _ = running.run()
        yield len(images)


def ffcv(write_mode: str) -> Callable[[Path, int], Batches]:
    """FFCV, from its own file of the same images, as pixels (``raw``) or encoded by it at quality 90 (``jpg``)."""

    def start(folder: Path, workers: int) -> Batches:
        from ffcv.fields import IntField, RGBImageField
        from ffcv.fields.decoders import IntDecoder
        from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.transforms import RandomHorizontalFlip, ToTensor
        from ffcv.writer import DatasetWriter

        path = folder / f"{write_mode}.beton"
        if not path.exists():
            fields = {"image": RGBImageField(write_mode=write_mode, jpeg_quality=90), "label": IntField()}
            DatasetWriter(str(path), fields, num_workers=workers).from_indexed_dataset(Photos(folder))
        decoder = RandomResizedCropRGBImageDecoder((SIZE, SIZE), scale=AREA, ratio=ASPECT)
        loader = Loader(
            str(path), batch_size=BATCH, num_workers=workers, order=OrderOption.RANDOM, os_cache=True, drop_last=True,
            pipelines={"image": [decoder, RandomHorizontalFlip(), ToTensor()], "label": [IntDecoder(), ToTensor()]},
        )  # fmt: skip
        while True:
            for images, _ in loader:
                yield len(images)

    return start


def torch(folder: Path, workers: int) -> Batches:
    """PyTorch's DataLoader over Pillow, as torchvision's ImageFolder and RandomResizedCrop use it."""
    from torch.utils.data import DataLoader

    loader = DataLoader(
        Photos(folder, random_view), BATCH, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=True
    )
    while True:
        for images, _ in loader:
            yield len(images)


class Photos:
    """An indexed dataset of ``files``: Pillow images, or what ``view`` makes of them, and labels."""

    def __init__(self, folder: Path, view: Callable[[Any], Any] = lambda image: image):
        self.files = sorted((folder / "files").glob("*/*"))
        self.names = sorted({path.parent.name for path in self.files})
        self.view = view

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        from PIL import Image

        path = self.files[i]
        return self.view(Image.open(path).convert("RGB")), self.names.index(path.parent.name)


def random_view(image: Any) -> Any:
    """A random resized crop of a Pillow image, flipped or not: uint8 [SIZE, SIZE, 3]."""
    import numpy as np
    from PIL import Image

    for _ in range(10):
        area = image.width * image.height * random.uniform(*AREA)
        aspect = math.exp(random.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if width <= image.width and height <= image.height:
            break
    width, height = min(width, image.width), min(height, image.height)
    left, top = random.randint(0, image.width - width), random.randint(0, image.height - height)
    crop = image.crop((left, top, left + width, top + height)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    if random.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(crop)


CONTESTANTS: dict[str, Callable[[Path, int], Batches]] = {
    "ingest": ours("tfrecord"),
    "ingest lmdb": ours("lmdb"),
    "ceiling": ceiling,
    "tf.data": tf_data,
    "tensorpack": tensorpack,
    "dali": dali,
    "ffcv": ffcv("jpg"),
    "ffcv raw": ffcv("raw"),
    "torch": torch,
}

PACKAGES = {
    "tf.data": "tensorflow",
    "tensorpack": "tensorpack",
    "dali": "nvidia-dali",
    "ffcv": "ffcv",
    "torch": "torch",
}


def versions(name: str) -> str:
    """What was measured, for the record."""
    from importlib.metadata import distributions

    wanted = PACKAGES.get(name.removesuffix(" raw"), "ingest-toolkit")
    found = {d.metadata["Name"]: d.version for d in distributions()}
    return next((f"{k} {v}" for k, v in sorted(found.items()) if (k or "").startswith(wanted)), name)


if __name__ == "__main__":
    main()
