"""Wrong Adams, each of which the tests must tell from the right one.

A test of an optimizer can be blind: with a wide tolerance it passes with β₂ = 0.9, or with Nadam in Adam's place. So
this breaks Adam in one place at a time, in a copy of the package and its tests in a temporary folder, and runs
`tests/optimizers/test_adam*.py` there, in a process of its own. First the unchanged copy, which must pass; then each
variant, which must fail in a test. One that passes is a gap in the tests: add a test that sees it.

A variant names the text that it replaces. Where that text is gone, or stands twice, nothing runs: a variant that
changes nothing shows nothing. `tests/test_mutate_adam.py` notices it sooner.

    python scripts/mutate_adam.py --backend torch --jobs 2
    python scripts/mutate_adam.py --only beta_2_is_0.9 nadam
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
OPTIMIZERS = Path("toolkit/optimizers")
TESTS = "tests/optimizers/test_adam*.py"
COPIED = ("toolkit", "tests", "pyproject.toml")
BACKENDS = ("tensorflow", "jax", "torch")
# As `make test` has it.
MARKS = {"tensorflow": "not long", "jax": "every_backend and not long", "torch": "every_backend and not long"}
# A variant that ends in one of these cannot run at all, and it takes no good test to see that.
STUMBLES = ("NameError", "UnboundLocalError", "AttributeError", "TypeError", "SyntaxError", "ImportError")
# Beside the tests of a copy: an installed toolkit must not be tested in its place.
GUARD = """
from pathlib import Path

import toolkit

if not Path(toolkit.__file__).resolve().is_relative_to(Path(__file__).resolve().parent):
    raise ImportError(f"the tests would run on {toolkit.__file__}, not on the copy beside them")
"""


class Variant(NamedTuple):
    """One wrong Adam: in `file`, below toolkit/optimizers, each edit puts its second text in the place of its first."""

    name: str
    wrong: str
    file: str
    edits: list[tuple[str, str]]
    only: tuple[str, ...] = BACKENDS

    @property
    def backends(self) -> tuple[str, ...]:
        """Those that it is a variant of: of a kernel its own."""
        own = Path(self.file).stem
        return (own,) if own in BACKENDS else self.only


class Result(NamedTuple):
    """What the tests said; `test` is the first that failed."""

    rejected: bool
    test: str | None
    error: str
    seconds: float


class Unusable(Exception):
    """The variants cannot be judged."""


ADAM, TENSORFLOW, JAX, TORCH = "adam.py", "kernels/tensorflow.py", "kernels/jax.py", "kernels/torch.py"
ROWS = ("tensorflow", "torch")  # JAX has no gradients that name rows
COMMON, FLAT = "kernels/__init__.py", "kernels/flat.py"
DOUBLE = ("tensorflow", "torch")  # nor float64, as tests run it

_UPDATE = "        kernel().update(slots, self._rule(), scalars, self._plans)\n"
_CLIP = "        grads = self._clip_gradients(grads)\n        self._backend_update_step"


def _instead(m: str, v: str, step: str) -> tuple[str, str]:
    """In the place of Adam's update another one, by its formulas; `step` is what the rate multiplies."""
    return (
        _UPDATE,
        f"""\
        for x in slots:
            s = scalars[x.m.dtype]
            m, v, g = x.m + 0.0, x.v + 0.0, ops.cast(x.gradient, x.m.dtype)
            t, rate = ops.cast(self._iterations, x.m.dtype) + 1, ops.convert_to_tensor(self.learning_rate, x.m.dtype)
            wide = ops.cast(x.theta, x.m.dtype)
            wide = wide - s.decay * wide if x.decays else wide
            new_m, new_v = {m}, {v}
            x.m.assign(new_m)
            x.v.assign(new_v)
            x.theta.assign(wide - rate * ({step}))
""",
    )


def _afterwards(text: str) -> tuple[str, str]:
    """Something more after each update."""
    return _UPDATE, _UPDATE + text


VARIANTS = [
    # --- numbers of the step, for every kernel ---
    Variant(
        "beta_2_is_0.9",
        "β₂ = 0.9, whatever was asked",
        ADAM,
        [
            ("Rule(self.beta_1, self.beta_2,", "Rule(self.beta_1, 0.9,"),
        ],
    ),
    Variant(
        "beta_1_is_0.5",
        "β₁ = 0.5, whatever was asked",
        ADAM,
        [
            ("Rule(self.beta_1, self.beta_2,", "Rule(0.5, self.beta_2,"),
        ],
    ),
    Variant(
        "rate_times_1.1",
        "the rate is a tenth too large",
        ADAM,
        [
            (
                "ops.convert_to_tensor(self.learning_rate, widest)",
                "ops.convert_to_tensor(self.learning_rate, widest) * 1.1",
            )
        ],
    ),
    Variant(
        "rate_times_0.8",
        "the rate is a fifth too small",
        ADAM,
        [
            (
                "ops.convert_to_tensor(self.learning_rate, widest)",
                "ops.convert_to_tensor(self.learning_rate, widest) * 0.8",
            )
        ],
    ),
    Variant(
        "rate_in_float32",
        "the rate is kept in float32 also where there is float64",
        ADAM,
        [
            (
                "in_double = isinstance(learning_rate, float) and kernel().has_float64()",
                "in_double = False",
            )
        ],
        DOUBLE,
    ),
    Variant(
        "counter_starts_at_1",
        "the step counter is off by one, for bias correction and schedules",
        ADAM,
        [
            (
                "        super().build(var_list)\n",
                "        super().build(var_list)\n        self._iterations.assign(1)\n",
            )
        ],
    ),
    Variant(
        "correction_of_step_t+1",
        "bias is corrected as in the next step",
        ADAM,
        [("t, of_type = ops.cast(steps, dtype) + 1,", "t, of_type = ops.cast(steps, dtype) + 2,")],
    ),
    Variant(
        "correction_of_step_t-1",
        "bias is corrected as in the step before; the first step is right",
        ADAM,
        [
            (
                "t, of_type = ops.cast(steps, dtype) + 1,",
                "t, of_type = ops.maximum(ops.cast(steps, dtype), ops.ones((), dtype)),",
            )
        ],
    ),
    Variant(
        "m_not_corrected",
        "the bias of m stays",
        ADAM,
        [("of_type * root / _one_minus_power(rule.beta_1, t)", "of_type * root")],
    ),
    Variant(
        "v_not_corrected",
        "the bias of v stays",
        ADAM,
        [("root = ops.sqrt(_one_minus_power(rule.beta_2, t))", "root = ops.ones_like(t)")],
    ),
    Variant(
        "correction_in_float32",
        "1−βᵗ is formed from a β that was rounded to the type of the moments",
        ADAM,
        [("return -ops.expm1(t * math.log(beta))", "return 1 - ops.cast(beta, t.dtype) ** t")],
    ),
    Variant(
        "uphill",
        "the sign of the update",
        ADAM,
        [
            ("kernel().turned(rule, t, of_type)", "kernel().turned(rule, t, -of_type)"),
            ("Scalars(step_size, epsilon,", "Scalars(-step_size, epsilon,"),
        ],
    ),
    # --- ε ---
    Variant(
        "hat_for_paper",
        "ε stands where Keras has it, whatever was asked",
        ADAM,
        [
            ('hat, coupled = self.epsilon_placement == "hat",', "hat, coupled = True,"),
        ],
    ),
    Variant(
        "paper_for_hat",
        "ε stands where Algorithm 1 has it, whatever was asked",
        ADAM,
        [
            ('hat, coupled = self.epsilon_placement == "hat",', "hat, coupled = False,"),
        ],
    ),
    Variant(
        "epsilon_twice",
        "ε is added twice",
        ADAM,
        [
            ("self.epsilon, hat=hat", "2 * self.epsilon, hat=hat"),
        ],
    ),
    Variant(
        "epsilon_left_out",
        "ε is next to nothing",
        ADAM,
        [
            ("self.epsilon, hat=hat", "1e-6 * self.epsilon, hat=hat"),
        ],
    ),
    # --- another optimizer ---
    Variant(
        "nadam",
        "Nadam (Dozat 2016) in Adam's place",
        ADAM,
        [
            _instead(
                "self.beta_1 * m + (1 - self.beta_1) * g",
                "self.beta_2 * v + (1 - self.beta_2) * g * g",
                "(self.beta_1 * new_m / (1 - self.beta_1 ** (t + 1)) + (1 - self.beta_1) * g / (1 - self.beta_1**t))"
                " / (ops.sqrt(new_v / (1 - self.beta_2**t)) + self.epsilon)",
            )
        ],
    ),
    Variant(
        "adamax",
        "Adamax (Kingma & Ba 2015, Algorithm 2) in Adam's place",
        ADAM,
        [
            _instead(
                "self.beta_1 * m + (1 - self.beta_1) * g",
                "ops.maximum(self.beta_2 * v, ops.abs(g))",
                "new_m / (1 - self.beta_1**t) / (new_v + self.epsilon)",
            )
        ],
    ),
    Variant(
        "lion",
        "Lion (Chen et al. 2023) in Adam's place",
        ADAM,
        [
            _instead(
                "self.beta_2 * m + (1 - self.beta_2) * g",
                "v",
                "ops.sign(self.beta_1 * m + (1 - self.beta_1) * g)",
            )
        ],
    ),
    # --- moments ---
    Variant(
        "m_forgotten",
        "the first moment is as it was before each step",
        ADAM,
        [
            (
                _UPDATE,
                "        kept = [(x.m, x.m + 0.0) for x in slots]\n"
                + _UPDATE
                + "        for moment, old in kept:\n            moment.assign(old)\n",
            )
        ],
    ),
    Variant(
        "v_forgotten",
        "the second moment is as it was before each step",
        ADAM,
        [
            (
                _UPDATE,
                "        kept = [(x.v, x.v + 0.0) for x in slots]\n"
                + _UPDATE
                + "        for moment, old in kept:\n            moment.assign(old)\n",
            )
        ],
    ),
    Variant(
        "moments_rounded",
        "moments are rounded to bfloat16 after each step",
        ADAM,
        [
            _afterwards(
                "        for x in slots:\n"
                "            for moment in (x.m, x.v):\n"
                '                moment.assign(ops.cast(ops.cast(moment, "bfloat16"), moment.dtype))\n'
            )
        ],
    ),
    Variant(
        "half_precision_moments",
        "moments of bfloat16 and float16 weights are in the type of the weights",
        ADAM,
        [('if name in ("float16", "bfloat16", "float32") else name', 'if name == "float32" else name')],
    ),
    Variant(
        "single_precision_moments",
        "moments of float64 weights are float32",
        ADAM,
        [
            (
                'if name in ("float16", "bfloat16", "float32") else name',
                'if name in ("float16", "bfloat16", "float32", "float64") else name',
            )
        ],
        DOUBLE,
    ),
    Variant(
        "state_dtype_ignored",
        "moments of float32 weights are float32, whatever was asked",
        ADAM,
        [("return self.state_dtype if name in", 'return "float32" if name in')],
        DOUBLE,
    ),
    # --- AMSGrad ---
    Variant(
        "amsgrad_ignored",
        "amsgrad=True changes nothing",
        ADAM,
        [("Slot(variable, m, v, largest, gradient,", "Slot(variable, m, v, None, gradient,")],
    ),
    Variant(
        "amsgrad_always",
        "AMSGrad is on, whatever was asked",
        ADAM,
        [
            ("[: 3 if self.amsgrad else 2]", "[:3]"),
            ("moments[2] if self.amsgrad else [None] * len(var_list)", "moments[2]"),
        ],
    ),
    # --- weight decay ---
    Variant(
        "decay_wrong_sign",
        "weights grow where they should decay",
        ADAM,
        [("decay = weight_decay * (", "decay = -weight_decay * (")],
    ),
    Variant(
        "decay_without_rate",
        "decoupled decay is λ, not α·λ",
        ADAM,
        [("(ops.ones_like(of_type) if rule.coupled else of_type)", "ops.ones_like(of_type)")],
    ),
    Variant(
        "coupled_decay_with_rate",
        "coupled decay is α·λ, not λ",
        ADAM,
        [("(ops.ones_like(of_type) if rule.coupled else of_type)", "of_type")],
    ),
    Variant(
        "coupled_for_decoupled",
        "the decay goes into the moments, whatever was asked",
        ADAM,
        [
            ('"hat", self.weight_decay_mode == "coupled"', '"hat", True'),
        ],
    ),
    Variant(
        "decoupled_for_coupled",
        "the decay stays out of the moments, whatever was asked",
        ADAM,
        [
            ('"hat", self.weight_decay_mode == "coupled"', '"hat", False'),
        ],
    ),
    Variant(
        "decay_after_the_step",
        "the new weight decays, not the old one",
        ADAM,
        [
            (
                _UPDATE,
                '        coupled = self.weight_decay_mode == "coupled"\n'
                + _UPDATE.replace("(slots,", "([x._replace(decays=x.decays and coupled) for x in slots],")
                + "        for x in slots:\n"
                "            if x.decays and not coupled:\n"
                "                decay = ops.cast(scalars[x.m.dtype].decay, x.theta.dtype)\n"
                "                x.theta.assign(x.theta - decay * x.theta)\n",
            )
        ],
    ),
    Variant(
        "coupled_decay_is_clipped",
        "coupled decay is part of the gradient that is clipped",
        ADAM,
        [
            (
                _CLIP,
                '        if self.weight_decay_mode == "coupled":\n'
                "            grads = [\n"
                "                g + self.weight_decay * ops.cast(v, g.dtype)\n"
                "                if self._decays(self._get_variable_index(v))\n"
                "                else g\n"
                "                for g, v in zip(grads, trainable_variables, strict=True)\n"
                "            ]\n" + _CLIP,
            ),
            (
                "Slot(variable, m, v, largest, gradient, self._decays(i))",
                'Slot(variable, m, v, largest, gradient, self._decays(i) and self.weight_decay_mode != "coupled")',
            ),
        ],
    ),
    Variant(
        "biases_decay",
        "decay_biases_and_norms=False changes nothing",
        ADAM,
        [("if not self.decay_biases_and_norms and len(variable.shape) < 2:", "if False:")],
    ),
    Variant(
        "patterns_ignored",
        "exclude_from_decay changes nothing",
        ADAM,
        [("return not excluded and bool(self._use", "return bool(self._use")],
    ),
    Variant(
        "patterns_match_from_the_start",
        "exclude_from_decay is searched at the start of a path only",
        ADAM,
        [("any(re.search(pattern, path)", "any(re.match(pattern, path)")],
    ),
    Variant(
        "excluded_variables_decay",
        "exclude_from_weight_decay changes nothing",
        ADAM,
        [("return not excluded and bool(self._use_weight_decay(variable))", "return not excluded")],
    ),
    # --- clipping ---
    Variant("clipping_left_out", "gradients are not clipped", ADAM, [(_CLIP, "        self._backend_update_step")]),
    Variant(
        "clipping_after_the_step",
        "what is clipped is the change of the weights",
        ADAM,
        [
            (
                "        grads = self._clip_gradients(grads)\n"
                "        self._backend_update_step(grads[:certain], trainable_variables[:certain], numbers)\n",
                "        old = [v + 0.0 for v in trainable_variables]\n"
                "        self._backend_update_step(grads[:certain], trainable_variables[:certain], numbers)\n"
                "        if self.clipnorm or self.clipvalue or self.global_clipnorm:\n"
                "            changes = self._clip_gradients([o - v for o, v in zip(old, trainable_variables)])\n"
                "            for v, o, change in zip(trainable_variables, old, changes):\n"
                "                v.assign(o - change)\n",
            )
        ],
    ),
    Variant(
        "clipping_of_micro_batches",
        "with accumulation each micro-batch is clipped, not their mean",
        ADAM,
        [
            (_CLIP, "        self._backend_update_step"),
            (
                "        if not self.gradient_accumulation_steps:\n",
                "        grads = self._clip_gradients(grads)\n        if not self.gradient_accumulation_steps:\n",
            ),
        ],
    ),
    Variant(
        "clipping_of_scaled_gradients",
        "gradients are clipped before they are divided by the loss scale",
        ADAM,
        [
            (_CLIP, "        self._backend_update_step"),
            (
                "super().apply([None if g is None else kernel().prepare(g, lazy) for g in grads], trainable_variables)",
                "grads = [None if g is None else kernel().prepare(g, lazy) for g in grads]\n"
                "        super().apply(self._clip_gradients(grads), trainable_variables)",
            ),
        ],
    ),
    # --- accumulation ---
    Variant(
        "micro_batches_are_counted",
        "iterations, bias correction and schedules go by micro-batches",
        ADAM,
        [("self._iterations.assign_sub(1)", "..."), ("self._iterations.assign_add(1)", "...")],
    ),
    Variant(
        "sum_of_the_window",
        "the gradients of a window are summed, not averaged",
        ADAM,
        [("ops.cast(self._held, a.dtype)", "ops.cast(1, a.dtype)")],
    ),
    Variant(
        "mean_over_a_full_window",
        "an incomplete window is divided by the number of a full one",
        ADAM,
        [("ops.cast(self._held, a.dtype)", "ops.cast(self.gradient_accumulation_steps, a.dtype)")],
    ),
    Variant(
        "window_too_long",
        "a window holds one micro-batch more",
        ADAM,
        [
            (
                "ops.equal(self._held, self.gradient_accumulation_steps)",
                "ops.equal(self._held, self.gradient_accumulation_steps + 1)",
            )
        ],
    ),
    Variant(
        "window_not_emptied",
        "the next window starts with what the last one held",
        ADAM,
        [("accumulator.assign(ops.zeros(accumulator.shape, accumulator.dtype))", "...")],
    ),
    Variant(
        "flush_does_nothing",
        "flush() takes no step",
        ADAM,
        [("self._when(ops.greater(self._held, 0), self._apply_window)", "...")],
    ),
    Variant(
        "fit_does_not_flush",
        "the end of fit takes no step",
        ADAM,
        [("        self.flush()\n        super().finalize", "        super().finalize")],
    ),
    Variant(
        "flush_forgets_constraints",
        "flush() leaves weights outside their constraint",
        ADAM,
        [("variable.assign(variable.constraint(variable))", "...")],
    ),
    # --- moving average of the weights ---
    Variant(
        "average_moves_at_micro_batches",
        "with accumulation the average moves at each micro-batch",
        ADAM,
        [
            (
                "        self._counts.assign_add(ops.convert_to_tensor(counts, self._counts.dtype))\n",
                "        self._counts.assign_add(ops.convert_to_tensor(counts, self._counts.dtype))\n"
                "        if self.use_ema:\n"
                "            self._update_model_variables_moving_average(self._trainable_variables)\n",
            )
        ],
    ),
    Variant(
        "average_starts_at_0",
        "the first step does not set the average",
        ADAM,
        [("share = ops.where(ops.equal(self._iterations, 0), ops.ones_like(share), share)", "...")],
    ),
    Variant(
        "average_upside_down",
        "ema_momentum is the share of the new weight",
        ADAM,
        [
            (
                "ops.convert_to_tensor(1 - self.ema_momentum, average.dtype)",
                "ops.convert_to_tensor(self.ema_momentum, average.dtype)",
            )
        ],
    ),
    Variant(
        "average_overwrites_a_step_late",
        "the average replaces the weights a step after it should",
        ADAM,
        [("ops.equal((self._iterations + 1) % self.ema", "ops.equal(self._iterations % self.ema")],
    ),
    Variant(
        "average_is_not_used",
        "the end of fit leaves the weights as they are",
        ADAM,
        [("super().finalize_variable_values(var_list)", "...")],
    ),
    # --- gradients that name rows ---
    Variant(
        "lazy_and_exact_swapped",
        "lazy is exact, and exact lazy",
        ADAM,
        [('lazy = self.sparse_updates == "lazy"', 'lazy = self.sparse_updates == "exact"')],
        ROWS,
    ),
    Variant("lazy_ignored", "lazy is exact", ADAM, [('lazy = self.sparse_updates == "lazy"', "lazy = False")], ROWS),
    Variant(
        "lazy_keeps_loss_scale",
        "gradients of rows are not divided by the loss scale",
        COMMON,
        [("Rows(self.indices, self.values / scale)", "Rows(self.indices, self.values)")],
        ROWS,
    ),
    Variant(
        "lazy_rows_averaged",
        "values of a repeated row are averaged",
        TENSORFLOW,
        [("tf.math.unsorted_segment_sum(", "tf.math.unsorted_segment_mean(")],
    ),
    Variant(
        "lazy_rows_summed_twice",
        "the sum of a repeated row stands there once per repetition, and norms are too large",
        TENSORFLOW,
        [
            (
                "return Rows(indices, tf.math.unsorted_segment_sum(_widen(gradient.values), places, tf.size(indices)))",
                "sums = tf.math.unsorted_segment_sum(_widen(gradient.values), places, tf.size(indices))\n"
                "        return Rows(gradient.indices, tf.gather(sums, places))",
            )
        ],
    ),
    Variant(
        "lazy_moments_stay",
        "rows move, their moments do not",
        TENSORFLOW,
        [
            (
                "_stepped(theta, m, v, largest, slot, rule, s), strict=True)",
                "(_stepped(theta, m, v, largest, slot, rule, s)[0], m, v, largest), strict=True)",
            )
        ],
    ),
    Variant(
        "rows_not_summed",
        "of a repeated row the last gradient counts",
        TENSORFLOW,
        [
            (
                "    return _widen(tf.convert_to_tensor(gradient))",
                "    if isinstance(gradient, tf.IndexedSlices):\n"
                "        dense = tf.zeros(gradient.dense_shape, gradient.values.dtype)\n"
                "        gradient = tf.tensor_scatter_nd_update(dense, gradient.indices[:, None], gradient.values)\n"
                "    return _widen(gradient)",
            )
        ],
    ),
    Variant(
        "rows_summed_twice",
        "the sum of a repeated row is added once per repetition",
        TENSORFLOW,
        [
            (
                "    return _widen(tf.convert_to_tensor(gradient))",
                "    if isinstance(gradient, tf.IndexedSlices):\n"
                "        sums = tf.gather(tf.convert_to_tensor(gradient), gradient.indices)\n"
                "        gradient = tf.IndexedSlices(sums, gradient.indices, gradient.dense_shape)\n"
                "    return _widen(tf.convert_to_tensor(gradient))",
            )
        ],
    ),
    Variant(
        "torch_lazy_rows_not_summed",
        "of a repeated row one gradient counts",
        TORCH,
        [
            ("        gradient = gradient.coalesce()\n", ""),
            (
                "Rows(gradient.indices()[0], _widen(gradient.values()))",
                "Rows(gradient._indices()[0], _widen(gradient._values()))",
            ),
        ],
    ),
    Variant(
        "torch_rows_not_put_back",
        "of rows the weights move, the moments do not",
        TORCH,
        [("for name in _VARIABLES:\n            old, new", "for name in _VARIABLES[:1]:\n            old, new")],
    ),
    # --- state and config ---
    Variant(
        "state_not_loaded",
        "a loaded optimizer starts anew",
        ADAM,
        [("            variable.assign(store[key])", "            ...")],
    ),
    Variant(
        "any_state_is_loaded",
        "a state that does not fit is taken where it fits",
        ADAM,
        [
            (
                "        if faults:\n",
                "        variables = {k: v for k, v in variables.items() if k in store}\n        if False:\n",
            )
        ],
    ),
    Variant(
        "config_forgets_beta_1",
        "β₁ is not in the config",
        ADAM,
        [('    "beta_1",\n    "beta_2",\n', '    "beta_2",\n')],
    ),
    # --- TensorFlow: the formula for rows ---
    Variant("stepped_m_of_squares", "m averages g²", TENSORFLOW, [("_averaged(m, g, ", "_averaged(m, tf.square(g), ")]),
    Variant(
        "stepped_v_of_absolutes",
        "v averages |g|",
        TENSORFLOW,
        [("_averaged(v, tf.square(g), ", "_averaged(v, tf.abs(g), ")],
    ),
    Variant(
        "stepped_share_in_float32",
        "1−β is formed in the type of the moments",
        TENSORFLOW,
        [("tf.constant(1 - beta, value.dtype)", "(1 - tf.constant(beta, value.dtype))")],
    ),
    Variant(
        "stepped_one_form_of_average",
        "a small β is averaged as a large one",
        TENSORFLOW,
        [("if beta < 0.5:\n        return value", "if beta < 0:\n        return value")],
    ),
    Variant(
        "stepped_epsilon_inside_root",
        "√(v̂ + ε²)",
        TENSORFLOW,
        [("(root + s.epsilon)", "tf.sqrt(root**2 + s.epsilon**2)")],
    ),
    Variant("stepped_largest_forgotten", "AMSGrad keeps the last v", TENSORFLOW, [("tf.maximum(largest, v)", "v")]),
    Variant("stepped_no_coupled_decay", "coupled decay is left out", TENSORFLOW, [("g = g + s.decay * wide", "...")]),
    Variant(
        "stepped_no_decay",
        "decoupled decay is left out",
        TENSORFLOW,
        [("        wide = wide - s.decay * wide\n    m, v", "        ...\n    m, v")],
    ),
    Variant(
        "first_scalars_stay",
        "every step has the numbers of the first",
        TENSORFLOW,
        [
            (
                "def step(gradients: list[Any], scalars: dict[str, Scalars]) -> None:",
                "def step(gradients: list[Any], _: dict[str, Scalars]) -> None:",
            )
        ],
    ),
    Variant(
        "first_rate_stays",
        "called eagerly, every step has the rate and the count of the first",
        TENSORFLOW,
        [("plans.made[key] = tf.function(function,", "plans.made[key] = tf.function(lambda *_: function(*arguments),")],
    ),
    # --- TensorFlow: the formula for weights that are small, or of another type than their moments ---
    Variant("simple_m_of_squares", "m averages g²", TENSORFLOW, [("_average(m, g, ", "_average(m, tf.square(g), ")]),
    Variant(
        "simple_v_of_absolutes",
        "v averages |g|",
        TENSORFLOW,
        [("_average(v, tf.square(g), ", "_average(v, tf.abs(g), ")],
    ),
    Variant(
        "simple_share_in_float32",
        "1−β is formed in the type of the moments",
        TENSORFLOW,
        [("tf.constant(1 - beta, moment.dtype)", "1 - tf.constant(beta, moment.dtype)")],
    ),
    Variant(
        "simple_one_form_of_average",
        "a small β is averaged as a large one",
        TENSORFLOW,
        [("if beta < 0.5:\n        return moment.assign", "if beta < 0:\n        return moment.assign")],
    ),
    Variant(
        "simple_hat",
        "ε stands where Keras has it",
        TENSORFLOW,
        [("epsilon=s.epsilon, grad=m", "epsilon=tf.constant(rule.epsilon, m.dtype), grad=m")],
    ),
    Variant(
        "simple_half_epsilon_inside_root",
        "√(v̂ + ε²) where weights and moments differ in type",
        TENSORFLOW,
        [("wide - s.step_size * m / (tf.sqrt(v) + s.epsilon)", "wide - s.step_size * m / tf.sqrt(v + s.epsilon**2)")],
    ),
    Variant(
        "simple_largest_forgotten",
        "AMSGrad keeps the last v",
        TENSORFLOW,
        [("v.assign(tf.maximum(v, slot.v.value))", "v.assign(slot.v.value)")],
    ),
    Variant(
        "no_coupled_decay",
        "coupled decay is left out",
        TENSORFLOW,
        [
            (
                "return g + s.decay * tf.cast(_raw(slot.theta), g.dtype) if slot.decays and rule.coupled else g",
                "return g",
            )
        ],
    ),
    Variant(
        "simple_no_decay",
        "decoupled decay is left out",
        TENSORFLOW,
        [("resource=theta.handle, value=s.decay * theta", "resource=theta.handle, value=0 * theta")],
    ),
    Variant(
        "simple_half_no_decay",
        "decoupled decay is left out where weights and moments differ in type",
        TENSORFLOW,
        [("        wide = wide - s.decay * wide\n    theta.assign", "        ...\n    theta.assign")],
    ),
    Variant(
        "gradients_stay_narrow",
        "float16 gradients are clipped as such",
        TENSORFLOW,
        [("return tf.cast(values, tf.float32) if", "return values if")],
    ),
    # --- TensorFlow: small weights, whose moments stand side by side ---
    Variant(
        "flat_m_of_squares",
        "m averages g²",
        TENSORFLOW,
        [("_average(first, g, ", "_average(first, tf.square(g), ")],
    ),
    Variant(
        "flat_v_of_absolutes",
        "v averages |g|",
        TENSORFLOW,
        [("_average(second, tf.square(g), ", "_average(second, tf.abs(g), ")],
    ),
    Variant(
        "flat_v_of_absolutes_in_part",
        "v averages |g| where some weights alone have gradients",
        TENSORFLOW,
        [("_averaged(second[start:stop], tf.square(g), ", "_averaged(second[start:stop], tf.abs(g), ")],
    ),
    Variant(
        "flat_m_not_kept_in_part",
        "m stays as it is where some weights alone have gradients",
        TENSORFLOW,
        [("first[start:stop].assign(m)", "...")],
    ),
    Variant(
        "flat_v_not_kept_in_part",
        "v stays as it is where some weights alone have gradients",
        TENSORFLOW,
        [("second[start:stop].assign(v)", "...")],
    ),
    Variant(
        "flat_epsilon_inside_root",
        "√(v̂ + ε²)",
        TENSORFLOW,
        [("steps = s.step_size * m / (tf.sqrt(v) + s.epsilon)", "steps = s.step_size * m / tf.sqrt(v + s.epsilon**2)")],
    ),
    Variant(
        "flat_hat",
        "ε stands where Keras has it",
        TENSORFLOW,
        [
            (
                "steps = s.step_size * m / (tf.sqrt(v) + s.epsilon)",
                "steps = s.step_size * m / (tf.sqrt(v) + rule.epsilon)",
            )
        ],
    ),
    Variant(
        "flat_largest_forgotten",
        "AMSGrad keeps the last v",
        TENSORFLOW,
        [("        v = tf.maximum(largest[start:stop], v)\n", "")],
    ),
    Variant(
        "flat_no_decay",
        "decoupled decay is left out",
        TENSORFLOW,
        [("step = step + s.decay * theta if slot.decays and not rule.coupled else step", "...")],
    ),
    Variant(
        "flat_everything_decays",
        "decoupled decay goes to the neighbours, too",
        TENSORFLOW,
        [
            (
                "step = step + s.decay * theta if slot.decays and not rule.coupled else step",
                "step = step + s.decay * theta if not rule.coupled else step",
            )
        ],
    ),
    Variant(
        "flat_rows_not_kept",
        "of lazy rows the moments stay as they are",
        TENSORFLOW,
        [("variable.assign(tf.tensor_scatter_nd_update(variable.value, indices[:, None], new))", "...")],
    ),
    Variant(
        "flat_places_overlap",
        "a weight's first moment is its neighbour's last",
        FLAT,
        [
            (
                "places.append(_Place(len(sizes) - 1, sizes[-1][0]))",
                "places.append(_Place(len(sizes) - 1, max(0, sizes[-1][0] - 1)))",
            )
        ],
        ("tensorflow",),
    ),
    Variant(
        "flat_moments_share_a_variable",
        "m and v are the same numbers",
        FLAT,
        [("Stretch(flat[place.flat], place.start", "Stretch(flats[0][place.flat], place.start")],
        ("tensorflow",),
    ),
    Variant(
        "flat_assigned_at_the_start",
        "what is loaded into a moment lands at the flat variable's start",
        FLAT,
        [("self.flat[self.start : self.stop].assign(", "self.flat[: self.stop - self.start].assign(")],
        ("tensorflow",),
    ),
    # --- TensorFlow: the fused kernel, for large weights ---
    Variant(
        "fused_m_not_corrected", "the bias of m stays", TENSORFLOW, [("* root / first, epsilon", "* root, epsilon")]
    ),
    Variant(
        "fused_v_not_corrected",
        "the bias of v stays",
        TENSORFLOW,
        [("root = tf.sqrt(second)", "root = tf.ones_like(second)")],
    ),
    Variant(
        "fused_correction_of_step_t-1",
        "bias is corrected as in the step before; the first step is right",
        TENSORFLOW,
        [("turn.one_minus_product(t, tf", "turn.one_minus_product(tf.maximum(t - 1, 1), tf")],
    ),
    Variant(
        "fused_without_turns",
        "both β are the nearest float32",
        TENSORFLOW,
        [("(turn.beta(t, tf.floor) for turn in turns if turn)", "rule.beta_1, rule.beta_2")],
    ),
    Variant(
        "fused_betas_swapped",
        "β₁ and β₂ change places",
        TENSORFLOW,
        [("numbers = beta_1, beta_2,", "numbers = beta_2, beta_1,")],
    ),
    Variant(
        "fused_hat",
        "ε stands where Keras has it",
        TENSORFLOW,
        [("(tf.ones_like(root) if rule.hat else root)", "tf.ones_like(root)")],
    ),
    Variant(
        "fused_no_hat",
        "ε stands where Algorithm 1 has it",
        TENSORFLOW,
        [("(tf.ones_like(root) if rule.hat else root)", "root")],
    ),
    Variant(
        "fused_no_amsgrad",
        "AMSGrad is left out",
        TENSORFLOW,
        [("if _is_large(slot) and slot.largest is None and s.turned", "if _is_large(slot) and s.turned")],
    ),
    Variant(
        "fused_squares",
        "gradients are squared before they are averaged",
        TENSORFLOW,
        [("        grad=g,\n", "        grad=tf.square(g),\n")],
    ),
    # --- TensorFlow: turns of the fused kernel ---
    Variant(
        "turns_stand_still",
        "1−β is always rounded down",
        COMMON,
        [("return floor(t * self.often + 0.5)", "return floor(t * 0.0)")],
        ("tensorflow",),
    ),
    Variant(
        "turns_a_step_late",
        "β is that of the step before",
        COMMON,
        [
            (
                "self.low + self._highs(t, floor) - self._highs(t - 1, floor)",
                "self.low + self._highs(t - 1, floor) - self._highs(t - 2, floor)",
            )
        ],
        ("tensorflow",),
    ),
    Variant(
        "turns_not_in_correction",
        "bias is corrected as with one β",
        COMMON,
        [("(t - highs) * low + highs * high", "t * low")],
        ("tensorflow",),
    ),
    Variant(
        "turns_too_coarse",
        "neighbours take turns that are far apart",
        COMMON,
        [("_FEWEST_UNITS = 16_000", "_FEWEST_UNITS = 1")],
        ("tensorflow",),
    ),
    Variant(
        "turns_of_small_beta",
        "a small β takes turns",
        COMMON,
        [("if beta < 0.5 or share", "if share")],
        ("tensorflow",),
    ),
    # --- JAX ---
    Variant("jax_m_of_squares", "m averages g²", JAX, [("_average(m, g, ", "_average(m, ops.square(g), ")]),
    Variant("jax_v_of_absolutes", "v averages |g|", JAX, [("_average(v, ops.square(g), ", "_average(v, ops.abs(g), ")]),
    Variant(
        "jax_share_in_float32", "1−β is formed in float32", JAX, [("(1 - beta)", '(1 - ops.cast(beta, "float32"))')]
    ),
    Variant(
        "jax_one_form_of_average",
        "a small β is averaged as a large one",
        JAX,
        [("if beta < 0.5 else", "if beta < 0 else")],
    ),
    Variant("jax_epsilon_inside_root", "√(v̂ + ε²)", JAX, [("(root + s.epsilon)", "ops.sqrt(root**2 + s.epsilon**2)")]),
    Variant(
        "jax_epsilon_itself_inside_root",
        "√(v̂ + ε)",
        JAX,
        [("(root + s.epsilon)", "ops.sqrt(root**2 + s.epsilon**2 / rule.epsilon)")],
    ),
    Variant("jax_largest_forgotten", "AMSGrad keeps the last v", JAX, [("ops.maximum(largest, v)", "v.value")]),
    Variant(
        "jax_largest_of_corrected",
        "AMSGrad keeps the largest v̂, not v",
        JAX,
        [
            # ε_t = ε · √(1 − β₂ᵗ) tells how v is corrected.
            ("ops.maximum(largest, v)", "ops.maximum(largest, v / (s.epsilon / rule.epsilon) ** 2)"),
            (
                "v if largest is None else largest",
                "v if largest is None else largest * (s.epsilon / rule.epsilon) ** 2",
            ),
        ],
    ),
    Variant("jax_no_coupled_decay", "coupled decay is left out", JAX, [("g = g + s.decay * wide", "...")]),
    Variant(
        "jax_no_decay",
        "decoupled decay is left out",
        JAX,
        [("            step = step + s.decay * wide", "            ...")],
    ),
    Variant(
        "jax_gradients_stay_narrow",
        "float16 gradients are clipped as such",
        JAX,
        [('return ops.cast(gradient, "float32") if half else gradient', "return gradient")],
    ),
    # --- torch: the fused kernel ---
    Variant("torch_fused_m_not_corrected", "the bias of m stays", TORCH, [("* root / (1 - rule.beta_1**t)", "* root")]),
    Variant(
        "torch_fused_m_corrected_for_t+1",
        "the bias of m is that of the next step",
        TORCH,
        [("/ (1 - rule.beta_1**t)", "/ (1 - rule.beta_1 ** (t + 1))")],
    ),
    Variant(
        "torch_fused_v_not_corrected",
        "the bias of v stays",
        TORCH,
        [("root = math.sqrt(-math.expm1(t * math.log(rule.beta_2)) if rule.beta_2 else 1.0)", "root = 1.0")],
    ),
    Variant(
        "torch_fused_v_corrected_for_t+1",
        "the bias of v is that of the next step",
        TORCH,
        [("math.expm1(t * math.log(rule.beta_2))", "math.expm1((t + 1) * math.log(rule.beta_2))")],
    ),
    Variant(
        "torch_fused_drift_left_alone",
        "v decays by the nearest float32 of β₂",
        TORCH,
        [("_drift(rule.beta_2, t))", "None)")],
    ),
    Variant(
        "torch_fused_drift_twice",
        "what the float32 of β₂ is off is set right twice",
        TORCH,
        [("(1 + off) ** -period", "(1 + off) ** (-2 * period)")],
    ),
    Variant(
        "torch_fused_drift_doubled",
        "what the float32 of β₂ is off is added once more",
        TORCH,
        [("(1 + off) ** -period", "(1 + off) ** period")],
    ),
    Variant(
        "torch_fused_hat",
        "ε stands where Keras has it",
        TORCH,
        [("rule.epsilon * (1 if rule.hat else root)", "rule.epsilon")],
    ),
    Variant(
        "torch_fused_no_hat",
        "ε stands where Algorithm 1 has it",
        TORCH,
        [("rule.epsilon * (1 if rule.hat else root)", "rule.epsilon * root")],
    ),
    Variant(
        "torch_fused_no_amsgrad",
        "AMSGrad is left out",
        TORCH,
        [("amsgrad=chosen[0].largest is not None", "amsgrad=False")],
    ),
    Variant(
        "torch_fused_no_coupled_decay",
        "coupled decay is left out",
        TORCH,
        [("float(s.decay.item()) if decays else 0.0", "0.0")],
    ),
    Variant(
        "torch_fused_no_decay",
        "decoupled decay is left out",
        TORCH,
        [("        _decay(decaying, s)\n    if s.turned", "        ...\n    if s.turned")],
    ),
    Variant(
        "torch_fused_strided_gradient",
        "a transposed gradient is read in the order of memory",
        TORCH,
        [("slot.gradient.contiguous()", "slot.gradient")],
    ),
    Variant(
        "torch_fused_strided_weight",
        "a transposed weight is read in the order of memory",
        TORCH,
        [("        and theta.is_contiguous()\n", "")],
    ),
    # --- torch: the plain formula ---
    Variant(
        "torch_foreach_m_of_squares",
        "m averages g²",
        TORCH,
        [("_foreach_lerp_(ms, gs, ", "_foreach_lerp_(ms, torch._foreach_mul(gs, gs), ")],
    ),
    Variant(
        "torch_foreach_v_of_absolutes",
        "v averages |g|",
        TORCH,
        [("_foreach_lerp_(vs, torch._foreach_mul(gs, gs), ", "_foreach_lerp_(vs, torch._foreach_abs(gs), ")],
    ),
    Variant(
        "torch_foreach_share_in_float32",
        "1−β₂ is formed in float32",
        TORCH,
        [("1 - rule.beta_2)", "1 - torch.tensor(rule.beta_2).item())")],
    ),
    Variant(
        "torch_foreach_epsilon_inside_root",
        "√(v̂ + ε²)",
        TORCH,
        [
            ("torch._foreach_sqrt(vs)", "torch._foreach_sqrt(torch._foreach_add(vs, s.epsilon**2))"),
            ("    torch._foreach_add_(denominators, s.epsilon)\n", ""),
        ],
    ),
    Variant(
        "torch_foreach_largest_forgotten",
        "AMSGrad keeps the last v",
        TORCH,
        [("_foreach_maximum_(largest, vs)", "_foreach_copy_(largest, vs)")],
    ),
    Variant("torch_foreach_no_coupled_decay", "coupled decay is left out", TORCH, [("gs[i] = gs[i] + pull", "...")]),
    Variant(
        "torch_foreach_no_decay",
        "decoupled decay is left out",
        TORCH,
        [("_decay([thetas[i] for i in decaying], s)", "...")],
    ),
    Variant(
        "torch_gradients_stay_narrow",
        "float16 gradients are clipped as such",
        TORCH,
        [("return values.float() if", "return values if")],
    ),
]


def main() -> None:
    options = parse()
    variants = [v for v in VARIANTS if options.backend in v.backends and v.name in (options.only or [v.name])]
    width = max(len(v.name) for v in variants)
    if options.list:
        for v in variants:
            print(f"{v.name:{width}}  {v.file:22}  {v.wrong}")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # an exit that clears up, as Ctrl-C does
    results: dict[str, Result] = {}
    try:
        with contextlib.closing(judge(variants, options.backend, options.jobs)) as judged:
            for name, result in judged:
                results[name] = result
                said = result.test if result.rejected else f"{result.test or ''} SURVIVED: {result.error}".strip()
                print(f"{name:{width}}  {result.seconds:5.0f} s  {said}", flush=True)
    except Unusable as reason:
        sys.exit(f"mutate_adam: {reason}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    if options.output:
        write(options.output, options.backend, variants, results)
    rejected = sum(result.rejected for result in results.values())
    print(f"{rejected} of {len(variants)} variants rejected")
    sys.exit(rejected != len(variants))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=BACKENDS, default="tensorflow")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these variants")
    parser.add_argument("--list", action="store_true", help="name the variants, run nothing")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="variants at a time")
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    known = [v.name for v in VARIANTS if options.backend in v.backends]
    if unknown := [name for name in options.only or [] if name not in known]:
        parser.error(f"on {options.backend} there is no variant {', '.join(unknown)}: --list names them")
    if options.jobs < 1:
        parser.error(f"--jobs must be 1 or more, but it is {options.jobs}")
    return options


def write(file: Path, backend: str, variants: Sequence[Variant], results: dict[str, Result]) -> None:
    rows = [
        {"name": v.name, "wrong": v.wrong, "file": str(OPTIMIZERS / v.file)} | results[v.name]._asdict()
        for v in variants
    ]
    text = json.dumps({"backend": backend, "variants": rows}, indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def broken(variant: Variant, root: Path) -> str:
    """The text of the variant's file, below `root`, with the fault in it.

    Raises:
        Unusable: a text that it replaces does not stand there exactly once.
    """
    file = OPTIMIZERS / variant.file
    original = text = (root / file).read_text(encoding="utf-8")
    for old, new in variant.edits:
        if (count := original.count(old)) != 1 or text.count(old) != 1:
            raise Unusable(
                f"the text that {variant.name} replaces stands {count} times in {file}, not once: "
                f"bring the variant up to date.\n{old}"
            )
        text = text.replace(old, new)
    return text


def judge(variants: Sequence[Variant], backend: str, jobs: int) -> Generator[tuple[str, Result], None, None]:
    """Name and result of each variant, in the order in which they end.

    Raises:
        Unusable: a variant does not fit to the sources, or the unchanged copy fails.
    """
    with tempfile.TemporaryDirectory(prefix="mutate-adam-") as folder:
        bench = Bench(Path(folder), backend)
        for variant in variants:
            broken(variant, bench.original)
        pool = ThreadPoolExecutor(jobs)
        try:
            unchanged = bench.run()
            if unchanged.test or unchanged.error:
                raise Unusable(f"the tests reject Adam itself, unchanged: {unchanged.test} {unchanged.error}")
            names = {pool.submit(bench.run, variant): variant.name for variant in variants}
            for done in as_completed(names):
                yield names[done], done.result()
        finally:  # nothing stays behind, also where the person who asked has gone
            bench.stop()
            pool.shutdown(cancel_futures=True)


class Bench:
    """A folder with a copy of the sources, made once, and the runs on copies of that."""

    def __init__(self, folder: Path, backend: str) -> None:
        self.folder = folder
        self.backend = backend
        self.original = folder / "original"
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False
        self.original.mkdir()
        for name in COPIED:
            source = REPOSITORY / name
            if source.is_dir():
                shutil.copytree(source, self.original / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, self.original)
        (self.original / "conftest.py").write_text(GUARD, encoding="utf-8")

    def run(self, variant: Variant | None = None) -> Result:
        """The tests on the variant, or on the unchanged copy."""
        root = self.folder / (f"variant-{variant.name}" if variant else "unchanged")
        shutil.copytree(self.original, root)
        if variant:
            (root / OPTIMIZERS / variant.file).write_text(broken(variant, root), encoding="utf-8")
        start = time.perf_counter()
        code, output = self._pytest(root)
        seconds = time.perf_counter() - start
        test, error = first_failure(root / "report.xml")
        if code == 0:
            result = Result(False, None, "", seconds)
        elif code != 1 or not test:
            result = Result(False, test, f"pytest ended with {code}: {error or output[-2000:]}", seconds)
        else:
            result = Result(error not in STUMBLES, test, error, seconds)
        shutil.rmtree(root, ignore_errors=True)
        return result

    def _pytest(self, root: Path) -> tuple[int, str]:
        (root / "tmp").mkdir()
        # Nothing of the caller's may lead elsewhere; what tests leave in TMPDIR goes with the copy.
        changed = {"PYTHONPATH": str(root), "KERAS_BACKEND": self.backend, "TMPDIR": str(root / "tmp")}
        environment = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"} | changed
        tests = sorted(str(path.relative_to(root)) for path in root.glob(TESTS))
        report = ["--junitxml=report.xml", "-o", "junit_family=xunit1"]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", MARKS[self.backend]]
        with (root / "output.txt").open("wb") as output:
            with self._lock:
                if self._stopped:
                    raise Unusable("stopped")
                process = subprocess.Popen(
                    [*command, *report, *tests],
                    cwd=root,
                    env=environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # so that what the tests start can be ended with them
                )
                self._running.add(process)
            code = process.wait()
            with self._lock:
                self._running.discard(process)
        return code, (root / "output.txt").read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """End every run, with all that it has started; no other begins."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def first_failure(report: Path) -> tuple[str | None, str]:
    """The first test that failed, as pytest takes it, and the name of what it raised."""
    if not report.exists():
        return None, ""
    for case in ElementTree.parse(report).iter("testcase"):
        for fault in (case.find("failure"), case.find("error")):
            if fault is None:
                continue
            message = fault.get("message", "")
            if message == "collection failure":
                return None, message
            message = re.sub(r'^failed on \w+ with "', "", message)
            # pytest shortens "AssertionError: assert …"
            error = "AssertionError" if message.startswith("assert ") else re.split(r"[^\w.]", message)[0]
            file, inside = case.get("file", ""), case.get("classname", "")
            inside = inside.removeprefix(file.removesuffix(".py").replace("/", ".")).strip(".")  # a class of tests
            return "::".join(filter(None, (file, inside, case.get("name")))), error.rpartition(".")[2]
    return None, ""


if __name__ == "__main__":
    main()
