"""The verbs that look inside a run or a config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from toolkit.cli.options import set_option


@click.command()
@click.argument("config")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="The PNG of the contact sheet, a new file; without it NAME-check.png here, which is replaced.",
)
@set_option
def check(config: str, output: Path | None, overrides: Sequence[str]) -> int:
    """Look at CONFIG's data, model and pace before you train, a verdict per line; exit code 1 where something is wrong.

    CONFIG is a YAML file or the name of a shipped config.
    """
    from toolkit.config import load
    from toolkit.config.shipped import find_config
    from toolkit.explain.verdict import tell_check

    return tell_check(load(find_config(config), overrides), output=output)
