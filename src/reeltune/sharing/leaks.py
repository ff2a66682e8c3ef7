"""What must not be published: tokens, and paths of this machine, which contain the user's name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from reeltune.net import hub_token

_TOKEN = re.compile(r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{20,})")
_HOME = re.compile(r"(?:/home/|/Users/|/root/|[A-Za-z]:[\\/]+(?:Users|Documents and Settings)[\\/]+)[^\s\"'<>|,;)]+")
_MIN_PATH = 5  # characters; a root such as "/" is part of any path
_REMOVED = "…"


@dataclass(frozen=True)
class Secrets:
    """Texts that must not leave this machine. `tokens`: of the user. `folders`: the root and the home folder."""

    tokens: tuple[str, ...]
    folders: tuple[str, ...]

    @classmethod
    def of(cls, root: Path, tokens: Iterable[str] = ()) -> Self:
        """The secrets of a root and of the environment. `tokens`: those of the preferences."""
        known = [token for token in (*tokens, hub_token() or "") if token]
        folders = [str(root), str(root.resolve()), str(Path.home())]
        return cls(
            tuple(dict.fromkeys(known)), tuple(dict.fromkeys(text for text in folders if len(text) >= _MIN_PATH))
        )

    def find(self, text: str) -> str:
        """What a text must not contain, as a noun: "a token"; empty if there is nothing."""
        if any(token in text for token in self.tokens) or _TOKEN.search(text):
            return "a token"
        plain = text.replace("\\\\", "\\")  # in JSON, a backslash is written as two
        in_folder = any(re.search(re.escape(folder) + r"(?![\w.-])", plain) for folder in self.folders)
        if in_folder or _HOME.search(plain):
            return "a path of this machine"
        return ""

    def find_in(self, value: Any, where: str = "") -> str:
        """The first place in a JSON value with a secret, such as "model.description: a token"; empty if none."""
        if isinstance(value, str):
            secret = self.find(value)
            return f"{where}: {secret}" if secret else ""
        children: Iterable[tuple[str, Any]] = ()
        if isinstance(value, Mapping):
            children = [(f"{where}.{key}".lstrip("."), child) for key, child in value.items()]
        elif isinstance(value, list | tuple):
            children = [(f"{where}[{index}]", child) for index, child in enumerate(value)]
        found = (self.find_in(child, place) for place, child in children)
        return next((place for place in found if place), "")

    def remove(self, text: str) -> str:
        """A text for messages, with tokens and folders of this machine replaced by an ellipsis."""
        for secret in sorted((*self.tokens, *self.folders), key=len, reverse=True):
            text = text.replace(secret, _REMOVED)
        return _HOME.sub(_REMOVED, _TOKEN.sub(_REMOVED, text))
