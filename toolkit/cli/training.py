"""The verbs of one run: train, evaluate, predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from toolkit.cli.options import backend_option, beam_option, set_option


@click.command()
@click.argument("config", required=False)
@click.option("--run-dir", type=click.Path(path_type=Path), help="The run's own folder; must not hold a run yet.")
@click.option(
    "--resume",
    metavar="RUN_DIR",
    help="Go on with an interrupted run, exactly; auto: the newest unfinished one of CONFIG under runs/, or a new one.",
)
@click.option("--steps", type=click.IntRange(min=1), help="A smoke run of so many steps, evaluated too.")
@click.option(
    "--evaluate",
    "split",
    type=click.Choice(["test", "validation"]),
    default="test",
    show_default=True,
    help="The part it is evaluated on; validation, where several runs are trained to choose among them.",
)
@set_option
def train(
    config: str | None,
    run_dir: Path | None,
    resume: str | None,
    steps: int | None,
    split: str,
    overrides: Sequence[str],
) -> None:
    """Train what CONFIG describes, a YAML file or the name of a shipped config, and evaluate it."""
    from toolkit.config import load
    from toolkit.config.shipped import find_config

    if config is None and (resume is None or resume == "auto"):
        raise click.UsageError("CONFIG is missing: give a YAML file or the name of a shipped config.")
    if resume is not None and (run_dir or steps):
        raise click.UsageError(
            "--resume goes on in the run's own folder, to its own end: leave --run-dir and --steps out."
        )
    checked = load(find_config(config), overrides) if config else None
    from toolkit import workflow

    if checked and resume == "auto":
        found = workflow.newest_unfinished(checked)
        click.echo(
            f"going on with {found}" if found else "no unfinished run of this config under runs/: a new one begins"
        )
        resume = str(found) if found else None
    if resume:
        workflow.resume(resume, checked, overrides=overrides, split=split)
    elif checked:
        workflow.train(checked, run_dir=run_dir, steps=steps, split=split)


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(["test", "validation", "train"]), default="test", show_default=True)
@click.option(
    "--weights", type=click.Choice(["best", "last"]), default="best", show_default=True, help="Which epoch's."
)
@backend_option
@beam_option
def evaluate(run_dir: Path, split: str, weights: Literal["best", "last"], backend: str | None, beam_width: int) -> None:
    """Measure the weights that the run in RUN_DIR kept."""
    from toolkit import workflow

    workflow.evaluate(run_dir, split=split, weights=weights, backend=backend, beam_width=beam_width)


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--text", "texts", multiple=True, metavar="TEXT", help="A text to answer, in place of files. Repeatable.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the answers to this CSV file.")
@backend_option
@beam_option
def predict(
    run_dir: Path,
    files: Sequence[Path],
    texts: Sequence[str],
    output: Path | None,
    backend: str | None,
    beam_width: int,
) -> None:
    """Answer FILES (or folders of files, or texts) with the model of the run in RUN_DIR."""
    from toolkit import workflow

    workflow.predict(
        run_dir, files=list(files), texts=list(texts), output=output, backend=backend, beam_width=beam_width
    )
