"""What a model must know about its data, and nothing more."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import FailFast

from toolkit.errors import ToolkitError

FORMAT = 1
SPLITS = ("train", "validation", "test")
# Of a description that is read: no data is larger, and a model for more would only fill the memory.
MAX_BYTES = 2**23  # of the file: a vocabulary of some 500,000 words
MAX_IMAGE = 2**28  # numbers: 90 million pixels in colour
MAX_SAMPLES = 2**28
MAX_TOKENS = 2**20
MAX_RATE = 10_000_000

_T = TypeVar("_T")
# A million entries of a wrong type are one error.
_Tuple = Annotated[tuple[_T, ...], FailFast()]
_BRING = "use a run directory that train wrote"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Frozen description of a dataset: with it and the config a model is rebuilt, without the data.

    Attributes:
        kind: what an example is; it fixes the keys of a batch (`image`; `samples`, `lengths`; `tokens`).
        shape: of one element: `(height, width, channels)` for images, `(None,)` for audio and text.
        dtype: of one element as the model receives it: uint8 images, float32 samples, int32 tokens.
        class_names: position is the label. Empty where the task is transcription.
        vocabulary: of texts: position is the token; 0 is padding, 1 an unknown word. Of transcripts: entry i is the
            unit with the label i + 1; the label 0 is CTC's blank and the padding, and stands for nothing. Else empty.
        units: what a transcript is written in, a label for each. None but for transcription.
        sample_rate: in Hz. None but for audio.
        lengths: bucket edges, rising: a batch is padded to the first edge that holds its longest example. Text
            longer than the last edge is cut; audio never is (predict rounds up to a multiple of the last edge).
        examples: how many each split holds, bad ones left out.
    """

    kind: Literal["image", "audio", "text"]
    task: Literal["classification", "transcription"] = "classification"
    shape: _Tuple[int | None]
    dtype: str
    class_names: _Tuple[str]
    vocabulary: _Tuple[str] = ()
    units: Literal["characters", "words"] | None = None
    sample_rate: int | None = None
    lengths: _Tuple[int] = ()
    examples: Mapping[str, int] = dataclasses.field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> str:
        """As text for `data_spec.json`.

        Raises:
            ToolkitError: it is longer than what `from_json` is given.
        """
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)
        if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            raise ToolkitError(
                f"the data's classes and vocabulary take more than {MAX_BYTES:,} bytes: set data.vocabulary_size to a "
                "smaller number."
            )
        return text

    @property
    def outputs(self) -> int:
        """How many logits a model gives: one per class, or one per unit of the vocabulary and one for the blank."""
        return len(self.class_names) if self.task == "classification" else len(self.vocabulary) + 1

    @classmethod
    def from_json(cls, text: str, *, where: str = "data_spec.json") -> DataSpec:
        """Read what `to_json` wrote.

        Raises:
            ToolkitError: not JSON, another format, or fields that are missing, unknown, of another type or with a value
                that no data of the kind have.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ToolkitError(f"{where} is not JSON ({error}): {_BRING}.") from error
        from pydantic import TypeAdapter, ValidationError

        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
            raise ToolkitError(
                f"{where} has format {_shorten(found)}, this version reads {FORMAT}: train the run again."
            )
        fields = dataclasses.fields(cls)
        unknown = set(raw) - {field.name for field in fields}
        if unknown:
            raise ToolkitError(f"{where} has unknown fields ({_shorten(min(unknown))}): {_BRING}.")
        plain = (field for field in fields if field.default is field.default_factory)  # both MISSING
        missing = [field.name for field in plain if field.name not in raw]
        if missing:
            raise ToolkitError(f"{where} lacks {', '.join(missing)}: {_BRING}.")
        if isinstance(raw.get("examples"), dict) and len(raw["examples"]) > len(SPLITS):
            raise ToolkitError(f"{where} counts the examples of more than {len(SPLITS)} splits: {_BRING}.")
        del raw  # of a file that is not ours it may take much memory
        try:
            spec = TypeAdapter(cls).validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = _shorten(".".join(map(str, first["loc"])))
            raise ToolkitError(f"{where}: {place}: {first['msg']}: {_BRING}.") from error
        for name in spec._faults():
            raise ToolkitError(f"{where}: {name} is none that data of the kind {spec.kind} have: {_BRING}.")
        return spec

    def _faults(self) -> Iterator[str]:
        """The fields with a value that `load` gives to no data of this kind, or beyond all that can be computed."""
        image, text, spoken = self.kind == "image", self.kind == "text", self.task == "transcription"
        sides = [side or 0 for side in self.shape]
        sized = len(sides) == 3 and min(sides) > 0 and math.prod(sides) <= MAX_IMAGE
        if not (sized if image else self.shape == (None,)):
            yield "shape"
        if self.dtype != {"image": "uint8", "audio": "float32", "text": "int32"}[self.kind]:
            yield "dtype"
        if spoken and self.kind != "audio":
            yield "task"
        if bool(self.class_names) == spoken:
            yield "class_names"
        if (len(self.vocabulary) > (0 if spoken else 1)) != (text or spoken):
            yield "vocabulary"
        if (self.units is not None) != spoken:
            yield "units"
        if (self.sample_rate is not None) != (self.kind == "audio") or not 0 < (self.sample_rate or 1) <= MAX_RATE:
            yield "sample_rate"
        rising = all(a < b for a, b in itertools.pairwise((0, *self.lengths)))
        longest = MAX_TOKENS if text else MAX_SAMPLES
        if bool(self.lengths) == image or not rising or max(self.lengths, default=0) > longest:
            yield "lengths"
        if not set(self.examples) <= set(SPLITS) or any(count < 0 for count in self.examples.values()):
            yield "examples"


def _shorten(value: object) -> str:
    """What a file says, for a message: nothing in it may speak to a terminal."""
    text = ascii(value) if not isinstance(value, str) or not value.isprintable() else value
    return text if len(text) <= 80 else f"{text[:79]}…"
