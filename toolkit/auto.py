"""What `auto` stands for in `training.precision` and `training.jit`: measured once per machine and model."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from toolkit import stages
from toolkit.config import RunConfig
from toolkit.errors import RunFailed
from toolkit.runs import record
from toolkit.runs.files import write_text

if TYPE_CHECKING:
    from toolkit.data.load import Data

SECONDS = 1.0
"""Of steps that are measured of each way, after two that compile and settle."""
LEAST_STEPS = 5
GAIN = 0.95
"""Another way than float32 without compiling is taken where its step takes less than this part of the time; of both
ways at once, where that holds beside each of them, too."""

Way = tuple[str, bool]  # precision, jit
K = TypeVar("K", bound=Hashable)


def settle(config: RunConfig, data: Data, report: Callable[[str], None], *, model: Any = None) -> RunConfig:
    """`config` with a value in place of every `auto`: of the ways to compute a step, the fastest on this machine.

    bfloat16 is tried only where the processor computes in it, compiling only on TensorFlow: JAX always compiles, and
    torch's compiler is slower to start than a run of this size takes.

    Args:
        data: one batch of its training part is what the ways are measured with.
        report: told what was chosen, and why.
        model: of a person's own, which has its precision already, and is not compiled.
    """
    training = config.training
    if "auto" not in (training.precision, training.jit):
        return config
    if model is not None:
        precision = "mixed_bfloat16" if model.compute_dtype == "bfloat16" else "float32"
        own = (training.precision.replace("auto", precision), training.jit is True)
        report(f"auto: {_name(own)}, as the model is one of your own")
        return _with(config, own)
    bfloat16 = training.precision == "auto" and computes_bfloat16(training.backend)
    compiled = training.jit == "auto" and training.backend == "tensorflow"
    precisions = [training.precision.replace("auto", "float32"), *(["mixed_bfloat16"] if bfloat16 else [])]
    jits = [training.jit is True, *([True] if compiled else [])]
    ways = list(itertools.product(precisions, jits))
    times = _times(config, data, ways, report) if len(ways) > 1 else {}
    chosen = choose(ways, times)
    if times:
        told = ", ".join(f"{_name(way)} {times[way]:.1f} ms" for way in ways)
        report(f"auto: {_name(chosen)} (a step: {told})")
    else:
        report(f"auto: {_name(chosen)}, the only way here")
    return _with(config, chosen)


def choose(ways: list[Way], times: dict[Way, float]) -> Way:
    """The first way that none is a gain over; `ways` begin with float32 without compiling."""
    return next((way for way in ways if times and GAIN * times[way] <= min(times.values())), ways[0])


def computes_bfloat16(backend: str) -> bool:
    """Whether the processor has instructions for bfloat16 (AVX-512 or AMX; any GPU is tried)."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:  # not Linux
        flags = set()
    return bool(_accelerators(backend)) or bool({"amx_bf16", "avx512_bf16"} & flags)


def _accelerators(backend: str) -> list[str]:
    """Names of the devices beside the CPU that the backend computes with."""
    if backend == "torch":
        import torch

        return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if backend == "jax":
        import jax

        return [device.device_kind for device in jax.devices() if device.platform != "cpu"]
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    return [str(tf.config.experimental.get_device_details(device).get("device_name")) for device in found]


def _times(config: RunConfig, data: Data, ways: list[Way], report: Callable[[str], None]) -> dict[Way, float]:
    """Milliseconds of a step each way: remembered ones, or measured."""
    from toolkit.data.tables import cache_folder

    file = cache_folder() / "steps" / f"{_key(config, data)}.json"
    try:
        known = {(precision, jit): float(ms) for precision, jit, ms in json.loads(file.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError):  # never measured, or a file that is damaged
        known = {}
    if not set(ways) <= set(known):
        known |= milliseconds({way: _with(config, way) for way in ways}, data)
        stages.set_up(config)  # what was measured has drawn random numbers
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps([[*way, round(ms, 3)] for way, ms in known.items()]))
        except (OSError, RunFailed) as error:
            report(f"note: the times of a step are not remembered: {error}")
    return {way: known[way] for way in ways}


def _key(config: RunConfig, data: Data) -> str:
    """All that a step's time depends on; a rate takes no time, so that trials of many share what was measured."""
    environment, values = record.environment(), config.to_dict()
    optimizer = {
        name: value for name, value in values["optimizer"].items() if name not in ("learning_rate", "schedule")
    }
    spec = data.spec
    shape = [spec.shape, spec.lengths, spec.outputs, len(spec.vocabulary), spec.sample_rate]
    crop = (values["data"]["augmentation"] or {}).get("crop")
    fixed = [values["model"], optimizer, values["data"]["batch_size"], shape, crop]
    training = [values["training"][name] for name in ("backend", "threads", "deterministic", "freeze")]
    machine = [environment["python"], environment["versions"], _accelerators(config.training.backend)]
    machine += [environment["machine"][name] for name in ("processor", "cores")]
    text = json.dumps([fixed, training, machine], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def milliseconds(configs: Mapping[K, RunConfig], data: Data) -> dict[K, float]:
    """Median of a training step of each config; they take turns, so that a busy machine slows all alike."""
    steps = {key: _step(config, data) for key, config in configs.items()}
    times: dict[K, list[float]] = {key: [] for key in steps}
    for step in steps.values():
        step()  # compiles
        step()
    while min(map(len, times.values())) < LEAST_STEPS or sum(map(sum, times.values())) < SECONDS * len(steps):
        for key, step in steps.items():
            start = time.perf_counter()
            step()
            times[key].append(time.perf_counter() - start)
    return {key: 1000 * statistics.median(spent) for key, spent in times.items()}


def _step(config: RunConfig, data: Data) -> Callable[[], float]:
    """A training step on the first batch, which waits for its loss."""
    from toolkit.training.start import freeze

    feed = stages.feed(config, data)
    model = stages.build_model(config, data.spec)
    freeze(model, config.training.freeze)
    stages.compile_model(model, stages.objective(config, data.spec), config, stages.total_steps(config, feed))
    inputs, labels = next(feed.batches(0, 0, 1).as_numpy_iterator())
    return lambda: float(model.train_on_batch(inputs, labels, return_dict=True)["loss"])


def _with(config: RunConfig, way: Way) -> RunConfig:
    training = config.training.model_copy(update={"precision": way[0], "jit": way[1]})
    return dataclasses.replace(config, training=training)


def _name(way: Way) -> str:
    return f"{way[0]}, compiled" if way[1] else way[0]
