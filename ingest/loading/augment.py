"""Which part of an image is shown, and how: pure functions of random numbers and options."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from ingest.jpeg import Region

if TYPE_CHECKING:
    from ingest.loading.options import TransformOptions

AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
TRIES = 10
"""Random resized crop: share of the image's area, aspect ratio, and tries before the centre is taken. From Szegedy et
al., "Going Deeper with Convolutions" (2014), section 6, with the tries and the fallback of torchvision."""

_LOG_ASPECT = (math.log(ASPECT[0]), math.log(ASPECT[1]))

EVALUATION_SCALE = 256 / 224
"""An evaluation image's short side over the side of its centre crop: Krizhevsky et al. (2012), section 2."""


class View(NamedTuple):
    """What is shown of an image: a region of it, mirrored or not."""

    region: Region
    is_flipped: bool


def train_view(height: int, width: int, size: int, uniforms: list[float], options: TransformOptions) -> View:
    """What training shows of a ``height`` x ``width`` image, ``size`` pixels a side.

    ``uniforms`` are the random numbers of a record in an epoch, from ``sampler.random_draws``. Half of the views are
    flipped. What an option of the transforms decides is decided here.
    """
    if not options.augment:
        return eval_view(height, width, size)
    region = random_resized_crop(height, width, uniforms, options.min_crop_area)
    return View(region, uniforms[4 * TRIES] < 0.5)


def eval_view(height: int, width: int, size: int) -> View:
    """What evaluation shows of a ``height`` x ``width`` image, ``size`` pixels a side."""
    return View(centre_crop(height, width, size), False)


def random_resized_crop(height: int, width: int, uniforms: list[float], min_area: float = AREA[0]) -> Region:
    """A region of a ``height`` x ``width`` image, of random area and aspect ratio, from ``uniforms``, four a try.

    The aspect ratio is uniform in its logarithm, so that wide and tall are equally likely. If ten tries do not fit, the
    largest centre region within ASPECT.
    """
    for i in range(0, 4 * TRIES, 4):
        area = height * width * _between((min_area, AREA[1]), uniforms[i])
        aspect = math.exp(_between(_LOG_ASPECT, uniforms[i + 1]))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(uniforms[i + 2] * (height - crop_height + 1))
            left = int(uniforms[i + 3] * (width - crop_width + 1))
            return Region(top, left, crop_height, crop_width)
    return _centred(height, width, min(height, round(width / ASPECT[0])), min(width, round(height * ASPECT[1])))


def centre_crop(height: int, width: int, size: int) -> Region:
    """The square in the centre of which the evaluation view of side ``size`` is made."""
    if height == width == size:
        return Region(0, 0, size, size)
    side = max(1, round(min(height, width) / EVALUATION_SCALE))
    return _centred(height, width, side, side)


def _between(bounds: tuple[float, float], uniform: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * uniform


def _centred(height: int, width: int, crop_height: int, crop_width: int) -> Region:
    return Region((height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width)
