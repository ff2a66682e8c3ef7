"""Parsing of untrusted text and JSON: definitions, settings, MP4 comments, queue rows, server responses.

    value = parse_json(raw, "finetunes/x.json")

The result is safe to write, encode, compare and convert: every string is valid Unicode, every number is finite and
fits 64 bits, and nothing is nested deeper than `MAX_DEPTH`. A number that doesn't fit is returned as the text it was
written in, so that the code which needs a number rejects that one value and keeps the others.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from reeltune.errors import InvalidJSON

JsonObject = dict[str, Any]  # a parsed JSON object

MAX_DEPTH = 64
_MAX_INTEGER = 2**63 - 1
_MAX_DIGITS = 19  # of an integer that may fit 64 bits


def clean_text(text: str) -> str:
    """`text` with every lone surrogate replaced by U+FFFD, so that it can be encoded as UTF-8.

    Lone surrogates come from JSON escapes such as `"\\ud800"`, and from bytes in command lines and file names that
    are not valid UTF-8.
    """
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def decode_text(raw: bytes) -> str:
    """Decode UTF-8 with or without a byte order mark; invalid bytes become U+FFFD."""
    return raw.decode("utf-8", "replace").removeprefix("\ufeff")


class RepeatedKeys(dict[str, Any]):
    """A parsed JSON object with repeated keys, of which the last value is used. `repeated`: those keys, sorted."""

    repeated: tuple[str, ...] = ()


def parse_json(text: str | bytes, name: str, *, max_bytes: int = 4_000_000) -> Any:
    """Parse a JSON text. `name` is its file or source, for errors.

    Objects with repeated keys are `RepeatedKeys`. Raises InvalidJSON with line, column and the likely cause; also for
    more than `max_bytes` (characters if `text` is a str) and for more than `MAX_DEPTH` levels.
    """
    if len(text) > max_bytes:
        raise InvalidJSON(f"{name} holds {len(text):,} bytes; at most {max_bytes:,} are read.")
    if isinstance(text, bytes):
        text = _utf8(text, name)
    text = text.removeprefix("\ufeff")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidJSON(f"{name} is not valid JSON: {error.msg}.", where=where, hint=_cause(text, error)) from error
    except RecursionError as error:
        raise InvalidJSON(f"{name} is nested too deeply.") from error
    if _deeper_than(value, MAX_DEPTH):
        raise InvalidJSON(f"{name} is nested more than {MAX_DEPTH} levels deep.")
    return value


def _utf8(raw: bytes, name: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"{name} is not UTF-8 text."
        raise InvalidJSON(message, where=f"byte {error.start}", hint="Save it as UTF-8.") from error


def _object(pairs: list[tuple[str, Any]]) -> JsonObject:
    cleaned = [(clean_text(key), _clean(value)) for key, value in pairs]
    members = dict(cleaned)
    if len(members) == len(cleaned):
        return members
    counts = Counter(key for key, _ in cleaned)
    result = RepeatedKeys(members)
    result.repeated = tuple(sorted(key for key, count in counts.items() if count > 1))
    return result


def _clean(value: Any) -> Any:
    """A value with its strings cleaned; `_object` has cleaned the objects inside it already."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value


def _integer(digits: str) -> int | str:
    if len(digits.lstrip("-")) > _MAX_DIGITS or abs(int(digits)) > _MAX_INTEGER:
        return digits
    return int(digits)


def _float(digits: str) -> float | str:
    number = float(digits)
    return number if math.isfinite(number) else digits


def _constant(name: str) -> str:
    """`NaN`, `Infinity` and `-Infinity` as text; Python's parser accepts them as numbers."""
    return name


class _Decoder(json.JSONDecoder):
    """The decoder of `parse_json`, which also cleans a string or list that is not inside an object."""

    def decode(self, s: str, *args: Any) -> Any:
        return _clean(super().decode(s, *args))


_DECODER = _Decoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)


def _deeper_than(value: Any, levels: int) -> bool:
    """Whether a value has more levels of nesting. Not recursive, so that deep values don't exhaust the stack."""
    level = [value]
    for _ in range(levels + 1):
        containers = [item for item in level if isinstance(item, dict | list)]
        if not containers:
            return False
        level = []
        for item in containers:
            level.extend(item.values() if isinstance(item, dict) else item)
    return True


def _cause(text: str, error: json.JSONDecodeError) -> str:
    """The likely cause of a JSON error, judged by the text around it."""
    before = text[max(0, error.pos - 200) : error.pos].rstrip()
    following = text[error.pos : error.pos + 2]
    character = following[:1]
    if not text.strip():
        return "The file is empty."
    if error.pos >= len(text.rstrip()):
        return "The file ends too early: a closing } or ] is missing, or the file is truncated."
    if before.endswith(",") and character in ("}", "]", ""):
        return "Remove the comma before it."
    if character == "," and before.endswith((",", "[", "{")):
        return "Remove the extra comma."
    if "trailing comma" in error.msg:
        return "Remove the comma."
    if character in ("'", "‘", "’", "“", "”"):
        return 'Use straight double quotes: "…".'
    if following in ("//", "/*") or character == "#":
        return "Remove the comment: JSON has none."
    if "escape" in error.msg:
        return r"Write a backslash as \\, or use / in paths."
    if "delimiter: ','" in error.msg or "',' delimiter" in error.msg:
        return "A comma is probably missing before it."
    if "Unterminated" in error.msg or "control character" in error.msg:
        return 'A closing " is missing on that line.'
    if text.startswith(("True", "False", "None"), error.pos):
        return "JSON writes true, false and null in lower case."
    return "Look at the character before it."
