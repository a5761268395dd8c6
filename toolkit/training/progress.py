"""What a person sees while a model trains: a bar with figures, and a line per epoch."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Figures(ProgressColumn):
    """Loss, metrics, speed and share of waiting, from the fields of the task."""

    def render(self, task: Task) -> Text:
        return Text(task.fields.get("figures", ""))


class EpochBar:
    """The bar of one epoch; drawn only on a terminal, since elsewhere each redraw would be a line of its own."""

    def __init__(self, console: Console, *, title: str, steps: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:.0f}/{task.total:.0f}", markup=False),
            _Figures(),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            refresh_per_second=5,
        )
        self._task = self._progress.add_task(title, total=steps)

    def __enter__(self) -> EpochBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, done: int, figures: str) -> None:
        """Show `done` steps and the text `figures`."""
        self._progress.update(self._task, completed=done, figures=figures)


def figures(logs: Mapping[str, float]) -> str:
    """`loss 0.1234  accuracy 97.50 %` and whatever else was measured, in the order given."""
    parts = []
    for name, value in logs.items():
        parts.append(f"{name} {100 * value:.2f} %" if name.endswith("accuracy") else f"{name} {value:.4f}")
    return "  ".join(parts)


def speed_figures(speed: Mapping[str, float]) -> str:
    """`1,234 examples/s  data 5 %`, the share of waiting where it was measured."""
    share = speed.get("data_wait_share")
    return f"{speed['examples_per_second']:,.0f} examples/s" + ("" if share is None else f"  data {100 * share:.0f} %")
