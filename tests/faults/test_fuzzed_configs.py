"""Whatever a config file holds, it is a valid config or one clear error, soon and in little memory.

`fuzz_configs.py` makes the cases and runs them in processes of its own. What it once found stands below, case by case.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.config import load, load_run
from toolkit.errors import ToolkitError

FUZZER = Path(__file__).with_name("fuzz_configs.py")
SEED = 20261121


def fuzzed(*arguments: object) -> tuple[int, str]:
    """Exit code and output of the fuzzer."""
    command = [sys.executable, str(FUZZER), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=850, check=False)
    return done.returncode, done.stdout + done.stderr


def all_good(count: int) -> None:
    code, output = fuzzed("--seed", SEED, "--count", count)

    assert code == 0, output
    numbers = re.search(r"^(\d+) valid \+ (\d+) refused of (\d+) attempted, 0 failed; slowest", output, re.MULTILINE)
    assert numbers, output
    valid, refused, attempted = map(int, numbers.groups())
    assert valid + refused == attempted == count
    assert valid > 0.05 * count and refused > 0.5 * count, "mutations too strong or too weak test one half alone"


def test_500_mutated_configs_are_valid_or_refused_in_clear_words():
    all_good(500)


@pytest.mark.long
def test_5000_mutated_configs_are_valid_or_refused_in_clear_words():
    all_good(5000)


CASES = """
import hashlib, fuzz_configs
cases = repr([fuzz_configs.make_case({}, index) for index in range(90)])
print(hashlib.sha256(cases.encode()).hexdigest())
"""


def scripted(script: str, **environment: str) -> str:
    """What a Python script beside the fuzzer prints."""
    path = os.pathsep.join([str(FUZZER.parent), os.environ["PYTHONPATH"]])
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_cases_follow_from_seed_and_index():
    first = scripted(CASES.format(3), PYTHONHASHSEED="1")

    assert scripted(CASES.format(3), PYTHONHASHSEED="2") == first
    assert scripted(CASES.format(4)) != first


def test_one_case_is_shown():
    code, output = fuzzed("--seed", 3, "--index", 41)

    assert code == 0
    assert re.match(r"case.yaml, \d+ bytes:\n", output)
    assert re.search(r"^seed 3, index 41 \(\w+, .*\): (valid|refused): .", output, re.MULTILINE)


# Readers with a fault each; the fuzzer must see every one.
FAULTY = """
import os, signal, subprocess, time
import fuzz_configs as fuzzer
from toolkit.errors import RunFailed, ToolkitError

def told(text): raise ToolkitError(text)
def hang():
    while True: pass
def slow():
    started = time.process_time()
    while time.process_time() - started < 2 * fuzzer.SECONDS: pass
    told("case.yaml:1: seed: too late")
def device():
    with open("/dev/zero", "rb"): told("case.yaml:1: seed: opened a device")
def write():
    with open("new.txt", "w"): told("case.yaml:1: seed: wrote a file")
def shell():
    os.system("true")
    told("case.yaml:1: seed: ran a program")
def program():
    subprocess.run(["true"])
    told("case.yaml:1: seed: ran a program")
def module(): import antigravity_of_a_tag
def wrong_kind(): raise RunFailed("case.yaml:1: seed: as if the request were right")
def recursion(): recursion()

READERS = {
    "good": lambda: told("case.yaml:1: seed: found x, allowed: a whole number"),
    "bug": lambda: {}["seed"], "no config": lambda: None, "recursion": recursion, "memory": lambda: bytes(10**18),
    "hang": hang, "slow": slow, "device": device, "write": write, "shell": shell, "program": program, "module": module,
    "wrong kind": wrong_kind, "empty": lambda: told(""), "no file": lambda: told("something is wrong"),
    "two lines": lambda: told("case.yaml:1: a\\nb: wrong"), "terminal": lambda: told("case.yaml:1: \\x1b[31m"),
    "trace": lambda: told("case.yaml:1: Traceback (most recent"), "long": lambda: told("case.yaml:1: " + "x" * 2000),
    "many": lambda: told("case.yaml:1: x\\n" * 200 + "case.yaml:1: y"),
}
signal.signal(signal.SIGALRM, fuzzer._ring)
fuzzer.SECONDS, fuzzer.HANG = 0.1, 5
guard = fuzzer.Guard()
for name, reader in READERS.items():
    fuzzer.load = lambda *_: reader()
    print(name, "->", *fuzzer.judged(fuzzer.make_case(0, 0), guard)[:2])
"""


def test_fuzzer_sees_what_it_looks_for():
    found = dict(line.split(" -> ", 1) for line in scripted(FAULTY).splitlines() if " -> " in line)

    assert len(found) == 20
    assert found.pop("good").startswith("refused")
    assert {name: text for name, text in found.items() if not text.startswith("failed")} == {}
    assert "Hang" in found["hang"] and "took 0." in found["slow"] and "/dev/zero" in found["device"]


# What the fuzzer found ------------------------------------------------------------------------------------------------

COMPLETE = "data: {source: mnist_sample}\nmodel: {name: simple_cnn}\noptimizer: {name: adam}\n"


def refused(text: str, *overrides: str) -> str:
    Path("c.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ToolkitError) as caught:
        load("c.yaml", overrides)
    return str(caught.value)


def test_mapping_with_an_anchor_as_a_key_is_told():
    assert refused("model: {name: x, &a {b: *a}, c: 1}\n") == (
        "c.yaml:1: model: found a list or a mapping as a key, allowed: a word"
    )


@pytest.mark.parametrize("name", ["pipe", "link", "/dev/zero", "/dev/stdin", "folder"])
def test_only_a_regular_file_is_extended(name: str):
    os.mkfifo("pipe")  # opening it would wait for a writer for ever
    Path("link").symlink_to("pipe")
    Path("folder").mkdir()

    told = refused(f"extends: {name}\n")

    assert told == f"c.yaml:1: extends: {name!r} is a folder, device or pipe, allowed: the path of one YAML file"


def test_run_directory_with_a_pipe_for_its_config_holds_no_run():
    Path("run").mkdir()
    os.mkfifo("run/config.yaml")

    with pytest.raises(ToolkitError, match="run holds no run"):
        load_run("run")


def test_files_that_extend_one_another_share_the_limits_of_one():
    for number in range(4):
        keys = "".join(f"k{number}_{key}: 1\n" for key in range(2000))
        Path(f"keys_{number}.yaml").write_text(f"extends: keys_{number + 1}.yaml\n{keys}")
        Path(f"bytes_{number}.yaml").write_text(f"extends: bytes_{number + 1}.yaml\n#{'x' * 100_000}\n")

    # The third file is one too many: each holds 2,002 values, of 5,000; or 98 KiB, of 256.
    assert refused("extends: keys_0.yaml\n") == (
        "keys_2.yaml:994: k2_992: more than 5000 values stand up to here: a config is a short YAML file"
    )
    assert refused("extends: bytes_0.yaml\n") == (
        "bytes_2.yaml: more than 256 KiB stand in this file and those that extend it: a config is a short YAML file"
    )


def test_environment_variables_count_towards_the_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LONG", "x" * 100_000)

    told = refused(f"{COMPLETE}name: '{'${LONG}' * 20_000}'\n")  # 2 GB when put in

    assert told == "c.yaml:4: name: the environment variables bring more than 256 KiB: set shorter ones"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (r'"a\nb": 1', r"c.yaml:4: a\nb: there is no such key"),
        (r'"\u202e": 1', r"c.yaml:4: \u202e: there is no such key"),
        ("\u00a0seed: 1", r"c.yaml:4: \xa0seed: there is no such key"),
        (r'extends: "new\nline.yaml"', r"new\nline.yaml:1: seed: found 'x', allowed: a whole number"),
        (f"? {'x' * 100_000}\n: 1", f"c.yaml:4: {'x' * 59}…: there is no such key"),
        (f"seed: &{'x' * 5000} 1", f"c.yaml:4: seed: found the anchor &{'x' * 59}…: remove it"),
        (f"extends: {'x' * 100_000}", f"c.yaml:4: extends: there is no file '{'x' * 100}…{'x' * 99}'"),
    ],
)
def test_message_shows_what_cannot_be_seen_and_cuts_what_is_long(line: str, told: str):
    Path("new\nline.yaml").write_text("seed: x\n")

    message = refused(f"{COMPLETE}{line}\n")

    assert message.startswith(told)
    assert len(message) < 500 and message.isprintable()


def test_component_that_repeats_a_long_value_is_cut_short():
    message = refused(COMPLETE.replace("mnist_sample", f"tfds, name: mnist, test: [{'x, ' * 900}]"))

    assert message.startswith("c.yaml:1: data.test: found ['x', 'x'")
    assert len(message) < 600


def test_same_is_shown_of_set_arguments():
    assert refused(COMPLETE, "\udcff=1").startswith(r"--set \udcff=1: \udcff: there is no such key")


def test_config_that_is_taken_can_be_read_back():
    Path("c.yaml").write_text(COMPLETE.replace("simple_cnn}", f"simple_cnn, filters: [{'1,' * 4900}]}}"))
    config = load("c.yaml")
    Path("again.yaml").write_text(config.to_yaml())
    assert load("again.yaml").model == config.model

    # Within the limits itself, but not with its defaults; or with its text written out as the writer does it.
    told = (
        "c.yaml: with every default the config has more than 256 KiB or 5000 values: make its lists and texts shorter"
    )
    assert refused(COMPLETE.replace("simple_cnn}", f"simple_cnn, filters: [{'1,' * 4985}]}}")) == told
    assert refused(f"{COMPLETE}training: {{init_from: '{'ä' * 10}{chr(34) * 200_000}'}}\n") == told
