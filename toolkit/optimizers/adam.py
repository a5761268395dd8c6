"""Adam (Kingma & Ba 2015), as an optimizer for any Keras model."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from toolkit.optimizers.kernels import Plans, Rows, Rule, Scalars, Slot, kernel

# Arguments of its own, which `get_config` gives beside those of the base class.
_ARGUMENTS = (
    "beta_1",
    "beta_2",
    "epsilon",
    "amsgrad",
    "weight_decay_mode",
    "decay_biases_and_norms",
    "epsilon_placement",
    "state_dtype",
    "sparse_updates",
)


@keras.saving.register_keras_serializable(package="toolkit")
class Adam(keras.optimizers.Optimizer):
    """Algorithm 1 of Kingma & Ba 2015 (arXiv:1412.6980), with ε where that algorithm has it.

        t ← t + 1
        m ← β₁·m + (1−β₁)·g              first moment
        v ← β₂·v + (1−β₂)·g²             second moment
        m̂ ← m / (1−β₁ᵗ)                  bias correction
        v̂ ← v / (1−β₂ᵗ)
        θ ← θ − α·m̂ / (√v̂ + ε)

    `keras.optimizers.Adam` computes α·m̂ / (√v̂ + ε̂/√(1−β₂ᵗ)) instead, which the paper's section 2 calls "epsilon hat":
    in the first steps its ε is up to 32 times larger, and small gradients move their weights less.

    `epsilon_placement="hat"` does the same; with `epsilon=1e-7` the two give the same numbers.

    Moments, moving averages and scalars are float32 where weights are bfloat16 or float16 (there 0.999 is 1, and
    1e-8 is 0), and float64 where weights are float64.

    With `gradient_accumulation_steps=N`, N calls of `apply` (micro-batches) make one step, with the mean of their
    gradients: the sum over the window, divided by its micro-batches, where one without a gradient for a variable counts
    as 0 for it. A variable without gradient in the whole window stays as it is, with its moments. Everything counts
    steps: `iterations`, schedules, bias correction, moving averages. `flush()` applies a window that is not full; `fit`
    does so when it ends.

    Args:
        learning_rate: α; a number, a `LearningRateSchedule`, or a function without arguments.
        beta_1: β₁, decay of the first moment, in [0, 1).
        beta_2: β₂, decay of the second moment, in [0, 1).
        epsilon: ε, above 0; added to √v̂, so it is in the units of the gradient.
        amsgrad: divide by the root of the largest v so far (Reddi et al. 2018), as torch and Keras do: the maximum is
            taken before the bias correction.
        weight_decay: λ; see `weight_decay_mode`.
        clipnorm: largest norm of the gradient of each variable.
        clipvalue: largest absolute value of each element of a gradient.
        global_clipnorm: largest norm of all gradients together. One of the three at most.
        use_ema: keep a moving average of the weights, which replaces them when `fit` ends.
        ema_momentum: decay of that average.
        ema_overwrite_frequency: replace the weights every so many steps also.
        loss_scale_factor: the loss was multiplied by it, the gradients are divided by it.
        gradient_accumulation_steps: micro-batches per step, at least 2.
        name: name of the optimizer.
        weight_decay_mode: "decoupled": θ ← θ − α·λ·θ before the update (AdamW, Loshchilov & Hutter 2019); "coupled":
            g ← g + λ·θ after clipping (L2 regularisation, as `torch.optim.Adam` has it).
        decay_biases_and_norms: False: weights with fewer than two axes (biases, scales and shifts of normalisation)
            do not decay.
        exclude_from_decay: regular expressions; a weight whose path (`dense/kernel`) one of them is found in does not
            decay. `exclude_from_weight_decay` leaves out single variables.
        epsilon_placement: "paper": √v̂ + ε; "hat": √v + ε before the bias correction of v, as Keras has it.
        state_dtype: least type of the moments, "float32" or "float64".
        sparse_updates: what becomes of gradients that name rows (`tf.IndexedSlices`, sparse tensors of torch). "exact":
            the same numbers as dense gradients, at the same cost; "lazy": rows without gradient stay as they are, with
            their moments, and do not decay; bias correction counts every step. The two agree where all rows are
            touched.

    Raises:
        ValueError: a value is outside its range; the message names the argument and the value.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        amsgrad: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        *,
        weight_decay_mode: str = "decoupled",
        decay_biases_and_norms: bool = True,
        exclude_from_decay: Sequence[str] = (),
        epsilon_placement: str = "paper",
        state_dtype: str = "float32",
        sparse_updates: str = "exact",
        **kwargs: Any,
    ) -> None:
        if not callable(learning_rate):
            learning_rate = _number("learning_rate", learning_rate, "0 or more", lambda x: x >= 0)
        in_double = isinstance(learning_rate, float) and kernel().has_float64()
        super().__init__(
            # The base class would keep it in float32, 2e-8 off, and changed on its way to disk and back.
            learning_rate=(lambda: learning_rate) if in_double else learning_rate,
            weight_decay=_optional("weight_decay", weight_decay, "0 or more", lambda x: x >= 0),
            clipnorm=_optional("clipnorm", clipnorm, "above 0", lambda x: x > 0),
            clipvalue=_optional("clipvalue", clipvalue, "above 0", lambda x: x > 0),
            global_clipnorm=_optional("global_clipnorm", global_clipnorm, "above 0", lambda x: x > 0),
            use_ema=use_ema,
            ema_momentum=_number("ema_momentum", ema_momentum, "in [0, 1]", lambda x: 0 <= x <= 1),
            ema_overwrite_frequency=_whole("ema_overwrite_frequency", ema_overwrite_frequency, 1),
            loss_scale_factor=_optional("loss_scale_factor", loss_scale_factor, "above 0", lambda x: x > 0),
            gradient_accumulation_steps=_whole("gradient_accumulation_steps", gradient_accumulation_steps, 2),
            name=name,
            **kwargs,
        )
        self.beta_1 = _number("beta_1", beta_1, "in [0, 1)", lambda x: 0 <= x < 1)
        self.beta_2 = _number("beta_2", beta_2, "in [0, 1)", lambda x: 0 <= x < 1)
        self.epsilon = _number("epsilon", epsilon, "above 0", lambda x: x > 0)
        self.amsgrad = bool(amsgrad)
        self.weight_decay_mode = _choice("weight_decay_mode", weight_decay_mode, ("decoupled", "coupled"))
        self.decay_biases_and_norms = bool(decay_biases_and_norms)
        self.exclude_from_decay = _patterns(exclude_from_decay)
        self.epsilon_placement = _choice("epsilon_placement", epsilon_placement, ("paper", "hat"))
        self.state_dtype = _choice("state_dtype", state_dtype, ("float32", "float64"))
        if self.state_dtype == "float64" and not kernel().has_float64():
            raise ValueError("state_dtype is 'float64', which this backend does not have: use 'float32'.")
        self.sparse_updates = _choice("sparse_updates", sparse_updates, ("exact", "lazy"))
        if self.sparse_updates == "lazy" and gradient_accumulation_steps:
            raise ValueError(
                "sparse_updates is 'lazy', but with gradient_accumulation_steps gradients are held dense: use 'exact'."
            )
        self._plans = Plans()
        self._counts: Any = None  # with accumulation, see `build`
        if in_double:
            self._learning_rate: Any = self.add_variable(
                (),
                # Not Keras's `Constant`, which goes through float32.
                initializer=lambda shape, dtype: ops.convert_to_tensor(learning_rate, dtype),
                dtype="float64",
                aggregation="only_first_replica",
                name="learning_rate",
            )

    def build(self, var_list: Sequence[Any]) -> None:
        """Make the variables: two moments per weight, and what averages and accumulation need.

        Raises:
            ValueError: accumulation is asked for where it cannot be.
        """
        if self.built:
            return
        if self.gradient_accumulation_steps and any(self._overwrite_variable_with_gradient(v) for v in var_list):
            raise ValueError("gradient_accumulation_steps cannot be used with float8 weights: leave it out.")
        if self.gradient_accumulation_steps and kernel().is_distributed(self):
            raise ValueError(
                "gradient_accumulation_steps cannot be used within a strategy of tf.distribute, whose replicas cannot "
                "meet in a step that is taken under a condition: leave it out, and give fit larger batches."
            )
        super().build(var_list)
        names = ["first_moment", "second_moment", "largest_second_moment"][: 3 if self.amsgrad else 2]
        moments = kernel().add_moments(self, var_list, names)
        self._first_moments, self._second_moments = moments[:2]
        self._largest_second_moments = moments[2] if self.amsgrad else [None] * len(var_list)
        self._state_types = tuple(sorted({m.dtype for m in self._first_moments if m is not None}))
        if self.gradient_accumulation_steps:
            # How many the open window has, then how many of them had a gradient for each variable: zeros that are held
            # do not tell, and which variables had one must outlive graphs, of which each knows its own, and processes.
            self._counts = self.add_variable(
                (1 + len(var_list),), dtype="int", aggregation="only_first_replica", name="held_micro_batches"
            )

    def add_variable(self, shape: Any, initializer: Any = "zeros", dtype: Any = None, **kwargs: Any) -> Any:
        """As in the base class, but nothing is kept in half precision: there a moving average does not move."""
        if dtype is not None:
            dtype = self._wide(dtype)
        return super().add_variable(shape, initializer=initializer, dtype=dtype, **kwargs)

    def _wide(self, dtype: Any) -> str:
        name: str = keras.backend.standardize_dtype(dtype)
        return self.state_dtype if name in ("float16", "bfloat16", "float32") else name

    @property
    def iterations(self) -> Any:
        """Steps taken: updates of the weights, not micro-batches."""
        return self._iterations

    # --- one call: what Keras's `apply` does around an update is right; what it does within is ours ------------------

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Take a step with one gradient per variable, or, with accumulation, hold the gradients of a micro-batch."""
        # Repeated rows are summed and float16 made wide before clipping: their norms would be wrong.
        lazy = self.sparse_updates == "lazy"
        super().apply([None if g is None else kernel().prepare(g, lazy) for g in grads], trainable_variables)

    def _backend_apply_gradients(self, grads: Sequence[Any], trainable_variables: Sequence[Any]) -> None:
        if not self.gradient_accumulation_steps:
            self._update(grads, trainable_variables)
            return
        given = [self._get_variable_index(v) for v in trainable_variables]
        self._backend_increment_gradient_accumulators(grads, [self._accumulated_gradients[i] for i in given])
        counts = np.bincount([0, *(1 + i for i in given)], minlength=self._counts.shape[0])
        self._counts.assign_add(ops.convert_to_tensor(counts, self._counts.dtype))
        full = ops.equal(self._held, self.gradient_accumulation_steps)
        self._when(full, lambda: self._apply_window(given))
        # The base class adds 1 after every call, but only an update counts.
        self._iterations.assign_sub(1)

    @property
    def _held(self) -> Any:
        """Micro-batches in the open window."""
        return self._counts[0]

    def _apply_window(self, given: Sequence[int] = ()) -> None:
        """One step with the mean of what is held, for each variable that has some; those of `given` have, for sure."""
        others = sorted({*range(len(self._trainable_variables))} - {*given})
        counts = kernel().known(self._counts) if others else []
        if counts is not None:  # else Python does not know, and the graph decides
            others = [i for i in others if counts[1 + i]]
        variables = [self._trainable_variables[i] for i in (*given, *others)]
        accumulators = [self._accumulated_gradients[i] for i in (*given, *others)]
        conditions = [] if counts is not None else [ops.greater(self._counts[1 + i], 0) for i in others]
        self._update([a / ops.cast(self._held, a.dtype) for a in accumulators], variables, conditions)
        for i, variable in enumerate(variables[len(given) :]):  # the base class does so for `given`
            if getattr(variable, "constraint", None) is not None:
                constrain = functools.partial(_constrain, variable)
                self._when(conditions[i], constrain, [variable]) if conditions else constrain()
        for accumulator in self._accumulated_gradients:
            if accumulator is not None:
                accumulator.assign(ops.zeros(accumulator.shape, accumulator.dtype))
        self._counts.assign(ops.zeros(self._counts.shape, self._counts.dtype))
        self._iterations.assign_add(1)

    def flush(self) -> None:
        """Take the step of an incomplete window: the mean of the micro-batches held since the last step, if any.

        Does nothing without accumulation. On JAX, within `fit`, the state lives outside the variables: call
        `model.jax_state_sync()` before, or `flush` between two calls of `fit`.
        """
        if self.gradient_accumulation_steps and self.built:
            self._when(ops.greater(self._held, 0), self._apply_window)

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """What `fit` calls at its end: flush, then put the moving averages in the weights' place."""
        self.flush()
        super().finalize_variable_values(var_list)

    def _when(self, condition: Any, action: Any, variables: Sequence[Any] | None = None) -> None:
        """Run `action`, which changes nothing but `variables`, if `condition` holds."""
        kernel().when(condition, action, variables or [*self._trainable_variables, *self.variables])

    # --- one step ----------------------------------------------------------------------------------------------------

    def _update(self, grads: Sequence[Any], trainable_variables: Sequence[Any], conditions: Sequence[Any] = ()) -> None:
        """One step; each of the last variables takes it only if its condition holds (its gradient is 0 if not)."""
        numbers = self._numbers()
        certain = len(grads) - len(conditions)
        grads = self._clip_gradients(grads)
        self._backend_update_step(grads[:certain], trainable_variables[:certain], numbers)
        rest = zip(grads[certain:], trainable_variables[certain:], conditions, strict=True)
        for gradient, variable, condition in rest:
            step = functools.partial(self._backend_update_step, [gradient], [variable], numbers)
            i = self._get_variable_index(variable)
            columns = (self._first_moments, self._second_moments, self._largest_second_moments)
            moments = [column[i] for column in columns if column[i] is not None]
            self._when(condition, step, [variable, *moments])
        if self.use_ema:
            self._update_model_variables_moving_average(self._trainable_variables)
            if self.ema_overwrite_frequency:
                self._when(
                    ops.equal((self._iterations + 1) % self.ema_overwrite_frequency, 0),
                    lambda: self._overwrite_model_variables_with_average_value(self._trainable_variables),
                )

    def _numbers(self) -> dict[str, Scalars]:
        """The numbers of this step, per type that a moment has."""
        # Not within `call`: a function as rate may give another number each time.
        widest = "float64" if kernel().has_float64() else "float32"
        rate = ops.convert_to_tensor(self.learning_rate, widest)  # `cast` takes a number through float32
        rule, weight_decay = self._rule(), self.weight_decay or 0.0
        compute = functools.partial(_scalars, rule, weight_decay, self._state_types)
        iterations = ops.convert_to_tensor(self._iterations)
        scalars: dict[str, Scalars] = kernel().call(compute, (iterations, rate), (rule, weight_decay), self._plans)
        return scalars

    def _rule(self) -> Rule:
        hat, coupled = self.epsilon_placement == "hat", self.weight_decay_mode == "coupled"
        return Rule(self.beta_1, self.beta_2, self.epsilon, hat=hat, coupled=coupled)

    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        if kernel().is_distributed(self):
            # The base class hands each variable to `update_step` by way of `tf.distribute`.
            super()._backend_update_step(grads, trainable_variables, learning_rate)
        else:
            self._update_variables(grads, trainable_variables, learning_rate)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable; in the place of `learning_rate` stand all numbers of the step."""
        self._update_variables([gradient], [variable], learning_rate)

    def _update_variables(self, grads: Sequence[Any], variables: Sequence[Any], scalars: dict[str, Scalars]) -> None:
        slots = []
        for variable, gradient in zip(variables, grads, strict=True):
            i = self._get_variable_index(variable)
            m, v, largest = self._first_moments[i], self._second_moments[i], self._largest_second_moments[i]
            slots.append(Slot(variable, m, v, largest, gradient, self._decays(i)))
        kernel().update(slots, self._rule(), scalars, self._plans)

    def _decays(self, index: int) -> bool:
        if not self.weight_decay:
            return False
        variable = self._trainable_variables[index]
        if not self.decay_biases_and_norms and len(variable.shape) < 2:
            return False
        path = getattr(variable, "path", variable.name)
        excluded = any(re.search(pattern, path) for pattern in self.exclude_from_decay)
        return not excluded and bool(self._use_weight_decay(variable))

    def _clip_gradients(self, grads: Sequence[Any]) -> Sequence[Any]:
        """As in the base class; of gradients that name rows the rows are clipped."""
        clipped = super()._clip_gradients([g.values if isinstance(g, Rows) else g for g in grads])
        pairs = zip(grads, clipped, strict=True)
        return [Rows(g.indices, values) if isinstance(g, Rows) else values for g, values in pairs]

    # --- moving average of the weights -------------------------------------------------------------------------------

    def _update_model_variables_moving_average(self, trainable_variables: Sequence[Any]) -> None:
        """Move each average towards its weight; the first step sets it (this runs before the step is counted)."""
        for variable, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):
            if average is not None:
                share = ops.convert_to_tensor(1 - self.ema_momentum, average.dtype)
                share = ops.where(ops.equal(self._iterations, 0), ops.ones_like(share), share)
                average.assign(average + share * (ops.cast(variable, average.dtype) - average))

    def _overwrite_model_variables_with_average_value(self, trainable_variables: Sequence[Any]) -> None:
        averages = [self._model_variables_moving_average[self._get_variable_index(v)] for v in trainable_variables]
        pairs = [(v, a) for v, a in zip(trainable_variables, averages, strict=True) if a is not None]
        kernel().overwrite([v for v, _ in pairs], [a for _, a in pairs])

    def get_config(self) -> dict[str, Any]:
        """All arguments, as plain values."""
        config: dict[str, Any] = super().get_config()
        config.update({name: getattr(self, name) for name in _ARGUMENTS})
        config["exclude_from_decay"] = list(self.exclude_from_decay)
        return config

    # --- state -------------------------------------------------------------------------------------------------------

    def load_own_variables(self, store: Any) -> None:
        """Take the state that `save_own_variables` wrote: all of it or none.

        Raises:
            ValueError: a variable is missing, left over or of another shape; the message names it.
        """
        variables = {str(i): variable for i, variable in enumerate(self.variables)}
        given = list(store.keys())
        faults = [f"lacks {variable.path}" for key, variable in variables.items() if key not in given]
        faults += [f"has a variable {key} too much" for key in given if key not in variables]
        for key, variable in variables.items():
            if key in given and tuple(store[key].shape) != tuple(variable.shape):
                faults.append(f"has {variable.path} as {tuple(store[key].shape)}, not {tuple(variable.shape)}")
        if faults:
            more = f" and {len(faults) - 5} faults more" if len(faults) > 5 else ""
            built = "" if self.built else "; this optimizer is not built: call build(model.trainable_variables) first"
            raise ValueError(
                f"The state saved for {self.name!r} does not fit: it {', '.join(faults[:5])}{more}{built}."
            )
        for key, variable in variables.items():
            variable.assign(store[key])


def _scalars(rule: Rule, weight_decay: float, dtypes: Sequence[str], steps: Any, rate: Any) -> dict[str, Scalars]:
    """The numbers of the step after so many, per type."""
    scalars = {}
    for dtype in dtypes:
        t, of_type = ops.cast(steps, dtype) + 1, ops.cast(rate, dtype)
        root = ops.sqrt(_one_minus_power(rule.beta_2, t))
        step_size = of_type * root / _one_minus_power(rule.beta_1, t)
        epsilon = rule.epsilon * (ops.ones_like(root) if rule.hat else root)
        decay = weight_decay * (ops.ones_like(of_type) if rule.coupled else of_type)
        turned = kernel().turned(rule, t, of_type) if dtype == "float32" else None
        scalars[dtype] = Scalars(step_size, epsilon, decay, turned)
    return scalars


def _number(argument: str, value: Any, rule: str, holds: Any) -> float:
    try:
        number = float(value) if not isinstance(value, bool | str) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or not holds(number):
        raise ValueError(f"{argument} must be a finite number {rule}, but it is {value!r}.")
    return number


def _optional(argument: str, value: Any, rule: str, holds: Any) -> float | None:
    return None if value is None else _number(argument, value, rule, holds)


def _whole(argument: str, value: Any, least: int) -> int | None:
    if value is None:
        return None
    return int(_number(argument, value, f"that is whole and {least} or more", lambda x: x >= least and x == int(x)))


def _constrain(variable: Any) -> None:
    variable.assign(variable.constraint(variable))


def _choice(argument: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{argument} must be one of {', '.join(map(repr, choices))}, but it is {value!r}.")
    return str(value)


def _patterns(patterns: Any) -> tuple[str, ...]:
    try:
        if isinstance(patterns, str):
            raise TypeError("it is one text")
        return tuple(re.compile(pattern).pattern for pattern in patterns)
    except (TypeError, re.error) as error:
        raise ValueError(
            f"exclude_from_decay must be a list of regular expressions, but it is {patterns!r} ({error})."
        ) from error


def _one_minus_power(beta: float, t: Any) -> Any:
    """1 − βᵗ to the last digit: `1 - beta**t` in float32 loses four of seven digits at t = 1 and β = 0.999.

    0.999 is no float32, and beside 1 the rounding is 1.3e-5 of what is left; log β, taken in float64, keeps its digits.
    """
    if beta == 0:
        return ops.ones_like(t)
    return -ops.expm1(t * math.log(beta))
