"""Texts for programs on other machines, without the folders of this one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

from reeltune.service.workspace import Workspace

_Value = TypeVar("_Value")
# The folders of an absolute path. Parts of URLs and relative paths are preceded by one of the characters excluded here.
_FOLDERS = re.compile(r"(?<![\w.:/\\~-])(?:/([^\s/\\'\"<>|,;:()]+)/|[A-Za-z]:[\\/]|~/)(?:[^\s/\\'\"<>|,;:()]+[\\/])*")


def for_others(workspace: Workspace, text: str) -> str:
    """A text with the names of files in place of their paths, where the workspace is for other machines, too.

    Paths in the root become relative to it.
    """
    if workspace.local:
        return text
    for folder in dict.fromkeys((workspace.root, Path.home())):
        if folder.name:  # "/" has none, and is a part of every path
            text = re.sub(re.escape(str(folder)) + r"[\\/]", "", text)
            text = re.sub(re.escape(str(folder)) + r"(?![\w.-])", folder.name.replace("\\", r"\\"), text)
    return _FOLDERS.sub(_without_folders, text)


def _without_folders(path: re.Match[str]) -> str:
    """Nothing in place of folders of this machine. An address of the API, such as /v1/files, begins with none."""
    top = path[1]
    return path[0] if top is not None and not Path("/", top).is_dir() else ""


def values_for_others(workspace: Workspace, value: _Value) -> _Value:
    """A JSON value with all its texts as `for_others` returns them."""
    if workspace.local:
        return value
    cleaned = _cleaned(workspace, value)
    assert isinstance(cleaned, type(value))
    return cleaned


def _cleaned(workspace: Workspace, value: object) -> object:
    if isinstance(value, str):
        return for_others(workspace, value)
    if isinstance(value, dict):
        return {key: _cleaned(workspace, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_cleaned(workspace, item) for item in value)
    return value
