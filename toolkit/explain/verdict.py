"""A check as a person reads it."""

from __future__ import annotations

import time
from pathlib import Path

from rich.table import Table
from rich.text import Text

from toolkit.config import RunConfig
from toolkit.explain.check import check
from toolkit.explain.findings import Finding
from toolkit.runs import terminal
from toolkit.runs.trust import shown

_STYLES = {"ok": "green", "note": "yellow", "wrong": "bold red"}


def tell_check(config: RunConfig, *, output: Path | None = None) -> int:
    """Print the findings of `check` as they come; 1 where something is wrong, else 0."""
    console = terminal.console()
    start = time.monotonic()
    found = check(config, output=output, report=lambda finding: console.print(_line(finding)))
    counts = {level: sum(finding.level == level for finding in found) for level in _STYLES}
    wrong = f"{counts['wrong']} wrong" if counts["wrong"] else "nothing wrong"
    notes = f"{counts['note']} note{'' if counts['note'] == 1 else 's'}"
    console.print(f"{wrong}, {notes}, {time.monotonic() - start:.0f} s", highlight=False)
    return 1 if counts["wrong"] else 0


def _line(finding: Finding) -> Table:
    """Level, subject, text; what to do stands below the text."""
    line = Table.grid(padding=(0, 2, 0, 0))
    line.add_column(width=5, style=_STYLES[finding.level])
    line.add_column(width=13, style="bold")
    line.add_column(overflow="fold")
    text = Text(shown(finding.text))
    if finding.advice:
        text.append(f"\n→ {shown(finding.advice)}", style="dim")
    line.add_row(finding.level, finding.about, text)
    return line
