"""Pictures within a page, in the room that is left for them."""

from __future__ import annotations

import base64
import copy
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from toolkit.errors import ToolkitError
from toolkit.explain.report.markup import element
from toolkit.runs import trust

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_FILE = 32 * 2**20  # bytes
MAX_PIXELS = 64_000_000
WEBP_SIDE = 16_383  # pixels: the format has no more
_WIDTHS = (1600, 1200, 800)  # pixels, where a picture must be made smaller
_QUALITY = 80


class Picture:
    """A PNG file of a run and its place in the page, which stays empty until `fit`.

    Attributes:
        path: of the file.
        image: the element, to be put into the page.
    """

    def __init__(self, path: Path, alternative: str) -> None:
        self.path = path
        self.image = element("img", alt=alternative)

    def reserve(self) -> int:
        """Bytes that the place takes at most beyond those while it is empty, but for the picture's address."""
        filled, without = copy.deepcopy(self.image), copy.deepcopy(self.image)
        for name, value in (("src", ""), ("width", str(MAX_PIXELS)), ("height", str(MAX_PIXELS))):
            filled.set(name, value)
        _say_left_out(without)
        return max(_size(filled), _size(without)) - _size(self.image)


def fit(pictures: Sequence[Picture], room: int) -> list[Path]:
    """Put the pictures into their places, as they are or smaller.

    Their addresses take at most `room` characters together; all else in each place is what `reserve` counts.

    Each may take an equal part of what the smaller ones before it have left. One too large for that is written anew
    (WebP: first without loss, then with, then narrower).

    Returns:
        The files that still found no room; their places say so in words.

    Raises:
        ToolkitError: a file is no PNG picture.
    """
    left_out = []
    ordered = sorted(pictures, key=lambda picture: picture.path.stat().st_size)
    for i, picture in enumerate(ordered):
        share = room // (len(ordered) - i)
        fitting = (address for address in _addresses(picture) if len(address) <= share)
        address = next(fitting, None)
        if address is None:
            left_out.append(picture.path)
            _say_left_out(picture.image)
        else:
            picture.image.set("src", address)
            room -= len(address)
    return left_out


def _addresses(picture: Picture) -> Iterator[str]:
    """`data:` addresses of the picture, each smaller than the one before."""
    with trust.open_file(picture.path) as file:
        content = file.read(MAX_FILE + 1)
    image = _decoded(content, picture.path)
    picture.image.set("width", str(image.width))
    picture.image.set("height", str(image.height))
    yield _address(content, "png")
    image.thumbnail((WEBP_SIDE, WEBP_SIDE))
    yield _address(_webp(image, lossless=True), "webp")
    for width in (image.width, *_WIDTHS):
        if width <= image.width:
            narrow = image.resize((width, max(1, round(image.height * width / image.width))))
            yield _address(_webp(narrow, lossless=False), "webp")


def _decoded(content: bytes, path: Path) -> Image:
    from PIL import Image

    if len(content) > MAX_FILE:
        raise ToolkitError(f"{trust.shown(path)} has more than {MAX_FILE:,} bytes: move it out of the run directory.")
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ToolkitError(
                    f"{trust.shown(path)} has more than {MAX_PIXELS:,} pixels: move it out of the run directory."
                )
            return image.convert("RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ToolkitError(
            f"{trust.shown(path)} is no PNG picture ({trust.shown(error, length=80)}): move it elsewhere."
        ) from error


def _webp(image: Image, *, lossless: bool) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=lossless, quality=_QUALITY)
    return buffer.getvalue()


def _address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _size(image: Element) -> int:
    return len(ElementTree.tostring(image, encoding="unicode", method="html").encode())


def _say_left_out(image: Element) -> None:
    told = image.attrib.pop("alt")
    image.clear()
    image.tag = "p"
    image.text = f"(left out, too large for this page: {told})"
