"""The verbs about one run or one config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from toolkit.cli.options import backend_option
from toolkit.explain.look import KINDS


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--example",
    "examples",
    multiple=True,
    metavar="ID",
    help="Look at this example, in place of chosen ones. Repeatable.",
)
@click.option("--only", multiple=True, type=click.Choice(KINDS), help="Draw only this. Repeatable.")
@click.option("--split", type=click.Choice(["test", "validation", "train"]), default="test", show_default=True)
@click.option(
    "--weights", type=click.Choice(["best", "last"]), default="best", show_default=True, help="Which epoch's."
)
@backend_option
def look(
    run_dir: Path,
    examples: Sequence[str],
    only: Sequence[str],
    split: str,
    weights: Literal["best", "last"],
    backend: str | None,
) -> None:
    """Draw what the model of the run in RUN_DIR sees, and what it gets wrong, into RUN_DIR/look."""
    from toolkit.explain.look.walk import look

    look(run_dir, examples=examples, only=only, split=split, weights=weights, backend=backend)
