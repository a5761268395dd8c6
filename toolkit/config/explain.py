"""What a value was allowed to be, in plain words, and pydantic's findings turned into problems of the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema

from toolkit.config.nodes import Node, Problems, dotted
from toolkit.errors import did_you_mean

Schema = Mapping[str, Any]


def explain(
    error: ValidationError, model: type[BaseModel], section: Node, way: tuple[str, ...], problems: Problems
) -> None:
    """Note each finding of `error`, which `model` raised over the node `section` that stands at `way`."""
    try:
        root: Schema = model.model_json_schema()
    except PydanticInvalidForJsonSchema:  # a type of an outside package that JSON Schema cannot say
        root = {}
    findings = error.errors(include_url=False)
    own_words = {_position(section, finding["loc"]) for finding in findings if _own_words(finding)}
    for finding in findings:
        location = finding["loc"]
        if finding["type"] == "missing" and isinstance(location[-1], int):
            finding, location = {**finding, "type": "too_short"}, location[:-1]  # a list that ends too early
        node, found = section.find(location)
        key = dotted((*way, *found))
        if finding["type"] == "extra_forbidden":
            valid = _keys(_schema_at(root, location[:-1]), root)
            unknown_key(node, key, valid, problems)
        elif finding["type"] == "missing" and len(found) == len(location):
            continue  # it is there, but broken, which has been told
        elif finding["type"] == "missing":
            key = dotted((*way, *location))
            needed = describe(_schema_at(root, location), root)
            problems.add(node.key_place, key, f"the key is missing, needed: {needed}", missing=True)
        elif _own_words(finding):
            text, shown = _own_words(finding), node.shown()
            problems.add(node.place, key, text if shown in text else f"found {shown}: {text}")
        elif _position(section, location) not in own_words:  # of several types, one explained itself
            schema = _schema_at(root, found)
            near = did_you_mean(node.value, _choices(schema, root)) if isinstance(node.value, str) else ""
            problems.add(node.place, key, f"found {node.shown()}{near}, allowed: {describe(schema, root)}")


def unknown_key(node: Node, key: str, valid: list[str], problems: Problems) -> None:
    """Note that `key`, whose value is `node`, is none of `valid`."""
    near = "" if problems.enough else did_you_mean(key.rpartition(".")[2], valid)
    problems.add(node.key_place, key, f"there is no such key{near}, allowed: {', '.join(valid) or 'no keys'}")


def _own_words(finding: Mapping[str, Any]) -> str:
    """The text of a ValueError that a type's own validator raised, else empty."""
    if finding["type"] in ("value_error", "assertion_error"):
        return str(finding.get("ctx", {}).get("error", finding["msg"]))
    return ""


def _position(section: Node, location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    return tuple(section.find(location)[1])


def describe(schema: Schema, root: Schema) -> str:
    """A JSON Schema in words: `a number in [0, 1)`."""
    schema = _resolved(schema, root)
    if "const" in schema:
        return _literal(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(map(_literal, schema["enum"]))
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches:
        return ", or ".join(dict.fromkeys(describe(branch, root) for branch in branches))
    match schema.get("type"):
        case "null":
            return "null"
        case "boolean":
            return "true or false"
        case "integer":
            return "a whole number" + _range(schema)
        case "number":
            return "a number" + _range(schema)
        case "string":
            return "text" + (f" like {schema['pattern']}" if "pattern" in schema else "")
        case "array":
            return _describe_list(schema, root)
        case "object" if schema.get("properties"):
            return "a mapping with the keys " + ", ".join(schema["properties"])
        case "object":
            return "a mapping"
    return schema.get("description") or "another value"


def _describe_list(schema: Schema, root: Schema) -> str:
    entries = [describe(entry, root) for entry in schema.get("prefixItems", ())]
    if len(set(entries)) > 1:
        return f"a list of {len(entries)} entries: {'; '.join(entries)}"
    if not entries and schema.get("items"):
        entries = [describe(schema["items"], root)]
    each = f", each {entries[0]}" if entries else ""
    least, most = schema.get("minItems"), schema.get("maxItems")
    if least is None and most is None:
        return f"a list{each}"
    if least == most:
        return f"a list of {least} entries{each}"
    if most is None:
        return f"a list of at least {least} entries{each}"
    return f"a list of {least or 0} to {most} entries{each}"


def _range(schema: Schema) -> str:
    above, least = schema.get("exclusiveMinimum"), schema.get("minimum")
    below, most = schema.get("exclusiveMaximum"), schema.get("maximum")
    low, high = least if above is None else above, most if below is None else below
    if low is None and high is None:
        return ""
    if high is None:
        return f" of at least {low:.12g}" if above is None else f" above {low:.12g}"
    if low is None:
        return f" of at most {high:.12g}" if below is None else f" below {high:.12g}"
    if schema["type"] == "integer" and above is None and below is None:
        return f" from {low} to {high}"
    return f" in {'[' if above is None else '('}{low:.12g}, {high:.12g}{']' if below is None else ')'}"


def _literal(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _keys(schema: Schema, root: Schema) -> list[str]:
    """The keys of a mapping, also of one that may be null."""
    schema = _resolved(schema, root)
    branches = [key for branch in schema.get("anyOf", ()) for key in _keys(branch, root)]
    return [*schema.get("properties", {}), *branches]


def _choices(schema: Schema, root: Schema) -> list[str]:
    """The texts that `schema` names one by one."""
    schema = _resolved(schema, root)
    named = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else ())]
    for branch in schema.get("anyOf", ()):
        named += _choices(branch, root)
    return [value for value in named if isinstance(value, str)]


def _schema_at(root: Schema, location: tuple[str | int, ...] | list[str | int]) -> Schema:
    """The part of `root` that speaks of `location`; empty where it says nothing."""
    schema = root
    for part in location:
        schema = _step(schema, part, root)
    return _resolved(schema, root)


def _step(schema: Schema, part: str | int, root: Schema) -> Schema:
    schema = _resolved(schema, root)
    for branch in schema.get("anyOf", ()):
        inner = _step(branch, part, root)
        if inner:
            return inner
    if isinstance(part, int):
        fixed = schema.get("prefixItems", ())
        return fixed[part] if part < len(fixed) else schema.get("items") or {}
    named = schema.get("properties", {}).get(part)
    other = schema.get("additionalProperties")
    return named if named is not None else other if isinstance(other, Mapping) else {}


def _resolved(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        schema = root.get("$defs", {}).get(schema["$ref"].rpartition("/")[2], {})
    return schema
