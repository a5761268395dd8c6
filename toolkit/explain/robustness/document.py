"""What a run's robustness is, as it stands in `robustness.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from toolkit.errors import ToolkitError
from toolkit.evaluation.files import encode, replace_file, strict_json
from toolkit.explain.robustness.measure import Figures, corruption_error
from toolkit.runs import trust

FORMAT = 2  # 1 did not say by which definitions of the changes it was measured
FILE = "robustness.json"
PART = "robustness.part.json"
"""What is measured so far, while a pass over the test part is under way or after it was interrupted."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What decides over the figures: two passes of equal setting can be joined.

    Attributes:
        fingerprint: of the split.
        weights: sha256 of the file they were read from.
        limit: examples of the sample; None for all.
        definitions: number of those of the changes and attacks.
    """

    fingerprint: str
    weights: str
    backend: str
    seed: int
    limit: int | None
    definitions: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pass:
    """All examples under one change.

    Attributes:
        strength: severity 1 to 5; of an attack ε in grey levels.
    """

    change: str
    strength: int
    figures: Figures


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Beside another run's, over the same examples under the same changes; attacks are left out, they fit one model.

    Attributes:
        baseline: the other run's directory.
        corruption_errors: of each change, the errors over all severities ÷ those of the baseline; None where it makes
            none.
        mean_corruption_error: the mean of these.
        relative_mean_corruption_error: the same with errors counted from the clean ones, None where the
            baseline loses nothing under some change.
    """

    baseline: str
    corruption_errors: Mapping[str, float | None]
    mean_corruption_error: float | None
    relative_mean_corruption_error: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Robustness:
    """Figures of the test part, unchanged and changed.

    Attributes:
        task: decides over what `error` is in all figures.
        passes: in the order in which they were asked for.
        attacks: names of those of the changes that are attacks.
        seconds: of this command; what an interrupted one had done is not in them.
    """

    split: Literal["test"]
    examples: Annotated[int, Field(gt=0, lt=2**53)]
    task: Literal["classification", "transcription"]
    setting: Setting
    clean: Figures
    passes: tuple[Pass, ...]
    attacks: tuple[str, ...]
    comparison: Comparison | None
    seconds: float

    @property
    def changes(self) -> list[str]:
        """Names of the changes, attacks not among them."""
        return [name for name in self._names() if name not in self.attacks]

    def of(self, change: str) -> dict[int, Figures]:
        """Figures of one change or attack, by strength."""
        return {one.strength: one.figures for one in self.passes if one.change == change}

    def errors(self, change: str) -> list[float]:
        """Of one change or attack, by rising strength."""
        return [figures.error for _, figures in sorted(self.of(change).items())]

    def mean_error(self) -> float | None:
        """Over all changes and severities; None where there are only attacks."""
        errors = [error for change in self.changes for error in self.errors(change)]
        return sum(errors) / len(errors) if errors else None

    def write(self, path: Path) -> None:
        """Replace `path`, whole or not at all."""
        fields: dict[str, Any] = dataclasses.asdict(self)
        for key in ("passes", "attacks"):
            fields[key] = list(fields[key])
        replace_file(path, encode(strict_json({"format": FORMAT, **fields})))

    def _names(self) -> list[str]:
        return list(dict.fromkeys(one.change for one in self.passes))


def read(path: Path) -> Robustness:
    """What stands in a file that may come from somebody else.

    Raises:
        ToolkitError: there is no such file, or it holds no such document.
    """
    from pydantic import TypeAdapter, ValidationError

    raw = trust.read_json(path)
    found = raw.pop("format", None) if isinstance(raw, dict) else None
    if found != FORMAT:
        raise ToolkitError(
            f"{trust.shown(path)} has format {trust.shown(found, length=20)}, this version reads {FORMAT}: remove the "
            "file and run `toolkit robustness` again."
        )
    try:
        return TypeAdapter(Robustness).validate_python(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = trust.shown(".".join(map(str, first["loc"])), length=80)
        raise ToolkitError(
            f"{trust.shown(path)}: {place}: {trust.shown(first['msg'])}: remove the file and run `toolkit robustness` "
            "again."
        ) from error


def compare(own: Robustness, other: Robustness, baseline: Path) -> Comparison:
    """Corruption errors of `own` beside those of `other`, which has all of its passes."""
    errors, relative = {}, []
    for change in own.changes:
        severities = sorted(own.of(change))
        beside = [other.of(change)[severity].error for severity in severities]
        errors[change] = corruption_error(own.errors(change), beside)
        relative.append(
            corruption_error(
                [error - own.clean.error for error in own.errors(change)],
                [error - other.clean.error for error in beside],
            )
        )
    return Comparison(
        baseline=str(baseline),
        corruption_errors=errors,
        mean_corruption_error=_mean(list(errors.values())),
        relative_mean_corruption_error=_mean(relative),
    )


def check_comparable(other: Robustness, setting: Setting, passes: Sequence[tuple[str, int]], baseline: Path) -> None:
    """Refuse a baseline that was measured on other examples, or not under all the changes in `passes`.

    Raises:
        ToolkitError: that is so.
    """
    for name in ("fingerprint", "seed", "limit", "definitions"):
        own, its = getattr(setting, name), getattr(other.setting, name)
        if own != its:
            what = {
                "fingerprint": "another test part",
                "seed": f"--seed {its}",
                "limit": f"--limit {its or 'left out'}",
                "definitions": "other definitions of the changes",
            }
            raise ToolkitError(
                f"--baseline {trust.shown(baseline)} was measured with {what[name]}, so its errors are no measure for "
                "these: measure both alike."
            )
    lacking = [f"{change} of severity {severity}" for change, severity in passes if severity not in other.of(change)]
    if lacking:
        raise ToolkitError(
            f"--baseline {trust.shown(baseline)} was not measured under {len(lacking)} of these changes (first: "
            f"{lacking[0]}): run `toolkit robustness` on it with them first."
        )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if values and len(known) == len(values) else None
