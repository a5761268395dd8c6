"""Mutated configs: each is a valid config or one clear error; never a traceback, a hang, a full memory, code that runs.

    python tests/faults/fuzz_configs.py --seed 0 --count 5000            counts, and every case that failed
    python tests/faults/fuzz_configs.py --seed 0 --index 17              one case: what it is and what came of it

A case follows from (seed, index) and the shipped configs. Cases run in a process of their own, whose address space is
limited, in which an audit hook sees every file that is opened and every program that is started.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import faulthandler
import json
import os
import random
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from config_mutations import BASES, BYTES, TEXT, override

from toolkit.config import load
from toolkit.errors import ToolkitError

SECONDS = 1.0  # of CPU time: other work on the machine changes nothing
MEGABYTES = 200
HANG = 20  # seconds by the wall after which a case is ended
LINES, CHARACTERS = 101, 1000  # of a message; of one of its lines
_PLACED = re.compile(r"(\S.*\.yaml|/\S+)(:\d+)?: |--set .*: |… and \d+ more problems$")
CASE, AGAIN = "case.yaml", "again.yaml"

# --- what stands around a case ----------------------------------------------------------------------------------------

FILES = {
    "parent.yaml": "data: {source: mnist_sample}\nmodel: {name: simple_cnn}\noptimizer: {name: adam}\n",
    "child.yaml": "extends: parent.yaml\ntraining: {epochs: 3}\n",
    "circle_1.yaml": "extends: circle_2.yaml\n",
    "circle_2.yaml": "extends: circle_3.yaml\n",
    "circle_3.yaml": "extends: circle_1.yaml\n",
    "to_case.yaml": f"extends: {CASE}\n",
    "to_zero.yaml": "extends: /dev/zero\n",
    "to_nothing.yaml": "extends: nowhere.yaml\n",
    "wrong.yaml": "data: {sauce: mnist_sample}\nmodel: [\n",
    "new\nline.yaml": "seed: x\n",
    "folder/inner.yaml": "extends: ../parent.yaml\nseed: 4\n",
    "../outside.yaml": "data: {source: mnist_sample}\nmodel: {name: mnist_dense}\noptimizer: {name: sgd}\n",
}
CHAIN, HEAVY = 40, 9
ENVIRONMENT = {
    "FUZZ_TEXT": "some text",
    "FUZZ_LONG": "x" * 100_000,
    "FUZZ_LINES": "a: 1\nb: [\n",
    "FUZZ_SELF": "${FUZZ_SELF}",
    "FUZZ_BELL": "\x07\x1b[31m",
    "FUZZ_NUMBER": "12",
    "FUZZ_EMPTY": "",
    "FUZZ_TAG": "!!python/object/apply:os.system ['touch owned']",
    "FUZZ_PIPE": "pipe",
    "FUZZ_BYTES": "\udcff\udcfe",
}


def prepare(folder: Path) -> None:
    """Everything that a case may extend, good and bad, in a new folder."""
    (folder / "folder").mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    for number in range(CHAIN):
        (folder / f"chain_{number}.yaml").write_text(f"extends: chain_{number + 1}.yaml\nseed: {number}\n")
    for number in range(HEAVY):  # each alone is within the limits of a file
        keys = "".join(f"k{number}_{key}: 1\n" for key in range(4500))
        (folder / f"heavy_{number}.yaml").write_text(f"extends: heavy_{number + 1}.yaml\n{keys}")
        (folder / f"padded_{number}.yaml").write_text(f"extends: padded_{number + 1}.yaml\n#" + "x" * 250_000)
    for last in (f"chain_{CHAIN}.yaml", f"heavy_{HEAVY}.yaml", f"padded_{HEAVY}.yaml"):
        (folder / last).write_text(FILES["parent.yaml"])
    with (folder / "huge.yaml").open("wb") as file:
        file.truncate(100 * 2**20)
    os.mkfifo(folder / "pipe")
    (folder / "link_to_pipe").symlink_to("pipe")
    (folder / "link_to_link").symlink_to("link_to_link")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as bound, contextlib.chdir(folder):
        bound.bind("socket")


# --- a case -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """One mutated config. `names` are the mutations, in their order."""

    index: int
    names: tuple[str, ...]
    raw: bytes
    overrides: tuple[str, ...]


def make_case(seed: int, index: int) -> Case:
    """The case `index` of `seed`: always the same."""
    rng = random.Random(f"{seed}:{index}")
    base = rng.choice(sorted(BASES))
    text, names = BASES[base], [base]
    kinds = [*TEXT, *BYTES, "--set"]
    chosen = [kinds[index % len(kinds)]]  # so that each has its turn
    chosen += rng.choices(kinds, k=rng.choice([0, 0, 0, 0, 1, 2, 4]))
    for name in filter(TEXT.__contains__, chosen):
        text = TEXT[name](text, rng)
        names.append(name)
    raw = text.encode("utf-8", "replace")
    for name in filter(BYTES.__contains__, chosen):
        raw = BYTES[name](raw, rng)
        names.append(name)
    overrides: list[str] = []
    if "--set" in chosen:
        overrides = [override(rng) for _ in range(rng.choice([1, 1, 2, 3, 20]))]
        names.append("--set")
    return Case(index, tuple(names), raw, tuple(overrides))


@dataclasses.dataclass
class Outcome:
    """What came of a case. `kind`: valid, refused, failed; `megabytes`: by how much the peak of memory rose."""

    index: int
    names: tuple[str, ...]
    kind: str
    text: str
    seconds: float = 0.0
    megabytes: float = 0.0


class Hang(BaseException):
    """No `Exception`, so that nothing on the way catches it."""


class Guard:
    """Sees what the process opens and starts while a config is read; once set it cannot be taken away."""

    FORBIDDEN = re.compile(
        r"import|os\.(system|exec|posix_spawn|spawn|fork|forkpty|remove|rename|mkdir|link|symlink|truncate)|"
        r"subprocess\..*|pty\..*|socket\..*|ctypes\..*|shutil\..*|urllib\..*"
    )

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if self.FORBIDDEN.fullmatch(event) and not str(arguments[0]).startswith("encodings."):
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "open" and not isinstance(arguments[0], int):
            path, _, flags = arguments
            with contextlib.suppress(OSError, ValueError):  # nothing is there that could be opened
                if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or not stat.S_ISREG(Path(path).stat().st_mode):
                    self.seen.append(f"open {path!r:.200}")


def judged(case: Case, guard: Guard) -> tuple[str, str, float]:
    """Kind, text and CPU seconds of `case`, whose file lies in the current folder."""
    started = time.process_time()
    guard.seen.clear()
    guard.on = True
    signal.setitimer(signal.ITIMER_REAL, HANG)
    try:
        config = load(CASE, case.overrides)
        found = "valid", config.name
    except ToolkitError as error:
        found = "refused", str(error)
        if error.exit_code != 2:
            found = "failed", f"exit code {error.exit_code}: {error}"
    except (Exception, Hang) as error:  # noqa: BLE001 - whatever it is, it is what we look for
        found = "failed", f"{type(error).__name__}: {error!s:.300}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        guard.on = False
    seconds = time.process_time() - started
    kind, text = found
    if guard.seen:
        return "failed", f"did what reading a config must not do: {guard.seen}", seconds
    if kind == "valid":
        Path(AGAIN).write_text(config.to_yaml(), encoding="utf-8")
        try:
            again = load(AGAIN)
        except Exception as error:  # noqa: BLE001 - the same
            return "failed", f"not read back: {error!s:.300}", seconds
        if again != config or again.to_yaml() != config.to_yaml():
            return "failed", f"read back as another config: {config.to_yaml():.300}", seconds
    if kind == "refused":
        complaint = unclear(text)
        if complaint:
            return "failed", f"{complaint}: {text[:600]!r}", seconds
    if kind != "failed" and seconds > SECONDS:
        return "failed", f"took {seconds:.1f} s", seconds
    return kind, text, seconds


def unclear(text: str) -> str:
    """What is wrong with an error message; empty for a good one."""
    lines = text.split("\n")
    if not text.strip():
        return "empty"
    if "Traceback" in text:
        return "a traceback"
    if len(lines) > LINES:
        return f"{len(lines)} lines"
    if max(map(len, lines)) > CHARACTERS:
        return f"a line of {max(map(len, lines))} characters"
    if not all(line.isprintable() for line in lines):
        return "characters that cannot be shown"
    if not all(_PLACED.match(line) for line in lines):
        return "a line that does not say which file"
    return ""


# --- the process that runs cases, and the one that watches it ---------------------------------------------------------


def _megabytes() -> float:
    """The highest that the memory of this process has ever been."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _limit_memory() -> None:
    if sys.platform == "linux":  # elsewhere the address space cannot be limited, and the measure must do
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEGABYTES * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _ring(*_: object) -> None:
    raise Hang(f"no end after {HANG} s")


def work(seed: int, first: int, count: int) -> Iterator[Outcome]:
    """Run cases in this process, which is good for nothing else afterwards. Works in a folder of its own."""
    for name in [name for name in os.environ if name.startswith("FUZZ_")]:
        del os.environ[name]
    os.environ.update(ENVIRONMENT)
    signal.signal(signal.SIGALRM, _ring)
    guard = Guard()
    with tempfile.TemporaryDirectory(prefix="toolkit-fuzz-") as scratch, contextlib.chdir(scratch):
        folder = Path(scratch) / "cases"
        prepare(folder)
        os.chdir(folder)
        for base, text in BASES.items():  # what is imported or built once is no case's fault
            Path(f"{base}.yaml").write_text(text, encoding="utf-8")
            load(f"{base}.yaml")
        left = [*os.listdir(), AGAIN, CASE]  # noqa: PTH208 - names
        _limit_memory()
        for index in range(first, first + count):
            case = make_case(seed, index)
            Path(CASE).write_bytes(case.raw)
            faulthandler.dump_traceback_later(3 * HANG, exit=True)  # where not even the alarm is heard
            before = _megabytes()
            kind, text, seconds = judged(case, guard)
            grown = _megabytes() - before
            faulthandler.cancel_dump_traceback_later()
            litter = set(os.listdir()) - set(left)  # noqa: PTH208
            if litter or grown > MEGABYTES:
                kind, text = "failed", f"left {sorted(litter)}" if litter else f"took {grown:.0f} MB"
            yield Outcome(index, case.names, kind, text, seconds, grown)


def fuzz(seed: int, count: int, first: int = 0) -> list[Outcome]:
    """Run cases in a process of their own, and in another one after each that kills it."""
    outcomes: list[Outcome] = []
    while len(outcomes) < count:
        at = first + len(outcomes)
        numbers = [f"--seed={seed}", f"--first={at}", f"--count={first + count - at}"]
        command = [sys.executable, __file__, "--worker", *numbers]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            came = [Outcome(**json.loads(line)) for line in process.stdout]
        outcomes += came
        if len(outcomes) < count:
            if not came and process.returncode == 1:
                raise RuntimeError("the process that runs the cases cannot be started")
            index = first + len(outcomes)
            text = f"the process ended with status {process.returncode}"
            outcomes.append(Outcome(index, make_case(seed, index).names, "failed", text))
    return outcomes


def report(outcomes: list[Outcome]) -> str:
    """Counts, the slowest and the largest case."""
    kinds = Counter(outcome.kind for outcome in outcomes)
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    largest = max(outcomes, key=lambda outcome: outcome.megabytes)
    longest = max(outcomes, key=lambda outcome: len(outcome.text))
    return (
        f"{kinds['valid']} valid + {kinds['refused']} refused of {len(outcomes)} attempted, {kinds['failed']} failed; "
        f"slowest {slowest.seconds:.2f} s (case {slowest.index}), "
        f"largest {largest.megabytes:.0f} MB (case {largest.index}), "
        f"all together {sum(outcome.megabytes for outcome in outcomes):.0f} MB, "
        f"longest message {len(longest.text)} characters (case {longest.index})"
    )


def told(seed: int, outcome: Outcome) -> str:
    """An outcome with all that is needed to see it again."""
    return f"seed {seed}, index {outcome.index} ({', '.join(outcome.names)}): {outcome.kind}: {outcome.text}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutated configs: each must be a valid config, or one clear error.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="index of the first case")
    parser.add_argument("--index", type=int, help="show this one case")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        for outcome in work(given.seed, given.first, given.count):
            print(json.dumps(dataclasses.asdict(outcome)), flush=True)
        return 0
    if given.index is not None:
        case = make_case(given.seed, given.index)
        print(f"{CASE}, {len(case.raw)} bytes:\n{case.raw[:3000].decode('utf-8', 'backslashreplace')}\n")
        for text in case.overrides:
            print(f"--set {text[:300]!a}")
    outcomes = fuzz(given.seed, 1 if given.index is not None else given.count, given.index or given.first)
    for outcome in outcomes:
        if given.index is not None or outcome.kind == "failed":
            print(told(given.seed, outcome))
    print(report(outcomes))
    return any(outcome.kind == "failed" for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main())
