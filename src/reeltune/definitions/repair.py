"""Repair of definitions that were pasted together from a guide: pieces of JSON instead of one object.

    "model": {…},                     without the outer braces, with an extra comma
    {"prompt": "…"} "model": {…},     several pieces
    {"name": "…", "URLs": […]}        only the content of the `model` object

The pieces are joined without changes to their text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from reeltune.definitions.section import ModelSection
from reeltune.errors import InvalidJSON
from reeltune.untrusted import JsonObject, RepeatedKeys, parse_json

_MODEL = "model"
_MODEL_KEYS = frozenset({"architecture", "URLs"})  # keys by which the content of a model object is recognized
_FIELDS = frozenset(ModelSection.model_fields)
_MAX_CHARACTERS = 1_000_000
_MAX_PIECES = 1_000
_MAX_KEYS = 8  # that an outline shows
_FENCE = re.compile(r"^[ \t]*```[a-z]*[ \t\r]*$", re.MULTILINE)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
_CLOSING = {"{": "}", "[": "]"}


@dataclass(frozen=True)
class RepairedText:
    """The text of a definition as one JSON object. `faults`: what was wrong. `outline`: the keys of the object."""

    text: str
    faults: tuple[str, ...]
    outline: str


@dataclass(frozen=True)
class _Piece:
    """A part of a text: the inside of an object, or a key and its value outside of braces (`bare`)."""

    text: str
    bare: bool


class _Ambiguous(Exception):
    """The text can't be repaired without guessing."""


def repair_text(text: str) -> RepairedText | None:
    """The text as one definition; None if it needs no repair, or can't be repaired without guessing."""
    if len(text) > _MAX_CHARACTERS:
        return None
    stripped = text.removeprefix("\ufeff").strip()
    content = _FENCE.sub("", stripped).strip()
    try:
        pieces, faults = _pieces(content)
        joined = _joined(pieces)
        value = parse_json(joined, "The text")
    except (_Ambiguous, InvalidJSON):
        return None
    if isinstance(value, RepeatedKeys):
        return None
    if not isinstance(value.get(_MODEL), dict):
        if not _MODEL_KEYS & value.keys() or _MODEL in value:
            return None
        faults.append(f"its keys must be in a `{_MODEL}` object")
        value = _with_model(value)
        joined = json.dumps(value, indent=4, ensure_ascii=False)
    if content != stripped:
        faults.append("it is inside a code fence")
    if not faults:
        return None
    return RepairedText(joined + "\n", tuple(faults), _outline(value))


def _with_model(value: JsonObject) -> JsonObject:
    """The object with the keys of a model section moved into a `model` object."""
    model = {key: item for key, item in value.items() if key in _FIELDS}
    settings = {key: item for key, item in value.items() if key not in _FIELDS}
    return {_MODEL: model, **settings}


def _pieces(text: str) -> tuple[list[_Piece], list[str]]:
    """The pieces that a text consists of, and its faults. Raises _Ambiguous."""
    tokens = list(_tokens(text))
    pieces: list[_Piece] = []
    faults: list[str] = []
    index = 0
    while index < len(tokens):
        start, token = tokens[index]
        if token in (",", "}"):  # between pieces, or unmatched
            index += 1
            continue
        if token == "{":
            end, closed = _end_of_value(tokens, index)
            stop = tokens[end - 1][0] if closed else len(text)
            if not closed:
                faults.append("its last } is missing")
            pieces.append(_Piece(text[start + 1 : stop], False))
        elif token.startswith('"') and index + 2 < len(tokens) and tokens[index + 1][1] == ":":
            end, _ = _end_of_value(tokens, index + 2)
            last, name = tokens[end - 1]
            pieces.append(_Piece(text[start : last + len(name)], True))
        else:
            raise _Ambiguous
        index = end
        if len(pieces) > _MAX_PIECES:
            raise _Ambiguous
    faults += _faults(pieces, text)
    return pieces, faults


def _tokens(text: str) -> Iterator[tuple[int, str]]:
    """The positions and texts of strings, punctuation and words. Raises _Ambiguous for anything else."""
    position = 0
    for match in _TOKEN.finditer(text):
        if text[position : match.start()].strip():
            raise _Ambiguous
        yield match.start(), match[0]
        position = match.end()
    if text[position:].strip():
        raise _Ambiguous


def _end_of_value(tokens: list[tuple[int, str]], start: int) -> tuple[int, bool]:
    """The index after the value that begins at `start`, and whether its last brace is present.

    Raises _Ambiguous if more than the last brace is missing: the file is probably truncated.
    """
    open_brackets: list[str] = []
    for index in range(start, len(tokens)):
        token = tokens[index][1]
        if token in _CLOSING:
            open_brackets.append(_CLOSING[token])
        elif token in ("}", "]") and (not open_brackets or open_brackets.pop() != token):
            raise _Ambiguous
        if not open_brackets:
            return index + 1, True
    if open_brackets != ["}"]:
        raise _Ambiguous
    return len(tokens), False


def _faults(pieces: list[_Piece], text: str) -> list[str]:
    faults = []
    bare = [piece for piece in pieces if piece.bare]
    if bare and len(bare) == len(pieces):
        faults.append("its outer { } are missing")
    elif bare:
        faults.append("a part of it is outside the outer { }")
    elif len(pieces) > 1:
        faults.append(f"it contains {len(pieces)} objects")
    if text.endswith(",") or any(_without_extra_commas(piece.text) != piece.text for piece in pieces):
        faults.append("a list or an object ends with an extra comma")
    return faults


def _joined(pieces: list[_Piece]) -> str:
    """The pieces as one object, with their text unchanged except for extra commas. Raises _Ambiguous."""
    if not pieces:
        raise _Ambiguous
    texts = [_without_extra_commas(piece.text) for piece in pieces]
    texts = [text for text in texts if text.strip()]
    if not texts:
        return "{}"
    if len(pieces) == 1 and not pieces[0].bare:
        return "{" + texts[0].rstrip() + "\n}"
    return "{\n" + ",\n".join("    " + text.strip() for text in texts) + "\n}"


def _without_extra_commas(text: str) -> str:
    """A text without commas before a closing bracket or at its end."""
    tokens = list(_tokens(text))
    parts: list[str] = []
    position = 0
    for index, (start, token) in enumerate(tokens):
        if token == "," and (index + 1 == len(tokens) or tokens[index + 1][1] in ("}", "]")):
            parts.append(text[position:start])
            position = start + 1
    return "".join(parts) + text[position:]


def _outline(value: JsonObject) -> str:
    """The keys of a definition as JSON with the values left out."""
    model = ", ".join(f'"{key}": …' for key in list(value[_MODEL])[:_MAX_KEYS])
    others = "".join(f', "{key}": …' for key in list(value)[:_MAX_KEYS] if key != _MODEL)
    return f'{{"{_MODEL}": {{{model}}}{others}}}'
