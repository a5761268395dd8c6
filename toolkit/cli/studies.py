"""The verbs of many runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from toolkit.cli.options import set_option


@click.command("verify-resume")
@click.argument("config")
@click.option("--kills", type=click.IntRange(min=1), default=3, show_default=True, help="SIGKILLs in the second run.")
@click.option("--steps", type=click.IntRange(min=1), default=60, show_default=True, help="Batches of each run.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the moments of the kills.")
@click.option("--keep", type=click.Path(path_type=Path), help="A new folder for both runs, which stay there.")
@set_option
def verify_resume(config: str, kills: int, steps: int, seed: int, keep: Path | None, overrides: Sequence[str]) -> None:
    """Prove that CONFIG is resumed exactly: train a stretch whole, then with kills and resumes, and compare."""
    from toolkit.studies.verify_resume import verify_resume

    verify_resume(config, kills=kills, steps=steps, seed=seed, overrides=overrides, keep=keep, say=click.echo)


@click.command()
@click.argument("recipes", nargs=-1, metavar="[RECIPE]…")
@click.option("--seeds", metavar="0,1,2", help="Of each recipe; without it 0.")
@click.option(
    "--quick", is_flag=True, help="A minute or two of each recipe, against a loose floor; nothing is written."
)
@click.option("--precision", is_flag=True, help="Train in float32 and in bfloat16, and compare the two.")
@click.option("--again", is_flag=True, help="Train anew what is in the results, and tell whether it is the same.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=".",
    help="The folder of results/, docs/ and runs/; without it the current one.",
)
def reproduce(recipes: Sequence[str], seeds: str | None, quick: bool, again: bool, precision: bool, root: Path) -> None:
    """Train each RECIPE (or all), and write its results down beside published figures and a baseline."""
    if quick and (again or precision or seeds is not None):
        raise click.UsageError(
            "--quick trains the short form of each recipe, once: leave --again, --precision and --seeds out."
        )
    seeds = "0" if seeds is None else seeds
    if not all(seed.isascii() and seed.isdigit() for seed in seeds.split(",")):
        raise click.UsageError(f"--seeds {seeds!r} is no list of whole numbers: write them as 0,1,2.")
    from toolkit.studies.reproduce import RECIPES, reproduce, reproduce_quickly

    if quick:
        reproduce_quickly(recipes or RECIPES, root=root, say=click.echo)
    else:
        numbers = [int(seed) for seed in seeds.split(",")]
        reproduce(recipes or RECIPES, seeds=numbers, again=again, precision=precision, root=root, say=click.echo)


@click.command("find-rate")
@click.argument("config")
@click.option("--lowest", type=float, default=1e-5, show_default=True, help="Rate of the first step.")
@click.option("--highest", type=float, default=10.0, show_default=True, help="Rate of the last step.")
@click.option("--steps", type=int, default=100, show_default=True, help="Between the two, by the same factor each.")
@click.option(
    "--run-dir", type=click.Path(path_type=Path), help="Folder for rate.png and rate.json; else one in runs/."
)
@set_option
def find_rate(
    config: str, lowest: float, highest: float, steps: int, run_dir: Path | None, overrides: Sequence[str]
) -> None:
    """Suggest a learning rate for CONFIG: train a few steps at a rising rate and see where the loss falls."""
    from toolkit.config import load
    from toolkit.config.shipped import find_config
    from toolkit.studies.find_rate import find_rate

    checked = load(find_config(config), overrides)
    find_rate(checked, lowest=lowest, highest=highest, steps=steps, run_dir=run_dir)


@click.command()
@click.argument("config")
@click.option("--space", type=click.Path(path_type=Path), required=True, help="A YAML file: config keys and ranges.")
@click.option("--trials", type=click.IntRange(min=1), default=20, show_default=True, help="In all, of all processes.")
@click.option("--folder", type=click.Path(path_type=Path), help="Of the trials; else runs/sweep-<config>.")
@click.option("--storage", metavar="URL", help="A database that processes share; else an SQLite file in the folder.")
@click.option("--study", metavar="NAME", help="Of the sweep in that database; else the config's name.")
@click.option(
    "--pruner",
    type=click.Choice(["median", "hyperband", "none"]),
    default="median",
    show_default=True,
    help="What ends a trial, after an epoch, that is behind the others.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is drawn.")
@set_option
def sweep(
    config: str,
    space: Path,
    trials: int,
    folder: Path | None,
    storage: str | None,
    study: str | None,
    pruner: Literal["median", "hyperband", "none"],
    seed: int,
    overrides: Sequence[str],
) -> None:
    """Search hyperparameters of CONFIG: the validation part chooses; the same command goes on where it was stopped."""
    from toolkit.studies.sweep import sweep

    sweep(
        config,
        space,
        trials=trials,
        folder=folder,
        storage=storage,
        study=study,
        pruner=pruner,
        seed=seed,
        overrides=overrides,
        say=click.echo,
    )


@click.command()
@click.argument("config")
@click.option(
    "--optimizers", default="adam,sgd,momentum,rmsprop,adagrad", show_default=True, metavar="NAME,…", help="To compare."
)
@click.option(
    "--rates",
    default="1e-4:1e-1:7",
    show_default=True,
    metavar="LOW:HIGH:COUNT",
    help="Learning rates that each is tuned over, in equal factors; three more follow where they tell most.",
)
@click.option("--seeds", type=int, default=3, show_default=True, help="Trainings of each at its best rate.")
@click.option(
    "--target", type=float, help="Training loss whose reaching is timed; without it one that all of them reach."
)
@click.option(
    "--robustness",
    is_flag=True,
    help="Measure each training at a best rate under graded changes of the test part, too.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="For runs and results, where an interrupted comparison goes on; without it comparisons/<config>.",
)
@set_option
def compare(
    config: str,
    optimizers: str,
    rates: str,
    seeds: int,
    target: float | None,
    robustness: bool,
    folder: Path | None,
    overrides: Sequence[str],
) -> None:
    """Compare optimizers on CONFIG, each tuned over the same number of learning rates."""
    from toolkit.studies.compare import compare
    from toolkit.studies.comparison_rates import read_rates

    compare(
        config,
        optimizers=optimizers.split(","),
        rates=read_rates(rates),
        seeds=seeds,
        target=target,
        robustness=robustness,
        overrides=overrides,
        folder=folder,
    )
