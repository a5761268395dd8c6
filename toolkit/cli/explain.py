"""The verbs that look inside one run or config."""

from __future__ import annotations

from pathlib import Path

import click

from toolkit.cli.options import backend_option


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
