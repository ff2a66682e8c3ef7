"""Definitions pasted together from a guide: pieces of JSON that are meant to be one object.

    "model": {…},                     without the outer braces, with a comma too many
    {"prompt": "…"} "model": {…},     before or after the settings
    {"name": "…", "URLs": […]}        only what belongs into the `model` object

What is meant is told by the pieces alone, so that the text can be joined without changing anything in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from reeltune.definitions.section import ModelSection
from reeltune.errors import InvalidJSON
from reeltune.untrusted import RepeatedKeys, parse_json

_MODEL = "model"
_TELLING = frozenset({"architecture", "URLs"})  # keys of the model object that no setting has
_FIELDS = frozenset(ModelSection.model_fields)
_MOST_CHARACTERS = 1_000_000
_MOST_PIECES = 1_000
_KEYS_SHOWN = 8
_FENCE = re.compile(r"^[ \t]*```[a-z]*[ \t\r]*$", re.MULTILINE)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
_CLOSING = {"{": "}", "[": "]"}


@dataclass(frozen=True)
class Repaired:
    """A definition's text as one JSON object. `faults`: what was wrong; `outline`: its keys, to be written so."""

    text: str
    faults: tuple[str, ...]
    outline: str


@dataclass(frozen=True)
class _Piece:
    """A part of a text outside all brackets: the inside of an object, or a key with its value."""

    text: str
    bare: bool  # whether it stands outside braces


class _Unclear(Exception):
    """What is meant can't be told."""


def repaired(text: str) -> Repaired | None:
    """The text as one definition, or None where it isn't made of the pieces of one, or is one already."""
    if len(text) > _MOST_CHARACTERS:
        return None
    whole = text.removeprefix("\ufeff").strip()
    plain = _FENCE.sub("", whole).strip()
    try:
        pieces, faults = _pieces(plain)
        joined = _joined(pieces)
        value = parse_json(joined, "The text")
    except (_Unclear, InvalidJSON):
        return None
    if isinstance(value, RepeatedKeys):
        return None
    if not isinstance(value.get(_MODEL), dict):
        if not _TELLING & value.keys() or _MODEL in value:
            return None
        faults.append(f"its keys belong into a `{_MODEL}` object")
        value = {_MODEL: {key: row for key, row in value.items() if key in _FIELDS},
                 **{key: row for key, row in value.items() if key not in _FIELDS}}  # fmt: skip
        joined = json.dumps(value, indent=4, ensure_ascii=False)
    if plain != whole:
        faults.append("a code fence stands around it")
    return Repaired(joined + "\n", tuple(faults), _outline(value)) if faults else None


def _pieces(text: str) -> tuple[list[_Piece], list[str]]:
    """The parts a text is made of, and what is wrong about them. Raises _Unclear."""
    tokens = list(_tokens(text))
    pieces: list[_Piece] = []
    faults: list[str] = []
    index = 0
    while index < len(tokens):
        start, token = tokens[index]
        if token in (",", "}"):  # between pieces, or left over
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
            raise _Unclear
        index = end
        if len(pieces) > _MOST_PIECES:
            raise _Unclear
    faults += _faults(pieces, text)
    return pieces, faults


def _tokens(text: str) -> Iterator[tuple[int, str]]:
    """Places and texts of strings, punctuation and words. Raises _Unclear for what is neither."""
    position = 0
    while found := _TOKEN.search(text, position):
        if text[position : found.start()].strip():
            raise _Unclear
        yield found.start(), found[0]
        position = found.end()
    if text[position:].strip():
        raise _Unclear


def _end_of_value(tokens: list[tuple[int, str]], start: int) -> tuple[int, bool]:
    """The index past the value that begins at `start`, and whether it ends there: its own last brace may be missing.

    Raises _Unclear where more is missing: the file was probably cut off.
    """
    open_brackets: list[str] = []
    for index in range(start, len(tokens)):
        token = tokens[index][1]
        if token in _CLOSING:
            open_brackets.append(_CLOSING[token])
        elif token in ("}", "]") and (not open_brackets or open_brackets.pop() != token):
            raise _Unclear
        if not open_brackets:
            return index + 1, True
    if open_brackets != ["}"]:
        raise _Unclear
    return len(tokens), False


def _faults(pieces: list[_Piece], text: str) -> list[str]:
    found = []
    bare = [piece for piece in pieces if piece.bare]
    if bare and len(bare) == len(pieces):
        found.append("its outer { } are missing")
    elif bare:
        found.append("part of it stands outside the outer { }")
    elif len(pieces) > 1:
        found.append(f"it holds {len(pieces)} objects one after another")
    if text.endswith(",") or any(_without_commas(piece.text) != piece.text for piece in pieces):
        found.append("a comma too many stands at the end of a list or an object")
    return found


def _joined(pieces: list[_Piece]) -> str:
    """The pieces as one object, their own text unchanged but for commas too many."""
    if not pieces:
        raise _Unclear
    inner = [_without_commas(piece.text) for piece in pieces]
    inner = [row for row in inner if row.strip()]
    if len(pieces) == 1 and not pieces[0].bare:
        return "{" + inner[0].rstrip() + "\n}" if inner else "{}"
    return "{\n" + ",\n".join("    " + row.strip() for row in inner) + "\n}"


def _without_commas(text: str) -> str:
    """A text without the commas that stand before a closing bracket or at its end."""
    tokens = list(_tokens(text))
    kept: list[str] = []
    done = 0
    for index, (start, token) in enumerate(tokens):
        if token == "," and (index + 1 == len(tokens) or tokens[index + 1][1] in ("}", "]")):
            kept.append(text[done:start])
            done = start + 1
    return "".join(kept) + text[done:]


def _outline(value: dict[str, Any]) -> str:
    """The keys of a definition, as they are to be written."""
    model = ", ".join(f'"{key}": …' for key in list(value[_MODEL])[:_KEYS_SHOWN])
    others = "".join(f', "{key}": …' for key in list(value)[:_KEYS_SHOWN] if key != _MODEL)
    return f'{{"{_MODEL}": {{{model}}}{others}}}'
