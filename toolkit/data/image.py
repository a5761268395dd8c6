"""Pictures: encoded bytes to uint8 arrays of one size."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from toolkit.data.budget import Budget

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image as pillow

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
MAX_PIXELS = 64_000_000
"""By the header, before anything is decoded: a small file can claim a picture that fills the memory."""
MAX_SCANNED = 16 * MAX_PIXELS
"""Pixels times scans of a JPEG: a progressive one may go over all its pixels thousands of times."""

_MODES = {1: "L", 3: "RGB"}
_DECODED = Budget(MAX_PIXELS)  # pixels at the same time, in all threads: 64 million take about a gigabyte
_SEGMENTS = frozenset(range(0xC0, 0xFF)) - frozenset(range(0xD0, 0xDA))  # JPEG markers with a length behind them
_SCAN, _END = b"\xff\xda", b"\xff\xd9"


class Unreadable(Exception):
    """An example that cannot be used; the text says why, without naming it."""


def read_size(data: bytes | np.ndarray[Any, Any]) -> tuple[int, int]:
    """(height, width) as `decode` would give it without a size; only the header is read."""
    if not isinstance(data, bytes):
        return data.shape[0], data.shape[1]
    image = _open(data)
    width, height = image.size
    sideways = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # orientations that exchange the two axes
    return (width, height) if sideways else (height, width)


def decode(data: bytes | np.ndarray[Any, Any], size: tuple[int, int] | None, channels: int) -> np.ndarray[Any, Any]:
    """uint8 `(height, width, channels)`, grey (1) or RGB (3), upright as its EXIF orientation says.

    Of an animation the first picture is taken, transparency is laid over white, 16-bit grey becomes 8-bit. Another
    size than `size` (height, width) is resized by linear filtering over the whole footprint of each new pixel.

    Args:
        data: an encoded file, or pixels, uint8 `(height, width, 1 or 3)`.

    Raises:
        Unreadable, or what Pillow raises: the picture cannot be decoded.
    """
    from PIL import Image, ImageOps

    if isinstance(data, bytes):
        image = _open(data)
        with _DECODED.take(image.width * image.height):
            ImageOps.exif_transpose(image, in_place=True)  # otherwise a copy, upright or not
            return _to_pixels(image, size, channels)
    if size in (None, data.shape[:2]) and data.shape[2] == channels:
        return data
    return _to_pixels(Image.fromarray(data[:, :, 0] if data.shape[2] == 1 else data), size, channels)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide Pillow's warnings, which name no file: of EXIF junk, of sizes that are refused here anyway.

    Filters are those of the whole process, so this stands around the threads that decode, not in them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _to_pixels(image: pillow.Image, size: tuple[int, int] | None, channels: int) -> np.ndarray[Any, Any]:
    import numpy as np
    from PIL import Image

    image = _to_mode(image, _MODES[channels])
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], channels)


def _open(data: bytes) -> pillow.Image:
    """The picture, its header read and held against the limits, nothing decoded."""
    from PIL import Image

    if data.startswith(b"\xff\xd8"):
        _check_end(data)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:  # Pillow's own limit, beyond twice ours
        claimed = re.search(r"\d+", str(error))
        raise Unreadable(f"{int(claimed[0]) if claimed else MAX_PIXELS + 1:,} pixels, {_at_most()}") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Unreadable(f"{width}x{height} pixels, {_at_most()}")
    if image.format == "JPEG" and (scans := data.count(_SCAN)) * width * height > MAX_SCANNED:
        raise Unreadable(
            f"a JPEG of {width}x{height} pixels in {scans:,} scans, at most {MAX_SCANNED:,} in all are read"
        )
    return image


def _at_most() -> str:
    return f"at most {MAX_PIXELS // 1_000_000} million are read"


def _check_end(data: bytes) -> None:
    """Refuse a JPEG without an end: libjpeg takes the zeros that a crash or a cut download leave for grey pixels.

    The end is looked for behind the first scan, since a thumbnail before it has an end of its own.
    """
    position = 2
    while data[position : position + 2] != _SCAN:
        if data[position : position + 1] != b"\xff" or position + 4 > len(data):
            return  # not a JPEG as the standard has it: the decoder's word counts
        if data[position + 1] in _SEGMENTS:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        else:
            position += 1 if data[position + 1] == 0xFF else 2
    if data.find(_END, position) < 0:
        raise Unreadable("cut short: a JPEG without an end")


def _to_mode(image: pillow.Image, mode: str) -> pillow.Image:
    import numpy as np
    from PIL import Image

    if image.mode == mode:
        return image
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip at 255
        image = Image.fromarray(np.rint(np.asarray(image).clip(0, 65535) / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
