"""Steps per second of the toolkit's training against a plain Keras `fit`.

Both train the same model on the same examples with the same batch size: the toolkit as `toolkit train` does, from its
pipeline (with the recipe's augmentation, logs and kept weights), Keras from NumPy arrays in memory with
`keras.optimizers.Adam`. Both use XLA or both do not, as the recipe says; Keras's own choice, which is to use it
wherever it can, is measured with `--keras-jit auto`. The two take turns in fresh processes, so that a busy machine
slows both; the first epoch of each, which compiles, is not counted, and neither is validation. Medians are compared.
Where a recipe augments, `--set data.augmentation=null` gives both sides the same work.

    python scripts/benchmark_fit.py --config configs/mnist_cnn.yaml --set 'data.augmentation=null'
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
from typing import Any

SIDES = ("toolkit", "keras")


def main() -> None:
    options = parse()
    if options.side:
        print(json.dumps(measure(options)))
        return
    results: dict[str, list[float]] = {side: [] for side in SIDES}
    print(f"{options.config}: {options.epochs} epochs counted, {options.rounds} rounds, steps/s")
    print("round   toolkit    keras    ratio")
    for number in range(1, options.rounds + 1):
        for side in SIDES:
            results[side].append(in_fresh_process(side))
        print(line(f"{number:5}", results["toolkit"][-1], results["keras"][-1]), flush=True)
    medians = {side: statistics.median(values) for side, values in results.items()}
    print(line("median", medians["toolkit"], medians["keras"]))
    if options.output:
        asked = {"config": str(options.config), "set": options.set, "keras_jit": options.keras_jit}
        written: dict[str, Any] = asked | {"steps_per_second": results, "medians": medians}
        written["ratio"] = medians["toolkit"] / medians["keras"]
        options.output.write_text(json.dumps(written, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/mnist_cnn.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in `toolkit train`")
    parser.add_argument("--epochs", type=int, default=2, help="that are counted, after one that is not")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keras-jit", choices=("same", "auto"), default="same")
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


def line(title: str, toolkit: float, keras: float) -> str:
    return f"{title:6} {toolkit:8.2f} {keras:8.2f} {toolkit / keras:8.3f}"


def in_fresh_process(side: str) -> float:
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--side", side], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"the {side} side failed:\n{done.stdout}\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def measure(options: argparse.Namespace) -> float:
    """Steps per second of one side, in this process."""
    from toolkit import auto, stages
    from toolkit.config import load

    length = [f"training.epochs={options.epochs + 1}", "training.early_stopping=null"]
    config = load(options.config, [*options.set, *length])
    stages.set_up(config)
    data = stages.read_data(config, lambda line: None)
    config = auto.settle(config, data, lambda line: None)
    model = stages.build_model(config, data.spec)
    if options.side == "toolkit":
        return toolkit_side(model, config, data)
    # JAX always compiles, with or without the key.
    same = options.keras_jit == "same" and config.training.backend != "jax"
    return keras_side(model, config, data, jit=config.training.jit if same else "auto")


def toolkit_side(model: Any, config: Any, data: Any) -> float:
    """From the end of one validation to the end of the next `fit`: whatever the loop does about training counts."""
    from toolkit.workflow import train

    fits, validations = ends_of(model, "fit"), ends_of(model, "evaluate")
    with tempfile.TemporaryDirectory() as folder:
        train(config, run_dir=Path(folder) / "run", model=model)
    epochs = config.training.epochs
    # By time, not by number: before the first epoch the loop evaluates a batch, to build the metrics.
    seconds = sum(end - max(validation for validation in validations if validation < end) for end in fits[1:])
    return (epochs - 1) * (len(data.splits["train"]) // config.data.options.batch_size) / seconds


def ends_of(model: Any, method: str) -> list[float]:
    """A list that takes the time at each end of `method`."""
    ends: list[float] = []
    original = getattr(model, method)

    def timed(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        finally:
            ends.append(time.perf_counter())

    setattr(model, method, timed)
    return ends


def keras_side(model: Any, config: Any, data: Any, *, jit: bool | str) -> float:
    """What a person writes who has the arrays."""
    import keras
    import numpy as np

    from toolkit.data.batches import evaluation_batches
    from toolkit.tasks.objective import objective

    if len(data.spec.lengths) > 1:
        sys.exit("arrays have one length for all sounds or texts: add --set data.buckets=1, which both sides follow")
    batch_size = config.data.options.batch_size
    steps = len(data.splits["train"]) // batch_size
    batches = list(evaluation_batches(data.splits["train"], data.spec, batch_size=batch_size).take(steps))
    inputs = {name: np.concatenate([np.asarray(batch[name]) for batch, _ in batches]) for name in batches[0][0]}
    labels = np.concatenate([np.asarray(label) for _, label in batches])

    goal = objective(data.spec, label_smoothing=config.training.label_smoothing)
    model.compile(optimizer=keras.optimizers.Adam(1e-4), loss=goal.loss, metrics=goal.metrics, jit_compile=jit)
    model.fit(inputs, labels, batch_size=batch_size, shuffle=True, epochs=1, verbose=0)
    start = time.perf_counter()
    model.fit(inputs, labels, batch_size=batch_size, shuffle=True, epochs=config.training.epochs - 1, verbose=0)
    return (config.training.epochs - 1) * steps / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
