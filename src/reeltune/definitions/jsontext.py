"""JSON files written by people: errors with location and cause, and edits that change nothing else."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

from reeltune.errors import DefinitionSyntaxError, InvalidJSON, Problem
from reeltune.untrusted import JsonObject, RepeatedKeys, parse_json

MAX_BYTES = 4_000_000
_MAX_WARNINGS = 20
_MAX_KEYS = 8  # that a message lists
_MAX_KEY = 40  # characters of a key in a message
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()  # to find the spans of values in a text that `parse_json` has accepted


def decode(raw: bytes, file: str) -> str:
    """The text of a JSON file in UTF-8, with or without a byte order mark. Raises DefinitionSyntaxError."""
    if len(raw) > MAX_BYTES:
        message = f"The file has {len(raw):,} bytes; the limit is {MAX_BYTES:,}."
        raise DefinitionSyntaxError(Problem(file, "", message))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = Problem(file, f"byte {error.start}", "The file is not UTF-8 text.", "Save it as UTF-8.")
        raise DefinitionSyntaxError(problem) from error


def parse_object(text: str, file: str) -> tuple[JsonObject, list[Problem]]:
    """The JSON object in a text, and warnings about repeated keys.

    Raises DefinitionSyntaxError with line, column and the likely cause.
    """
    try:
        value = parse_json(text, "The file", max_bytes=MAX_BYTES)
    except InvalidJSON as error:
        raise DefinitionSyntaxError(Problem(file, error.where, error.message, error.hint)) from error
    if not isinstance(value, dict):
        raise DefinitionSyntaxError(
            Problem(file, "", "The file must contain a JSON object.", "Put everything inside { }.")
        )
    warnings = [
        Problem(file, where, f"Repeated {_listed(keys)}; the last value is used.", severity="warning")
        for where, keys in itertools.islice(_repeated_keys(value, ""), _MAX_WARNINGS)
    ]
    return value, warnings


def _repeated_keys(value: JsonObject, where: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The key paths of objects with repeated keys, and those keys."""
    if isinstance(value, RepeatedKeys) and value.repeated:
        yield where or "top level", value.repeated
    for key, child in value.items():
        if isinstance(child, dict):
            yield from _repeated_keys(child, f"{where}.{key[:_MAX_KEY]}".lstrip("."))


def _listed(keys: tuple[str, ...]) -> str:
    """Keys for a message: "key 'a'", "keys 'a', 'b' and 3 more"."""
    names = ", ".join(repr(key[:_MAX_KEY]) for key in keys[:_MAX_KEYS])
    if len(keys) == 1:
        return f"key {names}"
    more = f" and {len(keys) - _MAX_KEYS} more" if len(keys) > _MAX_KEYS else ""
    return f"keys {names}{more}"


# --- lossless edits ---------------------------------------------------------------------------------------


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _members(text: str, start: int) -> dict[str, tuple[int, int]]:
    """The spans of the values in the object at `start`, by key; of repeated keys, the last one's."""
    spans: dict[str, tuple[int, int]] = {}
    position = _skip_space(text, start + 1)
    while text[position] != "}":
        key, position = _DECODER.raw_decode(text, position)
        begin = _skip_space(text, _skip_space(text, position) + 1)  # past the colon
        _, end = _DECODER.raw_decode(text, begin)
        spans[key] = (begin, end)
        position = _skip_space(text, end)
        if text[position] == ",":
            position = _skip_space(text, position + 1)
    return spans


def _indent(text: str) -> str:
    """The indentation of the file: the spaces before its first key, if that is on its own line."""
    match = re.search(r"^\{\r?\n([ \t]+)\"", text.lstrip("\ufeff").lstrip(), re.MULTILINE)
    return match[1] if match else "    "


def _dump(text: str, value: Any, depth: int) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    unit = _indent(text)
    lines = json.dumps(value, indent=unit, ensure_ascii=False).splitlines()
    return (newline + unit * depth).join(lines)


def replace_value(text: str, path: tuple[str, ...], value: Any) -> str:
    """`text` with the value at `path` replaced and everything else unchanged.

    `text` must be a valid JSON object. A missing key is added at the end of its object, and missing objects in the
    path are created.
    """
    start = _skip_space(text, 1 if text.startswith("\ufeff") else 0)
    for depth, key in enumerate(path):
        spans = _members(text, start)
        if key not in spans:
            missing = value
            for name in reversed(path[depth + 1 :]):
                missing = {name: missing}
            return _insert(text, start, spans, key, missing, depth + 1)
        begin, end = spans[key]
        if depth == len(path) - 1:
            return text[:begin] + _dump(text, value, depth + 1) + text[end:]
        start = begin
    return text


def remove_value(text: str, path: tuple[str, ...]) -> str:
    """`text` without the member at `path`, and everything else unchanged. A path that doesn't exist changes nothing.

    `text` must be a valid JSON object.
    """
    start = _skip_space(text, 1 if text.startswith("\ufeff") else 0)
    for key in path[:-1]:
        spans = _members(text, start)
        if key not in spans or text[spans[key][0]] != "{":
            return text
        start = spans[key][0]
    return _without_member(text, start, path[-1])


def _without_member(text: str, start: int, key: str) -> str:
    """`text` without a member of the object at `start`, and without the comma that separates it from its neighbor."""
    previous_end = None
    position = _skip_space(text, start + 1)
    while text[position] != "}":
        begin = position
        name, position = _DECODER.raw_decode(text, position)
        value = _skip_space(text, _skip_space(text, position) + 1)  # past the colon
        _, end = _DECODER.raw_decode(text, value)
        following = _skip_space(text, end)
        has_comma = text[following] == ","
        if name == key and has_comma:
            return _without_member(text[:begin] + text[_skip_space(text, following + 1) :], start, key)
        if name == key:
            kept = start + 1 if previous_end is None else previous_end
            return text[:kept] + text[end:]
        previous_end = end
        position = _skip_space(text, following + 1) if has_comma else following
    return text


def _insert(text: str, start: int, spans: dict[str, tuple[int, int]], key: str, value: Any, depth: int) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    pad = newline + _indent(text) * depth
    member = f"{json.dumps(key, ensure_ascii=False)}: {_dump(text, value, depth)}"
    if spans:
        end = max(end for _, end in spans.values())
        return text[:end] + "," + pad + member + text[end:]
    close = text.index("}", start)
    return text[: start + 1] + pad + member + newline + _indent(text) * (depth - 1) + text[close:]
