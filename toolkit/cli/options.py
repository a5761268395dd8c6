"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def backend_option(command: F) -> F:
    """`--backend`: another one than the run was trained with."""
    return click.option(
        "--backend",
        type=click.Choice(["tensorflow", "jax", "torch"]),
        help="What Keras computes with; without it what the run was trained with.",
    )(command)


def beam_option(command: F) -> F:
    """`--beam-width` of speech to text."""
    return click.option(
        "--beam-width",
        type=click.IntRange(1, 1000),
        default=1,
        show_default=True,
        help="Of speech to text: beginnings of a text that are followed while it is decoded; 1 is greedy.",
    )(command)


def set_option(command: F) -> F:
    """`--set KEY=VALUE`: values that win over the file."""
    return click.option(
        "--set",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        help="A value that wins over the file, as in optimizer.learning_rate=3e-4; VALUE is YAML. Repeatable.",
    )(command)
