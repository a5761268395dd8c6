"""Pictures that are made to harm whoever opens them. Each is a few bytes of code here, none is stored."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int = 0, size: tuple[int, int] = (16, 16)) -> Image.Image:
    """Noise that was smoothed, so that it survives JPEG."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(small).resize(size)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """The picture as a file of `form`."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png(width: int, height: int, data: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG (8-bit RGB) that says it has so many pixels, with any compressed data."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + extra + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def zeros(megabytes: int) -> bytes:
    """So many megabytes of zeros, a thousandth as long."""
    compress = zlib.compressobj(9)
    return b"".join(compress.compress(bytes(1 << 20)) for _ in range(megabytes)) + compress.flush()


def gif(width: int, height: int, frame_width: int, frame_height: int) -> bytes:
    """A GIF whose screen and whose first frame claim sizes of their own."""
    screen = b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    return screen + b"," + struct.pack("<HHHH", 0, 0, frame_width, frame_height) + b"\0\x02\x02\x4c\x01\0;"


def animation(frames: int) -> bytes:
    """A GIF that goes on for ever, of which only the first picture is wanted."""
    first, *others = (Image.new("P", (200, 200), i % 7) for i in range(frames))
    return encoded(first, "GIF", save_all=True, append_images=others, loop=0)


def bmp(width: int, height: int) -> bytes:
    """A BMP header without pixels."""
    start = b"BM" + struct.pack("<IHHI", 54, 0, 0, 54)
    return start + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def webp(width: int, height: int) -> bytes:
    """An animated WebP: a canvas of any size around one frame of 2x2."""
    frame = encoded(Image.new("RGB", (2, 2)), "WEBP", lossless=True)[12:]
    frame = bytes(6) + _three(1) + _three(1) + _three(16) + b"\0" + frame
    chunks = ((b"VP8X", b"\x02\0\0\0" + _three(width - 1) + _three(height - 1)), (b"ANIM", bytes(6)), (b"ANMF", frame))
    body = b"WEBP" + b"".join(name + struct.pack("<I", len(data)) + data for name, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _three(number: int) -> bytes:
    return number.to_bytes(3, "little")


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG of 16x16 pixels whose header claims others."""
    data = bytearray(encoded(picture(), "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg_with_scans(size: int, scans: int) -> bytes:
    """A progressive JPEG that goes over all its pixels again and again."""
    data = encoded(Image.new("RGB", (size, size), "grey"), "JPEG", progressive=True)
    start = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)  # the first scan sets up, the others refine
    end = data.index(b"\xff", start + 2)
    while data[end + 1] == 0 or 0xD0 <= data[end + 1] <= 0xD7:
        end = data.index(b"\xff", end + 2)
    return data[:start] + data[start:end] * scans + data[start:]


def jpeg_with_exif(exif: bytes) -> bytes:
    """A good JPEG with anything as EXIF."""
    data = encoded(picture(), "JPEG")
    exif = b"Exif\0\0" + exif
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


def hostile() -> Mapping[str, tuple[bytes, str]]:
    """Name → (content, what the reason for leaving it out says; "" where the picture is good and is to be read)."""
    rng = np.random.default_rng(0)
    bomb, small = zeros(2000), zlib.compress(bytes(310))
    loop = b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x112, 3, 1, 6, 8)  # the next directory is this one
    return {
        "header-100000.png": (png(100_000, 100_000), "10,000,000,000 pixels, at most 64 million"),
        "header-12000x10000.png": (png(12_000, 10_000), "12000x10000 pixels, at most 64 million"),
        "header-8000-empty.png": (png(8_000, 8_000), "truncated"),
        "inflates-to-2-gb.png": (png(10, 10, bomb), ""),
        "text-of-2-gb.png": (png(10, 10, small, _chunk(b"zTXt", b"a\0\0" + bomb)), "too large"),
        "profile-of-2-gb.png": (png(10, 10, small, _chunk(b"iCCP", b"a\0\0" + bomb)), "too large"),
        "screen-65535.gif": (gif(65_535, 65_535, 65_535, 65_535), "pixels, at most 64 million"),
        "frame-65535.gif": (gif(1, 1, 65_535, 65_535), "pixels, at most 64 million"),
        "animation.gif": (animation(500), ""),
        "canvas-16383.webp": (webp(16_383, 16_383), "pixels, at most 64 million"),
        "canvas-8001.webp": (webp(8_001, 8_001), "8001x8001 pixels, at most 64 million"),
        "header-100000.bmp": (bmp(100_000, 100_000), "pixels, at most 64 million"),
        "upside-down-100000.bmp": (bmp(100_000, -100_000), "pixels, at most 64 million"),
        "header-65500.jpg": (jpeg_of(65_500, 65_500), "pixels, at most 64 million"),
        "scans.jpg": (jpeg_with_scans(2048, 1000), r"JPEG of 2048x2048 pixels in 1,0\d\d scans"),
        "exif-junk.jpg": (jpeg_with_exif(rng.bytes(300)), ""),
        "exif-tiff-junk.jpg": (jpeg_with_exif(b"II*\0\x08\0\0\0" + rng.bytes(300)), ""),
        "exif-loop.jpg": (jpeg_with_exif(loop), ""),
        "exif-cut.jpg": (jpeg_with_exif(b"II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\x01"), ""),
        "a-png-named.jpg": (encoded(picture(), "PNG"), ""),
        "a-tiff-named.png": (encoded(picture(), "TIFF"), "not a picture in a known format"),
        "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n", "not a picture"),
        "pickle.png": (b"\x80\x04c\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.", "not a picture"),
        "page.png": (b"<html><body>404 Not Found</body></html>", "not a picture"),
        "empty.jpg": (b"", "empty"),
    }
