"""Keras's own optimizer tests, with our Adam in the place of Keras's optimizers.

The test classes come from the installed Keras (`keras/src/optimizers/*_test.py`); their methods run as they are there,
and in their modules `Adam`, `AdamW` and `SGD` stand for functions that give ours. What Keras tests is sorted by hand:
`RUNS` must pass, `DIFFERS` must fail, `NOT_OURS` cannot be asked of ours. A test in none of them, or in two, is an
error, so that somebody looks when a release of Keras brings one.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import unittest
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import keras
import keras.src.optimizers as keras_optimizers
import pytest

from toolkit.optimizers import Adam

pytestmark = pytest.mark.every_backend
BACKEND = keras.backend.backend()

# --- what Keras tests, sorted ----------------------------------------------------------------------------------------

MODULES = (
    "adam_test",
    "adamw_test",
    "loss_scale_optimizer_test",
    "multi_optimizer_test",
    "optimizer_sparse_test",
    "optimizer_test",
)
OTHER_MODULES = {
    f"{name}_test": "options and numbers of another algorithm; what it has in common with ours, adam_test has too"
    for name in (
        *("adadelta", "adafactor", "adagrad", "adamax", "ftrl", "lamb", "lion", "muon", "nadam", "rmsprop"),
        *("schedule_free_adamw", "sgd"),
    )
}

RUNS = """
AdamTest: test_config test_single_step test_weight_decay test_correctness_with_golden test_clip_norm test_clip_value
    test_ema test_ema_overwrite_frequency test_clipnorm_indexed_slices
AdamWTest: test_config test_single_step test_weight_decay test_correctness_with_golden test_clip_norm test_clip_value
LossScaleOptimizerTest: test_config test_apply_with_no_vars test_finite_step_stateless test_finite_step_stateful
    test_finite_step_with_inner_loss_scale_stateless test_finite_step_with_inner_loss_scale_stateful
    test_infinite_step_stateless test_infinite_step_stateful
    test_finite_step_with_overwrite_stateless test_finite_step_with_overwrite_stateful
    test_downscaling_stateless test_downscaling_stateful test_upscaling_stateless test_upscaling_stateful
    test_iterations_update_stateless test_iterations_update_stateful test_serialization
    test_init_dynamic_arg test_init_unsupported_arg
    test_init_base_optimizer_unsupported_args_weight_decay test_init_base_optimizer_unsupported_args_clipnorm
    test_init_base_optimizer_unsupported_args_global_clipnorm test_init_base_optimizer_unsupported_args_clipvalue
    test_init_base_optimizer_unsupported_args_use_ema test_init_base_optimizer_unsupported_args_ema_momentum
    test_init_base_optimizer_unsupported_args_ema_overwrite_frequency
    test_init_base_optimizer_unsupported_args_loss_scale_factor
    test_init_base_optimizer_unsupported_args_gradient_accumulation_steps
MultiOptimizerTest: test_optimizer_map_matching test_multi_optimizer_initialization test_default_fallback
    test_stateful_apply test_stateless_apply test_serialization test_loss_scaling test_gradient_unscaling
    test_custom_callable_function test_multi_optimizer_with_model_fit test_learning_rate_scheduler_with_multi_optimizer
    test_reduce_lr_on_plateau_with_multi_optimizer test_tensorboard_logging_with_multi_optimizer
    test_swap_ema_weights_with_multi_optimizer test_multi_optimizer_wrapped_in_loss_scale_optimizer
    test_multi_optimizer_blocks_nested_optimizers
OptimizerSparseTest: test_sparse_correctness_adam test_sparse_correctness_adam_amsgrad test_sparse_correctness_adamw
    test_sparse_correctness_adamw_amsgrad test_sparse_correctness_loss_scale_optimizer_sgd test_sparse_correctness_sgd
OptimizerTest: test_iterations_counter test_empty_gradients test_clip_args test_clip_norm test_clip_value
    test_global_clip_norm test_ema test_ema_with_model_fit test_constraints_are_applied test_static_loss_scaling
    test_set_weights test_tf_checkpointing test_callable_learning_rate test_overwrite_with_gradient
    test_gradient_accumulation_with_weigth_decay('adam') test_gradient_accumulation_with_weigth_decay('adamw')
    test_gradient_accumulation_with_weigth_decay('sgd') test_setting_lr_to_callable_untracks_lr_var
    test_pickleable_optimizers('adam') test_pickleable_optimizers('adamw') test_pickleable_optimizers('sgd')
    test_mixed_with_tf_variables test_optimizer_auto_naming
"""


class Difference(NamedTuple):
    """Where ours is meant to fail: why, a pattern of what the failure says, and on which backends."""

    why: str
    says: str
    backends: tuple[str, ...] = ("tensorflow", "jax", "torch")


_WRITES = "asks that `self.assign…` does all writing, so that rows can be written; our kernels write by themselves"
_SAYS = "directly on a variable"
DIFFERS = {
    "AdamWTest.test_weight_decay_is_none": Difference("None is Adam without decay", "ValueError not raised"),
    # On TensorFlow Adam's steps are written by operations that Keras's test does not see.
    "OptimizerSparseTest.test_sparse_gradients_adam": Difference(_WRITES, _SAYS, ("jax",)),
    "OptimizerSparseTest.test_sparse_gradients_adam_amsgrad": Difference(_WRITES, _SAYS, ("jax",)),
    "OptimizerSparseTest.test_sparse_gradients_adamw": Difference(_WRITES, _SAYS, ("jax",)),
    "OptimizerSparseTest.test_sparse_gradients_adamw_amsgrad": Difference(_WRITES, _SAYS, ("jax",)),
    "OptimizerSparseTest.test_sparse_gradients_loss_scale_optimizer_sgd": Difference(_WRITES, _SAYS),
    "OptimizerSparseTest.test_sparse_gradients_sgd": Difference(_WRITES, _SAYS),
    "OptimizerTest.test_gradient_accumulation": Difference(
        "`_iterations` counts updates, not micro-batches", r"ACTUAL: array\(0\b.*\s+DESIRED: array\(1\b"
    ),
    "OptimizerTest.test_overwrite_with_gradient_with_gradient_accumulation": Difference(
        "float8 weights in windows of micro-batches are refused", "cannot be used with float8 weights"
    ),
}

_OTHERS = ("adadelta", "adafactor", "adagrad", "adamax", "ftrl", "lion", "nadam", "rmsprop")
_OTHER_WAYS = ("rmsprop_momentum", "rmsprop_momentum_centered", "sgd_momentum", "sgd_momentum_nesterov")
NOT_OURS = {
    "LossScaleOptimizerTest.test_deserialization_backwards_compatibility": "reads a config that names Keras's SGD",
    "OptimizerTest.test_get_method": "asks for Keras's classes by Keras's names",
    **{
        f"OptimizerTest.{test}('{other}')": "about another algorithm"
        for test in ("test_gradient_accumulation_with_weigth_decay", "test_pickleable_optimizers")
        for other in _OTHERS
    },
    **{
        f"OptimizerSparseTest.{test}_{other}": "about another algorithm"
        for test in ("test_sparse_gradients", "test_sparse_correctness")
        for other in (*_OTHERS, *_OTHER_WAYS, "scatter_update")
    },
}

# Faults of ours that wait for repair: what is wrong, and on which backends.
_BCOO = "sparse gradients of JAX (BCOO) are not made dense"
FAULTS: dict[str, tuple[str, tuple[str, ...]]] = {}

# --- ours in the place of Keras's ------------------------------------------------------------------------------------

_made: list[Adam] = []  # what the functions below gave during the test that runs


def _adam(
    learning_rate: Any = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    amsgrad: bool = False,
    **options: Any,
) -> Adam:
    """With Keras's ε, so that its golden numbers hold."""
    options = {"epsilon_placement": "hat", **options}
    _made.append(Adam(learning_rate, beta_1, beta_2, epsilon, amsgrad, **options))
    return _made[-1]


def _adamw(learning_rate: Any = 0.001, weight_decay: float | None = 0.004, **options: Any) -> Adam:
    return _adam(learning_rate, weight_decay=weight_decay, **options)


def _sgd(learning_rate: Any = 0.01, momentum: float = 0.0, nesterov: bool = False, **options: Any) -> Adam:
    """Gradient descent as a limit of Adam: α·ε·g/(|g| + ε) → α·g for large ε, to the last digit of float32 here.

    So numbers that Keras expects of SGD without momentum are asked of ours. Some tests of configs set `momentum` and
    `nesterov` too, only to have more to save; the first becomes β₁.
    """
    epsilon = 2.0**40
    rate = (lambda: epsilon * learning_rate()) if callable(learning_rate) else epsilon * learning_rate
    if options.get("weight_decay") is not None:
        options["weight_decay"] /= epsilon  # it is multiplied by the rate
    return _adam(rate, momentum, epsilon=epsilon, epsilon_placement="paper", **options)


STAND_INS = {"Adam": _adam, "AdamW": _adamw, "SGD": _sgd}
# Other stand-ins, where a test looks at rates or at names of classes.
EXCEPTIONS: dict[str, dict[str, Callable[..., Any]]] = {
    "MultiOptimizerTest.test_learning_rate_scheduler_with_multi_optimizer": {"SGD": _adam},
    "MultiOptimizerTest.test_reduce_lr_on_plateau_with_multi_optimizer": {"SGD": _adam},
    "MultiOptimizerTest.test_tensorboard_logging_with_multi_optimizer": {"SGD": _adam},
    "MultiOptimizerTest.test_serialization": {"SGD": keras.optimizers.SGD},
    "OptimizerTest.test_optimizer_auto_naming": {"AdamW": keras.optimizers.AdamW, "SGD": keras.optimizers.SGD},
}


class _Optimizers:
    """`keras.src.optimizers`, with stand-ins in it."""

    def __init__(self, stand_ins: dict[str, Callable[..., Any]]) -> None:
        self._by_name = {name.lower(): stand_in for name, stand_in in stand_ins.items()}
        self.__dict__.update(stand_ins)

    def __getattr__(self, name: str) -> Any:
        return getattr(keras_optimizers, name)

    def get(self, identifier: Any) -> Any:
        config = {"class_name": identifier, "config": {}} if isinstance(identifier, str) else identifier
        return self._by_name[config["class_name"]](**config["config"])


# --- Keras's tests ---------------------------------------------------------------------------------------------------


class KerasTest(NamedTuple):
    """A method of one of Keras's test classes."""

    module: ModuleType
    case: type[unittest.TestCase]
    method: str

    def skips(self) -> list[pytest.Mark]:
        """What Keras itself skips on some backends."""
        marks = [*getattr(self.case, "pytestmark", []), *getattr(getattr(self.case, self.method), "pytestmark", [])]
        return [mark for mark in marks if mark.name == "skipif"]

    def run(self) -> None:
        test = self.case(self.method)
        try:
            test.debug()
        except unittest.SkipTest as skip:
            pytest.skip(str(skip))
        finally:
            test.doCleanups()


@functools.cache
def _keras_tests() -> dict[str, KerasTest]:
    tests = {}
    for name in MODULES:
        spec = importlib.util.find_spec(f"{keras_optimizers.__name__}.{name}")
        # A copy of the module for us alone: its lists of cases hold the classes that it finds while it is imported.
        module = importlib.util.module_from_spec(spec)
        with mock.patch.multiple(keras_optimizers, **STAND_INS):
            spec.loader.exec_module(module)
        for case in vars(module).values():
            if isinstance(case, type) and issubclass(case, unittest.TestCase) and case.__module__ == module.__name__:
                for method in unittest.defaultTestLoader.getTestCaseNames(case):
                    # `test_x0` is known by its arguments, `test_x('adam')`, as the number changes with the list.
                    arguments = case(method).id().partition(" ")[2]
                    title = re.sub(r"\d+$", "", method) + arguments if arguments else method
                    tests[f"{case.__name__}.{title}"] = KerasTest(module, case, method)
    return tests


def _runs() -> list[str]:
    lines = re.sub(r"\n +", " ", RUNS).strip().splitlines()
    return [f"{case}.{test}" for case, _, tests in (line.partition(":") for line in lines) for test in tests.split()]


def _parameters(names: Iterable[str]) -> list[Any]:
    tests = _keras_tests()
    parameters = []
    for name in (name for name in names if name in tests):  # of others `test_every_test_of_keras_is_sorted` tells
        reason, backends = FAULTS.get(name, ("", ()))
        fault = [pytest.mark.xfail(strict=True, reason=reason)] if BACKEND in backends else []
        parameters.append(pytest.param(name, id=name, marks=[*tests[name].skips(), *fault]))
    return parameters


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # Here and not on top, since Keras's modules use a marker that is to be made known first.
    metafunc.config.addinivalue_line("markers", "requires_trainable_backend: used in Keras's tests")
    fails = [name for name, difference in DIFFERS.items() if BACKEND in difference.backends]
    passes = [name for name in (*_runs(), *DIFFERS) if name not in fails]
    for argument, names in {"passing": passes, "failing": fails}.items():
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, _parameters(names))


@pytest.fixture(autouse=True)
def _leave_settings_alone() -> Any:
    _made.clear()
    yield
    keras.config.enable_traceback_filtering()  # which every test of Keras disables


@pytest.fixture
def with_ours(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Runs a test of Keras with ours."""

    def run(name: str) -> None:
        test = _keras_tests()[name]
        stand_ins = STAND_INS | EXCEPTIONS.get(name, {})
        for known in {*stand_ins, "optimizers"} & {*vars(test.module)}:
            monkeypatch.setattr(test.module, known, stand_ins.get(known, _Optimizers(stand_ins)))
        test.run()

    return run


# --- tests -----------------------------------------------------------------------------------------------------------


def test_keras_test_passes(passing, with_ours):
    with_ours(passing)
    assert _made, "the test made no optimizer of ours"


def test_keras_test_fails_on_purpose(failing, with_ours):
    """A difference that is none any more belongs into `RUNS`."""
    with pytest.raises((Exception, pytest.fail.Exception), match=DIFFERS[failing].says):
        with_ours(failing)
    assert _made, "the test made no optimizer of ours"


def test_every_test_of_keras_is_sorted():
    ours = [*_runs(), *DIFFERS, *NOT_OURS]
    assert sorted(ours) == sorted(_keras_tests())
    assert {*EXCEPTIONS, *FAULTS} <= {*ours} - {*NOT_OURS}


def test_every_file_of_keras_is_sorted():
    folder = Path(keras_optimizers.__file__).parent
    assert sorted([*MODULES, *OTHER_MODULES]) == sorted(path.stem for path in folder.glob("*_test.py"))
