"""Which files a job may use that comes from another machine: those of the root, of the folder of videos, and of the
model folders. Checked when a job is added or imported, and again in the worker, with the definition as it is then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from reeltune.definitions import Definition, Version
from reeltune.errors import NotRunnable, SettingsError
from reeltune.families import ARCHITECTURES
from reeltune.families.values import PLAIN, Settings
from reeltune.families.vocabulary import KEYS
from reeltune.files import expand
from reeltune.library.inventory import PACKAGE_FILES, lora_folders
from reeltune.planning.loras import split_source
from reeltune.preferences import Preferences, load_preferences

_WEIGHTS = ("ckpts", "loras")  # folders of the root that may lie elsewhere, behind a link
_REMOTE = ("http://", "https://")
MAX_PATH = 1000  # characters; looking for the links in a path takes a system call for each of its folders
_HINT = "Put the file into the root or a model folder; whoever may open the page from elsewhere can use no others."


@dataclass(frozen=True)
class Confinement:
    """`root`: the working folder, to which paths are relative. `folders`: those that may be used, resolved.

    `lora_folders`: where relative paths of LoRAs are looked for, besides the root.
    """

    root: Path
    folders: tuple[Path, ...]
    lora_folders: tuple[Path, ...] = ()

    @classmethod
    def of(cls, root: Path, preferences: Preferences | None = None) -> Self:
        """The folders of a root and its preferences."""
        chosen = preferences or load_preferences(root)[0]
        places = [root, root / expand(chosen.outputs), *(root / name for name in _WEIGHTS)]
        places += [root / expand(folder) for folder in chosen.model_folders]
        tops = lora_folders(root, chosen.model_folders)
        names = sorted({architecture.loras for architecture in ARCHITECTURES.values()})
        loras = (*tops, *(top / name for top in tops for name in names))
        places += [*loras, PACKAGE_FILES]
        return cls(root, tuple(dict.fromkeys(_resolved(place) for place in places)), loras)

    def allows(self, path: str) -> bool:
        """Whether a path, with its links followed, lies in one of the folders."""
        if len(path) > MAX_PATH:
            return False
        try:
            real = (self.root / expand(path)).resolve()
        except (OSError, ValueError, RuntimeError):
            return False
        return any(real.is_relative_to(folder) for folder in self.folders)

    def allows_lora(self, source: str) -> bool:
        """Whether a LoRA is a URL, or its path lies in one of the folders wherever it is looked for."""
        path, _ = split_source(source)
        if Version(path).remote:
            return True
        try:
            places = [str(folder / expand(path)) for folder in (self.root, *self.lora_folders)]
        except ValueError:
            return False
        return all(self.allows(place) for place in dict.fromkeys(places))

    def check_settings(self, settings: Settings) -> None:
        """Raise SettingsError for a setting that names a file outside."""
        for key, value in settings.items():
            if key in KEYS and KEYS[key].kind in PLAIN:
                continue
            allows = self.allows_lora if key == "activated_loras" else self._allows_input
            for path in _texts(value):
                if not allows(path):
                    raise SettingsError(f"{key}: {path!r} lies outside the folders that may be used.", hint=_HINT)

    def check_definition(self, definition: Definition) -> None:
        """Raise NotRunnable for a definition that names a file outside, SettingsError for one of its settings."""
        for path in _paths(definition):
            if not self._allows_weights(path):
                raise _outside(definition, path)
        for lora in definition.loras:
            if not self.allows_lora(lora.url):
                raise _outside(definition, lora.url)
        self.check_settings(definition.settings)

    def _allows_input(self, path: str) -> bool:
        return path.lower().startswith(_REMOTE) or self.allows(path)

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


def _outside(definition: Definition, path: str) -> NotRunnable:
    message = f"{definition.id} names {path!r}, which lies outside the folders that may be used."
    return NotRunnable(message, hint=_HINT)


def _paths(definition: Definition) -> Iterator[str]:
    """Everything in a definition that may be the path of a file or folder, without its LoRAs."""
    of_slots = [version for versions in definition.all_versions.values() for version in versions]
    for version in (*of_slots, *definition.preload):
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
