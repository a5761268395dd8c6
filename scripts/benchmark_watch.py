"""What `training.watch: gradients` costs: the same training with and without, and the time within each measurement.

The two take turns in fresh processes, so that a busy machine slows both; the first epoch of each, which compiles, is
not counted, and neither is validation. Steps per second vary by more than watching costs, so its time is also taken by
itself: the median of what the measurements took, TensorBoard included and the first left out, over the time of
`training.watch_every` steps without. They are made more often here, so that there are enough for a median.

    python scripts/benchmark_watch.py --config configs/quickstart.yaml
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

SIDES = ("without", "watched")


class Call(NamedTuple):
    """When it began and ended, in seconds of a clock."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


def main() -> None:
    options = parse()
    if options.side:
        print(json.dumps(measure(options)))
        return
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    print(f"{options.config}: {options.epochs} epochs counted, {options.rounds} rounds")
    for number in range(1, options.rounds + 1):
        for side in SIDES:
            found[side].append(in_fresh_process(side))
        speeds = (f"{side} {found[side][-1]['steps_per_second']:.2f}" for side in SIDES)
        print(
            f"round {number}: {', '.join(speeds)} steps/s, a measurement {found['watched'][-1]['ms']:.1f} ms",
            flush=True,
        )
    speed = {side: statistics.median(one["steps_per_second"] for one in found[side]) for side in SIDES}
    cost, every = statistics.median(one["ms"] for one in found["watched"]), found["watched"][0]["every"]
    print(f"speed, measured every {options.every} steps: {speed['watched'] / speed['without']:.3f} times that without")
    step = 1e3 / speed["without"]
    print(f"cost: {cost:.1f} ms every {every:.0f} steps of {step:.1f} ms, {cost / step / every:.2%}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/quickstart.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in `toolkit train`")
    parser.add_argument("--epochs", type=int, default=4, help="that are counted, after one that is not")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--every", type=int, default=20, help="steps from one measurement to the next")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


def in_fresh_process(side: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--side", side], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"the side {side} failed:\n{done.stdout}\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Steps per second from the end of one validation to the end of the next `fit`, and the time of a measurement."""
    from toolkit import auto, stages
    from toolkit.config import load
    from toolkit.training.watch import GradientWatch
    from toolkit.workflow import train

    watch = "gradients" if options.side == "watched" else "null"
    length = [f"training.epochs={options.epochs + 1}", "training.early_stopping=null"]
    every = load(options.config, options.set).training.watch_every
    settings = [*options.set, *length, f"training.watch={watch}", f"training.watch_every={options.every}"]
    config = load(options.config, settings)
    stages.set_up(config)
    data = stages.read_data(config, lambda line: None)
    config = auto.settle(config, data, lambda line: None)
    model: Any = stages.build_model(config, data.spec)
    fits, validations = calls_of(model, "fit"), calls_of(model, "evaluate")
    measured, written = calls_of(GradientWatch, "_measure"), calls_of(GradientWatch, "_write")
    with tempfile.TemporaryDirectory() as folder:
        train(config, run_dir=Path(folder) / "run", model=model)
    taken = [1e3 * (a.seconds + b.seconds) for a, b in zip(measured[1:], written[1:], strict=True)]
    # `evaluate` is called once before the first epoch, to build the metrics.
    seconds = sum(fits[i].end - validations[i].end for i in range(1, options.epochs + 1))
    steps = options.epochs * (len(data.splits["train"]) // config.data.options.batch_size)
    return {
        "steps_per_second": steps / seconds,
        "ms": statistics.median(taken or [0.0]),
        "every": every,
    }


def calls_of(owner: Any, method: str) -> list[Call]:
    """A list of the calls of `method` that have ended."""
    calls: list[Call] = []
    original = getattr(owner, method)

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            calls.append(Call(start, time.perf_counter()))

    setattr(owner, method, timed)
    return calls


if __name__ == "__main__":
    main()
