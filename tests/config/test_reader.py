"""YAML means what a reader sees, and a file that means nothing is told, never a traceback."""

# ruff: noqa: E501 - messages stand here as people see them
from __future__ import annotations

import math
import random
import time

import pytest

from toolkit.config.loading import load
from toolkit.config.nodes import Problems
from toolkit.config.reader import MAX_BYTES, MAX_DEPTH, read_text, resolve_scalar
from toolkit.errors import ToolkitError

# YAML 1.2.2, section 10.3.2 (core schema), and the traps of YAML 1.1 that it closed.
SCALARS = {
    "": None,
    "null": None,
    "Null": None,
    "~": None,
    "true": True,
    "FALSE": False,
    "0": 0,
    "-19": -19,
    "+12": 12,
    "010": 10,
    "0o10": 8,
    "0x1F": 31,
    "0o14": 12,
    "0.": 0.0,
    "-0.0": -0.0,
    ".5": 0.5,
    ".001": 0.001,
    "+12e03": 12000.0,
    "-2E+05": -200000.0,
    "1e-3": 0.001,
    "1E5": 100000.0,
    "3e-4": 0.0003,
    ".inf": math.inf,
    "-.Inf": -math.inf,
    "+.INF": math.inf,
    # text, all of it
    "no": "no",
    "yes": "yes",
    "on": "on",
    "OFF": "OFF",
    "n": "n",
    "2:30": "2:30",
    "1_000": "1_000",
    "0b11": "0b11",
    "0o8": "0o8",
    "-0x1F": "-0x1F",
    "2024-01-31": "2024-01-31",
    "1e": "1e",
    "e3": "e3",
    ".": ".",
    "1.2.3": "1.2.3",
    "nan": "nan",
    "inf": "inf",
    "tRue": "tRue",
    "٣": "٣",  # a digit to Python, not to YAML
    "=": "=",
}


@pytest.mark.parametrize(("text", "value"), SCALARS.items())
def test_scalar_means_what_yaml_1_2_says(text: str, value: object):
    found = resolve_scalar(text)

    assert type(found) is type(value)
    assert found == value


@pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
def test_nan_is_a_number(text: str):
    assert math.isnan(resolve_scalar(text))


def test_quotes_make_text_of_anything():
    assert read_text("'1e-3'", "f", Problems()).value == "1e-3"
    assert read_text('"true"', "f", Problems()).value == "true"
    assert read_text("|\n  12\n", "f", Problems()).value == "12\n"


def test_every_value_and_key_knows_its_line():
    root = read_text("# head\na: 1\n\nb:\n  c:\n    - x\n    - {d: y,\n       e: z}\n", "f.yaml", Problems())

    def place(*way: str | int) -> str:
        return str(root.find(way)[0].place)

    assert place("a") == "f.yaml:2"
    assert str(root.find(["b"])[0].key_place) == "f.yaml:4"
    assert place("b") == "f.yaml:5"
    assert place("b", "c", 0) == "f.yaml:6"
    assert place("b", "c", 1, "d") == "f.yaml:7"
    assert place("b", "c", 1, "e") == "f.yaml:8"


# What is refused, with the whole message.
REFUSED = {
    "": "c.yaml:1: the file is empty, allowed: a mapping with the keys seed, data, model, optimizer, training",
    "# only a comment\n": "c.yaml:1: the file is empty, allowed: a mapping with the keys seed, data, model, optimizer, training",
    "- 1\n": "c.yaml:1: found [1], allowed: a mapping with the keys seed, data, model, optimizer, training",
    "just text": "c.yaml:1: found 'just text', allowed: a mapping with the keys seed, data, model, optimizer, training",
    "seed: 1\n---\nseed: 2\n": "c.yaml:2: a second document begins here: keep one document per file",
    "%YAML 1.1\n---\nseed: 1\n": "c.yaml:1: found a directive (%YAML, %TAG): remove it",
    "seed: 1\nmodel: [\n": "c.yaml:3: model: this is not YAML (while parsing a flow node expected the node content, but "
    "found '<stream end>'): check indentation, colons and quotes",
    "seed: 1\n\tmodel: x\n": "c.yaml:2: this is not YAML (while scanning for the next token found character '\\t' that "
    "cannot start any token): check indentation, colons and quotes",
    "? [a, b]\n: 1\n": "c.yaml:1: found a list or a mapping as a key, allowed: a word",
    "seed: 1\nmodel: a\x07b\n": "c.yaml:2: found the control character U+0007: remove it",
    "seed: 1\nmodel: a\u2028b\n": "c.yaml:2: found the control character U+2028: remove it",
    'seed: "\\UFFFFFFFF"': "c.yaml:1: seed: this is not YAML (Python int too large to convert to C int): check escapes and "
    "directives",
}


@pytest.mark.parametrize("text", REFUSED)
def test_text_that_is_no_config_is_one_sentence(configs, text: str):
    assert configs.problems(text) == [REFUSED[text]]


# Read to the end all the same; beside a config that is right otherwise there is this one problem.
MARKED = {
    "seed: !!int 3": "c.yaml:8: seed: found the tag !!int: remove it; tags are not allowed",
    "seed: ! 3": "c.yaml:8: seed: found the tag !: remove it; tags are not allowed",
    "seed: !!python/object/apply:os.system [true]": "c.yaml:8: seed: found the tag !!python/object/apply:os.system: remove it; "
    "tags are not allowed",
    "seed: &x 3": "c.yaml:8: seed: found the anchor &x: remove it; `extends` shares values between files",
    "seed: *x": "c.yaml:8: seed: found the alias *x: write the value out, or share it through `extends`",
    "<<: {seed: 1}": "c.yaml:8: found the merge key <<: remove it; `extends` shares values between files",
    "7: 1": "c.yaml:8: found the key 7, allowed: a word, not a number",
    "true: 1": "c.yaml:8: found the key true, allowed: a word, not a number",
    "seed: 1\nseed: 2": "c.yaml:9: seed: the key stands here a second time (first in line 8): remove one of the two",
    f"seed: {'9' * 5000}": "c.yaml:8: seed: found a number of 5000 digits, allowed: at most 400",
    "seed: 0x" + "f" * 5000: "c.yaml:8: seed: found a number of 5002 digits, allowed: at most 400",
    'name: "a\\0b"': "c.yaml:8: name: found 'a\\x00b', allowed: text without control characters",
    'name: "\\ud800"': "c.yaml:8: name: found '\\ud800', allowed: text without control characters",
}


@pytest.mark.parametrize("line", MARKED)
def test_what_yaml_can_do_and_a_config_may_not_is_told(configs, complete: str, line: str):
    assert configs.problems(f"{complete}{line}\n") == [MARKED[line]]


def test_bytes_that_are_not_utf_8_are_told_with_their_line(configs):
    assert configs.problems(b"seed: 1\nname: caf\xe9\n") == [
        "c.yaml:2: found the byte 0xe9, which is not UTF-8: save the file as UTF-8"
    ]
    assert "is not UTF-8" in configs.problems("seed: 1\n".encode("utf-16"))[0]


def test_byte_order_mark_is_no_part_of_the_first_key(configs, complete: str):
    assert configs.load(b"\xef\xbb\xbf" + f"seed: 7\n{complete}".encode()).seed == 7


def test_windows_line_ends_do_not_change_the_line_numbers(configs, complete: str):
    text = f"{complete}seed: -1\n".replace("\n", "\r\n")

    assert configs.problems(text) == ["c.yaml:8: seed: found -1, allowed: a whole number from 0 to 2147483647"]


def test_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(
        ToolkitError, match=r"^nowhere.yaml: the file cannot be read \(No such file or directory\): check the path$"
    ):
        load("nowhere.yaml")
    with pytest.raises(ToolkitError, match=r"the file cannot be read \(Is a directory\)"):
        load(tmp_path)


# Each would take very long, or the whole memory, or Python's stack, in a reader that trusts what it reads.
BOMBS = {
    "aliases": "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: &d [*c, *c]\n" + "e: [*d, *d, *d]\n" * 50,
    "depth": "a: " + "[" * 100_000,
    "flow depth": "{a: " * 50_000,
    "block depth": "- " * 100_000,
    "keys inside keys": "? " * 100_000,
    "flow keys inside keys": "{" * 100_000,
    "values": "a: [" + "1," * 100_000 + "]",
    "keys": "".join(f"k{i}: 1\n" for i in range(20_000)),
    "size": "a: 1 # " + "x" * MAX_BYTES,
    "same key": "a: 1\n" * 40_000,
    "long key": "x" * 200_000 + ": 1",
    "long text": "a: '" + "x" * 200_000 + "'",
    "braces": "a: '" + "${" * 100_000 + "'",
    "tags": "a: " + "!" * 200_000,
    "long number": "a: " + "9" * 200_000,
    "version": "%YAML 1." + "9" * 5000 + "\n---\na: 1\n",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_defused_quickly_and_told_briefly(configs, name: str):
    configs.write(BOMBS[name])
    start = time.process_time()

    lines = configs.problems(BOMBS[name])

    assert time.process_time() - start < 20  # 0.5 s at most on a quiet machine; without the limits it is minutes
    assert len(lines) <= 101
    assert max(map(len, lines)) < 600


def test_allowed_depth_is_enough_for_any_config():
    nested = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    problems = Problems()

    read_text(nested, "f", problems)

    assert not problems


# Environment variables ------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "/data")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("TRICKY", "${HERE}: 1")
    monkeypatch.delenv("UNSET", raising=False)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("${HERE}", "/data"),
        ("${HERE}/cats", "/data/cats"),
        ("${HERE:elsewhere}", "/data"),
        ("${UNSET:elsewhere}/x", "elsewhere/x"),
        ("${EMPTY:elsewhere}", "elsewhere"),
        ("a${UNSET:}b", "ab"),
        ("'${UNSET:with space, and: colon}'", "with space, and: colon"),
        ("${HERE}${HERE}", "/data/data"),
        ("$${HERE}", "${HERE}"),
        ("$HERE", "$HERE"),
        ("${TRICKY}", "${HERE}: 1"),  # put in as it is, read no second time
        ("${UNSET:12}", "12"),  # text stays text
    ],
)
def test_environment_variables_come_in(configs, complete: str, written: str, meant: str):
    config = configs.load(complete.replace("path: pictures", f"path: {written}"))

    assert config.data.source.arguments["path"] == meant


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("${UNSET}", "the environment variable UNSET is not set: set it, or give a default, ${UNSET:…}"),
        ("${EMPTY}", "the environment variable EMPTY is not set: set it, or give a default, ${EMPTY:…}"),
        ("${HERE", "found '${HERE', allowed: ${NAME} or ${NAME:default}; a plain ${ is written $${"),
        ("${not a name}", "found '${not a name}', allowed: ${NAME} or ${NAME:default}; a plain ${ is written $${"),
    ],
)
def test_variable_that_cannot_come_in_is_told(configs, complete: str, written: str, told: str):
    assert configs.problems(complete.replace("path: pictures", f"path: {written}")) == [f"c.yaml:3: data.path: {told}"]


# Any bytes at all -----------------------------------------------------------------------------------------------------

SEED_TEXT = b"""\
# comment
seed: 3
data: {source: folder, path: "${HOME:x}/a", validation: .1, image_size: [8, 0x8]}
model:
  name: net
  filters:
    - 8
    - 16
  dropout: 1e-1
optimizer: {name: adam, schedule: {name: cosine, warmup_steps: 5}}
training: {epochs: 2, freeze: ['a', "b\\n"], early_stopping: {monitor: val_loss}}
"""
PIECES = [
    b"!!",
    b"&a ",
    b"*a",
    b"<<: ",
    b"${",
    b"}",
    b"{",
    b"[",
    b"]",
    b"- ",
    b"? ",
    b": ",
    b"\n",
    b"  ",
    b"\t",
    b"|\n",
    b"%YAML 1.1\n---\n",
]
PIECES += [
    b"---\n",
    b"...\n",
    b"'",
    b'"',
    b"\\x",
    b"\\U",
    b"#",
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"9" * 5000,
    b".nan",
    b"null",
    b"extends: c.yaml\n",
]


def mutated(rng: random.Random) -> bytes:
    text = bytearray(SEED_TEXT)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(5):
            case 0:
                text[at:at] = rng.choice(PIECES)
            case 1:
                del text[at : at + rng.randint(1, 12)]
            case 2:
                text[at : at + 1] = bytes([rng.randrange(256)])
            case 3:
                other = rng.randrange(len(text) + 1)
                text[at:at] = text[other : other + rng.randint(1, 40)]
            case 4:
                lines = bytes(text).split(b"\n")
                rng.shuffle(lines)
                text = bytearray(b"\n".join(lines))
    return bytes(text)


def test_no_bytes_bring_a_traceback(configs):
    rng = random.Random(0)
    judged = 0  # files that were read to their end
    assert configs.load(SEED_TEXT).seed == 3
    for number in range(600):
        path = configs.write(mutated(rng))
        start = time.process_time()
        told = "c.yaml: valid"
        try:
            load(path)
        except ToolkitError as error:
            told = str(error)
        assert all(line.startswith(("c.yaml:", "… and ")) for line in told.split("\n")), f"{number}: {told}"
        judged += any(words in told for words in ("valid", "there is no such key", "allowed"))
        assert time.process_time() - start < 1
    assert 100 < judged < 500, "mutations too strong or too weak test one half of the code alone"


def test_no_random_bytes_bring_a_traceback(configs):
    rng = random.Random(1)
    alphabet = b"ab1.:-?[]{},#&*!|>'\"%@`~ \n\t\\$\x00\x85\xc3\xff"
    for _ in range(400):
        configs.problems(bytes(rng.choices(alphabet, k=rng.randint(0, 60))))
