"""Augmentation of pictures: a pure function of (seed, epoch, example index), in the pipeline, for training only."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Literal

from toolkit.data.order import uniforms

if TYPE_CHECKING:
    import tensorflow as tf

# Which random number of an example serves what: fixed, so that switching one kind on leaves the others as they were.
FLIP_X, FLIP_Y, SHIFT_X, SHIFT_Y, ZOOM, ROTATION, BRIGHTNESS, CONTRAST, SATURATION = range(9)
ERASE, ERASE_AREA, ERASE_ASPECT, ERASE_X, ERASE_Y = range(9, 14)
CROP_X, CROP_Y = range(14, 16)

ERASED = 128
ERASED_AREA = (0.02, 0.2)
ERASED_ASPECT = 3.0
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's conversion to grey

KINDS = {
    **dict.fromkeys(("flip", "shift", "zoom", "rotation", "crop", "colour", "erasing"), "image"),
    **dict.fromkeys(("speed", "noise"), "audio"),
}
"""What each key of `data.augmentation` changes."""

Flip = Literal["horizontal", "vertical", "both"]


def augment(
    images: tf.Tensor,
    seed: int,
    epoch: int | tf.Tensor,
    indices: tf.Tensor,
    *,
    flip: Flip | None = None,
    shift: float = 0.0,
    zoom: float = 0.0,
    rotation: float = 0.0,
    crop: tuple[int, int] | None = None,
    colour: float = 0.0,
    erasing: float = 0.0,
) -> tf.Tensor:
    """Changed copies of uint8 `(batch, height, width, channels)`, the same type and, without `crop`, the same shape.

    What happens to a picture depends on seed, epoch and its example index alone, not on the batch around it. Geometry
    is one bilinear projective transform; what comes in from outside mirrors the picture.

    Args:
        images: the pictures.
        seed: of the run.
        epoch: counted from 0.
        indices: int64 `(batch,)`, the index of each picture in its table.
        flip: each axis named is mirrored with probability 1/2.
        shift: up to this share of height and of width, either way.
        zoom: magnified by a factor in 1 ± zoom.
        rotation: up to so many degrees, either way.
        crop: height and width of the window that is kept of the changed picture; every place of it is as likely.
        colour: brightness, contrast and saturation each get a factor in 1 ± colour.
        erasing: probability that one rectangle of 2 to 20 % of the area is filled with mid-grey.
    """
    import tensorflow as tf

    geometric = flip is not None or shift or zoom or rotation or crop
    if not (geometric or colour or erasing):
        return images
    last = CROP_Y if crop else ERASE_Y if erasing else SATURATION if colour else ROTATION
    random = uniforms(seed, epoch, indices, last + 1)  # (batch, last + 1)
    height, width, _ = images.shape[1:]
    if geometric:
        lead = matrices(random, height, width, flip=flip, shift=shift, zoom=zoom, rotation=rotation, crop=crop)
        images = transform(images, lead, crop or (height, width), rounded=not colour)
    if colour:
        images = _rounded(change_colour(tf.cast(images, tf.float32), random, colour))
    if erasing:
        images = erase(images, random, erasing)
    return images


def transform(images: tf.Tensor, matrices: tf.Tensor, size: tuple[int, int], *, rounded: bool) -> tf.Tensor:
    """Each picture seen through its matrix: 8 numbers that lead from a pixel (x, y) of `size` new ones to an old.

    Between pixels it is bilinear, outside it mirrors the picture: float32, or `rounded` to uint8. The last two numbers
    of a matrix, which would be perspective, are taken for 0. To the bit what TensorFlow's `ImageProjectiveTransformV3`
    makes of float32, in a third of its time.
    """
    changed = _transformed(tuple(images.shape[1:]), tuple(size), rounded)(images, matrices)
    changed.set_shape([images.shape[0], *size, images.shape[3]])
    return changed


@functools.cache
def _transformed(shape: tuple[int, int, int], size: tuple[int, int], rounded: bool) -> Any:
    """`transform` for pictures of a shape; one function for all epochs, so that it is compiled once."""
    import tensorflow as tf

    height, width, channels = shape

    def transformed(images: Any, matrices: Any) -> Any:
        new_x = tf.range(size[1], dtype=tf.float32)[None, None, :]
        new_y = tf.range(size[0], dtype=tf.float32)[None, :, None]

        def lead(first: int) -> Any:
            a, b, c = (matrices[:, i][:, None, None] for i in range(first, first + 3))
            return product(a, new_x) + product(b, new_y) + c

        x, y = _mirrored(lead(0), width), _mirrored(lead(3), height)  # (batch, *size)
        left, top = tf.floor(x), tf.floor(y)
        columns, rows = tf.cast(left, tf.int32), tf.cast(top, tf.int32)
        next_columns, next_rows = tf.minimum(columns + 1, width - 1), tf.minimum(rows + 1, height - 1)
        pixels = tf.reshape(images, [-1, height * width, channels])

        def read(row: Any, column: Any) -> Any:
            return tf.cast(tf.gather(pixels, row * width + column, batch_dims=1), tf.float32)

        def between(one: Any, other: Any, low: Any, at: Any) -> Any:
            return product((low + 1.0 - at)[..., None], one) + product((at - low)[..., None], other)

        upper = between(read(rows, columns), read(rows, next_columns), left, x)
        lower = between(read(next_rows, columns), read(next_rows, next_columns), left, x)
        seen = between(upper, lower, top, y)
        return _rounded(seen) if rounded else seen

    signature = [tf.TensorSpec([None, *shape], tf.uint8), tf.TensorSpec([None, 8], tf.float32)]
    return tf.function(transformed, signature, autograph=False, jit_compile=True)


def _mirrored(at: tf.Tensor, length: int) -> tf.Tensor:
    """Places on a line of pixels, of which those outside are reflected at its ends: d c b a | a b c d | d c b a."""
    import tensorflow as tf

    twice = tf.constant(2.0 * length)
    before = tf.where(at < twice, product(twice, tf.floor(-at / twice)) + at, at)
    before = tf.where(before < -length, before + twice, -before - 1.0)
    beyond = at - product(twice, tf.floor(at / twice))
    beyond = tf.where(beyond >= length, twice - beyond - 1.0, beyond)
    inside = tf.where(at < 0.0, before, tf.where(at > length - 1.0, beyond, at))
    return tf.clip_by_value(inside, 0.0, length - 1.0)


def product(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """The product, rounded before anything is added to it, also where XLA compiles.

    It would else fuse multiplying and adding into one operation that rounds once, where the machine has one: then the
    batches of two machines would differ. A bound that no product here reaches keeps the two apart.
    """
    import tensorflow as tf

    return tf.maximum(a * b, -1e30)


def _rounded(images: tf.Tensor) -> tf.Tensor:
    """uint8, to the nearest: cutting fractions off would make pictures darker."""
    import tensorflow as tf

    return tf.cast(tf.clip_by_value(images, 0.0, 255.0) + 0.5, tf.uint8)


def matrices(
    random: tf.Tensor,
    height: int,
    width: int,
    *,
    flip: Flip | None,
    shift: float,
    zoom: float,
    rotation: float,
    crop: tuple[int, int] | None,
) -> tf.Tensor:
    """float32 `(batch, 8)` for `transform`: mirrored, turned and magnified about the centre, shifted, then cropped."""
    import tensorflow as tf

    # float64, because sine and cosine of the vectorised and of the plain kind differ in the last bit, and which kind an
    # example meets depends on its place in the batch; rounded to float32 they agree.
    random = tf.cast(random, tf.float64)

    def between(column: int, limit: float) -> tf.Tensor:
        return (2.0 * random[:, column] - 1.0) * limit

    def mirror(column: int, *kinds: str) -> tf.Tensor:
        ones = tf.ones_like(random[:, column])
        return tf.where(random[:, column] < 0.5, -ones, ones) if flip in kinds else ones

    scale = 1.0 / (1.0 + between(ZOOM, zoom))
    angle = between(ROTATION, math.radians(rotation))
    cosine, sine = tf.cos(angle) * scale, tf.sin(angle) * scale
    flip_x, flip_y = mirror(FLIP_X, "horizontal", "both"), mirror(FLIP_Y, "vertical", "both")
    a, b = cosine * flip_x, -sine * flip_y
    c, d = sine * flip_x, cosine * flip_y
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    to_x = centre_x - a * centre_x - b * centre_y - between(SHIFT_X, shift * width)
    to_y = centre_y - c * centre_x - d * centre_y - between(SHIFT_Y, shift * height)
    if crop:
        # Whole pixels, so that a picture which is only cropped is not blurred.
        left = tf.floor(random[:, CROP_X] * (width - crop[1] + 1))
        top = tf.floor(random[:, CROP_Y] * (height - crop[0] + 1))
        to_x, to_y = to_x + a * left + b * top, to_y + c * left + d * top
    zero = tf.zeros_like(a)
    return tf.cast(tf.stack([a, b, to_x, c, d, to_y, zero, zero], axis=1), tf.float32)


def change_colour(images: tf.Tensor, random: tf.Tensor, colour: float) -> tf.Tensor:
    """Brightness, contrast (about the mean grey), saturation (about each pixel's grey), of float32 pictures."""
    import tensorflow as tf

    def factor(column: int) -> tf.Tensor:
        return (1.0 + (2.0 * random[:, column] - 1.0) * colour)[:, None, None, None]

    x = images * factor(BRIGHTNESS)
    height, width, channels = (int(side) for side in images.shape[1:])
    luma: tuple[float, ...] = _LUMA if channels == 3 else (1.0,)
    # The mean comes from whole numbers: a sum of floats depends on how the batch is cut among threads.
    sums = tf.reduce_sum(tf.cast(tf.round(x), tf.int64), axis=[1, 2])  # (batch, channels)
    mean = sum(tf.cast(sums[:, i], tf.float32) * luma[i] for i in range(channels))
    mean = (mean / float(height * width))[:, None, None, None]
    x = mean + (x - mean) * factor(CONTRAST)
    if channels == 3:
        grey = x[..., 0:1] * luma[0] + x[..., 1:2] * luma[1] + x[..., 2:3] * luma[2]
        x = grey + (x - grey) * factor(SATURATION)
    return x


def erase(images: tf.Tensor, random: tf.Tensor, probability: float) -> tf.Tensor:
    """In some pictures one rectangle becomes mid-grey; sides at most in the ratio 3 to 1, inside the picture."""
    import tensorflow as tf

    height, width = images.shape[1], images.shape[2]
    wide = tf.cast(random, tf.float64)
    smallest, largest = ERASED_AREA
    area = (smallest + (largest - smallest) * wide[:, ERASE_AREA]) * (height * width)
    ratio = tf.exp((2.0 * wide[:, ERASE_ASPECT] - 1.0) * math.log(ERASED_ASPECT))
    sides = []
    for side, position, length in ((tf.sqrt(area * ratio), ERASE_Y, height), (tf.sqrt(area / ratio), ERASE_X, width)):
        side = tf.minimum(side, float(length))
        start = wide[:, position] * (length - side)
        pixel = tf.range(length, dtype=tf.float64) + 0.5
        sides.append((pixel >= start[:, None]) & (pixel < (start + side)[:, None]))  # (batch, length)
    chosen = (random[:, ERASE] < probability)[:, None, None, None]
    inside = sides[0][:, :, None, None] & sides[1][:, None, :, None] & chosen  # (batch, height, width, 1)
    return tf.where(inside, tf.constant(ERASED, tf.uint8), images)


def active(options: dict[str, Any]) -> dict[str, Any]:
    """The options that do something."""
    return {name: value for name, value in options.items() if value}
