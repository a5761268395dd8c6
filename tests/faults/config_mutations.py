"""What can be wrong with a config file: mutations of its text, of its bytes, and of `--set` arguments.

Each takes a `random.Random`, the only source of chance. They work on text alone, line by line, as an editor or a broken
program would; what YAML makes of the result is not their business.
"""

# ruff: noqa: SIM905 - lists of many short values stand here as words
from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

from toolkit.config.json_schema import json_schema
from toolkit.config.shipped import shipped_configs

Random = random.Random

# --- values: one per line or word -------------------------------------------------------------------------------------

HUGE = """1e400 -1e400 1e99999999999999999999 1e308 1.7976931348623157e308 1e-400 5e-324 0e0 -0 -0.0 +0 1. .5 1e5 12e03
.inf -.inf +.INF .nan .NaN 0x7fffffff 0o777 0b1 1_000 1,000 2:30 2147483647 2147483648 9223372036854775808 ٣""".split()
HUGE += ["1" + "0" * 400, "1" + "0" * 399, "9" * 5000, "0x" + "f" * 300, "0x" + "f" * 9000, "0." + "3" * 390]

SCALARS = ["", "|\n", *r"""
null ~ true False yes no 0 1 -1 0.5 1.0 3 text '' '1' "0.1" [] {} [1] {a:1} [null] [,] 2024-01-31 é😀 ' " ` @a %a ?a
"\u202e" "\n" "a\tb" "\x85" "\uD800" "\UFFFFFFFF" "\q" "\0" [1,[2,[3]]] {} [[]] *x &x
""".split(), "'x y'", "? a", "- a", "{a: 1}", "[{a: 1}]"]  # fmt: skip

TAGS = """
!!python/object/apply:os.system ['touch owned']
!!python/object/new:os.system ['touch owned']
!!python/object/apply:subprocess.Popen [['touch', 'owned']]
!!python/name:os.system
!!python/module:antigravity
!!binary aGFsbG8=
!!set {a}
!!omap [a: 1]
!!timestamp 2024-01-31
!!str 3
!!int x
!!float .5
!!null ''
!local 1
! 3
!<tag:a> 3
!a%ff 1
!!%e2%82%ac 1
""".strip().splitlines()
TAGS += ["!" + "x" * 5000 + " 3"]

VARIABLES = """${FUZZ_TEXT} ${FUZZ_LONG} ${FUZZ_LINES} ${FUZZ_SELF} ${FUZZ_BELL} ${FUZZ_NUMBER} ${FUZZ_EMPTY}
${FUZZ_EMPTY:x} ${FUZZ_TAG} ${FUZZ_BYTES} ${FUZZ_UNSET} ${FUZZ_UNSET:} ${FUZZ_UNSET:${FUZZ_TEXT}} $${x} ${ ${}
${:} a$${${b """.split()
VARIABLES += ["${a b}", "$" * 9000, "${" * 9000, "${FUZZ_LONG}" * 100]

# Files are those of `fuzz_configs.prepare`.
EXTENDED = """
parent.yaml child.yaml circle_1.yaml to_case.yaml to_zero.yaml to_nothing.yaml wrong.yaml folder/inner.yaml
../outside.yaml chain_0.yaml chain_20.yaml heavy_0.yaml heavy_8.yaml padded_0.yaml case.yaml ./case.yaml
folder/../case.yaml nowhere.yaml huge.yaml pipe link_to_pipe link_to_link socket folder . .. / /dev/zero /dev/null
/dev/random /dev/stdin /dev/tty /dev/full /proc/self/mem /proc/self/environ /proc/self/maps /proc/kmsg /proc/self/fd/0
/etc/passwd ~/.profile file:///etc/passwd http://localhost:1/x.yaml
"new\\nline.yaml" "a\\0b" "\\ud800" "\\x1b[31m" '' null 3 [parent.yaml] {a:1}
"${FUZZ_TEXT}" "${FUZZ_LONG}" "${FUZZ_BYTES}" "${FUZZ_UNSET:parent.yaml}" "${FUZZ_PIPE}"
""".split()
EXTENDED += ["x" * 300, "x" * 100_000, "./" * 3000 + "parent.yaml", "folder/../" * 390 + "parent.yaml", "a/" * 2000]
EXTENDED += ["folder/../" * 390 + "to_nothing.yaml", "folder/../" * 390 + "wrong.yaml", "!!str parent.yaml"]

# --- what a config may hold -------------------------------------------------------------------------------------------

_KEY = re.compile(r"^( *)(\w+):", re.MULTILINE)
_SCALAR = re.compile(r"(?:(?<=: )|(?<=\[)|(?<=, ))[\w$.'\"-][^,\]}\n#]*")

BASES = {
    name: re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for name, path in shipped_configs().items()
}


def _known_keys() -> dict[str, dict[str, Any]]:
    """All keys of all components, dotted, with their JSON Schema."""
    root = json_schema()
    found: dict[str, dict[str, Any]] = {}

    def walk(schema: Any, way: str) -> None:
        if not isinstance(schema, dict):
            return
        if "$ref" in schema:
            schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
        for inner in [*schema.get("allOf", ()), *schema.get("anyOf", ()), schema.get("then")]:
            walk(inner, way)
        for key, inner in schema.get("properties", {}).items():
            name = f"{way}.{key}".strip(".")
            if isinstance(inner, dict):
                found.setdefault(name, inner)
            walk(inner, name)

    walk(root, "")
    return found


KEYS = _known_keys()
OPTIONS = [key for key in KEYS if key.count(".") == 1 and not key.endswith((".name", ".source"))]


def sample(schema: dict[str, Any], rng: Random) -> str:
    """A value of about what `schema` allows, at its edges and just beyond them too."""
    if "anyOf" in schema:
        return sample(rng.choice(schema["anyOf"]), rng)
    if "enum" in schema:
        return str(rng.choice(schema["enum"]))
    match schema.get("type"):
        case "integer":
            low, high = schema.get("minimum", 0), schema.get("maximum", 100)
            return str(rng.choice([low, low + 1, rng.randint(low, high), rng.randint(1, 64), high, high + 1, low - 1]))
        case "number":
            return rng.choice(["0", "1", "0.5", "1e-3", "1e-30", "0.999999", "-0.0", "1e6", "1e13", repr(rng.random())])
        case "boolean":
            return rng.choice(["true", "false"])
        case "array":
            entries = schema.get("prefixItems") or [schema.get("items", {})] * rng.randint(0, 3)
            return f"[{', '.join(sample(entry, rng) for entry in entries)}]"
        case "string":
            return rng.choice(
                ["text", "'a: b'", '"\\n"', '"é \\t"', "'#'", "train[:80%]", "'$${X}'", '"\\uFEFF"', "010x"]
            )
        case "null":
            return "null"
    return rng.choice(SCALARS)


# --- mutations of the text --------------------------------------------------------------------------------------------


def _replaced(text: str, rng: Random, value: str) -> str:
    """`text` with one of its scalars replaced."""
    spans = [match.span() for match in _SCALAR.finditer(text)]
    if not spans:
        return f"{text}seed: {value}\n"
    start, end = rng.choice(spans)
    return text[:start] + value + text[end:]


def _added(text: str, rng: Random, line: str) -> str:
    """`text` with one more `line`, at the top level or inside a section."""
    heads = list(re.finditer(r"^\w+:\n", text, re.MULTILINE))
    if not heads or rng.random() < 0.4:
        return f"{text}{line}\n"
    at = rng.choice(heads).end()
    return f"{text[:at]}  {line}\n{text[at:]}"


def _put(text: str, rng: Random, value: str) -> str:
    if rng.random() < 0.6:
        return _replaced(text, rng, value)
    return _added(text, rng, f"{rng.choice([*KEYS, 'x']).rpartition('.')[2]}: {value}")


def known_option(text: str, rng: Random) -> str:
    """One more option in its section, in place of what stood there."""
    name = rng.choice(OPTIONS)
    section, _, key = name.partition(".")
    text = re.sub(rf"^  {key}:.*\n", "", text, flags=re.MULTILINE)
    return text.replace(f"{section}:\n", f"{section}:\n  {key}: {sample(KEYS[name], rng)}\n", 1)


def own_value(text: str, rng: Random) -> str:
    """Another value of the kind that the key wants."""
    lines = list(re.finditer(r"^  (\w+): .*", text, re.MULTILINE))
    if not lines:
        return text
    line = rng.choice(lines)
    schemas = [schema for key, schema in KEYS.items() if key.endswith(f".{line[1]}")]
    value = sample(rng.choice(schemas), rng) if schemas else "1"
    return f"{text[: line.start()]}  {line[1]}: {value}{text[line.end() :]}"


def rearranged(text: str, rng: Random) -> str:
    """The sections in another order: the same config."""
    parts = re.split(r"^(?=\w)", text, flags=re.MULTILINE)
    rng.shuffle(parts)
    return "".join(parts)


def commented(text: str, rng: Random) -> str:
    """Comments and empty lines: the same config, on other lines."""
    return "".join(
        rng.choice(["", "", "\n", "# é: [\n", "   \n", "  # !!x &y *z\n"]) + line
        for line in text.splitlines(keepends=True)
    )


def quoted(text: str, rng: Random) -> str:
    """A word in quotes: the same config, unless the word was no text."""
    quote = rng.choice(["'", '"'])
    words = list(re.finditer(r"(?<=: )\w+$", text, re.MULTILINE))
    word = rng.choice(words) if words else None
    return f"{text[: word.start()]}{quote}{word[0]}{quote}{text[word.end() :]}" if word else text


def deep(text: str, rng: Random) -> str:
    levels = rng.choice([5, 30, 33, 1000, 10_000])
    if rng.random() < 0.2:
        return text + "".join(" " * level + f"k{level}:\n" for level in range(min(levels, 600)))
    pairs = [("[", "]"), ("{a: ", "}"), ("{", "}"), ("[{a: ", "}]"), ("{? ", "}"), ("- ", ""), ("? ", "")]
    opening, closing = rng.choice(pairs)
    nested = opening * levels + "1" + closing * (levels if rng.random() < 0.7 else 0)
    return nested if rng.random() < 0.2 else _put(text, rng, nested)


def aliases(text: str, rng: Random) -> str:
    """Billion laughs, values inside themselves, and plain ones."""
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    laughs += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))
    value = rng.choice(
        ["&x [*x]", "&x {a: *x}", "*unknown", "&x 3", "&" + "x" * 5000 + " 1", "&x &y 1", "&x *x", "& 1"]
    )
    whole = [laughs + text, f"&all\n{text}more: *all\n", _added(text, rng, "&k key: 1\n*k : 2")]
    return rng.choice([*whole, *[_put(text, rng, value)] * 3])


def merge_key(text: str, rng: Random) -> str:
    value = rng.choice(["{seed: 1}", "[{seed: 1}, {seed: 2}]", "*x", "null", "1", "&x {a: 1}"])
    return _added(text, rng, f"{rng.choice(['<<', '!!merge <<', chr(34) + '<<' + chr(34)])}: {value}")


def documents(text: str, rng: Random) -> str:
    two = [f"{text}---\n{text}", f"---\n---\n{text}", f"{text}...\n%YAML 1.2\n---\na: 1\n", "---\n" * 5000]
    return rng.choice([*two, f"---\n{text}...\n", f"{text}--- # again\n", f"...\n{text}", f"--- {text}"])


def directive(text: str, rng: Random) -> str:
    heads = ["%YAML 1.1", "%YAML 1.2", "%YAML 9.9", "%YAML x", "%YAML 1." + "9" * 5000, "%YAML 1.1\n%YAML 1.1"]
    heads += ["%TAG ! tag:a,2000:", "%TAG !! !python/", "%TAG", "%FOO bar", "%"]
    return f"{rng.choice(heads)}\n---\n{text}"


def duplicate(text: str, rng: Random) -> str:
    lines = text.splitlines(keepends=True)
    start = rng.randint(0, len(lines))
    part = lines[start : start + rng.choice([1, 1, 3])]
    times = rng.choice([1, 1, 5000]) if len(text) < 5000 else 1
    return "".join([*lines[:start], *part * times, *lines[start:]])


def long_text(text: str, rng: Random) -> str:
    """A key, value or comment of up to 1 MB."""
    unit = rng.choice(["x", "é", "x ", "\\n", "\\u202e", "'' ", "$", "-", ": ", "#", "\\x00"])
    long = unit * (rng.choice([1_000_000, 240_000, 100_000, 5000]) // len(unit))
    shapes = ['"{}": 1', "{}: 1", 'k: "{}"', "k: {}", "k: |\n    {}", "k: >-\n    {}", "# {}", "k: [{}]", "? {}\n: 1"]
    shape = rng.choice(shapes).replace("k", rng.choice(["k", *OPTIONS]).rpartition(".")[2], 1)
    return _added(text, rng, shape.replace("{}", long))


def many(text: str, rng: Random) -> str:
    """Very many keys, values, lines or problems, just within the limits and beyond them."""
    count = rng.choice([200, 4_900, 20_000])
    match rng.randrange(8):
        case 0:
            return text + "".join(f"k{i}: {i}\n" for i in range(count))
        case 1:
            return text.replace("model:\n", "model:\n" + "".join(f"  filter{i}: 1\n" for i in range(count)))
        case 2:
            return _put(text, rng, f"[{', '.join(map(str, range(count)))}]")
        case 3:
            return _put(text, rng, f"[{rng.choice(['1,', 'x,', '[],', '{},']) * count}]")
        case 4:
            return _put(text, rng, "{" + "".join(f"k{i}: 1, " for i in range(count)) + "}")
        case 5:
            return text + rng.choice(["\n", "#\n", "# x\n", " \n"]) * count * 5
        case 6:
            return _added(text, rng, "freeze: [" + "1," * count + "]")
    return text + "".join(f"seed: !x &a{i} {i}\n" for i in range(count))


def unknown_key(text: str, rng: Random) -> str:
    """A key with a slip of the pen, or one that never was."""
    keys = list(_KEY.finditer(text))
    if not keys or rng.random() < 0.3:
        return _added(
            text, rng, f"{rng.choice(['unknown', 'Seed', 'é', '1', 'true', 'null', '', 'a.b', '__class__'])}: 1"
        )
    key = rng.choice(keys)
    at = rng.randrange(key.start(2), key.end(2))
    return text[:at] + rng.choice(["", "x", "_", "é", " ", '"']) + text[at + rng.randint(0, 1) :]


def odd_key(text: str, rng: Random) -> str:
    keys = (
        r""" "a\nb" "\x1b[31m" "\u202e" "\ud800" '${FUZZ_TEXT}' *x !!str '' = 'seed' "\x73eed" "\0" [a] {a} """.split()
    )
    keys += ["? [a]\n", "? {a: 1}\n", "*x ", "!!str a", "- a", "'a: b'", "9" * 5000, '"' + "\\t" * 50 + '"']
    return _added(text, rng, f"{rng.choice(keys)}: {rng.choice(SCALARS)}")


def removed(text: str, rng: Random) -> str:
    lines = text.splitlines(keepends=True)
    for _ in range(rng.choice([1, 1, 2, 5])):
        if lines:
            del lines[rng.randrange(len(lines))]
    return "".join(lines)


def swapped(text: str, rng: Random) -> str:
    """Two keys, or sections, change their places; their values stay."""
    keys = list(_KEY.finditer(text))
    if len(keys) < 2:
        return text
    one, other = sorted(rng.sample(keys, 2), key=lambda key: key.start())
    return "".join([text[: one.start(2)], other[2], text[one.end(2) : other.start(2)], one[2], text[other.end(2) :]])


def shuffled(text: str, rng: Random) -> str:
    lines = text.splitlines(keepends=True)
    rng.shuffle(lines)
    return "".join(lines)


def spliced(text: str, rng: Random) -> str:
    """The head of one config and the tail of another."""
    other = rng.choice(list(BASES.values())).splitlines(keepends=True)
    lines = text.splitlines(keepends=True)
    return "".join(lines[: rng.randint(0, len(lines))] + other[rng.randrange(len(other)) :])


def indented(text: str, rng: Random) -> str:
    lines = text.splitlines(keepends=True) or [""]
    at = rng.randrange(len(lines))
    lines[at] = rng.choice([" ", "  ", "\t", " \t", "\u00a0", ""]) + lines[at].lstrip(" ")
    return "".join(lines)


def extends(text: str, rng: Random) -> str:
    line = f"extends: {rng.choice(EXTENDED)}\n"
    shapes = [f"{line}{text}", line, f"{line}training: {{epochs: 2}}\n", f"{text}{line}{line}", f"model:\n  {line}"]
    return rng.choice(shapes)


TEXT: dict[str, Callable[[str, Random], str]] = {
    "known option": known_option,
    "own value": own_value,
    "rearranged": rearranged,
    "commented": commented,
    "quoted": quoted,
    "other type": lambda text, rng: _put(text, rng, rng.choice(SCALARS)),
    "huge number": lambda text, rng: _put(text, rng, rng.choice(HUGE)),
    "deep": deep,
    "aliases": aliases,
    "tag": lambda text, rng: _put(text, rng, rng.choice(TAGS)),
    "tagged root": lambda text, rng: f"{rng.choice(TAGS).split(' ')[0]}\n{text}",
    "duplicate": duplicate,
    "merge key": merge_key,
    "documents": documents,
    "directive": directive,
    "long text": long_text,
    "many": many,
    "unknown key": unknown_key,
    "odd key": odd_key,
    "removed": removed,
    "swapped": swapped,
    "shuffled": shuffled,
    "spliced": spliced,
    "indented": indented,
    "extends": extends,
    "extends, again": extends,  # there is more to try than elsewhere
    "variable": lambda text, rng: _put(text, rng, rng.choice(["", '"', "'"]) + rng.choice(VARIABLES)),
    "quoted variable": lambda text, rng: _put(text, rng, f'"{rng.choice(VARIABLES)}"'),
}

# --- mutations of the bytes -------------------------------------------------------------------------------------------

PIECES = [piece.encode() for piece in "!! &a *a <<: ${ } { [ ] - ? : ' \" \\x \\U | > # % @ ` ,,".split()]
PIECES += [b"\n", b"  ", b"\t", b"- ", b": ", b"|\n", b"---\n", b"...\n", b"\x85", b"\xe2\x80\xa8", b"\xc2\x85"]
NOT_UTF_8 = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82"]
BOM = b"\xef\xbb\xbf"


def _edited(raw: bytes, rng: Random, piece: bytes, cut: int = 0) -> bytes:
    at = rng.randint(0, len(raw))
    return raw[:at] + piece + raw[at + cut :]


def flipped(raw: bytes, rng: Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(rng.choice([1, 1, 3, 20])):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


BYTES: dict[str, Callable[[bytes, Random], bytes]] = {
    "flip": flipped,
    "insert": lambda raw, rng: _edited(raw, rng, rng.choice(PIECES)),
    "insert bytes": lambda raw, rng: _edited(raw, rng, rng.randbytes(rng.choice([1, 4, 200]))),
    "delete": lambda raw, rng: _edited(raw, rng, b"", rng.randint(1, 30)),
    "truncate": lambda raw, rng: raw[: rng.randint(0, len(raw))],
    "repeat": lambda raw, rng: _edited(raw, rng, raw[: rng.randint(0, len(raw))]),
    "not UTF-8": lambda raw, rng: _edited(raw, rng, rng.choice(NOT_UTF_8)),
    "BOM": lambda raw, rng: rng.choice([BOM + raw, BOM + BOM + raw, _edited(raw, rng, BOM)]),
    "NUL": lambda raw, rng: _edited(raw, rng, b"\0" * rng.choice([1, 1000])),
    "line ends": lambda raw, rng: raw.replace(b"\n", rng.choice([b"\r\n", b"\r\n", b"\r", b"\n\r"])),
    "UTF-16": lambda raw, rng: raw.decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-16-le", "utf-32"])),
    "noise": lambda raw, rng: rng.randbytes(rng.choice([0, 1, 100, 300_000])),
}

# --- mutations of --set arguments -------------------------------------------------------------------------------------

ODD_KEYS = r""". .. a seed.x model.filters.0 data.augmentation.flip training.freeze.a extends data.extends Seed << *a
model[0] __class__ a\nb""".split()
ODD_KEYS += ["", " seed ", "\udcff", "\x1b[31m", "a." * 5000 + "b", "x" * 100_000, "a\nb"]
ODD_OVERRIDES = [
    "",
    "=",
    "==",
    "seed",
    "=1",
    "seed=",
    "seed==1",
    "\udcff=\udcff",
    "a=\0",
    "seed=1\nmodel: x",
    "--set",
    "-",
]


def override(rng: Random) -> str:
    """One argument; every third is malformed."""
    key = rng.choice(list(KEYS))
    value = sample(KEYS[key], rng) if rng.random() < 0.7 else rng.choice(SCALARS + HUGE + TAGS + VARIABLES + EXTENDED)
    match rng.randrange(12):
        case 0:
            key = rng.choice(ODD_KEYS)
        case 1:
            value = "[" * rng.choice([3, 40, 10_000])
        case 2:
            return rng.choice(ODD_OVERRIDES)
        case 3:
            at = rng.randint(0, len(value))
            value = value[:at] + rng.choice(["\x07", "\udcff", "\u2028", "\n", ": ", "#", "'", "é"]) + value[at:]
        case 4:
            key = rng.choice(["data", "model", "optimizer", "training"])
            value = rng.choice(["{}", "null", "{name: sgd}", "{extends: pipe}", "[]", "x: 1"])
    return f"{key}={value}"
