"""The verbs of a folder of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click


@click.group()
def runs() -> None:
    """List, compare and remove runs."""


@runs.command("ls")
@click.argument("folder", type=click.Path(path_type=Path), default="runs")
def list_runs(folder: Path) -> None:
    """List the runs in FOLDER (runs/): config, state, best figures, size on disk."""
    from toolkit.config import load_run
    from toolkit.runs import listing, terminal

    found = listing.summaries(folder, lambda path: load_run(path).to_dict())
    terminal.console().print(listing.summary_table(found))


@runs.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
def diff(first: Path, second: Path) -> None:
    """Tell what differs between two runs: config, versions, machine, data, figures."""
    from toolkit.config import load_run
    from toolkit.runs import listing, terminal

    rows = listing.differences(first, second, lambda path: load_run(path).to_dict())
    terminal.console().print(listing.difference_table(rows, first, second) if rows else "nothing differs")


@runs.command()
@click.argument("directories", nargs=-1, required=True, metavar="RUN…", type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Do not ask.")
def rm(directories: Sequence[Path], yes: bool) -> None:
    """Remove each RUN, a run directory, once you have seen what is in it and agreed."""
    from toolkit.config import load_run
    from toolkit.runs import listing

    listing.remove(
        directories,
        lambda path: load_run(path).to_dict(),
        confirm=lambda question: yes or click.confirm(question),
        say=click.echo,
    )
