"""From the names and values of a config to an optimizer."""

from __future__ import annotations

import inspect
import subprocess
import sys

import keras
import pytest
from keras import ops

from toolkit import registry
from toolkit.errors import ToolkitError
from toolkit.optimizers import Adam, schedules
from toolkit.optimizers.build import build

CLASSES = {
    "adam": Adam,
    "sgd": keras.optimizers.SGD,
    "momentum": keras.optimizers.SGD,
    "rmsprop": keras.optimizers.RMSprop,
    "adagrad": keras.optimizers.Adagrad,
    "constant": schedules.Constant,
    "cosine": schedules.Cosine,
    "exponential": schedules.Exponential,
    "step": schedules.Step,
    "warm_restarts": schedules.WarmRestarts,
}
OPTIONS = {
    "weight_decay": None,
    "clipnorm": None,
    "clipvalue": None,
    "global_clipnorm": None,
    "use_ema": False,
    "ema_momentum": 0.99,
    "gradient_accumulation_steps": None,
}


def make(name="adam", *, schedule=None, total_steps=100, options=None, **arguments):
    arguments.setdefault("learning_rate", 0.25)
    return build(name, arguments, schedule=schedule, options={**OPTIONS, **(options or {})}, total_steps=total_steps)


@pytest.mark.parametrize("kind", ["optimizers", "schedules"])
def test_wrapper_and_class_have_the_same_parameters_and_defaults(kind):
    for name in registry.SHIPPED[kind]:
        wrapper = inspect.signature(registry.resolve(kind, name)).parameters.values()
        keywords = {p.name: p.default for p in wrapper if p.kind is p.KEYWORD_ONLY}
        theirs = {p.name: p.default for p in inspect.signature(CLASSES[name]).parameters.values()}
        if name == "momentum":
            assert keywords.pop("momentum") == 0.9
        if kind == "schedules" and name != "constant":
            assert keywords.pop("total_steps") is None  # then it is the run's
        assert keywords == {key: theirs[key] for key in keywords}, name


def test_wrappers_offer_every_hyperparameter_of_our_own_classes():
    base = {"learning_rate", "total_steps", "name", "kwargs", "loss_scale_factor", "ema_overwrite_frequency", *OPTIONS}
    for name, cls in CLASSES.items():
        if cls.__module__.startswith("toolkit."):
            kind = "schedules" if name in registry.SHIPPED["schedules"] else "optimizers"
            assert set(inspect.signature(cls).parameters) - base <= set(
                inspect.signature(registry.resolve(kind, name)).parameters
            ), name


@pytest.mark.parametrize("name", registry.SHIPPED["optimizers"])
def test_every_optimizer_takes_the_common_options_and_a_schedule(name):
    options = {"weight_decay": 0.1, "global_clipnorm": 2.0, "use_ema": True, "ema_momentum": 0.5}
    optimizer = make(name, schedule=("cosine", {"warmup_steps": 4, "final_share": 0.0}), options=options)
    assert isinstance(optimizer, CLASSES[name])
    config = optimizer.get_config()
    assert {key: config[key] for key in options} == options
    assert float(ops.convert_to_numpy(optimizer.learning_rate)) == 0.25 / 4
    variable = keras.Variable([1.0])
    optimizer.apply([ops.ones((1,))], [variable])
    assert float(ops.convert_to_numpy(variable)[0]) < 1


@pytest.mark.parametrize("name", registry.SHIPPED["optimizers"])
def test_hyperparameters_arrive(name):
    keywords = [
        p
        for p in inspect.signature(registry.resolve("optimizers", name)).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    ]
    others = {
        "weight_decay_mode": "coupled",
        "epsilon_placement": "hat",
        "state_dtype": "float64",
        "sparse_updates": "lazy",
        "exclude_from_decay": ["bias"],
    }
    arguments = {p.name: (not p.default) if isinstance(p.default, bool) else 0.125 for p in keywords}
    arguments |= {key: value for key, value in others.items() if key in arguments}
    config = make(name, **arguments).get_config()
    assert {key: config[key] for key in arguments} == arguments


def test_lazy_rows_and_accumulation_exclude_one_another():
    with pytest.raises(ToolkitError, match="optimizer.sparse_updates is lazy, but optimizer.gradient_accumulation"):
        make(sparse_updates="lazy", options={"gradient_accumulation_steps": 2})


def test_momentum_is_sgd_with_momentum():
    assert make("momentum").momentum == 0.9
    assert make("sgd").momentum == 0


def test_accumulation_goes_to_adam_alone():
    assert make(options={"gradient_accumulation_steps": 4}).gradient_accumulation_steps == 4
    with pytest.raises(ToolkitError, match="gradient_accumulation_steps is 4, but 'sgd' would lose"):
        make("sgd", options={"gradient_accumulation_steps": 4})
    assert make("sgd", options={"gradient_accumulation_steps": 1}).gradient_accumulation_steps is None


def test_two_ways_of_clipping_are_refused():
    with pytest.raises(ToolkitError, match="optimizer.clipnorm and optimizer.clipvalue exclude one another"):
        make(options={"clipnorm": 1.0, "clipvalue": 1.0})


def test_a_warm_up_as_long_as_the_run_is_refused():
    with pytest.raises(ToolkitError, match=r"optimizer.schedule.warmup_steps is 100, but the whole run has 100 steps"):
        make(schedule=("cosine", {"warmup_steps": 100}))


@pytest.mark.parametrize("arguments", [{}, {"every": 3, "boundaries": (4,)}])
def test_step_wants_one_of_two(arguments):
    with pytest.raises(ToolkitError, match="optimizer.schedule.every .* give one of the two"):
        make(schedule=("step", arguments))


def test_step_boundaries_must_rise():
    with pytest.raises(ToolkitError, match=r"optimizer.schedule.boundaries is \[4, 3\]: write rising steps"):
        make(schedule=("step", {"boundaries": (4, 3)}))


def test_the_given_mappings_stay_as_they_are():
    arguments, options = {"learning_rate": 0.1}, {"gradient_accumulation_steps": 1}
    build("adam", arguments, schedule=("constant", {}), options=options, total_steps=5)
    assert arguments == {"learning_rate": 0.1}
    assert options == {"gradient_accumulation_steps": 1}


def test_naming_an_optimizer_does_not_load_keras():
    program = (
        "import sys, toolkit.optimizers; from toolkit import registry\n"
        "for kind in ('optimizers', 'schedules'):\n"
        "    for name in registry.SHIPPED[kind]: registry.resolve(kind, name)\n"
        "assert not {'keras', 'tensorflow', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_package_offers_adam_alone():
    import toolkit.optimizers

    with pytest.raises(AttributeError, match="no attribute 'Adamm'"):
        toolkit.optimizers.Adamm  # noqa: B018
