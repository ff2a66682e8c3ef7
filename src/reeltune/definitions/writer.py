"""Edits to definition files that keep every key, its order, the indentation and everything else.

The new text is validated before it replaces the old one, which happens in one step (temporary file, rename).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reeltune.definitions.jsontext import MAX_BYTES, decode, parse_object, replace_value
from reeltune.definitions.repair import repaired
from reeltune.definitions.schema import MODEL_KEY, build_definition, parse_definition, read_text
from reeltune.definitions.section import LISTS
from reeltune.errors import DefinitionError
from reeltune.files import read_bytes, write_atomic

_BOM = "\ufeff"


def edit(path: Path, key_path: tuple[str, ...], value: Any) -> None:
    """Set one value in a definition file. Raises DefinitionError, and leaves the file alone, if it would break."""
    raw = read_bytes(path, MAX_BYTES)
    text = decode(raw, str(path))
    parse_object(text, str(path))
    changed = replace_value(text, key_path, value)
    build_definition(path, *parse_object(changed, str(path)))
    bom = _BOM if raw.startswith(_BOM.encode("utf-8")) else ""
    write_atomic(path, (bom + changed).encode("utf-8"))


def repair(path: Path) -> Path | None:
    """Write a file that was pasted together from pieces as one JSON object; returns where its old text is kept.

    None, and the file is left alone, where it needs no such repair or that would not make a definition of it. Raises
    DefinitionError and FileError where it can't be read or written.
    """
    text = read_text(path)
    try:
        parse_definition(path, text)
        return None
    except DefinitionError:
        found = repaired(text)
    if found is None:
        return None
    build_definition(path, *parse_object(found.text, str(path)))
    kept = next(
        row for number in itertools.count(1) if not (row := path.with_name(f"{path.name}.{number}.bak")).exists()
    )
    write_atomic(kept, read_bytes(path, MAX_BYTES))
    write_atomic(path, found.text.encode("utf-8"))
    return kept


def replace_urls(path: Path, change: Callable[[str], str]) -> dict[str, int]:
    """Apply `change` to every URL a file lists; returns how many changed under each key.

    Strings that refer to other definitions are left alone.
    """
    section = parse_object(read_text(path), str(path))[0].get(MODEL_KEY)
    if not isinstance(section, dict):
        return {}
    counts: dict[str, int] = {}
    for key in LISTS:
        old = section.get(key)
        if not isinstance(old, list):
            continue
        new = [_changed(item, change) for item in old]
        if new != old:
            counts[key] = _differences(old, new)
            edit(path, (MODEL_KEY, key), new)
    return counts


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


def create(path: Path, value: dict[str, Any]) -> None:
    """Write a new definition, validated first. Raises DefinitionError where the file exists already."""
    if path.exists():
        raise DefinitionError(f"{path} exists already.", hint="Choose another id, or edit that file.")
    build_definition(path, value, [])
    write_atomic(path, (json.dumps(value, indent=4, ensure_ascii=False) + "\n").encode("utf-8"))
