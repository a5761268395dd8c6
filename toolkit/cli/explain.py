"""The verbs that look into one config or run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from toolkit.cli.options import backend_option, set_option
from toolkit.explain.look import KINDS


@click.command()
@click.argument("config")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="The PNG of the contact sheet, a new file; without it NAME-check.png here, which is replaced.",
)
@set_option
def check(config: str, output: Path | None, overrides: Sequence[str]) -> int:
    """Look at CONFIG's data, model and pace before you train, a verdict per line; exit code 1 where something is wrong.

    CONFIG is a YAML file or the name of a shipped config.
    """
    from toolkit.config import load
    from toolkit.config.shipped import find_config
    from toolkit.explain.verdict import tell_check

    return tell_check(load(find_config(config), overrides), output=output)


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
def gradients(run_dir: Path) -> None:
    """Draw what `training.watch: gradients` measured in the run in RUN_DIR, and tell what is wrong."""
    from toolkit.explain.gradients import explain

    explain(run_dir, say=click.echo)


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


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--changes", metavar="A,B,…", help="Names of changes and attacks, see docs/robustness.md; without it all."
)
@click.option("--severities", default="1,2,3,4,5", show_default=True, metavar="1,2,…", help="Of the changes.")
@click.option("--epsilons", metavar="1,2,…", help="Of fgsm and pgd, in 1/255; without it 1,2,4,8,16.")
@click.option("--limit", type=click.IntRange(min=1), help="Measure a sample of so many examples.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the sample and the changes.")
@click.option("--baseline", type=click.Path(path_type=Path), metavar="RUN_DIR", help="A run that was measured alike.")
@backend_option
def robustness(
    run_dir: Path,
    changes: str | None,
    severities: str,
    epsilons: str | None,
    limit: int | None,
    seed: int,
    baseline: Path | None,
    backend: str | None,
) -> None:
    """Measure the run in RUN_DIR on its test part under graded changes."""
    from toolkit.explain.robustness.walk import robustness

    robustness(
        run_dir,
        changes=changes.split(",") if changes is not None else (),
        severities=_numbers("--severities", severities),
        epsilons=None if epsilons is None else _numbers("--epsilons", epsilons),
        limit=limit,
        seed=seed,
        baseline=baseline,
        backend=backend,
    )


def _numbers(flag: str, text: str) -> list[int]:
    if not all(number.isascii() and number.isdigit() for number in text.split(",")):
        raise click.UsageError(f"{flag} {text!r} is no list of whole numbers: write them as 1,2,3.")
    return [int(number) for number in text.split(",")]


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
