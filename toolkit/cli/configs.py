"""The verbs of configs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from toolkit.cli.options import set_option


@click.group()
def configs() -> None:
    """List, show, copy and check configs."""


@configs.command("ls")
def list_configs() -> None:
    """List the shipped configs."""
    from toolkit.config.shipped import shipped_configs, summary

    shipped = shipped_configs()
    width = max(map(len, shipped), default=0)
    for name, path in shipped.items():
        click.echo(f"{name:<{width}}  {summary(path)}")


@configs.command()
@click.argument("config")
@click.option("--resolved", is_flag=True, help="The complete config: what it extends, --set, and every default.")
@set_option
def show(config: str, resolved: bool, overrides: Sequence[str]) -> None:
    """Print CONFIG, a YAML file or the name of a shipped config."""
    from toolkit.config import load
    from toolkit.config.shipped import find_config, read_config

    if overrides and not resolved:
        raise click.UsageError("--set changes only what --resolved prints: add --resolved.")
    path = find_config(config)
    click.echo(load(path, overrides).to_yaml() if resolved else read_config(path), nl=False)


@configs.command()
@click.argument("name")
@click.argument("destination", required=False, type=click.Path(path_type=Path))
def copy(name: str, destination: Path | None) -> None:
    """Copy the shipped config NAME, to DESTINATION or the current folder; never overwrites."""
    from toolkit.config.shipped import copy_config

    for path in copy_config(name, destination):
        click.echo(path)


@configs.command()
@click.argument("files", nargs=-1, required=True, metavar="CONFIG…")
def validate(files: Sequence[str]) -> None:
    """Check each CONFIG, a YAML file or the name of a shipped config, and tell every problem."""
    from toolkit.config.loading import valid_configs

    for path in valid_configs(files):
        click.echo(f"{path}: valid")


@configs.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of a config."""
    from toolkit.config.json_schema import schema_text

    click.echo(schema_text(), nl=False)
