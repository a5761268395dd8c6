"""The verbs that look into one config or run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
def gradients(run_dir: Path) -> None:
    """Draw what `training.watch: gradients` measured in the run in RUN_DIR, and tell what is wrong."""
    from toolkit.explain.gradients import explain

    explain(run_dir, say=click.echo)


@click.command()
@click.argument("run_dirs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN_DIR…")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="The page; without it report.html in RUN_DIR, or of several runs in the current folder.",
)
def report(run_dirs: Sequence[Path], output: Path | None) -> None:
    """Write one HTML page about RUN_DIR, or one that compares several; it needs no network."""
    from toolkit.explain.report.write import write_report

    write_report(run_dirs, output, say=click.echo)
