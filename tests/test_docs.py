"""Every page does what it says: Python blocks run, what stands under them is what they print, and commands exist."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from toolkit.cli import cli
from toolkit.config import load
from toolkit.config.shipped import shipped_configs

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((REPOSITORY / "docs").glob("*.md")))]

# What a page takes for granted, run before the block that holds the line.
BEFORE = {
    ("docs/adam.md", "model.compile(optimizer=Adam(learning_rate=1e-3)"): """
import keras
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
""",
    ("docs/adam.md", "load_torch_state(optimizer, theirs.state_dict()"): """
import torch
torch_model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
theirs = torch.optim.AdamW(torch_model.parameters(), lr=1e-3)
torch_model(torch.ones(1, 4)).sum().backward()
theirs.step()
""",
    ("docs/adam.md", "load_optax_state(optimizer, opt_state"): """
import jax
import optax
ones = jax.numpy.ones
params = {"1": {"bias": ones(3), "kernel": ones((4, 3))}, "2": {"bias": ones(2), "kernel": ones((3, 2))}}
tx = optax.adam(1e-3)
_, opt_state = tx.update(params, tx.init(params))
""",
    ("docs/adam.md", "theirs.save_own_variables(state)"): """
theirs = keras.optimizers.Adam(1e-3)
theirs.build(model.trainable_variables)
""",
}
# Blocks that cannot run here, by a line of theirs, each with the reason.
NOT_RUN: dict[tuple[str, str], str] = {}

# Programs of others, about which nothing is checked.
OTHERS = {"docker", "source", "pip"}


class Block(NamedTuple):
    language: str
    text: str
    follows: str  # the language of the block before, if nothing but blank lines stands between them


def blocks_of(page: str) -> list[Block]:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    found, end, before = [], 0, ""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        found.append(Block(match[1], match[2], "" if text[end : match.start()].strip() else before))
        end, before = match.end(), match[1]
    return found


def marker(table: dict[tuple[str, str], str], page: str, block: Block) -> str | None:
    return next((text for (where, line), text in table.items() if where == page and line in block.text), None)


# --- Python -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.language == "python" for b in blocks_of(page))])
def test_python_blocks_run_and_print_what_stands_under_them(page: str):
    """One after the other, as a reader would type them; a `text` block that follows at once is what was printed."""
    names: dict[str, object] = {"__name__": page}
    printed = ""
    for block in blocks_of(page):
        if block.language == "python" and marker(NOT_RUN, page, block) is None:
            printed = run((marker(BEFORE, page, block) or "") + block.text, page, names)
        elif block.language == "text" and block.follows == "python":
            assert block.text == printed


def run(code: str, page: str, names: dict[str, object]) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, page, "exec"), names)  # noqa: S102 - our own pages
    return output.getvalue()


@pytest.mark.parametrize(("page", "line"), [*BEFORE, *NOT_RUN])
def test_what_is_known_of_a_block_is_of_one_that_is_there(page: str, line: str):
    assert sum(line in block.text for block in blocks_of(page) if block.language == "python") == 1


# --- commands ---------------------------------------------------------------------------------------------------------


def commands_of(page: str) -> Iterator[str]:
    """Those in blocks, and those within a line that begin like one of ours."""
    for block in blocks_of(page):
        lines = block.text.replace("\\\n", " ").splitlines()
        if block.language == "sh":
            yield from (line for line in lines if line.strip() and not line.startswith("#"))
        elif block.language in ("console", "text"):
            yield from (line.removeprefix("$ ") for line in lines if line.startswith("$ "))
        elif not block.language:
            yield from (line for line in lines if re.match(r"(?:[A-Z_]+=\S+ )*(?:python|toolkit|make|bash) ", line))
    prose = re.sub(r"^```.*?^```$", "", (REPOSITORY / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`((?:toolkit|python|make|bash) [^`]+)`", prose)


def fault(command: str) -> str | None:
    """What is wrong with a command."""
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    program, *rest = words
    if program in OTHERS:
        return None
    if program == "toolkit":
        return verb_fault(rest)
    if program == "python":
        return python_fault(rest)
    if program == "make":
        targets = [word for word in rest if "=" not in word]
        known = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        return next((f"no target {target}" for target in targets if target not in known), None)
    if program == "bash":
        return None if (REPOSITORY / rest[0]).exists() else f"no {rest[0]}"
    return f"no program {program}"


def verb_fault(words: list[str]) -> str | None:
    command: click.Command = cli
    while isinstance(command, click.Group):
        if not words or words[0].startswith("--"):
            return None  # `toolkit --help`, which every group has
        if words[0] not in command.commands:
            return f"no verb {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    options = {name: option for option in command.params for name in option.opts if isinstance(option, click.Option)}
    plain, sets, left = [], [], iter(words)
    for word in left:
        name, _, value = word.partition("=")
        if not word.startswith("--"):
            plain.append(word)
        elif name not in (*options, "--help"):
            return f"{command.name} has no {name}"
        elif name in options and not options[name].is_flag:
            value = value or next(left, "")
            sets += [value] if name == "--set" else []
    return config_fault(command.name or "", plain, sets)


def config_fault(verb: str, plain: list[str], sets: list[str]) -> str | None:
    """Configs and recipes that are named must be shipped; `my.yaml` and `CONFIG` are a person's own."""
    if verb not in ("train", "verify-resume", "show", "copy", "validate", "reproduce") or not plain:
        return None
    named = plain if verb in ("validate", "reproduce") else plain[:1]
    for name in named:
        if name.startswith("configs/") and not (REPOSITORY / name).exists():
            return f"no {name}"
        shipped = Path(name).stem if name.startswith("configs/") else name
        if re.fullmatch(r"[a-z0-9_]+", shipped):
            if shipped not in shipped_configs():
                return f"no config {shipped}"
            load(shipped_configs()[shipped], [text for text in sets if "=" in text and "…" not in text])
    return None


def python_fault(words: list[str]) -> str | None:
    if words[:2] == ["-m", "pytest"]:
        paths = [word for word in words[2:] if "/" in word]
        return next((f"no {path}" for path in paths if not (REPOSITORY / path.partition("::")[0]).exists()), None)
    script = REPOSITORY / words[0]
    if not script.exists():
        return f"no {words[0]}"
    source = script.read_text(encoding="utf-8")
    if "toolkit.cli" in source:  # a thin one, of the verb that it is called by
        return verb_fault([script.stem.replace("_", "-"), *words[1:]])
    flags = [word.partition("=")[0] for word in words[1:] if word.startswith("--")]
    return next((f"{words[0]} has no {flag}" for flag in flags if flag not in source), None)


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist_with_their_flags_configs_and_keys(page: str):
    found = [(command, fault(command)) for command in commands_of(page)]

    assert [pair for pair in found if pair[1]] == []


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("toolkit trian quickstart", "no verb trian"),
        ("toolkit configs list", "no verb list"),
        ("toolkit train quickstart --epochs 3", "train has no --epochs"),
        ("toolkit train quickest", "no config quickest"),
        ("python scripts/train.py quickest", "no config quickest"),
        ("python scripts/benchmark_watch.py --fast", "scripts/benchmark_watch.py has no --fast"),
        ("python scripts/none.py", "no scripts/none.py"),
        ("python -m pytest tests/none", "no tests/none"),
        ("make tests", "no target tests"),
        ("tolkit train", "no program tolkit"),
    ],
)
def test_a_stale_command_is_found(command: str, expected: str):
    assert fault(command) == expected
