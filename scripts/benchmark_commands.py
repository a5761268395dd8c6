"""What each command of "Look inside" takes, on runs that are there: seconds, those of the processor, peak of memory.

Of every run directory `check` and `find-rate` get the config, `look`, `robustness` and `report` the run itself, in this
order, each in a process of its own, the start of Python included. `look`, `robustness` and `report` leave in the run
what they always leave there. An exit code other than 0 and 1 (nothing suggested, something wrong) ends the script.

    python scripts/benchmark_commands.py runs/mnist_cnn-… runs/cats_vs_dogs_cnn-… --limit 500 --output what_they_said/
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

COMMANDS = ("check", "find-rate", "look", "robustness", "report")


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
    print(f"| run | {' | '.join(COMMANDS)} |\n| --- {'| --- ' * len(COMMANDS)}|", flush=True)
    for run in options.runs:
        cells = [cell(measure(name, run, options)) for name in COMMANDS]
        print(f"| {' | '.join([run.resolve().name, *cells])} |", flush=True)
    print("\nseconds (those of the processor), GiB at the peak")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="finished ones")
    parser.add_argument("--limit", type=int, help="of robustness: so many examples")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="for what each command prints")
    options = parser.parse_args()
    for run in options.runs:
        if not (run / "evaluation.json").exists():
            parser.error(f"{run} is no run directory of a training that ended, for it has no evaluation.json")
    return options


def measure(name: str, run: Path, options: argparse.Namespace) -> Cost:
    """Run the command once; what it printed goes into the folder that `--output` names."""
    with tempfile.TemporaryDirectory() as scratch:
        arguments_of: dict[str, list[Any]] = {
            "check": [run / "config.yaml", "--output", f"{scratch}/sheet.png"],
            "find-rate": [run / "config.yaml", "--run-dir", f"{scratch}/rate"],
            "look": [run],
            "robustness": [run, *(["--limit", options.limit] if options.limit else [])],
            "report": [run],
        }
        printed = Path(scratch) / "printed.txt"
        if options.output:
            options.output.mkdir(parents=True, exist_ok=True)
            printed = options.output / f"{run.resolve().name}-{name}.txt"
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
