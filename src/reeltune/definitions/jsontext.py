"""JSON as people write it: errors that say where and why, and edits that touch nothing else."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

from reeltune.errors import DefinitionSyntaxError, InvalidJSON, Problem
from reeltune.untrusted import RepeatedKeys, parse_json

MAX_BYTES = 4_000_000
_MOST_WARNINGS = 20
_KEYS_SHOWN = 8
_LONGEST_KEY = 40
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()  # for spans in a text that `parse_json` has accepted


def decode(raw: bytes, file: str) -> str:
    """Text of a JSON file: UTF-8, with or without a byte order mark."""
    if len(raw) > MAX_BYTES:
        raise DefinitionSyntaxError(
            Problem(file, "", f"The file has {len(raw):,} bytes; a definition is text of a few.")
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = Problem(file, f"byte {error.start}", "The file is not UTF-8 text.", "Save it as UTF-8.")
        raise DefinitionSyntaxError(problem) from error


def parse_object(text: str, file: str) -> tuple[dict[str, Any], list[Problem]]:
    """The object a JSON text holds, with a warning for every key that stands twice.

    Raises DefinitionSyntaxError with line, column and the likely cause.
    """
    try:
        value = parse_json(text, "The file", max_bytes=MAX_BYTES)
    except InvalidJSON as error:
        raise DefinitionSyntaxError(Problem(file, error.where, error.message, error.hint)) from error
    if not isinstance(value, dict):
        raise DefinitionSyntaxError(
            Problem(file, "", "The file must hold a JSON object.", "Put everything inside { }.")
        )
    return value, [
        Problem(file, where, f"{_listed(keys)} more than once; the last one counts.", severity="warning")
        for where, keys in itertools.islice(_repeated(value, ""), _MOST_WARNINGS)
    ]


def _repeated(value: Any, where: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The objects in which keys stand more than once, and those keys."""
    if isinstance(value, RepeatedKeys) and value.repeated:
        yield where or "top level", value.repeated
    children = value.items() if isinstance(value, dict) else ()
    for key, child in children:
        if isinstance(child, dict):
            yield from _repeated(child, f"{where}.{key[:_LONGEST_KEY]}".lstrip("."))


def _listed(keys: tuple[str, ...]) -> str:
    """Some keys for a message, with their verb."""
    shown = ", ".join(repr(key[:_LONGEST_KEY]) for key in keys[:_KEYS_SHOWN])
    if len(keys) == 1:
        return f"{shown} stands here"
    return f"{shown}{f' and {len(keys) - _KEYS_SHOWN} more' if len(keys) > _KEYS_SHOWN else ''} stand here"


# --- lossless edits ---------------------------------------------------------------------------------------


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _members(text: str, start: int) -> dict[str, tuple[int, int]]:
    """Spans of the values of the object starting at `start`, by key (the last of repeated keys)."""
    spans: dict[str, tuple[int, int]] = {}
    position = _skip(text, start + 1)
    while text[position] != "}":
        key, position = _DECODER.raw_decode(text, position)
        begin = _skip(text, _skip(text, position) + 1)  # past the colon
        _, end = _DECODER.raw_decode(text, begin)
        spans[key] = (begin, end)
        position = _skip(text, end)
        if text[position] == ",":
            position = _skip(text, position + 1)
    return spans


def _indent(text: str) -> str:
    """The file's indentation: what stands before its first key on a line of its own."""
    found = re.search(r"^\{\r?\n([ \t]+)\"", text.lstrip("\ufeff").lstrip(), re.MULTILINE)
    return found[1] if found else "    "


def _dump(text: str, value: Any, depth: int) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    unit = _indent(text)
    lines = json.dumps(value, indent=unit, ensure_ascii=False).splitlines()
    return (newline + unit * depth).join(lines)


def replace_value(text: str, path: tuple[str, ...], value: Any) -> str:
    """`text` with the value at `path` set, everything else byte for byte as it was.

    `text` must be a valid JSON object. A missing key is added at the end of its object; missing objects on the
    way are made.
    """
    start = _skip(text, 1 if text.startswith("\ufeff") else 0)
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


def _insert(text: str, start: int, spans: dict[str, tuple[int, int]], key: str, value: Any, depth: int) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    pad = newline + _indent(text) * depth
    member = f"{json.dumps(key, ensure_ascii=False)}: {_dump(text, value, depth)}"
    if spans:
        end = max(end for _, end in spans.values())
        return text[:end] + "," + pad + member + text[end:]
    close = text.index("}", start)
    return text[: start + 1] + pad + member + newline + _indent(text) * (depth - 1) + text[close:]
