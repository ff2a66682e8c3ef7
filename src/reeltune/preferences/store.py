"""`reeltune.json`: read value by value, so that an odd one costs only itself, and never overwritten unasked.

A WanGP folder's `wgp_config.json` is read once, where there is no `reeltune.json` yet.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reeltune.errors import FileError, InvalidJSON, PreferencesError, ReeltuneError
from reeltune.files import read_bytes, write_atomic
from reeltune.preferences.fields import FIELDS, shown, token
from reeltune.preferences.model import Preferences
from reeltune.preferences.wangp import from_wangp
from reeltune.untrusted import parse_json

FILE_NAME = "reeltune.json"
SCHEMA_VERSION = 1
_WANGP_NAME = "wgp_config.json"
_MOST_BYTES = 1_000_000
_PRIVATE = 0o600


def load_preferences(root: Path) -> tuple[Preferences, list[str]]:
    """Preferences of a root, and notices: one for every value of the file that can't be used, whose default is used
    instead, or one for a file that can't be read at all. Never raises; `reeltune.json` is left as it is.
    """
    path = root / FILE_NAME
    try:
        if os.path.lexists(path):
            return _build(_read(path), path)
    except PreferencesError as error:
        return Preferences(), [f"{error} Until then all preferences have their defaults."]
    old = root / _WANGP_NAME
    if not os.path.lexists(old):
        return Preferences(), []
    try:
        preferences, notices = from_wangp(_read(old))
    except PreferencesError as error:
        return Preferences(), [f"{error} Until then all preferences have their defaults."]
    try:
        save_preferences(root, preferences)
    except ReeltuneError as error:
        return preferences, [f"{old} is used for now: {error}", *notices]
    return preferences, [f"{old} was read once; from now on {path} is used.", *notices]


def save_preferences(root: Path, preferences: Preferences, *, replaced: Collection[str] = ()) -> None:
    """Write `reeltune.json` in one step, unknown fields included.

    A value of the file that couldn't be used stays as it was written, until the preference is given another one or is
    named in `replaced`. Raises PreferencesError where the file there can't be read: it may hold what the user still
    needs. Raises FileError where it can't be written.
    """
    path = root / FILE_NAME
    before = _read(path) if os.path.lexists(path) else {}
    values = asdict(preferences)
    extra = values.pop("extra")
    values |= _unusable(before, preferences, replaced, path)
    content = {"schema_version": SCHEMA_VERSION, **values, **extra}
    text = json.dumps(content, indent=4, ensure_ascii=False) + "\n"
    write_atomic(path, text.encode("utf-8"), mode=_PRIVATE if preferences.tokens else None)


def _unusable(
    before: Mapping[str, Any], preferences: Preferences, replaced: Collection[str], path: Path
) -> dict[str, Any]:
    """The values of the file that couldn't be used and that nobody has replaced since, as they are written."""
    loaded, _ = _build(before, path)
    kept = {}
    for name in (*FIELDS, "tokens"):
        unchanged = getattr(loaded, name) == getattr(preferences, name)
        if name in before and name not in replaced and unchanged and _build({name: before[name]}, path)[1]:
            kept[name] = before[name]
    return kept


def _read(path: Path) -> dict[str, Any]:
    """The object a file holds. Raises PreferencesError."""
    try:
        value = parse_json(read_bytes(path, _MOST_BYTES), str(path))
    except (FileError, InvalidJSON) as error:
        raise PreferencesError(str(error), hint="Fix or delete it.") from error
    if not isinstance(value, dict):
        raise PreferencesError(f"{path} does not hold a JSON object.", hint="Fix or delete it.")
    return value


def _build(content: Mapping[str, Any], path: Path) -> tuple[Preferences, list[str]]:
    """The preferences a file's object comes to, and a notice for every value that can't be used."""
    values: dict[str, Any] = {}
    notices: list[str] = []
    for name, row in FIELDS.items():
        if name not in content:
            continue
        written = content[name]
        if name == "model_folders" and isinstance(written, list):
            written, more = _folders(written, path)
            notices += more
        try:
            values[name] = row.checked(written)
        except PreferencesError as error:
            default = getattr(Preferences(), name)
            notices.append(f"{path}: {error.message} {default!r} is used. {error.hint}")
    if "tokens" in content:
        values["tokens"], more = _tokens(content["tokens"], path)
        notices += more
    known = {*FIELDS, "tokens", "schema_version"}
    extra = {key: item for key, item in content.items() if key not in known}
    return Preferences(**values, extra=extra), notices


def _folders(written: list[Any], path: Path) -> tuple[list[str], list[str]]:
    """The model folders that can be used, and a notice for each other one."""
    folders = []
    notices = []
    for item in written:
        try:
            folders += FIELDS["model_folders"].checked([item])
        except PreferencesError:
            notices.append(f"{path}: {shown(item)} in model_folders is not a path and is not used.")
    return folders, notices


def _tokens(written: Any, path: Path) -> tuple[dict[str, str], list[str]]:
    """The tokens that can be used, and a notice for each other one, which never shows it."""
    if not isinstance(written, dict):
        return {}, [f'{path}: the value of tokens is not used. Use an object such as {{"hub": "hf_…"}}.']
    tokens: dict[str, str] = {}
    notices = []
    for name, value in written.items():
        try:
            tokens[name] = token(value)
        except ValueError:
            notices.append(f"{path}: the token {shown(name)} is not used. Use text without spaces.")
    return tokens, notices
