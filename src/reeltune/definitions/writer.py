"""Edits of definition files that keep all other keys, their order and the indentation.

The new text is validated before it replaces the old one atomically.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reeltune.definitions.jsontext import MAX_BYTES, decode, parse_object, remove_value, replace_value
from reeltune.definitions.repair import repair_text
from reeltune.definitions.schema import MODEL_KEY, build_definition, parse_definition, read_text
from reeltune.definitions.section import FILE_KEYS, LISTS
from reeltune.errors import DefinitionError
from reeltune.files import read_bytes, write_atomic
from reeltune.untrusted import JsonObject

_BOM = "\ufeff"


def edit(path: Path, key_path: tuple[str, ...], value: Any) -> None:
    """Set one value in a definition file. Raises DefinitionError, without changing the file, if it is invalid."""
    raw = read_bytes(path, MAX_BYTES)
    text = decode(raw, str(path))
    parse_object(text, str(path))
    changed = replace_value(text, key_path, value)
    build_definition(path, *parse_object(changed, str(path)))
    bom = _BOM if raw.startswith(_BOM.encode("utf-8")) else ""
    write_atomic(path, (bom + changed).encode("utf-8"))


KeyPath = tuple[str, ...]


def edit_all(path: Path, changes: Mapping[KeyPath, Any], removed: Iterable[KeyPath] = ()) -> None:
    """Set and remove several values at once: the file is written once. Raises as `edit`, without changing the file."""
    raw = read_bytes(path, MAX_BYTES)
    changed = edited_text(path, decode(raw, str(path)), changes, removed)
    bom = _BOM if raw.startswith(_BOM.encode("utf-8")) else ""
    write_atomic(path, (bom + changed).encode("utf-8"))


def edited_text(path: Path, text: str, changes: Mapping[KeyPath, Any], removed: Iterable[KeyPath] = ()) -> str:
    """The text of a definition with several values set and removed. Raises DefinitionError if it is invalid.

    `path`: the file that it is the text of, for errors.
    """
    parse_object(text, str(path))
    for key_path in removed:
        text = remove_value(text, key_path)
    for key_path, value in changes.items():
        text = replace_value(text, key_path, value)
    build_definition(path, *parse_object(text, str(path)))
    return text


def repair(path: Path) -> Path | None:
    """Repair a file that was pasted together from pieces, and return the path of its backup.

    Returns None, without changing the file, if it needs no repair or can't be repaired. Raises DefinitionError and
    FileError if it can't be read or written.
    """
    text = read_text(path)
    try:
        parse_definition(path, text)
        return None
    except DefinitionError:
        repaired = repair_text(text)
    if repaired is None:
        return None
    build_definition(path, *parse_object(repaired.text, str(path)))
    backup = _backup_path(path)
    write_atomic(backup, read_bytes(path, MAX_BYTES))
    write_atomic(path, repaired.text.encode("utf-8"))
    return backup


def _backup_path(path: Path) -> Path:
    """An unused path beside a file: `x.json.1.bak`, `x.json.2.bak` and so on."""
    number = 1
    while path.with_name(f"{path.name}.{number}.bak").exists():
        number += 1
    return path.with_name(f"{path.name}.{number}.bak")


def replace_urls(path: Path, change: Callable[[str], str]) -> dict[str, int]:
    """Apply `change` to all URLs in a file, and return the number of changed URLs by key.

    References to other definitions are not changed.
    """
    section = parse_object(read_text(path), str(path))[0].get(MODEL_KEY)
    if not isinstance(section, dict):
        return {}
    counts: dict[str, int] = {}
    for key_path, old in _lists(section):
        new = [_changed(item, change) for item in old]
        if new != old:
            counts[".".join(key_path)] = _differences(old, new)
            edit(path, (MODEL_KEY, *key_path), new[0] if key_path[-1] in FILE_KEYS else new)
    return counts


def _lists(section: JsonObject) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    """The lists of files of a `model` object and of its variants, each with the keys that lead to it."""
    variants = section.get("configs")
    nested = variants.items() if isinstance(variants, dict) else ()
    objects = [((), section), *((("configs", id), item) for id, item in nested if isinstance(item, dict))]
    for keys, item in objects:
        for key in LISTS:
            if isinstance(item.get(key), list):
                yield (*keys, key), item[key]
        for key in FILE_KEYS:
            if isinstance(item.get(key), str):
                yield (*keys, key), [item[key]]


def has_object(path: Path, key_path: tuple[str, ...]) -> bool:
    """Whether a definition file has an object at a path of keys. Raises DefinitionError."""
    value: Any = parse_object(read_text(path), str(path))[0]
    for key in key_path:
        value = value.get(key) if isinstance(value, dict) else None
    return isinstance(value, dict)


def _changed(item: Any, change: Callable[[str], str]) -> Any:
    if isinstance(item, list):
        return [_changed(inner, change) for inner in item]
    is_url = isinstance(item, str) and ("/" in item or "\\" in item or "." in item)
    return change(item) if is_url else item


def _differences(old: list[Any], new: list[Any]) -> int:
    return sum(
        _differences(left, right) if isinstance(left, list) else left != right
        for left, right in zip(old, new, strict=True)
    )


def create(path: Path, value: JsonObject) -> None:
    """Validate and write a new definition. Raises DefinitionError if it is invalid or the file exists already."""
    if path.exists():
        raise DefinitionError(f"{path} exists already.", hint="Choose another id, or edit that file.")
    build_definition(path, value, [])
    write_atomic(path, (json.dumps(value, indent=4, ensure_ascii=False) + "\n").encode("utf-8"))
