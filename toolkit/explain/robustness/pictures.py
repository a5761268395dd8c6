"""Changes of pictures: noise, blur, light and weather, encoding, geometry, and something in front.

After Hendrycks & Dietterich 2019 (arXiv:1903.12261), whose noises, blurs, fog, brightness, contrast, pixelation and
JPEG these are, and MNIST-C (Mu & Gilmer 2019, arXiv:1906.02337) for rotation, shift, scale and shear. Lengths are
shares of the picture's shorter side, so that a severity means much the same for 28 pixels as for 224.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from toolkit.explain.robustness.change import Array, Change, either_way

_FINE = 8  # points to a pixel and direction where a shape is drawn into a kernel


def gaussian_noise(image: Array, level: float, random: np.random.Generator) -> Array:
    """Normal noise of standard deviation `level`, as of a sensor in little light."""
    return image + random.normal(0, level, image.shape)


def shot_noise(image: Array, level: float, random: np.random.Generator) -> Array:
    """Poisson noise, as of light that comes in `level` photons at full brightness."""
    return random.poisson(image * level) / level


def impulse_noise(image: Array, level: float, random: np.random.Generator) -> Array:
    """Salt and pepper: a share `level` of all values becomes 0 or 1."""
    hit, salt = random.random(image.shape) < level, random.random(image.shape) < 0.5
    return np.where(hit, salt, image)


def defocus_blur(image: Array, level: float, random: np.random.Generator) -> Array:
    """The mean over a disc with a radius of `level` sides, as out of focus."""
    radius = max(0.5, level * min(image.shape[:2]))
    points = _fine_grid(radius)
    return _filtered(image, _pixels((points[:, None] ** 2 + points**2 <= radius**2).astype(float)))


def motion_blur(image: Array, level: float, random: np.random.Generator) -> Array:
    """The mean over a line of `level` sides, in any direction."""
    length, angle = max(1.0, level * min(image.shape[:2])), random.uniform(0, math.pi)
    points = _fine_grid(length / 2)
    along = points * np.cos(angle) + points[:, None] * np.sin(angle)
    across = points * np.sin(angle) - points[:, None] * np.cos(angle)
    return _filtered(image, _pixels(((np.abs(across) <= 0.5) & (np.abs(along) <= length / 2)).astype(float)))


def brightness(image: Array, level: float, random: np.random.Generator) -> Array:
    """`level` more of the value V of HSV; hue and saturation stay."""
    value = image.max(axis=2, keepdims=True)
    raised = np.minimum(value + level, 1)
    changed: Array = np.where(value > 0, image * raised / np.where(value > 0, value, 1), raised)
    return changed


def contrast(image: Array, level: float, random: np.random.Generator) -> Array:
    """Only a share `level` of each value's distance from its channel's mean."""
    mean: Array = image.mean(axis=(0, 1), keepdims=True)
    return mean + level * (image - mean)


def fog(image: Array, level: float, random: np.random.Generator) -> Array:
    """`level` times a cloudy field is added; the brightest spot stays as bright as it was."""
    height, width, _ = image.shape
    cloud = _plasma(max(height, width), random)[:height, :width, None]
    brightest = float(image.max())
    return (image + level * cloud) * (brightest / (brightest + level))


def jpeg(image: Array, level: float, random: np.random.Generator) -> Array:
    """Encoded as JPEG of quality `level`, and decoded."""
    from PIL import Image

    buffer = io.BytesIO()
    _to_pillow(image).save(buffer, "jpeg", quality=int(level))
    return _from_pillow(Image.open(buffer), image.shape)


def pixelation(image: Array, level: float, random: np.random.Generator) -> Array:
    """A share `level` of its height and width in pixels, each shown as a rectangle."""
    from PIL import Image

    height, width, _ = image.shape
    size = max(1, round(level * width)), max(1, round(level * height))
    small = _to_pillow(image).resize(size, Image.Resampling.BOX)
    return _from_pillow(small.resize((width, height), Image.Resampling.NEAREST), image.shape)


def rotation(image: Array, level: float, random: np.random.Generator) -> Array:
    """By `level` degrees, either way."""
    angle = math.radians(either_way(random) * level)
    return _warped(image, [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


def shift(image: Array, level: float, random: np.random.Generator) -> Array:
    """By `level` sides in any direction."""
    angle, distance = random.uniform(0, 2 * math.pi), level * min(image.shape[:2])
    return _warped(image, np.eye(2), (distance * math.sin(angle), distance * math.cos(angle)))


def scale(image: Array, level: float, random: np.random.Generator) -> Array:
    """`level` times as large or as small."""
    return _warped(image, np.eye(2) * level ** either_way(random))


def shear(image: Array, level: float, random: np.random.Generator) -> Array:
    """A row moves aside by `level` of its height above the middle, either way."""
    return _warped(image, [[1, 0], [either_way(random) * level, 1]])


def occlusion(image: Array, level: float, random: np.random.Generator) -> Array:
    """A square of `level` sides anywhere in the picture, in its mean colour, hides what is behind."""
    side = round(level * min(image.shape[:2]))
    top, left = (int(random.integers(length - side + 1)) for length in image.shape[:2])
    changed = image.copy()
    changed[top : top + side, left : left + side] = image.mean(axis=(0, 1))
    return changed


def _on_pixels(apply: Callable[[Array, float, np.random.Generator], Array]) -> Callable[..., Array]:
    """uint8 `(height, width, channels)` to the same, for what takes and gives such an array in [0, 1]."""

    def changed(image: Array, level: float, random: np.random.Generator) -> Array:
        values = apply(image / 255.0, level, random)
        pixels: Array = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
        return pixels

    return changed


_LEVELS: dict[Callable[..., Array], tuple[float, float, float, float, float]] = {
    gaussian_noise: (0.08, 0.12, 0.18, 0.26, 0.38),
    shot_noise: (60, 25, 12, 5, 3),
    impulse_noise: (0.03, 0.06, 0.09, 0.17, 0.27),
    defocus_blur: (0.025, 0.035, 0.045, 0.055, 0.07),
    motion_blur: (0.06, 0.09, 0.12, 0.16, 0.2),
    brightness: (0.1, 0.2, 0.3, 0.4, 0.5),
    contrast: (0.4, 0.3, 0.2, 0.1, 0.05),
    fog: (0.5, 0.8, 1.2, 1.8, 2.5),
    jpeg: (25, 18, 15, 10, 7),
    pixelation: (0.6, 0.5, 0.4, 0.3, 0.25),
    rotation: (10, 20, 30, 45, 60),
    shift: (0.05, 0.1, 0.15, 0.2, 0.25),
    scale: (1.1, 1.2, 1.35, 1.5, 1.75),
    shear: (0.1, 0.2, 0.3, 0.45, 0.6),
    occlusion: (0.2, 0.3, 0.4, 0.5, 0.6),
}
CHANGES = {apply.__name__: Change(_on_pixels(apply), levels) for apply, levels in _LEVELS.items()}


def _fine_grid(reach: float) -> Array:
    """Places from the middle of a kernel of whole pixels that holds everything within `reach` and half a pixel."""
    pixels = 2 * math.ceil(reach) + 1
    places: Array = (np.arange(pixels * _FINE) + 0.5) / _FINE - pixels / 2
    return places


def _pixels(fine: Array) -> Array:
    """A kernel of sum 1, each pixel the mean of its points."""
    side = len(fine) // _FINE
    kernel: Array = fine.reshape(side, _FINE, side, _FINE).sum(axis=(1, 3))
    return kernel / float(kernel.sum())


def _filtered(image: Array, kernel: Array) -> Array:
    """Each channel convolved with `kernel`; beyond the border the picture is its mirror image."""
    from scipy import signal

    reach = len(kernel) // 2
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    filtered: Array = signal.fftconvolve(padded, kernel[:, :, None], mode="valid", axes=(0, 1))
    return filtered


def _warped(image: Array, matrix: Any, move: tuple[float, float] = (0.0, 0.0)) -> Array:
    """Linear in (row, column) about the middle, then moved; bilinear, the border's pixels go on beyond it."""
    from scipy import ndimage

    back = np.linalg.inv(np.asarray(matrix))
    middle = (np.array(image.shape[:2]) - 1) / 2
    offset = middle - back @ (middle + move)
    channels = [
        ndimage.affine_transform(image[:, :, i], back, offset, order=1, mode="nearest") for i in range(image.shape[2])
    ]
    return np.stack(channels, axis=2)


def _plasma(side: int, random: np.random.Generator) -> Array:
    """A cloudy field in [0, 1] of at least `side` by `side`, by the diamond-square algorithm on a torus."""
    step = 1 << (side - 1).bit_length()
    field = np.zeros((step, step))
    roughness = 1.0
    while step > 1:
        half = step // 2
        corners = field[::step, ::step]
        right, below = np.roll(corners, -1, axis=1), np.roll(corners, -1, axis=0)

        def between(*four: Array, spread: float = roughness) -> Array:
            mean: Array = np.mean(four, axis=0)
            return mean + random.uniform(-spread, spread, four[0].shape)

        centres = between(corners, right, below, np.roll(right, -1, axis=0))
        field[half::step, half::step] = centres
        field[::step, half::step] = between(corners, right, centres, np.roll(centres, 1, axis=0))
        field[half::step, ::step] = between(corners, below, centres, np.roll(centres, 1, axis=1))
        step, roughness = half, roughness / 2
    lowest = float(field.min())
    return (field - lowest) / max(float(field.max()) - lowest, 1e-9)


def _to_pillow(image: Array) -> Any:
    from PIL import Image

    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _from_pillow(picture: Any, shape: tuple[int, ...]) -> Array:
    return np.asarray(picture).reshape(shape) / 255.0
