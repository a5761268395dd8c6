"""What each command of "Look inside" takes, on runs that are there: seconds, those of the processor, peak of memory.

Of every run directory `check` and `find-rate` get the config, `look`, `robustness` and `report` the run itself, in this
order, each in a process of its own, the start of Python included. `look`, `robustness` and `report` leave in the run
what they always leave there. An exit code other than 0 and 1 (nothing suggested, something wrong) ends the script.

`sweep` and `compare` are many trainings. What they take beside these shows with trainings cut short by `--set`: `sweep`
makes two of them, `compare` six, and `train` one. These three, `check` and `find-rate` need no run: a config is enough.

    python scripts/benchmark_commands.py runs/mnist_cnn-… runs/cats_vs_dogs_cnn-… --limit 500 --output what_they_said/
    python scripts/benchmark_commands.py configs/mnist_cnn.yaml --commands train,sweep,compare --set training.epochs=1
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.studies import COMMAND

OF_A_RUN = ("look", "robustness", "report")
COMMANDS = ("check", "find-rate", *OF_A_RUN)
STUDIES = ("train", "sweep", "compare")
TWO_TRIALS = ("--trials", 2, "--pruner", "none")
SIX_TRAININGS = ("--optimizers", "adam", "--rates", "1e-4:1e-3:3", "--seeds", 1)
SPACE = "optimizer.learning_rate: {log: [1e-4, 1e-3]}\n"


class Cost(NamedTuple):
    """Of one command: seconds on the clock, seconds of all processors, bytes of memory at the peak, exit code."""

    seconds: float
    processor_seconds: float
    memory: int
    code: int


def main() -> None:
    options = parse()
    from toolkit.runs import record

    known = record.environment()
    print(f"{known['machine']['cores']} cores, {known['machine']['processor']}; commit {known['commit']}\n")
    print(f"| run | {' | '.join(options.commands)} |\n| --- {'| --- ' * len(options.commands)}|", flush=True)
    for run in options.runs:
        cells = [cell(measure(name, run, options)) for name in options.commands]
        print(f"| {' | '.join([run.resolve().stem, *cells])} |", flush=True)
    print("\nseconds (those of the processor), GiB at the peak")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="finished ones, or configs")
    parser.add_argument(
        "--commands",
        type=lambda text: text.split(","),
        default=COMMANDS,
        metavar="NAME,…",
        help=f"of {', '.join(COMMANDS + STUDIES)}; without it {', '.join(COMMANDS)}",
    )
    parser.add_argument("--limit", type=int, help="of robustness: so many examples")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of train, sweep and compare")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="for what each command prints")
    options = parser.parse_args()
    if unknown := sorted(set(options.commands) - {*COMMANDS, *STUDIES}):
        parser.error(f"--commands names {', '.join(unknown)}: choose from {', '.join(COMMANDS + STUDIES)}")
    for run in options.runs if {*options.commands} & {*OF_A_RUN} else ():
        if not (run / "evaluation.json").exists():
            parser.error(f"{run} is no run directory of a training that ended, for it has no evaluation.json")
    return options


def measure(name: str, run: Path, options: argparse.Namespace) -> Cost:
    """Run the command once; what it printed goes into the folder that `--output` names."""
    config = run / "config.yaml" if run.is_dir() else run
    changes = [part for change in options.set for part in ("--set", change)]
    with tempfile.TemporaryDirectory() as scratch:
        space = Path(scratch) / "space.yaml"
        space.write_text(SPACE, "utf-8")
        arguments_of: dict[str, list[Any]] = {
            "check": [config, "--output", f"{scratch}/sheet.png"],
            "find-rate": [config, "--run-dir", f"{scratch}/rate"],
            "look": [run],
            "robustness": [run, *(["--limit", options.limit] if options.limit else [])],
            "report": [run],
            "train": [config, "--run-dir", f"{scratch}/run", *changes],
            "sweep": [config, "--space", space, "--folder", f"{scratch}/sweep", *TWO_TRIALS, *changes],
            "compare": [config, "--folder", f"{scratch}/compare", *SIX_TRAININGS, *changes],
        }
        printed = Path(scratch) / "printed.txt"
        if options.output:
            options.output.mkdir(parents=True, exist_ok=True)
            printed = options.output / f"{run.resolve().stem}-{name}.txt"
        cost = call([name, *(str(argument) for argument in arguments_of[name])], printed)
        if cost.code not in (0, 1):
            sys.exit(f"toolkit {name} ended with {cost.code} on {run}:\n{printed.read_text('utf-8')}")
    return cost


def call(arguments: list[str], printed: Path) -> Cost:
    """Seconds, memory and exit code of `toolkit ARGUMENTS`, whose output goes to the file `printed`."""
    with printed.open("w", encoding="utf-8") as file:
        begun = time.perf_counter()
        process = subprocess.Popen([*COMMAND, *arguments], stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)  # in place of `wait`, for what it took
        seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    kilobyte = 1 if sys.platform == "darwin" else 1024
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * kilobyte, process.returncode)


def cell(cost: Cost) -> str:
    failed = " (exit 1)" if cost.code else ""
    return f"{cost.seconds:.1f} ({cost.processor_seconds:.1f}), {cost.memory / 2**30:.1f}{failed}"


if __name__ == "__main__":
    main()
