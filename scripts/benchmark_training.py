"""Examples per second in training: the toolkit, the plain Keras script that a person would write, and native torch.

All train the recipe's architecture on the same examples in batches of the same size. `toolkit` trains as
`toolkit train` does, with everything that its loop does beside (logs, checkpoints, guards), but without augmentation,
averages of weights and clipping, which the others do not have. `keras` is a `fit` in float32 with
`keras.optimizers.Adam` from `tf.data` over decoded arrays, as in keras.io's examples, compiled by XLA where Keras
chooses so; `keras, no XLA` is the same without. It is timed to its last batch, for after that tf.data's tuner, whose
sleeps double from 10 ms on, may let an epoch of 6 s end after 10.23; what that takes is told apart. `torch` is a loop
in float32 over tensors in memory, with `torch.optim.Adam(fused=True)` (models: `torch_models.py`). These three pad all
sounds or texts to one length.

`recipe` is the toolkit with the config as it is; `recipe, cached` the same, but all of its batches are made beforehand
and lie in memory: what is between the two is what the input pipeline costs.

Each is a process of its own. They take turns, epoch by epoch, so that a busy machine slows all; the first epoch, which
compiles, does not count. Training parts are cut to some ten seconds. Memory is the peak of a process over the epochs,
less the decoded arrays.

    python scripts/benchmark_training.py                                  # every recipe
    python scripts/benchmark_training.py mnist_cnn --epochs 5 --output training.json
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import gc
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

RECIPES: dict[str, tuple[str, ...]] = {
    "mnist_dense": ("data.train=train[:32000]", "data.validation=train[59000:]", "data.test=test[:1000]"),
    "mnist_cnn": ("data.train=train[:12800]", "data.validation=train[59000:]", "data.test=test[:1000]"),
    "cats_vs_dogs_cnn": ("data.train=train[:1280]", "data.validation=train[80%:81%]", "data.test=train[99%:]"),
    "spoken_digit_lstm": (),
    "spoken_digit_gru": (),
    "imdb_transformer": ("data.train=train[:3200]", "data.validation=train[98%:]", "data.test=test[:500]"),
    "spoken_digits_ctc": ("data.train_strings=1280", "data.validation_strings=60", "data.test_strings=60"),
}
"""Of each what is set, so that an epoch takes seconds."""

SIDES = ("toolkit", "keras", "keras, no XLA", "torch", "recipe", "recipe, cached")
LATE = 0.5
PEERS = ("keras", "keras, no XLA", "torch")


def main() -> None:
    options = parse()
    results: dict[str, Any] = {}
    print(f"median of {options.epochs} epochs after one that compiles; {machine()}")
    for recipe in options.recipes:
        results[recipe] = measure(recipe, options)
        print("\n".join(["", recipe, *lines(results[recipe])]), flush=True)
        if options.output:
            options.output.write_text(json.dumps({"machine": machine(), "recipes": results}, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "recipes", nargs="*", metavar="RECIPE", help=f"shipped configs or files; by default {', '.join(RECIPES)}"
    )
    parser.add_argument("--epochs", type=int, default=5, help="that count")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in `toolkit train`")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    if options.epochs < 1:
        parser.error(f"--epochs must be 1 or more, but it is {options.epochs}")
    options.recipes = options.recipes or list(RECIPES)
    return options


def measure(recipe: str, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Of each side: examples per second, seconds of the epochs, losses, peak of memory, precision."""
    overrides = [*RECIPES.get(recipe, ()), *options.set]
    found: dict[str, dict[str, Any]] = {}
    sides = {side: Side(side, recipe, overrides, options.epochs + 1) for side in options.sides}
    try:
        for side in sides.values():  # one after the other, for the start is heavy
            side.ask("epoch")
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for _ in range(options.epochs):
            for name, side in sides.items():
                turns[name].append(side.ask("epoch"))
            sides = dict(reversed(sides.items()))
        for name in options.sides:
            seconds = [turn["seconds"] for turn in turns[name]]
            known = sides[name].ask("describe")
            speed = known["examples"] / statistics.median(seconds)
            losses = [turn["loss"] for turn in turns[name]]
            late = [turn.get("late", 0.0) for turn in turns[name]]
            found[name] = {
                "examples_per_second": speed,
                "seconds": seconds,
                "seconds_late": late,
                "losses": losses,
                **known,
            }
    finally:
        for side in sides.values():
            side.end()
    return found


def lines(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The table of a recipe, and what it says."""
    yield f"{'':16} {'precision':15} {'examples/s':>10}  {'epochs, s':13} {'memory':>9}  last loss"
    for name, one in found.items():
        spread = f"{min(one['seconds']):.2f} to {max(one['seconds']):.2f}"
        memory = f"{one['memory'] / 2**20:,.0f} MB"
        speed = f"{one['examples_per_second']:10,.0f}"
        yield f"{name:16} {one['precision']:15} {speed}  {spread:13} {memory:>9}  {one['losses'][-1]:.4f}"
    for name, one in found.items():
        if max(one["seconds_late"]) > LATE:
            yield f"{name}: not counted are {statistics.median(one['seconds_late']):.2f} s after an epoch's last batch"
    yield from (f"{title}: {value:.2f}" for title, value in ratios(found).items())


def ratios(found: dict[str, dict[str, Any]]) -> dict[str, float]:
    """What the goals are about, of those sides that were measured."""

    def speed(name: str) -> float:
        return float(found[name]["examples_per_second"])

    told: dict[str, float] = {}
    peers = [peer for peer in PEERS if peer in found]
    if "toolkit" in found:
        told |= {f"toolkit over {peer}": speed("toolkit") / speed(peer) for peer in peers}
        if peers:
            told["toolkit over the best of them"] = speed("toolkit") / max(map(speed, peers))
        if "keras" in found:
            told["memory, toolkit over keras"] = found["toolkit"]["memory"] / found["keras"]["memory"]
    if {"recipe", "recipe, cached"} <= set(found):
        told["recipe, time over that of cached batches"] = speed("recipe, cached") / speed("recipe")
    return told


def machine() -> str:
    """What the figures were measured on, and with."""
    from toolkit.runs import record

    known = record.environment()
    versions = known["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("keras", "tensorflow", "torch") if versions.get(name))
    return f"{known['machine']['cores']} cores, {known['machine']['processor']}; {named}; commit {known['commit']}"


class Side:
    """A process that trains an epoch whenever it is asked to."""

    def __init__(self, name: str, recipe: str, overrides: Sequence[str], epochs: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_child, args=(name, recipe, overrides, epochs, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.name = name

    def ask(self, what: str) -> dict[str, Any]:
        """Its answer; ends this program where it has none."""
        try:
            self.connection.send(what)
            answer: dict[str, Any] = self.connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            sys.exit(f"the side {self.name} has ended without an answer")
        return answer

    def end(self) -> None:
        """Let it clear up, or stop it."""
        self.connection.close()
        self.process.join(30)
        self.process.kill()  # the toolkit's loop goes on for a while after SIGTERM


# --- in the processes ------------------------------------------------------------------------------------------------


class Turns:
    """The other end: waits for its turn, and answers."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.known: dict[str, Any] = {}
        self._begun = False

    def wait(self, answer: dict[str, float] | None = None) -> None:
        """Give the answer to the epoch that is over, and wait for the next."""
        if answer:
            self.connection.send(answer)
        elif not self._begun:
            _forget_peak()
            self._begun = True
        while self._asked() != "epoch":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            self.connection.send({**self.known, "memory": peak - self.known["bytes"]})

    def _asked(self) -> str:
        try:
            return str(self.connection.recv())
        except EOFError:  # nobody asks any more: leave through whatever has to be cleared up
            sys.exit()

    def epochs(self, run: Callable[[], tuple[float, float]]) -> None:
        """Let `run` train an epoch, again and again; it gives the loss, and when the last batch was over."""
        self.wait()
        while True:
            start = time.perf_counter()
            loss, end = run()
            late = time.perf_counter() - end
            self.wait({"seconds": end - start, "late": late, "loss": loss})


def _child(name: str, recipe: str, overrides: Sequence[str], epochs: int, connection: Connection) -> None:
    # What the sides print would stand between the lines of the table.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not os.environ.get("TF_CPP_MIN_LOG_LEVEL"):
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    turns = Turns(connection)
    sides = {"toolkit": _toolkit, "recipe": _toolkit, "recipe, cached": _cached, "torch": _torch}
    from toolkit.config import load
    from toolkit.config.shipped import find_config

    # So few steps are no schedule's.
    length = [f"training.epochs={epochs + 1}", "training.early_stopping=null", "optimizer.schedule=null"]
    config = load(find_config(recipe), [*overrides, *length])
    if not name.startswith("recipe"):
        config = _same_work(config)
    if name in sides:
        sides[name](config, turns)
    else:
        _keras(config, turns, jit=False if name == "keras, no XLA" else "auto")


def _toolkit(config: Any, turns: Turns) -> None:
    """The loop calls `fit` once an epoch; all that it does from the end of a validation on counts, waiting does not."""
    import keras

    from toolkit import auto, stages
    from toolkit.workflow import train

    stages.set_up(config)
    data = stages.read_data(config, lambda line: None)
    config = auto.settle(config, data, lambda line: None)
    turns.known = {**_size(config, data), "precision": config.training.precision}
    del data
    validated = ended = loss = 0.0
    fit, evaluate = keras.Model.fit, keras.Model.evaluate

    def timed_evaluate(*args: Any, **kwargs: Any) -> Any:
        nonlocal validated
        try:
            return evaluate(*args, **kwargs)
        finally:
            validated = time.perf_counter()

    def timed_fit(*args: Any, **kwargs: Any) -> Any:
        nonlocal ended, loss
        # The epoch before is over only here, where the loop has kept weights.
        between = time.perf_counter() - validated
        turns.wait({"seconds": ended + between, "loss": loss} if ended else None)
        start = time.perf_counter()
        history = fit(*args, **kwargs)
        ended, loss = time.perf_counter() - start, float(history.history["loss"][-1])
        return history

    keras.Model.fit, keras.Model.evaluate = timed_fit, timed_evaluate
    with tempfile.TemporaryDirectory() as folder:
        train(config, run_dir=Path(folder) / "run")


def _cached(config: Any, turns: Turns) -> None:
    """The same batches from memory."""
    from toolkit import stages

    original = stages.feed

    def feed(*args: Any) -> Any:
        made = original(*args)

        def batches(*asked: int) -> Any:
            kept = made.batches(*asked).cache()
            for _ in kept:
                pass
            return kept

        return dataclasses.replace(made, batches=batches)

    stages.feed = feed
    _toolkit(config, turns)


def _keras(config: Any, turns: Turns, *, jit: bool | str) -> None:
    """What a person writes who has the arrays."""
    import keras
    import tensorflow as tf

    from toolkit import stages

    config = _in_float32(config)
    inputs, labels, data = _arrays(config, turns)
    goal = stages.objective(config, data.spec)
    model = stages.build_model(config, data.spec)
    optimizer = keras.optimizers.Adam(config.optimizer.optimizer.arguments["learning_rate"])
    model.compile(optimizer=optimizer, loss=goal.loss, metrics=goal.metrics, jit_compile=jit)
    batches = tf.data.Dataset.from_tensor_slices((inputs, labels)).shuffle(len(labels))
    batches = batches.batch(config.data.options.batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    del inputs, labels, data

    class LastBatch(keras.callbacks.Callback):
        end = 0.0

        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            self.end = time.perf_counter()

    last = LastBatch()

    def run() -> tuple[float, float]:
        history = model.fit(batches, shuffle=False, verbose=0, callbacks=[last]).history
        return float(history["loss"][-1]), last.end

    turns.epochs(run)


def _torch(config: Any, turns: Turns) -> None:
    """What a person writes who has the tensors."""
    import torch
    import torch_models

    inputs, labels, data = _arrays(_in_float32(config), turns)
    model = torch_models.build(config.model.name, config.model.arguments, data.spec)
    task = data.spec.task
    del data
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    targets = torch.from_numpy(labels).long()
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=config.optimizer.optimizer.arguments["learning_rate"], fused=True)
    size = config.data.options.batch_size

    def loss_of(logits: Any, wanted: Any) -> Any:
        if task == "classification":
            smoothing = config.training.label_smoothing
            return torch.nn.functional.cross_entropy(logits, wanted, label_smoothing=smoothing)
        logs = logits.log_softmax(-1).transpose(0, 1)  # (time, batch, labels)
        frames, longest = torch.full((len(wanted),), len(logs)), (wanted > 0).sum(1)
        return torch.nn.functional.ctc_loss(logs, wanted, frames, longest, reduction="none").mean()

    def run() -> tuple[float, float]:
        model.train()
        total = 0.0
        steps = len(targets) // size
        for indices in torch.randperm(len(targets))[: steps * size].split(size):
            optimizer.zero_grad()
            loss = loss_of(model({name: tensor[indices] for name, tensor in tensors.items()}), targets[indices])
            loss.backward()
            optimizer.step()
            total += loss.item()
        return total / steps, time.perf_counter()

    turns.epochs(run)


def _arrays(config: Any, turns: Turns) -> tuple[dict[str, Any], Any, Any]:
    """The inputs of the training part by name, all of one length, its labels, and the data."""
    import numpy as np

    from toolkit import stages
    from toolkit.data.batches import evaluation_batches

    stages.set_up(config)
    data = stages.read_data(config, lambda line: None)
    turns.known = {**_size(config, data), "precision": "float32"}
    batches = list(evaluation_batches(data.splits["train"], data.spec, batch_size=1024))
    inputs = {}
    for name in batches[0][0]:
        arrays = [np.asarray(batch[name]) for batch, _ in batches]
        if arrays[0].ndim == 2:  # (examples, time), each batch as long as it must be
            longest = max(array.shape[1] for array in arrays)
            arrays = [np.pad(array, [(0, 0), (0, longest - array.shape[1])]) for array in arrays]
        inputs[name] = np.concatenate(arrays)
    turns.known["bytes"] = sum(array.nbytes for array in inputs.values())
    return inputs, np.concatenate([np.asarray(label) for _, label in batches]), data


def _size(config: Any, data: Any) -> dict[str, int]:
    """Examples of an epoch, and bytes of the decoded training part."""
    train, size = data.splits["train"], config.data.options.batch_size
    decoded = train.table.rows if data.spec.kind == "image" else train.table.flat
    return {"examples": len(train) // size * size, "bytes": decoded.nbytes}


def _same_work(config: Any) -> Any:
    """Without what the plain scripts do not do."""
    data = config.data.options.model_copy(update={"augmentation": None})
    options = config.optimizer.options.model_copy(
        update={"use_ema": False, "global_clipnorm": None, "weight_decay": None}
    )
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, options=data),
        optimizer=dataclasses.replace(config.optimizer, options=options),
    )


def _in_float32(config: Any) -> Any:
    training = config.training.model_copy(update={"precision": "float32"})
    return dataclasses.replace(config, training=training)


def _forget_peak() -> None:
    """Let the peak of memory begin at what is needed now (Linux; elsewhere it is that of the whole process)."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
