"""Which files a job may use that comes from another machine: those of the root, of the folder of videos, and of the
model folders. Checked when a job is added or imported, and again in the worker, with the definition as it is then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from reeltune.definitions import Definition
from reeltune.errors import NotRunnable, SettingsError
from reeltune.families.values import PLAIN, Settings
from reeltune.families.vocabulary import KEYS
from reeltune.files import expand
from reeltune.preferences import Preferences, load_preferences

_WEIGHTS = ("ckpts", "loras")  # folders of the root that may lie elsewhere, behind a link
_REMOTE = ("http://", "https://")
_HINT = "Put the file into the root or a model folder; whoever may open the page from elsewhere can use no others."


@dataclass(frozen=True)
class Confinement:
    """`root`: the working folder, to which paths are relative. `folders`: the others that may be used, resolved."""

    root: Path
    folders: tuple[Path, ...]

    @classmethod
    def of(cls, root: Path, preferences: Preferences | None = None) -> Self:
        """The folders of a root and its preferences."""
        chosen = preferences or load_preferences(root)[0]
        places = [root, root / expand(chosen.outputs), *(root / name for name in _WEIGHTS)]
        places += [root / expand(folder) for folder in chosen.model_folders]
        return cls(root, tuple(_resolved(place) for place in places))

    def allows(self, path: str) -> bool:
        """Whether a path, with its links followed, lies in one of the folders."""
        try:
            real = (self.root / expand(path)).resolve()
        except (OSError, ValueError, RuntimeError):
            return False
        return any(real.is_relative_to(folder) for folder in self.folders)

    def check_settings(self, settings: Settings) -> None:
        """Raise SettingsError for a setting that names a file outside."""
        for key, value in settings.items():
            if key in KEYS and KEYS[key].kind in PLAIN:
                continue
            for path in _texts(value):
                if not path.lower().startswith(_REMOTE) and not self.allows(path):
                    raise SettingsError(f"{key}: {path!r} lies outside the folders that may be used.", hint=_HINT)

    def check_definition(self, definition: Definition) -> None:
        """Raise NotRunnable for a definition that names a file outside, SettingsError for one of its settings."""
        for path in _paths(definition):
            if not self._allows_weights(path):
                message = f"{definition.id} names {path!r}, which lies outside the folders that may be used."
                raise NotRunnable(message, hint=_HINT)
        self.check_settings(definition.settings)

    def _allows_weights(self, path: str) -> bool:
        """As `allows`; a link that the user has put into a folder of weights may lead anywhere."""
        try:
            written = self.root / expand(path)
        except ValueError:
            return False
        linked = ".." not in written.parts and any(
            written.is_relative_to(folder) for folder in (*self.folders, *(self.root / name for name in _WEIGHTS))
        )
        return linked or self.allows(path)


def _paths(definition: Definition) -> Iterator[str]:
    """Everything in a definition that may be the path of a file or folder."""
    of_slots = [version for versions in definition.slots.values() for version in versions]
    for version in (*of_slots, *definition.preload, *definition.loras):
        if not version.remote:
            yield version.url.replace("\\", "/")
    yield definition.components


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item)]
    return []


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()
