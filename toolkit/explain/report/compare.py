"""Several runs beside one another: figures, and what differs in config and environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from xml.etree.ElementTree import Element

from toolkit.config.writer import inline
from toolkit.explain.report import parts
from toolkit.explain.report.gather import Found
from toolkit.explain.report.markup import Cell, element, section, table
from toolkit.runs.resume import flat
from toolkit.runs.trust import shown

VALUE = 120  # characters


def sections(found: Sequence[Found], *, hovered: Element | None) -> Iterator[Element]:
    """What is told of all runs together.

    Args:
        hovered: where the curves of all are drawn.
    """
    told = [{**parts.summary(run), **(parts.figures(run.evaluation) if run.evaluation else {})} for run in found]
    yield section("Figures", *_notes(found), _beside("Figures", found, told, mark=False))
    configs = [{key: inline(value) for key, value in flat(run.config.to_dict()).items()} for run in found]
    yield section("What differs in the config", *_differences("What differs in the config", found, configs))
    environments = [
        {name: value for name, value in parts.environment(run).items() if name not in ("started", "command")}
        for run in found
    ]
    yield section("What differs in the environment", *_differences("The environment", found, environments))
    if hovered is not None:
        lines = element("p", "Solid: validation. Dotted, in the same colour: training, mean of the epoch.")
        alone = element("noscript", element("p", "Without scripts each run's own curves are shown below."))
        yield section("Curves", lines, hovered, alone)


def _notes(found: Sequence[Found]) -> Iterator[Element]:
    tested = {run.record.fingerprints.get("test") for run in found}
    if len(tested) > 1:
        text = "The runs were measured on different test parts, so their figures do not compare as they stand."
        yield element("p", element("mark", text))


def _differences(title: str, found: Sequence[Found], values: Sequence[Mapping[str, str]]) -> Iterator[Element]:
    names = list(dict.fromkeys(name for one in values for name in one))
    differing = [name for name in names if len({one.get(name) for one in values}) > 1]
    same = len(names) - len(differing)
    if differing:
        rows = [{name: one[name] for name in differing if name in one} for one in values]
        yield element("p", f"Marked: what is not as in {shown(found[0].label)}. {same:,} others are the same.")
        yield _beside(title, found, rows, mark=True)
    else:
        yield element("p", f"Nothing: all {same:,} values are the same.")


def _beside(title: str, found: Sequence[Found], told: Sequence[Mapping[str, str]], *, mark: bool) -> Element:
    """A row per name, a column per run."""
    names = dict.fromkeys(name for one in told for name in one)
    rows: list[list[Cell]] = []
    for name in names:
        values = [one.get(name, "–") for one in told]
        cells = [shown(value, length=VALUE) for value in values]
        marks = [mark and value != values[0] for value in values]
        rows.append([name, *(element("mark", c) if marked else c for c, marked in zip(cells, marks, strict=True))])
    return table(title, ["", *(shown(run.label) for run in found)], rows)
