"""The console command: each verb parses and makes one call.

Nothing heavy is imported before a verb needs it, so that `--help` and completion answer at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import click

import toolkit
from toolkit.errors import ToolkitError

F = TypeVar("F", bound=Callable[..., Any])

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: 0 done, 2 a wrong request, 1 a run that failed, 130 stopped by Ctrl-C."""
    _open_closed_streams()
    sys.exit(_run(arguments))


def _open_closed_streams() -> None:
    """Lead standard streams that were closed (`2>&-`) to nowhere, or the first files opened would stand in for them."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
            setattr(sys, name, os.fdopen(opened, "r" if descriptor == 0 else "w"))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        # Not standalone: click would answer Ctrl-C with 1, which is a failed run's.
        code = cli.main(args=arguments, prog_name="toolkit", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return INTERRUPTED
    except ToolkitError as error:
        _print_error(error)
        return error.exit_code
    return code if isinstance(code, int) else 0


def _print_error(error: ToolkitError) -> None:
    from rich.console import Console
    from rich.text import Text

    from toolkit.runs.trust import shown

    console = Console(stderr=True)
    console.print(Text(shown(error, lines=True), style="red"), soft_wrap=True)  # it may name files of others


def _backend_option(command: F) -> F:
    return click.option(
        "--backend",
        type=click.Choice(["tensorflow", "jax", "torch"]),
        help="What Keras computes with; without it what the run was trained with.",
    )(command)


def _beam_option(command: F) -> F:
    return click.option(
        "--beam-width",
        type=click.IntRange(1, 1000),
        default=1,
        show_default=True,
        help="Of speech to text: beginnings of a text that are followed while it is decoded; 1 is greedy.",
    )(command)


def _set_option(command: F) -> F:
    return click.option(
        "--set",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        help="A value that wins over the file, as in optimizer.learning_rate=3e-4; VALUE is YAML. Repeatable.",
    )(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(toolkit.__version__, package_name="toolkit")
def cli() -> None:
    """Train, evaluate and use Keras models from one YAML file."""


@cli.command()
@click.argument("config", required=False)
@click.option("--run-dir", type=click.Path(path_type=Path), help="The run's own folder; must not hold a run yet.")
@click.option(
    "--resume",
    metavar="RUN_DIR",
    help="Go on with an interrupted run, exactly; auto: the newest unfinished one of CONFIG under runs/, or a new one.",
)
@click.option("--steps", type=click.IntRange(min=1), help="A smoke run of so many steps, evaluated too.")
@_set_option
def train(
    config: str | None, run_dir: Path | None, resume: str | None, steps: int | None, overrides: Sequence[str]
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
        workflow.resume(resume, checked, overrides=overrides)
    elif checked:
        workflow.train(checked, run_dir=run_dir, steps=steps)


@cli.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(["test", "validation", "train"]), default="test", show_default=True)
@click.option(
    "--weights", type=click.Choice(["best", "last"]), default="best", show_default=True, help="Which epoch's."
)
@_backend_option
@_beam_option
def evaluate(run_dir: Path, split: str, weights: Literal["best", "last"], backend: str | None, beam_width: int) -> None:
    """Measure the weights that the run in RUN_DIR kept."""
    from toolkit import workflow

    workflow.evaluate(run_dir, split=split, weights=weights, backend=backend, beam_width=beam_width)


@cli.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--text", "texts", multiple=True, metavar="TEXT", help="A text to answer, in place of files. Repeatable.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the answers to this CSV file.")
@_backend_option
@_beam_option
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


@cli.command("verify-resume")
@click.argument("config")
@click.option("--kills", type=click.IntRange(min=1), default=3, show_default=True, help="SIGKILLs in the second run.")
@click.option("--steps", type=click.IntRange(min=1), default=60, show_default=True, help="Batches of each run.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the moments of the kills.")
@click.option("--keep", type=click.Path(path_type=Path), help="A new folder for both runs, which stay there.")
@_set_option
def verify_resume(config: str, kills: int, steps: int, seed: int, keep: Path | None, overrides: Sequence[str]) -> None:
    """Prove that CONFIG is resumed exactly: train a stretch whole, then with kills and resumes, and compare."""
    from toolkit.studies.verify_resume import verify_resume

    verify_resume(config, kills=kills, steps=steps, seed=seed, overrides=overrides, keep=keep, say=click.echo)


@cli.command()
@click.argument("recipes", nargs=-1, metavar="[RECIPE]…")
@click.option("--seeds", default="0", show_default=True, metavar="0,1,2", help="Of each recipe.")
@click.option(
    "--quick", is_flag=True, help="A minute or two of each recipe, against a loose floor; nothing is written."
)
@click.option("--again", is_flag=True, help="Train anew what is in the results, and tell whether it is the same.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=".",
    help="The folder of results/, docs/ and runs/; without it the current one.",
)
def reproduce(recipes: Sequence[str], seeds: str, quick: bool, again: bool, root: Path) -> None:
    """Train each RECIPE (or all), and write its results down beside published figures and a baseline."""
    if not all(seed.isascii() and seed.isdigit() for seed in seeds.split(",")):
        raise click.UsageError(f"--seeds {seeds!r} is no list of whole numbers: write them as 0,1,2.")
    from toolkit.studies.reproduce import RECIPES, reproduce, reproduce_quickly

    if quick:
        reproduce_quickly(recipes or RECIPES, root=root, say=click.echo)
    else:
        numbers = [int(seed) for seed in seeds.split(",")]
        reproduce(recipes or RECIPES, seeds=numbers, again=again, root=root, say=click.echo)


@cli.group()
def configs() -> None:
    """List, show, copy and check configs."""


@configs.command("ls")
def list_configs() -> None:
    """List the shipped configs."""
    from toolkit.config.shipped import shipped_configs, summary

    shipped = shipped_configs()
    width = max(map(len, shipped), default=0)
    for name, path in shipped.items():
        click.echo(f"{name:<{width}}  {summary(path)}")


@configs.command()
@click.argument("config")
@click.option("--resolved", is_flag=True, help="The complete config: what it extends, --set, and every default.")
@_set_option
def show(config: str, resolved: bool, overrides: Sequence[str]) -> None:
    """Print CONFIG, a YAML file or the name of a shipped config."""
    from toolkit.config import load
    from toolkit.config.shipped import find_config, read_config

    if overrides and not resolved:
        raise click.UsageError("--set changes only what --resolved prints: add --resolved.")
    path = find_config(config)
    click.echo(load(path, overrides).to_yaml() if resolved else read_config(path), nl=False)


@configs.command()
@click.argument("name")
@click.argument("destination", required=False, type=click.Path(path_type=Path))
def copy(name: str, destination: Path | None) -> None:
    """Copy the shipped config NAME, to DESTINATION or the current folder; never overwrites."""
    from toolkit.config.shipped import copy_config

    for path in copy_config(name, destination):
        click.echo(path)


@configs.command()
@click.argument("files", nargs=-1, required=True, metavar="CONFIG…")
def validate(files: Sequence[str]) -> None:
    """Check each CONFIG, a YAML file or the name of a shipped config, and tell every problem."""
    from toolkit.config.loading import valid_configs

    for path in valid_configs(files):
        click.echo(f"{path}: valid")


@configs.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of a config."""
    from toolkit.config.json_schema import schema_text

    click.echo(schema_text(), nl=False)
