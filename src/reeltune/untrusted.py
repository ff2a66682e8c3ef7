"""Text and JSON from strangers, made harmless in one place: definitions, settings, MP4 comments, queue rows, answers
of servers.

    value = parse_json(raw, "finetunes/x.json")

What comes out can be written, encoded, compared and converted without surprises: every text is valid Unicode, every
number is finite and fits 64 bits, and nothing is nested deeper than `MAX_DEPTH`. A number that doesn't fit stays as
the text that was written, so that the code which asks for a number rejects that one value and keeps the rest.
"""

from __future__ import annotations

import json
import math
from typing import Any

from reeltune.errors import InvalidJSON

JsonObject = dict[str, Any]  # a parsed JSON object

MAX_DEPTH = 64
_LARGEST = 2**63 - 1
_MOST_DIGITS = 19  # of a whole number that may fit 64 bits


def clean_text(text: str) -> str:
    """`text` with every lone surrogate replaced by U+FFFD, so that it can be encoded as UTF-8.

    JSON escapes such as `"\\ud800"` and undecodable bytes on a command line or in a file name become surrogates.
    """
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def decode_text(raw: bytes) -> str:
    """UTF-8 text with or without a byte order mark; bytes that aren't UTF-8 become U+FFFD."""
    return raw.decode("utf-8", "replace").removeprefix("\ufeff")


class RepeatedKeys(dict[str, Any]):
    """A parsed object in which keys stood more than once; JSON keeps the last. `repeated`: those keys, sorted."""

    repeated: tuple[str, ...] = ()


def parse_json(text: str | bytes, name: str, *, max_bytes: int = 4_000_000) -> Any:
    """The value of a JSON text. `name` says in errors where it came from.

    Objects with repeated keys are `RepeatedKeys`. Raises InvalidJSON with line, column and the likely cause: also for
    more than `max_bytes` (counted in characters where `text` is a str) and for more than `MAX_DEPTH` levels.
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


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    cleaned = [(clean_text(key), _clean(value)) for key, value in pairs]
    found = dict(cleaned)
    if len(found) == len(cleaned):
        return found
    kept = RepeatedKeys(found)
    seen: set[str] = set()
    repeated: set[str] = set()
    for key, _ in cleaned:
        target = repeated if key in seen else seen
        target.add(key)
    kept.repeated = tuple(sorted(repeated))
    return kept


def _clean(value: Any) -> Any:
    """A value of an object with its texts cleaned; objects inside it have been through `_object` already."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value


def _whole(digits: str) -> int | str:
    if len(digits.lstrip("-")) > _MOST_DIGITS or abs(int(digits)) > _LARGEST:
        return digits
    return int(digits)


def _fraction(digits: str) -> float | str:
    number = float(digits)
    return number if math.isfinite(number) else digits


def _constant(name: str) -> str:
    """`NaN`, `Infinity` and `-Infinity`, which Python's parser takes for numbers, as their text."""
    return name


class _Decoder(json.JSONDecoder):
    """The decoder of `parse_json`: a text or a list that is no member of an object is cleaned too."""

    def decode(self, s: str, *args: Any) -> Any:
        return _clean(super().decode(s, *args))


_DECODER = _Decoder(object_pairs_hook=_object, parse_int=_whole, parse_float=_fraction, parse_constant=_constant)


def _deeper_than(value: Any, levels: int) -> bool:
    """Whether a value is nested deeper, found level by level, so that depth costs no stack."""
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
    """The likely slip behind a JSON error, by the text around it."""
    before = text[max(0, error.pos - 200) : error.pos].rstrip()
    here = text[error.pos : error.pos + 2]
    if not text.strip():
        return "The file is empty."
    if error.pos >= len(text.rstrip()):
        return "The file ends too early: a closing } or ] is missing, or it was cut off."
    if before.endswith(",") and here[:1] in ("}", "]", ""):
        return "Remove the comma before it."
    if here[:1] == "," and before.endswith((",", "[", "{")):
        return "One comma too many."
    if "trailing comma" in error.msg:
        return "Remove the comma."
    if here[:1] in ("'", "‘", "’", "“", "”"):
        return 'Use straight double quotes: "…".'
    if here in ("//", "/*") or here[:1] == "#":
        return "JSON has no comments: remove it."
    if "escape" in error.msg:
        return r"Write a backslash as \\, or use / in paths."
    if "delimiter: ','" in error.msg or "',' delimiter" in error.msg:
        return "A comma is probably missing before it."
    if "Unterminated" in error.msg or "control character" in error.msg:
        return 'A closing " is missing on that line.'
    if text.startswith(("True", "False", "None"), error.pos):
        return "JSON writes true, false and null in lower case."
    return "Look at the character before it."
