"""The console command: each verb parses and makes one call.

Nothing heavy is imported before a verb needs it, so that `--help` and completion answer at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

import toolkit
from toolkit.cli.configs import configs
from toolkit.cli.explain import look
from toolkit.cli.studies import reproduce, verify_resume
from toolkit.cli.training import evaluate, predict, train
from toolkit.errors import ToolkitError

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: 0 done, 2 a wrong request, 1 a run that failed, 130 stopped by Ctrl-C."""
    _open_closed_streams()
    sys.exit(_run(arguments))


def _open_closed_streams() -> None:
    """Lead standard streams that were closed (`2>&-`) to nowhere, or the first files opened would stand in for them."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
            setattr(sys, name, os.fdopen(opened, "r" if descriptor == 0 else "w"))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        # Not standalone: click would answer Ctrl-C with 1, which is a failed run's.
        code = cli.main(args=arguments, prog_name="toolkit", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return INTERRUPTED
    except ToolkitError as error:
        _print_error(error)
        return error.exit_code
    return code if isinstance(code, int) else 0


def _print_error(error: ToolkitError) -> None:
    from rich.console import Console
    from rich.text import Text

    from toolkit.runs.trust import shown

    console = Console(stderr=True)
    console.print(Text(shown(error, lines=True), style="red"), soft_wrap=True)  # it may name files of others


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(toolkit.__version__, package_name="toolkit")
def cli() -> None:
    """Train, evaluate and use Keras models from one YAML file."""


for _command in (train, evaluate, predict, look, verify_resume, reproduce, configs):
    cli.add_command(_command)
