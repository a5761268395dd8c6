"""Milliseconds of one step of our Adam beside the Adams of Keras, torch and optax, whichever is installed.

Each backend has a process of its own. In it the contenders take turns in blocks of five steps, and so do the
processes, so that a busy machine slows all alike. A time is the median of single steps, each waited for; compare the
ratios, which belong to one run. All start from the same weights with the same gradients at every step, for which
Algorithm 1 has a closed form, θ − steps·α·g/(|g| + ε): whoever does not end there stops the run.

    python scripts/benchmark_adam.py                     # big, bert, small, rows: minutes, and gigabytes of memory
    python scripts/benchmark_adam.py --cases big bert --backends tensorflow torch --json out.json --plot out.png
    python scripts/benchmark_adam.py --sweep --plot sweep.png       # one tensor of 10⁴ to 10⁸ parameters
    python scripts/benchmark_adam.py --memory                       # floats of state, peak of a step
    python scripts/benchmark_adam.py --fit                          # steps of `model.fit` on models of the recipes

A GPU that a backend sees is measured too, beside the CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import gc
import importlib
import importlib.metadata
import importlib.util
import json
import math
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
BACKENDS = ("tensorflow", "jax", "torch")
RATE, EPSILON = 1e-3, 1e-8
BLOCK = 5  # steps in a row of one contender
WARM_UP = 3  # steps that are not counted: they trace, compile and fill caches
FIT_BLOCK = 30
# Of the way that weights go. Keras's other place of ε makes up to 5e-4, one step left out of forty 2.5e-2.
FARTHEST = 5e-3


@dataclasses.dataclass(frozen=True)
class Work:
    """Tensors to update; with `touched` only so many rows of the only one have gradients."""

    title: str
    shapes: tuple[tuple[int, ...], ...]
    touched: int = 0

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes)

    def tiny(self) -> Work:
        """The same in small, for a test."""
        shapes = tuple(tuple(min(size, 8) for size in shape) for shape in self.shapes[:6])
        return dataclasses.replace(self, shapes=shapes, touched=min(self.touched, 4))

    def __str__(self) -> str:
        count = f"{len(self.shapes)} tensors" if len(self.shapes) > 1 else "×".join(f"{n:,}" for n in self.shapes[0])
        rows = f", gradients in {self.touched:,} rows" if self.touched else ""
        return f"{self.title}: {count}, {self.parameters / 1e6:.1f} M parameters{rows}"


def _small_bert() -> tuple[tuple[int, ...], ...]:
    """Four blocks of width 256 over 30,522 words and 512 positions."""
    block = [*[(256, 256), (256,)] * 4, (256, 1024), (1024,), (1024, 256), (256,), *[(256,)] * 4]
    return ((30_522, 256), (512, 256), (256,), (256,), *block * 4)


CASES = {
    "big": (Work("big", ((5000, 5000),)),),
    "bert": (Work("bert", _small_bert()),),
    "small": (Work("small", ((99, 100), (100,)) * 400),),
    "rows": (
        Work("rows of 1 M", ((1_000_000, 64),), touched=6400),
        Work("rows of 20 k", ((20_000, 64),), touched=6400),
    ),
}
SWEEP = tuple(Work(f"{10**n:.0e}", ((10**n,),)) for n in range(4, 9))
RIVALS = ("keras", "torch fused", "torch SparseAdam", "optax")
LINEAR_FROM = 10**6  # parameters; below, the cost of a call shows

# What the data of each recipe look like to its model: the commonest lengths, the vocabulary's default size.
RECIPES: dict[str, dict[str, Any]] = {
    "mnist_cnn": {"kind": "image", "shape": (28, 28, 1), "dtype": "uint8", "class_names": tuple("0123456789")},
    "cats_vs_dogs_cnn": {"kind": "image", "shape": (128, 128, 3), "dtype": "uint8", "class_names": ("cat", "dog")},
    "spoken_digit_lstm": {
        "kind": "audio",
        "shape": (None,),
        "dtype": "float32",
        "class_names": tuple("0123456789"),
        "sample_rate": 8000,
        "lengths": (4000,),
    },
    "imdb_transformer": {
        "kind": "text",
        "shape": (None,),
        "dtype": "int32",
        "class_names": ("neg", "pos"),
        "vocabulary": ("",) * 20_000,
        "lengths": (400,),
    },
}

# --- the command -----------------------------------------------------------------------------------------------------


def main() -> None:
    options = parse()
    machine = describe_machine(options)
    measure = {"cases": measure_cases, "sweep": measure_sweep, "memory": measure_memory, "fit": measure_fit}
    results = measure[options.mode](options, machine)
    machine["load"].append(os.getloadavg()[0])
    results = {"mode": options.mode, "machine": machine, **results}
    print_machine(machine)
    {"cases": print_times, "sweep": print_sweep, "memory": print_memory, "fit": print_times}[options.mode](results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", "utf-8")
    if options.plot:
        draw = draw_sweep if options.mode == "sweep" else draw_times
        options.plot.write_bytes(draw(results))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*CASES, *RECIPES]
    parser.add_argument("--cases", nargs="+", metavar="CASE", help=f"of {', '.join(CASES)}; with --fit of the recipes")
    parser.add_argument(
        "--backends", nargs="+", choices=BACKENDS, help="those installed; with --sweep and --fit tensorflow"
    )
    parser.add_argument("--rounds", type=int, default=7, help=f"blocks of {BLOCK} steps of each contender (7)")
    parser.add_argument("--threads", type=int, help="processors to use, on Linux; all by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw what was measured")
    modes = parser.add_mutually_exclusive_group()
    for mode, text in (
        ("sweep", "time over the number of parameters, ours and Keras's"),
        ("memory", "floats of state per parameter, and the peak of a step, on `big`"),
        ("fit", f"steps inside `model.fit` with ours and Keras's, in blocks of {FIT_BLOCK}"),
    ):
        modes.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode, default="cases", help=text)
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)  # everything small, for a test
    options = parser.parse_args()

    choices = {"cases": list(CASES), "fit": list(RECIPES)}.get(options.mode, [])
    options.cases = options.cases or choices
    for case in options.cases:
        if case not in choices:
            parser.error(f"--cases: {case!r} is not one of {', '.join(choices or names)}")
    installed = [backend for backend in BACKENDS if importlib.util.find_spec(backend)]
    options.backends = options.backends or (installed if options.mode in ("cases", "memory") else ["tensorflow"])
    for backend in options.backends:
        if backend not in installed:
            parser.error(f"--backends: {backend} is not installed")
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}, but at least one is needed")
    if options.threads is not None and not (hasattr(os, "sched_setaffinity") and 1 <= options.threads <= processors()):
        parser.error(f"--threads is {options.threads}, but on Linux, and there alone, 1 to {processors()} can be asked")
    if options.plot and options.mode == "memory":
        parser.error("--memory has no plot: leave out --plot")
    if options.mode == "memory" and sys.platform != "linux":
        parser.error("--memory reads the peak from Linux's /proc")
    return options


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine(options: argparse.Namespace) -> dict[str, Any]:
    names = ("keras", "tensorflow", "jax", "optax", "torch")
    model = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return {
        "commit": described.stdout.strip() or "unknown",
        "cpu": model or platform.processor() or platform.machine(),
        "processors": options.threads or processors(),
        "devices": {},
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in names if importlib.util.find_spec(name)},
        "rounds": options.rounds,
        "load": [os.getloadavg()[0]],
    }


def print_machine(machine: dict[str, Any]) -> None:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    print(f"commit {machine['commit']}, Python {machine['python']}, {versions}")
    print(f"{machine['cpu']}, {machine['processors']} processors, load {machine['load'][0]:.1f} before the run")
    for backend, device in machine["devices"].items():
        print(f"{backend} also on {device}")


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- measuring: this process only asks -------------------------------------------------------------------------------


class Worker:
    """A fresh process with one backend, that does one thing at a time."""

    def __init__(self, backend: str, options: argparse.Namespace, *, cpu_only: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self.backend = backend
        self._process = context.Process(target=serve, args=(theirs, backend, options.threads, cpu_only), daemon=True)
        self._process.start()
        theirs.close()  # so that a worker that dies ends the waiting
        self.gpu: str | None = self.ask("gpu")

    def ask(self, task: str, *arguments: Any) -> Any:
        """The result of a method of `Bench`; ends the program if that fails."""
        try:
            self._connection.send((task, arguments))
            failure, result = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            sys.exit(f"the process of {self.backend} died in {task} (exit code {self._process.exitcode})")
        if failure:
            sys.exit(f"{task} on {self.backend} failed:\n{failure}")
        return result

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.send(None)
        self._process.join()


@contextlib.contextmanager
def workers(options: argparse.Namespace, machine: dict[str, Any]) -> Iterator[list[Worker]]:
    """One per backend, and one more where it sees a GPU."""
    started: list[Worker] = []
    with contextlib.ExitStack() as stack:
        for backend in options.backends:
            worker = Worker(backend, options, cpu_only=False)
            if worker.gpu:
                machine["devices"][backend] = worker.gpu
                started.append(Worker(backend, options, cpu_only=True))
                stack.callback(started[-1].close)
            started.append(worker)
            stack.callback(worker.close)
        yield started


def take_turns(group: Sequence[Worker], title: str, rounds: int, block: int) -> list[dict[str, Any]]:
    """Rounds of blocks of whatever the workers have prepared."""
    times: dict[tuple[Worker, str, str], list[float]] = {}
    for number in range(1, rounds + 1):
        progress(f"{title}: round {number} of {rounds}")
        for worker in group:
            for (way, name), block_times in worker.ask("block", block).items():
                times.setdefault((worker, way, name), []).extend(block_times)
    distances = {worker: worker.ask("distances") for worker in group}
    measurements = []
    for (worker, way, name), values in times.items():
        distance = distances[worker][way, name]
        if not distance <= FARTHEST:
            sys.exit(f"{title}: {name} ({worker.backend} {way}) ends {distance:.1e} of the way off where Adam ends")
        measurements.append(
            {
                "case": title,
                "backend": worker.backend,
                "device": "gpu" if worker.gpu else "cpu",
                "way": way,
                "name": name,
                "ms": statistics.median(values),
                "quartiles": statistics.quantiles(values, n=4)[::2] if len(values) > 1 else values * 2,
                "times": len(values),
                "distance": distance,
            }
        )
    for worker in group:
        worker.ask("clear")
    return measurements


def measure_cases(options: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    measurements = []
    works = [work.tiny() if options.tiny else work for case in options.cases for work in CASES[case]]
    with workers(options, machine) as group:
        for work in works:
            for worker in group:
                worker.ask("prepare", work)
            measurements += take_turns(group, work.title, options.rounds, BLOCK)
    cases = {work.title: str(work) for work in works}
    return {"cases": cases, "measurements": measurements, "ratios": ratios(measurements)}


def measure_sweep(options: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    measurements = []
    works = [Work(f"{n:.0e}", ((n,),)) for n in (100, 1000)] if options.tiny else SWEEP
    with workers(options, machine) as group:
        for work in works:
            for worker in group:
                worker.ask("prepare", work, ("toolkit", "keras"), ("graph", "jit", "apply"))
            measured = take_turns(group, work.title, options.rounds, BLOCK)
            measurements += [row | {"parameters": work.parameters} for row in measured]
    return {"measurements": measurements, "exponents": exponents(measurements)}


def measure_fit(options: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    measurements = []
    steps = 2 if options.tiny else FIT_BLOCK
    with workers(options, machine) as group:
        for recipe in options.cases:
            for worker in group:
                progress(f"{recipe}: models on {worker.backend}")
                worker.ask("prepare_fit", recipe, steps)
            measurements += take_turns(group, recipe, options.rounds, steps)
    cases = {recipe: f"{recipe}: a step of `fit`, {options.rounds} blocks of {steps}" for recipe in options.cases}
    return {"cases": cases, "measurements": measurements, "ratios": ratios(measurements)}


def measure_memory(options: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    """On the CPU; a fresh process for each contender."""
    (big,) = CASES["big"]
    work = big.tiny() if options.tiny else big
    measurements = []
    for backend in options.backends:
        with contextlib.closing(Worker(backend, options, cpu_only=True)) as worker:
            contenders = worker.ask("names", work)
        if options.tiny:  # each takes seconds to start
            contenders = [(way, name) for way, name in contenders if way != "eager"]
        for way, name in contenders:
            progress(f"memory of {name} on {backend} {way}")
            with contextlib.closing(Worker(backend, options, cpu_only=True)) as worker:
                measured = worker.ask("memory", work, (way, name))
            if not measured["distance"] <= FARTHEST:
                sys.exit(f"{name} ({backend} {way}) ends {measured['distance']:.1e} of the way off where Adam ends")
            measurements.append({"backend": backend, "way": way, "name": name, **measured})
    return {"measurements": measurements}


# --- reading the results ---------------------------------------------------------------------------------------------


def ratios(measurements: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ours over each other Adam of the same case and kind of device; Keras's of the same backend and way only."""
    found = []
    for ours in measurements:
        if ours["name"] not in ("toolkit", "toolkit lazy"):
            continue
        for name in RIVALS:
            keys = ("case", "device", "backend", "way") if name == "keras" else ("case", "device")
            others = [row for row in measurements if row["name"] == name]
            found += [_ratio(ours, row, name) for row in others if all(row[key] == ours[key] for key in keys)]
        if ours["case"] == "rows of 1 M":
            few = [row for row in measurements if row["case"] == "rows of 20 k"]
            keys = ("backend", "device", "way", "name")
            found += [_ratio(ours, row, row["case"]) for row in few if all(row[key] == ours[key] for key in keys)]
    return found


def _ratio(ours: dict[str, Any], other: dict[str, Any], against: str) -> dict[str, Any]:
    where = {key: ours[key] for key in ("case", "backend", "device", "way", "name")}
    return where | {"against": against, "ratio": ours["ms"] / other["ms"]}


def exponents(measurements: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The k of time ~ parametersᵏ by least squares of the logarithms: over all sizes, and where a call costs little."""
    import numpy as np

    keys = ("backend", "device", "way", "name")
    lines: dict[tuple[str, ...], list[tuple[int, float]]] = {}
    for row in measurements:
        lines.setdefault(tuple(row[key] for key in keys), []).append((row["parameters"], row["ms"]))

    def slope(points: list[tuple[int, float]]) -> float | None:
        if len(points) < 2:
            return None
        n, ms = np.log10(np.array(points)).T
        return float(np.polyfit(n, ms, 1)[0])

    return [
        dict(zip(keys, line, strict=True))
        | {"all": slope(points), "large": slope([point for point in points if point[0] >= LINEAR_FROM])}
        for line, points in lines.items()
    ]


def in_order(row: dict[str, Any], name: str) -> tuple[int, str, str, int]:
    """A key to sort by: backend, device, way; ours first, Keras's next."""
    rank = 0 if row[name].startswith("toolkit") else 1 if row[name] == "keras" else 2
    return BACKENDS.index(row["backend"]), row["device"], row["way"], rank


def number(value: float) -> str:
    """Three digits or all before the point."""
    return f"{value:.{min(3, max(0, 2 - math.floor(math.log10(value))))}f}" if value > 0 else "0"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> None:
    """Print columns, the first `texts` of them flush left."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        cells = [row[i].ljust(widths[i]) if i < texts else row[i].rjust(widths[i]) for i in range(len(head))]
        print("  ".join(cells).rstrip())


def print_times(results: dict[str, Any]) -> None:
    print("\n" + "\n".join(results["cases"].values()))
    cases = list(results["cases"])
    gpu = any(row["device"] == "gpu" for row in results["measurements"])

    print("\nmilliseconds")
    _print_cases(cases, results["measurements"], "name", "ms", gpu)
    print("\nratios, the toolkit's time over")
    _print_cases(cases, results["ratios"], "against", "ratio", gpu)


def _print_cases(cases: list[str], rows: Sequence[dict[str, Any]], title: str, value: str, gpu: bool) -> None:
    lines: dict[tuple[str, ...], dict[str, float]] = {}
    for row in sorted(rows, key=lambda row: in_order(row, title)):
        place = (row["backend"], *([row["device"]] if gpu else []), row["way"], row[title])
        lines.setdefault(place, {})[row["case"]] = row[value]
    head = ["backend", *(["device"] if gpu else []), "way", ""]
    body = [[*place, *(number(by_case[c]) if c in by_case else "–" for c in cases)] for place, by_case in lines.items()]
    table([*head, *cases], body, len(head))


def print_sweep(results: dict[str, Any]) -> None:
    sizes = sorted({row["parameters"] for row in results["measurements"]})
    print("\nmilliseconds by number of parameters, and k of time ~ parametersᵏ")
    body = []
    for line in results["exponents"]:
        keys = ("backend", "device", "way", "name")
        times = {r["parameters"]: r["ms"] for r in results["measurements"] if all(r[key] == line[key] for key in keys)}
        slopes = ["–" if line[key] is None else f"{line[key]:.2f}" for key in ("all", "large")]
        body.append([*(line[key] for key in keys), *(number(times[size]) for size in sizes), *slopes])
    head = ["backend", "device", "way", "", *(f"{size:.0e}" for size in sizes), "k", f"k from {LINEAR_FROM:.0e}"]
    table(head, body, 4)


def print_memory(results: dict[str, Any]) -> None:
    print("\nper parameter: floats of state; at the peak of ten steps, state and all else in float32")
    keys = ("state", "growth", "temporary")
    body = [
        [row["backend"], row["way"], row["name"], *(f"{row[key]:.2f}" for key in keys)]
        for row in results["measurements"]
    ]
    table(["backend", "way", "", "state", "peak", "peak − state"], body, 3)


# --- pictures --------------------------------------------------------------------------------------------------------


def _colour(name: str) -> str:
    from toolkit.evaluation.picture import BLUE, GREY, ORANGE

    return BLUE if name.startswith("toolkit") else ORANGE if name == "keras" else GREY


def draw_times(results: dict[str, Any]) -> bytes:
    """Bars, a panel for each case and a row for each contender."""
    from toolkit.evaluation.picture import drawing, png

    cases, rows = list(results["cases"]), sorted(results["measurements"], key=lambda row: in_order(row, "name"))
    gpu = any(row["device"] == "gpu" for row in rows)
    groups: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        group = f"{row['backend']} {row['device']}" if gpu else row["backend"]
        groups.setdefault(group, [])
        if (row["way"], row["name"]) not in groups[group]:
            groups[group].append((row["way"], row["name"]))
    places, heads, at = {}, {}, 0.0
    for group, members in groups.items():
        heads[group] = at
        for i, member in enumerate(members):
            places[group, member] = at + 1 + i
        at += len(members) + 1.6
    with drawing(3.4 + 2.0 * len(cases), 1.0 + 0.19 * at) as figure:
        panels: Any = figure.subplots(1, len(cases), sharex=True, sharey=True, squeeze=False)
        low, high = min(row["ms"] for row in rows), max(row["ms"] for row in rows)
        for axes, case in zip(panels[0], cases, strict=True):
            for row in (row for row in rows if row["case"] == case):
                group = f"{row['backend']} {row['device']}" if gpu else row["backend"]
                place = places[group, (row["way"], row["name"])]
                axes.barh(place, row["ms"], height=0.74, color=_colour(row["name"]))
                axes.annotate(
                    number(row["ms"]), (row["ms"], place), (3, 0), textcoords="offset points", va="center", fontsize=7.5
                )
            axes.set_xscale("log")
            _powers_of_ten(axes.xaxis)
            # A bar has no beginning on a logarithmic axis: let the shortest be seen, and leave room for the numbers.
            axes.set_xlim(low / 2, high * (high / low * 2) ** 0.3)
            axes.set_title(case, loc="left", fontweight="bold")
            axes.set_xlabel("ms")
            axes.grid(axis="x", color="0.92", linewidth=0.8)
            axes.set_axisbelow(True)
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
        first = panels[0][0]
        ticks = [(place, f"{name}, {way}", "normal") for (_, (way, name)), place in places.items()]
        ticks += [(place, group, "bold") for group, place in heads.items()]
        first.set_yticks([place for place, _, _ in ticks], [text for _, text, _ in ticks])
        for label, (_, _, weight) in zip(first.get_yticklabels(), ticks, strict=True):
            label.set_fontweight(weight)
        first.set_ylim(at - 0.8, -0.6)
        what = "One training step inside fit" if results["mode"] == "fit" else "One step of Adam"
        figure.suptitle(f"{what}: median, less is better", x=0.01, ha="left", fontweight="bold")
        figure.supxlabel(_machine_line(results["machine"]), x=0.01, ha="left", fontsize=7.5, color="0.4")
        return png(figure)


def draw_sweep(results: dict[str, Any]) -> bytes:
    """Lines over the number of parameters, a panel for each backend."""
    from toolkit.evaluation.picture import drawing, png

    lines = results["exponents"]
    panels_of = list(dict.fromkeys((line["backend"], line["device"]) for line in lines))
    with drawing(0.8 + 4.6 * len(panels_of), 4.6) as figure:
        panels: Any = figure.subplots(1, len(panels_of), sharey=True, squeeze=False)
        for axes, (backend, device) in zip(panels[0], panels_of, strict=True):
            for line in lines:
                if (line["backend"], line["device"]) != (backend, device):
                    continue
                keys = ("backend", "device", "way", "name")
                rows = [r for r in results["measurements"] if all(r[key] == line[key] for key in keys)]
                points = [(r["parameters"], r["ms"]) for r in rows]
                label = f"{line['name']}, {line['way']}: time ~ nᵏ, k = {line['all']:.2f}"
                if line["large"] is not None:
                    label += f"; from {_power(LINEAR_FROM)} on {line['large']:.2f}"
                axes.plot(
                    *zip(*points, strict=True), marker="o", markersize=5, color=_colour(line["name"]), label=label
                )
                low, high = zip(*(r["quartiles"] for r in rows), strict=True)
                axes.fill_between(
                    [n for n, _ in points], low, high, color=_colour(line["name"]), alpha=0.15, linewidth=0
                )
            axes.set_xscale("log")
            axes.set_yscale("log")
            _powers_of_ten(axes.xaxis)
            _powers_of_ten(axes.yaxis)
            axes.set_xlabel("parameters n, in one tensor")
            axes.set_title(backend if device == "cpu" else f"{backend} on {device}", loc="left", fontweight="bold")
            axes.grid(color="0.92", linewidth=0.8)
            axes.set_axisbelow(True)
            axes.legend(loc="upper left", frameon=False)
        panels[0][0].set_ylabel("ms of one step: median and quartiles")
        figure.supxlabel(_machine_line(results["machine"]), x=0.01, ha="left", fontsize=7.5, color="0.4")
        return png(figure)


def _powers_of_ten(axis: Any) -> None:
    """Ticks at the powers of ten, written out up to a thousand."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value <= 1000 else _power(value)))
    axis.set_minor_formatter(NullFormatter())


def _power(value: float) -> str:
    return "10" + str(round(math.log10(value))).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _machine_line(machine: dict[str, Any]) -> str:
    devices = [f"{machine['cpu']}, {machine['processors']} processors", *machine["devices"].values()]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{'; '.join(dict.fromkeys(devices))}\n{versions}; commit {machine['commit']}"


# --- the process of a backend ----------------------------------------------------------------------------------------


def serve(connection: Any, backend: str, threads: int | None, cpu_only: bool) -> None:
    """Do what is asked until None comes."""
    if threads:  # of every backend alike, JAX among them, which has no setting of its own
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ["KERAS_BACKEND"] = backend
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"  # a GPU is shared by all processes of the run
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if cpu_only:
        os.environ.update(CUDA_VISIBLE_DEVICES="-1", JAX_PLATFORMS="cpu", KERAS_TORCH_DEVICE="cpu")
    try:
        bench = Bench(backend)
    except Exception:  # noqa: BLE001 - whatever it is, the asking process reports it
        connection.recv()
        connection.send((traceback.format_exc(), None))
        return
    while (question := connection.recv()) is not None:
        task, arguments = question
        try:
            answer: tuple[str | None, Any] = None, getattr(bench, task)(*arguments)
        except Exception:  # noqa: BLE001 - the same
            answer = traceback.format_exc(), None
        connection.send(answer)


@dataclasses.dataclass
class Contender:
    """An Adam at work.

    Attributes:
        block: take so many steps; gives the milliseconds of each, or of one of them where only all can be timed.
        distance: how far the weights are from where they should be, in parts of their way.
        state_floats: how many floats it keeps, scalars left out.
    """

    block: Callable[[int], list[float]]
    distance: Callable[[], float]
    state_floats: Callable[[], int]


# (way, name) → makes weights, and gives what makes the optimizer.
Makers = dict[tuple[str, str], Callable[[], Callable[[], Contender]]]


class Bench:
    """What a process can be asked for."""

    def __init__(self, backend: str) -> None:
        from toolkit.backend import select

        select(backend, key="--backends")
        self.backend = backend
        self.contenders: dict[tuple[str, str], Contender] = {}

    def gpu(self) -> str | None:
        """The name of the accelerator that Keras computes on, if any."""
        if self.backend == "tensorflow":
            import tensorflow as tf

            devices = tf.config.list_physical_devices("GPU")
            details = tf.config.experimental.get_device_details(devices[0]) if devices else {}
            return details.get("device_name", "GPU") if devices else None
        if self.backend == "jax":
            import jax

            device = jax.devices()[0]
            return None if device.platform == "cpu" else str(device.device_kind)
        import keras

        device = keras.ops.zeros(()).device
        if device.type == "cpu":
            return None
        import torch

        return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)

    def names(self, work: Work) -> list[tuple[str, str]]:
        """The contenders whose memory can be measured."""
        return list(self._makers(work.tiny(), amsgrad=True))

    def prepare(self, work: Work, names: Sequence[str] = (), ways: Sequence[str] = ()) -> None:
        """Make the contenders, of these names and ways, and let each take its first steps."""
        for (way, name), make in self._makers(work).items():
            if (not names or name in names) and (not ways or way in ways):
                self.contenders[way, name] = contender = make()()
                contender.block(WARM_UP)

    def _makers(self, work: Work, *, amsgrad: bool = False) -> Makers:
        find = {"tensorflow": tensorflow_makers, "jax": jax_makers, "torch": torch_makers}[self.backend]
        return find(Arrays(work), keras_adams(work, amsgrad=amsgrad))

    def prepare_fit(self, recipe: str, steps: int) -> None:
        """The same for models of a recipe; an epoch has so many steps."""
        for name in ("toolkit", "keras"):
            self.contenders["fit", name] = contender = fit_contender(recipe, name, steps)
            contender.block(steps)

    def block(self, steps: int) -> dict[tuple[str, str], list[float]]:
        """Let each contender take so many steps; the next time in reverse, so that none is always first."""
        times = {key: contender.block(steps) for key, contender in self.contenders.items()}
        self.contenders = dict(reversed(self.contenders.items()))
        return times

    def distances(self) -> dict[tuple[str, str], float]:
        """How far each is from where it should be."""
        return {key: contender.distance() for key, contender in self.contenders.items()}

    def clear(self) -> None:
        """Give the memory back."""
        import keras

        self.contenders.clear()
        keras.backend.clear_session()
        gc.collect()

    def memory(self, work: Work, key: tuple[str, str]) -> dict[str, float]:
        """How much this process grows from having weights and gradients to the peak of ten steps.

        The state is part of it, since torch makes it at its first step, and only then touches it.
        """
        # In small before, so that code that is loaded or made on first use does not count.
        self._makers(work.tiny(), amsgrad=True)[key]()().block(WARM_UP)
        begin = self._makers(work, amsgrad=True)[key]()
        gc.collect()
        before = _resident_without_peak()
        contender = begin()
        contender.block(10)
        growth = (_peak() - before) / (4 * work.parameters)
        state = contender.state_floats() / work.parameters
        return {"state": state, "growth": growth, "temporary": growth - state, "distance": contender.distance()}


def _resident_without_peak() -> int:
    """Bytes in memory now; the peak is forgotten, which making the arrays has raised."""
    Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- contenders ------------------------------------------------------------------------------------------------------


class Arrays:
    """Weights and gradients of a work, the same in every process."""

    def __init__(self, work: Work) -> None:
        import numpy as np

        rng = np.random.default_rng(0)
        self.shapes = work.shapes
        self.start = [rng.standard_normal(shape, "float32") * np.float32(0.05) for shape in work.shapes]
        self.rows = rng.permutation(work.shapes[0][0])[: work.touched] if work.touched else None
        shapes = work.shapes if self.rows is None else ((work.touched, *work.shapes[0][1:]),)
        self.gradients = [rng.standard_normal(shape, "float32") for shape in shapes]

    def distance(self, weights: Sequence[Any], steps: int) -> float:
        """Root of Σ(weight − expected)² ÷ Σ(expected − start)²."""
        import numpy as np

        off = way = 0.0
        for weight, start, g in zip(weights, self.start, self.gradients, strict=True):
            # With one and the same gradient m̂ = g and v̂ = g² at every step.
            move = steps * RATE * g / (np.abs(g) + EPSILON)
            difference = weight - start
            difference[slice(None) if self.rows is None else self.rows] += move
            off += float(np.sum(np.square(difference), dtype="float64"))
            way += float(np.sum(np.square(move), dtype="float64"))
        return math.sqrt(off / way)

    def contender(self, step: Callable[[], Any], weights: Callable[[], Sequence[Any]], state: Any) -> Contender:
        """One whose `step` returns when the step is done; `state` gives the shapes of what it keeps."""
        taken = 0

        def block(steps: int) -> list[float]:
            nonlocal taken
            times = []
            for _ in range(steps):
                start = time.perf_counter()
                step()
                times.append((time.perf_counter() - start) * 1000)
            taken += steps
            return times

        def floats() -> int:
            return sum(math.prod(shape) for shape in state() if len(shape))

        return Contender(block, lambda: self.distance(weights(), taken), floats)


def keras_adams(work: Work, *, amsgrad: bool) -> dict[str, Callable[[], Any]]:
    """Name → makes an optimizer with Keras's interface."""
    import keras

    from toolkit.optimizers import Adam

    options: dict[str, Any] = {"learning_rate": RATE, "epsilon": EPSILON}
    theirs: dict[str, Callable[[], Any]] = {"keras": functools.partial(keras.optimizers.Adam, **options)}
    if work.touched:
        lazy = functools.partial(Adam, **options, sparse_updates="lazy")
        return {"toolkit lazy": lazy, "toolkit exact": functools.partial(Adam, **options), **theirs}
    ours: dict[str, Callable[[], Any]] = {"toolkit": functools.partial(Adam, **options)}
    if amsgrad:
        ours["toolkit amsgrad"] = functools.partial(Adam, **options, amsgrad=True)
    return ours | theirs


def tensorflow_makers(arrays: Arrays, adams: dict[str, Callable[[], Any]]) -> Makers:
    import keras
    import tensorflow as tf

    gradients = [tf.constant(g) for g in arrays.gradients]
    if arrays.rows is not None:
        shape = tf.constant(arrays.shapes[0], tf.int64)
        gradients = [tf.IndexedSlices(gradients[0], tf.constant(arrays.rows, tf.int64), shape)]
    on_gpu = bool(tf.config.list_physical_devices("GPU"))

    def waited(step: Callable[[], Any]) -> Callable[[], Any]:
        def both() -> None:
            step()
            tf.test.experimental.sync_devices()

        return both if on_gpu else step

    def keras_like(adam: Callable[[], Any], *, graph: bool) -> Callable[[], Contender]:
        variables = [keras.Variable(w.copy(), name=f"weight{i}") for i, w in enumerate(arrays.start)]

        def begin() -> Contender:
            optimizer = adam()
            optimizer.build(variables)

            def step() -> None:
                optimizer.apply(gradients, variables)

            return arrays.contender(
                waited(tf.function(step) if graph else step),
                lambda: [v.numpy() for v in variables],
                lambda: [v.shape for v in optimizer.variables],
            )

        return begin

    def fused_operation() -> Callable[[], Contender]:
        variables = [tf.Variable(w.copy()) for w in arrays.start]

        def begin() -> Contender:
            ms, vs = ([tf.Variable(tf.zeros_like(w)) for w in variables] for _ in range(2))
            steps = tf.Variable(0.0)

            def step() -> None:
                steps.assign_add(1.0)
                power_1, power_2 = tf.pow(0.9, steps), tf.pow(0.999, steps)
                for w, m, v, g in zip(variables, ms, vs, gradients, strict=True):
                    tf.raw_ops.ResourceApplyAdam(
                        var=w.handle,
                        m=m.handle,
                        v=v.handle,
                        beta1_power=power_1,
                        beta2_power=power_2,
                        lr=RATE,
                        beta1=0.9,
                        beta2=0.999,
                        epsilon=EPSILON * tf.sqrt(1 - power_2),
                        grad=g,
                    )

            return arrays.contender(
                waited(tf.function(step)), lambda: [w.numpy() for w in variables], lambda: [v.shape for v in [*ms, *vs]]
            )

        return begin

    makers: Makers = {}
    for way in ("eager", "graph"):
        for name, adam in adams.items():
            if (way, name) != ("eager", "toolkit exact"):
                makers[way, name] = functools.partial(keras_like, adam, graph=way == "graph")
    if arrays.rows is None:
        makers["graph", "ResourceApplyAdam"] = fused_operation
    return makers


def jax_makers(arrays: Arrays, adams: dict[str, Callable[[], Any]]) -> Makers:
    """All under `jax.jit`, with weights and state donated; JAX has no gradients of rows."""
    import jax
    import keras

    if arrays.rows is not None:
        return {}

    def on_device(tensors: Sequence[Any]) -> Any:
        # Waited for: a copy under way holds memory, which would count as there before the optimizer.
        return jax.block_until_ready([jax.numpy.array(tensor) for tensor in tensors])

    gradients = on_device(arrays.gradients)

    def contender(step: Any, values: Any, state: Any, shapes: list[Any]) -> Contender:
        step = jax.jit(step, donate_argnums=(0, 1))

        def both() -> None:
            nonlocal values, state
            values, state = jax.block_until_ready(step(values, state, gradients))

        return arrays.contender(both, lambda: [jax.device_get(value) for value in values], lambda: shapes)

    def keras_like(adam: Callable[[], Any]) -> Callable[[], Contender]:
        values = on_device(arrays.start)

        def begin() -> Contender:
            variables = [keras.Variable(value) for value in values]
            optimizer = adam()
            optimizer.build(variables)

            def step(values: Any, state: Any, gradients: Any) -> Any:
                return optimizer.stateless_apply(state, gradients, values)

            state = [v.value for v in optimizer.variables]
            return contender(step, [v.value for v in variables], state, [v.shape for v in state])

        return begin

    def optax_adam() -> Callable[[], Contender]:
        optax: Any = importlib.import_module("optax")  # has no types

        values = on_device(arrays.start)

        def begin() -> Contender:
            adam = optax.adam(RATE, eps=EPSILON)

            def step(values: Any, state: Any, gradients: Any) -> Any:
                updates, state = adam.update(gradients, state, values)
                return optax.apply_updates(values, updates), state

            state = adam.init(values)
            return contender(step, values, state, [leaf.shape for leaf in jax.tree.leaves(state)])

        return begin

    makers: Makers = {("jit", name): functools.partial(keras_like, adam) for name, adam in adams.items()}
    if importlib.util.find_spec("optax"):
        makers["jit", "optax"] = optax_adam
    return makers


def torch_makers(arrays: Arrays, adams: dict[str, Callable[[], Any]]) -> Makers:
    import keras
    import torch

    def on_device(array: Any) -> Any:
        return keras.ops.convert_to_tensor(array.copy())  # a copy, for torch shares memory with NumPy

    gradients = [on_device(g) for g in arrays.gradients]
    if arrays.rows is not None:
        gradients = [
            torch.sparse_coo_tensor(on_device(arrays.rows)[None], gradients[0], arrays.shapes[0], check_invariants=True)
        ]
    on_gpu = gradients[0].device.type != "cpu"

    def waited(step: Callable[[], Any]) -> Callable[[], Any]:
        def both() -> None:
            step()
            torch.accelerator.synchronize()

        return both if on_gpu else step

    def keras_like(adam: Callable[[], Any]) -> Callable[[], Contender]:
        variables = [keras.Variable(on_device(w)) for w in arrays.start]

        def begin() -> Contender:
            optimizer = adam()
            optimizer.build(variables)
            return arrays.contender(
                waited(lambda: optimizer.apply(gradients, variables)),
                lambda: [v.value.detach().cpu().numpy() for v in variables],
                lambda: [v.shape for v in optimizer.variables],
            )

        return begin

    def torch_adam(adam: Callable[..., Any]) -> Callable[[], Contender]:
        weights = [torch.nn.Parameter(on_device(w)) for w in arrays.start]
        for weight, g in zip(weights, gradients, strict=True):
            weight.grad = g

        def begin() -> Contender:
            optimizer = adam(weights, lr=RATE, eps=EPSILON)

            def state() -> list[Any]:
                kept = [value for of_one in optimizer.state.values() for value in of_one.values()]
                return [value.shape for value in kept if isinstance(value, torch.Tensor)]

            return arrays.contender(waited(optimizer.step), lambda: [w.detach().cpu().numpy() for w in weights], state)

        return begin

    makers: Makers = {("apply", name): functools.partial(keras_like, adam) for name, adam in adams.items()}
    if arrays.rows is None:
        for kind in ("fused", "foreach"):
            adam = functools.partial(torch.optim.Adam, **{kind: True})
            makers["step", f"torch {kind}"] = functools.partial(torch_adam, adam)
    else:
        makers["step", "torch SparseAdam"] = functools.partial(torch_adam, torch.optim.SparseAdam)
    return makers


def fit_contender(recipe: str, name: str, steps: int) -> Contender:
    """The recipe's model in `fit` over arrays of random numbers, as the recipe compiles it but for its schedule."""
    import keras
    import numpy as np

    from toolkit.config import load
    from toolkit.data.spec import DataSpec
    from toolkit.models.build import build
    from toolkit.optimizers import Adam
    from toolkit.tasks.objective import objective

    config = load(REPOSITORY / "configs" / f"{recipe}.yaml")
    spec = DataSpec(**RECIPES[recipe])
    batch_size = config.data.options.batch_size
    inputs, labels = examples(spec, steps * batch_size)

    keras.utils.set_random_seed(0)
    model = build(config.model.name, config.model.arguments, spec, precision=config.training.precision)
    clips = config.optimizer.options.model_dump(include={"clipnorm", "clipvalue", "global_clipnorm"})
    adam = Adam if name == "toolkit" else keras.optimizers.Adam
    optimizer = adam(learning_rate=RATE, epsilon=EPSILON, **clips)
    goal = objective(spec, label_smoothing=config.training.label_smoothing)
    jit = "auto" if keras.backend.backend() == "jax" else config.training.jit
    model.compile(optimizer=optimizer, loss=goal.loss, metrics=goal.metrics, jit_compile=jit)

    clock = {"start": 0.0, "end": 0.0}
    # From the first step to the last: what `fit` does around an epoch would make the two look more alike.
    timer = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: clock.update(start=time.perf_counter()),
        on_epoch_end=lambda epoch, logs: clock.update(end=time.perf_counter()),
    )
    taken = 0

    def block(steps: int) -> list[float]:
        nonlocal taken
        taken += steps
        model.fit(inputs, labels, batch_size=batch_size, shuffle=False, verbose=0, callbacks=[timer])
        return [(clock["end"] - clock["start"]) * 1000 / steps]

    def distance() -> float:
        done = int(optimizer.iterations) == taken
        return 0.0 if done and all(np.isfinite(weight).all() for weight in model.get_weights()) else math.inf

    return Contender(block, distance, lambda: 0)


def examples(spec: Any, count: int) -> tuple[dict[str, Any], Any]:
    """Random inputs and labels of the shapes and types that `spec` names."""
    import numpy as np

    rng = np.random.default_rng(0)
    labels = rng.integers(len(spec.class_names), size=count, dtype="int32")
    if spec.kind == "image":
        return {"image": rng.integers(256, size=(count, *spec.shape), dtype="uint8")}, labels
    (length,) = spec.lengths
    if spec.kind == "audio":
        samples = rng.uniform(-0.5, 0.5, (count, length)).astype("float32")
        return {"samples": samples, "lengths": np.full(count, length, "int32")}, labels
    return {"tokens": rng.integers(1, len(spec.vocabulary), size=(count, length), dtype="int32")}, labels


if __name__ == "__main__":
    main()
