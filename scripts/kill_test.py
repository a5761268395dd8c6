"""SIGKILLs a training at random moments, resumes it, and compares it to the bit with one that was never interrupted.

The kills are spread evenly over the backends and over four small configs. Each run is killed 8 or 10 times and compared
at its end, so that its kills count as exact together or not at all. Every run is added to a JSON file, and a later call
goes on with the count that stands there:

    python scripts/kill_test.py --kills 100 --results docs/kill_test.json
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from toolkit.errors import RunFailed
from toolkit.runs import checkpoints
from toolkit.runs.files import write_text
from toolkit.runs.record import commit
from toolkit.studies.verify_resume import Trial, Whole, compare

BACKENDS = ("tensorflow", "jax", "torch")
# What a resume could lose: seeds of dropout, batch norm, order and augmentation, a window of micro-batches, averages,
# the schedule's step, the state of an LSTM's and a transformer's training, counts of epochs without improvement.
CONFIGS = {
    "stopping": """
seed: 1
data: {source: synthetic_images, classes: 4, examples: 120, height: 8, width: 8, noise: 0.4, validation: 0.2,
  batch_size: 16}
model: {name: simple_cnn, filters: [4, 4], dropout: 0.2}
optimizer: {name: adam, learning_rate: 1e-2}
training:
  epochs: 40
  best_metric: val_accuracy
  early_stopping: {monitor: val_loss, patience: 4}
  plateau: {monitor: val_loss, patience: 2, factor: 0.5}
""",
    "images": """
seed: 3
data:
  {source: synthetic_images, classes: 3, examples: 150, height: 12, width: 12, batch_size: 16,
   augmentation: {shift: 0.1, zoom: 0.1, flip: horizontal}}
model: {name: simple_cnn, filters: [4, 4], dropout: 0.3, batch_norm: true}
optimizer:
  {name: adam, learning_rate: 1e-2, schedule: {name: cosine, warmup_steps: 2}, use_ema: true, ema_momentum: 0.8,
   gradient_accumulation_steps: 4}
training: {epochs: 5}
""",
    "audio": """
seed: 4
data: {source: synthetic_audio, classes: 2, examples: 80, seconds: 0.1, batch_size: 8}
model: {name: speech_lstm, units: 8, mels: 8, dropout: 0.3}
optimizer: {name: adam, learning_rate: 1e-2, amsgrad: true, weight_decay: 1e-3}
training: {epochs: 4, plateau: {patience: 1, factor: 0.5}}
""",
    "text": """
seed: 5
data: {source: synthetic_text, classes: 2, examples: 120, batch_size: 8}
model: {name: text_transformer, width: 8, heads: 2, feed_forward: 8, dropout: 0.2}
optimizer: {name: adam, learning_rate: 3e-3, global_clipnorm: 1.0, schedule: {name: cosine, warmup_steps: 5}}
training: {epochs: 4, label_smoothing: 0.1, early_stopping: {patience: 3}}
""",
}
IN_A_ROW = {"stopping": 10}
OTHERWISE = 8


def main() -> None:
    options = parse()
    # Each config names its backend; torch's threads spin, and beside another job two are slower than one.
    os.environ.pop("KERAS_BACKEND", None)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    kills = read(options.results)
    while len(kills) < options.kills:
        backend, config = next_case(kills, options.backends)
        count = min(IN_A_ROW.get(config, OTHERWISE), options.kills - len(kills))
        # Another for every run, and the same whoever counts again.
        seed = options.seed + len({kill["seed"] for kill in kills})
        kills += run(backend, config, count, seed)
        write_text(options.results, as_json(kills))
        print(counts(kills), flush=True)
    print(counts(kills))
    sys.exit(any(kill["outcome"] != "exact" for kill in kills))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="to be counted in all")
    parser.add_argument("--results", type=Path, default=Path("docs/kill_test.json"), help="the JSON file")
    parser.add_argument("--seed", type=int, default=1000, help="of the first run's moments")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    return parser.parse_args()


def read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["kills"] if path.exists() else []


def as_json(kills: list[dict[str, Any]]) -> str:
    lines = ",\n".join(json.dumps(kill) for kill in kills)
    return f'{{"passed": {passed(kills)}, "attempted": {len(kills)}, "kills": [\n{lines}\n]}}\n'


def passed(kills: list[dict[str, Any]]) -> int:
    return sum(kill["outcome"] == "exact" for kill in kills)


def counts(kills: list[dict[str, Any]]) -> str:
    parts = [f"{name} {number}" for name, number in collections.Counter(kill["backend"] for kill in kills).items()]
    within = [f"{name} {number}" for name, number in collections.Counter(kill["within"] for kill in kills).items()]
    return f"passed / attempted: {passed(kills)} / {len(kills)} ({', '.join(parts)}; within {', '.join(within)})"


def next_case(kills: list[dict[str, Any]], backends: list[str]) -> tuple[str, str]:
    """The backend with the fewest kills, and of its configs the one with the fewest."""
    by_backend = collections.Counter(kill["backend"] for kill in kills)
    backend = min(backends, key=lambda name: by_backend[name])
    by_config = collections.Counter(kill["config"] for kill in kills if kill["backend"] == backend)
    return backend, min(CONFIGS, key=lambda name: by_config[name])


def run(backend: str, config: str, count: int, seed: int) -> list[dict[str, Any]]:
    """One run with so many kills; a row for each. The folder of a run that is not exact stays."""
    print(f"{backend}, {config}: {count} kills, seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix=f"kill-test-{backend}-{config}-"))
    file = folder / f"{config}.yaml"
    file.write_text(CONFIGS[config], encoding="utf-8")
    often = ("training.checkpoint.every_steps=3", "training.log_every=1")
    trial = Trial(
        file, folder, (f"training.backend={backend}", *often), say=lambda line: print(f"  {line}", flush=True)
    )
    whole = trial.whole()
    if config == "stopping":
        check_stopped(whole)
    try:
        directory, sittings = trial.killed(whole, count, random.Random(seed))
    except RunFailed as error:
        sys.exit(f"seed {seed}: {error}")
    comparison = compare(whole.directory, directory)
    if comparison.differences:
        print(f"  NOT EXACT: {'; '.join(comparison.differences)} (both runs are in {folder})", flush=True)
    else:
        print(f"  exact: {comparison.tensors} tensors, {comparison.rows} rows", flush=True)
        shutil.rmtree(folder)
    about = {"seed": seed, "backend": backend, "config": config, "commit": commit()}
    return [
        {
            **about,
            "row": sitting.moment.row,
            "delay": round(sitting.moment.delay, 6),
            "start": sitting.start,
            "step": sitting.end,
            "within": sitting.within,
            "outcome": "; ".join(comparison.differences) or "exact",
        }
        for sitting in sittings
        if sitting.moment
    ]


def check_stopped(whole: Whole) -> None:
    """The case is of use only if training stops early, after the rate was lowered."""
    folder = whole.directory / checkpoints.FOLDER
    position = checkpoints.load(folder / checkpoints.names(folder)[-1]).state["position"]
    rows = [json.loads(line) for line in (whole.directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    lowered = rows[-1]["learning_rate"] < rows[0]["learning_rate"]
    if not (position["stopped_early"] and lowered):
        sys.exit(f"the config `stopping` did not stop early with a lowered rate: {position}")


if __name__ == "__main__":
    main()
