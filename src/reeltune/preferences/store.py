"""Reading and writing `reeltune.json`: an invalid value is reported, replaced by its default, and kept in the file.

If there is no `reeltune.json` yet, the preferences are imported once from WanGP's `wgp_config.json`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reeltune.errors import FileError, InvalidJSON, PreferencesError, ReeltuneError
from reeltune.files import expand, read_bytes, write_atomic
from reeltune.preferences.fields import FIELDS, shown, token
from reeltune.preferences.model import Preferences
from reeltune.preferences.wangp import from_wangp
from reeltune.untrusted import JsonObject, parse_json

FILE_NAME = "reeltune.json"
SCHEMA_VERSION = 1
_WANGP_NAME = "wgp_config.json"
_MAX_BYTES = 1_000_000
_PRIVATE_MODE = 0o600


def load_preferences(root: Path) -> tuple[Preferences, list[str]]:
    """The preferences of a root, and notices about invalid values, which are replaced by their defaults.

    Never raises: for a file that can't be read, the defaults and one notice are returned. An existing `reeltune.json`
    is not changed.
    """
    path = root / FILE_NAME
    try:
        if os.path.lexists(path):
            return _build(_read(path), path)
    except PreferencesError as error:
        return Preferences(), [f"{error} Until then the default preferences are used."]
    wangp_path = root / _WANGP_NAME
    if not os.path.lexists(wangp_path):
        return Preferences(), []
    try:
        preferences, notices = from_wangp(_read(wangp_path))
    except PreferencesError as error:
        return Preferences(), [f"{error} Until then the default preferences are used."]
    try:
        save_preferences(root, preferences)
    except ReeltuneError as error:
        return preferences, [f"The preferences are read from {wangp_path}: {error}", *notices]
    return preferences, [f"The preferences were imported from {wangp_path}; from now on {path} is used.", *notices]


def save_preferences(root: Path, preferences: Preferences, *, replaced: Collection[str] = ()) -> None:
    """Write `reeltune.json` atomically, including the unknown keys in `extra`.

    An invalid value in the file is kept until the preference gets another value or is named in `replaced`. Raises
    PreferencesError if the existing file can't be read, so that nothing in it is lost, and FileError if it can't be
    written.
    """
    path = root / FILE_NAME
    existing = _read(path) if os.path.lexists(path) else {}
    values = asdict(preferences)
    extra = values.pop("extra")
    values |= _invalid_values(existing, preferences, replaced, path)
    content = {"schema_version": SCHEMA_VERSION, **values, **extra}
    text = json.dumps(content, indent=4, ensure_ascii=False) + "\n"
    write_atomic(path, text.encode("utf-8"), mode=_PRIVATE_MODE if preferences.tokens else None)


def check_outputs(root: Path, preferences: Preferences) -> None:
    """Raise PreferencesError for a folder of videos that contains the root, as the server shows what is in it."""
    if root.is_relative_to((root / expand(preferences.outputs)).resolve()):
        message = f"The folder {preferences.outputs!r} contains other files than videos."
        raise PreferencesError(message, hint="Choose another folder: the page shows every video in it.")


def _invalid_values(
    existing: JsonObject, preferences: Preferences, replaced: Collection[str], path: Path
) -> JsonObject:
    """The invalid values in the existing file that have not been replaced since it was read."""
    loaded, _ = _build(existing, path)
    values = {}
    for name in (*FIELDS, "tokens"):
        if name not in existing or name in replaced or getattr(loaded, name) != getattr(preferences, name):
            continue
        _, notices = _build({name: existing[name]}, path)
        if notices:
            values[name] = existing[name]
    return values


def _read(path: Path) -> JsonObject:
    """The JSON object in a file. Raises PreferencesError."""
    try:
        value = parse_json(read_bytes(path, _MAX_BYTES), str(path))
    except (FileError, InvalidJSON) as error:
        raise PreferencesError(str(error), hint="Fix or delete it.") from error
    if not isinstance(value, dict):
        raise PreferencesError(f"{path} must contain a JSON object.", hint="Fix or delete it.")
    return value


def _build(content: JsonObject, path: Path) -> tuple[Preferences, list[str]]:
    """The preferences in a file's JSON object, and a notice for each invalid value."""
    values: dict[str, Any] = {}
    notices: list[str] = []
    for name, declaration in FIELDS.items():
        if name not in content:
            continue
        value = content[name]
        if name == "model_folders" and isinstance(value, list):
            value, folder_notices = _folders(value, path)
            notices += folder_notices
        try:
            values[name] = declaration.checked(value)
        except PreferencesError as error:
            default = getattr(Preferences(), name)
            notices.append(f"{path}: {error.message} {default!r} is used. {error.hint}")
    if "tokens" in content:
        values["tokens"], token_notices = _tokens(content["tokens"], path)
        notices += token_notices
    known = {*FIELDS, "tokens", "schema_version"}
    extra = {key: value for key, value in content.items() if key not in known}
    return Preferences(**values, extra=extra), notices


def _folders(items: list[Any], path: Path) -> tuple[list[str], list[str]]:
    """The valid model folders, and a notice for each invalid one."""
    folders = []
    notices = []
    for item in items:
        try:
            folders += FIELDS["model_folders"].checked([item])
        except PreferencesError:
            notices.append(f"{path}: Invalid path {shown(item)} in model_folders. It is not used.")
    return folders, notices


def _tokens(value: Any, path: Path) -> tuple[dict[str, str], list[str]]:
    """The valid tokens by name, and a notice for each invalid one, which doesn't show the token."""
    if not isinstance(value, dict):
        return {}, [f'{path}: Invalid value for tokens. It is not used. Use an object such as {{"hub": "hf_…"}}.']
    tokens: dict[str, str] = {}
    notices = []
    for name, text in value.items():
        try:
            tokens[name] = token(text)
        except ValueError:
            notices.append(f"{path}: Invalid token {shown(name)}. It is not used. Use a token without spaces.")
    return tokens, notices
