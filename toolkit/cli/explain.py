"""The verbs that look into one config or run."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
def gradients(run_dir: Path) -> None:
    """Draw what `training.watch: gradients` measured in the run in RUN_DIR, and tell what is wrong."""
    from toolkit.explain.gradients import explain

    explain(run_dir, say=click.echo)
