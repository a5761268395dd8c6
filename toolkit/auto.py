"""What `auto` stands for in `training.precision` and `training.jit`: measured once per machine and model."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit import stages
from toolkit.config import RunConfig
from toolkit.runs import record
from toolkit.runs.files import write_text

if TYPE_CHECKING:
    from toolkit.data.load import Data

SECONDS = 1.0
"""Of steps that are measured of each way, after two that compile and settle."""
LEAST_STEPS = 5
GAIN = 0.95
"""Another way than float32 without compiling is taken where its step takes less than this part of the time."""

Way = tuple[str, bool]  # precision, jit


def settle(config: RunConfig, data: Data, report: Callable[[str], None], *, own_model: bool = False) -> RunConfig:
    """`config` with a value in place of every `auto`: of the ways to compute a step, the fastest on this machine.

    bfloat16 is tried only where the processor computes in it, compiling only on TensorFlow: JAX always compiles, and
    torch's compiler is slower to start than a run of this size takes. A model of one's own has its precision already,
    and is not compiled.

    Args:
        data: one batch of its training part is what the ways are measured with.
        report: told what was chosen, and why.
    """
    training = config.training
    if "auto" not in (training.precision, training.jit):
        return config
    bfloat16 = training.precision == "auto" and not own_model and computes_bfloat16(training.backend)
    compiled = training.jit == "auto" and not own_model and training.backend == "tensorflow"
    precisions = [training.precision.replace("auto", "float32"), *(["mixed_bfloat16"] if bfloat16 else [])]
    jits = [training.jit is True, *([True] if compiled else [])]
    ways = list(itertools.product(precisions, jits))
    times = _times(config, data, ways) if len(ways) > 1 else {}
    chosen = choose(ways, times)
    if times:
        told = ", ".join(f"{_name(way)} {times[way]:.1f} ms" for way in ways)
        report(f"auto: {_name(chosen)} (a step: {told})")
    else:
        report(f"auto: {_name(chosen)}, the only way here")
    return _with(config, chosen)


def choose(ways: list[Way], times: dict[Way, float]) -> Way:
    """The fastest way, where that is a gain over the first."""
    fastest = min(ways, key=lambda way: times.get(way, 0.0))
    return fastest if not times or times[fastest] < GAIN * times[ways[0]] else ways[0]


def computes_bfloat16(backend: str) -> bool:
    """Whether the processor has instructions for bfloat16 (AVX-512 or AMX; any GPU is tried)."""
    if backend == "torch":
        import torch

        accelerated = torch.cuda.is_available()
    elif backend == "jax":
        import jax

        accelerated = jax.default_backend() != "cpu"
    else:
        import tensorflow as tf

        accelerated = bool(tf.config.list_logical_devices("GPU"))
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:  # not Linux
        flags = set()
    return accelerated or bool({"amx_bf16", "avx512_bf16"} & flags)


def _times(config: RunConfig, data: Data, ways: list[Way]) -> dict[Way, float]:
    """Milliseconds of a step each way: remembered ones, or measured."""
    from toolkit.data.tables import cache_folder

    file = cache_folder() / "steps" / f"{_key(config, data)}.json"
    try:
        known = {(precision, jit): float(ms) for precision, jit, ms in json.loads(file.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError):  # never measured, or a file that is damaged
        known = {}
    missing = [way for way in ways if way not in known]
    if missing:
        known |= {way: _milliseconds(_with(config, way), data) for way in missing}
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps([[*way, round(ms, 3)] for way, ms in known.items()]))
        stages.set_up(config)  # what was measured has drawn random numbers
    return {way: known[way] for way in ways}


def _key(config: RunConfig, data: Data) -> str:
    """All that a step's time depends on."""
    environment, values = record.environment(), config.to_dict()
    shape = [data.spec.shape, data.spec.lengths, data.spec.outputs, len(data.spec.vocabulary)]
    fixed = [values["model"], values["optimizer"], values["data"]["batch_size"], shape]
    training = [values["training"][name] for name in ("backend", "threads", "deterministic")]
    machine = [environment[name] for name in ("python", "versions")] + [
        environment["machine"][name] for name in ("processor", "cores")
    ]
    text = json.dumps([fixed, training, machine], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _milliseconds(config: RunConfig, data: Data) -> float:
    """Median of a training step."""
    feed = stages.feed(config, data)
    objective = stages.objective(config, data.spec)
    model = stages.build_model(config, data.spec)
    stages.compile_model(model, objective, config, stages.total_steps(config, feed))
    batches, _ = feed.epoch(0, 0)
    inputs, labels = next(batches.take(1).as_numpy_iterator())
    times: list[float] = []
    while len(times) < LEAST_STEPS + 2 or sum(times[2:]) < SECONDS:
        start = time.perf_counter()
        float(model.train_on_batch(inputs, labels, return_dict=True)["loss"])
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[2:])


def _with(config: RunConfig, way: Way) -> RunConfig:
    training = config.training.model_copy(update={"precision": way[0], "jit": way[1]})
    return dataclasses.replace(config, training=training)


def _name(way: Way) -> str:
    return f"{way[0]}, compiled" if way[1] else way[0]
