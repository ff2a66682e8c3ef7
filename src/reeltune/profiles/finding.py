"""Where profiles and LoRA presets are, and which of them fit a definition.

Profiles are read from `profiles/<folder>/*.json` of these places: the root, the user's read-only model folders, the
package. LoRA presets are read from `loras/<folder>/*.lset` of the root and of the model folders. The folders `profiles`
and `loras` may be inside or beside a model folder, or beside a folder `ckpts` that contains it, as WanGP stores them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from reeltune.definitions import Definition
from reeltune.definitions.nearest import did_you_mean
from reeltune.errors import Problem, SettingsError
from reeltune.files import expand, is_folder, reason
from reeltune.profiles.model import Profile
from reeltune.profiles.reading import read_preset, read_profile
from reeltune.settings import stored_layer
from reeltune.untrusted import clean_text

NO_PROFILE = "none"  # the name by which users ask for no profile
_PROFILES, _LORAS, _CKPTS = "profiles", "loras", "ckpts"  # folders
_MAX_FILES = 1000  # profiles in one folder
_MAX_FOLDERS = 200
_MAX_ENTRIES = 100_000  # in one folder; a folder of LoRAs contains many other files
_MAX_LISTED = 5  # names in a hint
_Read = Callable[[Path, str], Profile]


@dataclass(frozen=True)
class OfferedProfiles:
    """Profiles in the order of a list, and problems of files that can't be used."""

    profiles: tuple[Profile, ...] = ()
    problems: tuple[Problem, ...] = ()

    def named(self, name: str) -> Profile:
        """The profile with a name: case and spaces don't matter, and a part of the name is enough if it is unique.

        Raises SettingsError with the names that are meant or exist.
        """
        wanted = _folded(name)
        equal = [profile for profile in self.profiles if _folded(profile.name) == wanted]
        partial = [profile for profile in self.profiles if wanted and wanted in _folded(profile.name)]
        found = equal[:1] or partial
        if len(found) == 1:
            return found[0]
        if found:
            hint = f"It is a part of several names: {_listed(found)}."
        elif self.profiles:
            names = [profile.name for profile in self.profiles]
            hint = did_you_mean(name, names) or f"There are: {_listed(self.profiles)}."
        else:
            hint = "No profile fits this model."
        raise SettingsError(f"No profile {clean_text(name)[:80]!r} found.", hint=hint)


def profiles_of(definition: Definition, model_folders: Sequence[str] = ()) -> OfferedProfiles:
    """The profiles that fit a definition, without settings that only a caller can set.

    `model_folders`: as in the preferences.
    """
    places = _profile_places(definition.root, model_folders)
    offered = _collect([(place, folder) for folder in definition.profile_folders for place in places])
    architecture = definition.architecture
    fitting = [
        replace(profile, settings=MappingProxyType(stored_layer(architecture, profile.settings)))
        for profile in offered.profiles
        if not profile.architectures or architecture.id in profile.architectures
    ]
    return OfferedProfiles(tuple(fitting), offered.problems)


def presets_of(definition: Definition, model_folders: Sequence[str] = ()) -> OfferedProfiles:
    """The LoRA presets in the folders of a definition's LoRAs. `model_folders`: as in the preferences."""
    folder = definition.architecture.loras
    if not folder:
        return OfferedProfiles()
    paths = [home / _LORAS / folder for home in _homes(definition.root, model_folders)]
    return _read_all([(path, folder, ".lset", read_preset) for path in paths])


def all_profiles(root: Path, model_folders: Sequence[str] = ()) -> OfferedProfiles:
    """All profiles, by folder. `model_folders`: as in the preferences."""
    places = _profile_places(root, model_folders)
    folders = sorted({folder for place in places for folder in _subfolders(place)}, key=str.casefold)
    return _collect([(place, folder) for folder in folders for place in places])


def _profile_places(root: Path, model_folders: Sequence[str]) -> list[Path]:
    """The folders that contain folders of profiles; the package's is the last."""
    return [*(home / _PROFILES for home in _homes(root, model_folders)), _built_in()]


def _built_in() -> Path:
    return Path(str(resources.files("reeltune.profiles"))) / "data"


def _homes(root: Path, model_folders: Sequence[str]) -> list[Path]:
    """The folders that may contain `profiles` and `loras`: the root, then those in and around the model folders."""
    homes = [root]
    for text in model_folders:
        folder = root / expand(text)
        homes += [folder, folder.parent]
        homes += [path.parent for path in folder.parents if path.name == _CKPTS]
    return list(dict.fromkeys(homes))


def _collect(places: Iterable[tuple[Path, str]]) -> OfferedProfiles:
    """The profiles in folders of several places."""
    built_in = _built_in()

    def read_built_in(path: Path, folder: str) -> Profile:
        return read_profile(path, folder, built_in=True)

    return _read_all(
        [
            (place / folder, folder, ".json", read_built_in if place == built_in else read_profile)
            for place, folder in places
        ]
    )


def _read_all(folders: Iterable[tuple[Path, str, str, _Read]]) -> OfferedProfiles:
    """The files with a suffix in folders. Of several with one name in one folder, the first one is used."""
    profiles: dict[tuple[str, str], Profile] = {}
    problems: list[Problem] = []
    for path, folder, suffix, read in folders:
        files, folder_problems = _files(path, suffix)
        problems += folder_problems
        for file in files:
            try:
                profile = read(file, folder)
            except SettingsError as error:
                problems.append(Problem(clean_text(str(file)), "", error.message, error.hint))
                continue
            profiles.setdefault((folder, _folded(profile.name)), profile)
    return OfferedProfiles(tuple(profiles.values()), tuple(problems))


def _files(folder: Path, suffix: str) -> tuple[list[Path], list[Problem]]:
    """The files in a folder that end in `suffix`, sorted by name; none if it doesn't exist."""
    name = clean_text(str(folder))
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, _MAX_ENTRIES)]
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) and not folder.is_symlink():
            return [], []
        return [], [Problem(name, "", f"The folder can't be read: {reason(error)}.", "Check its permissions.")]
    found = sorted(file for file in names if file.lower().endswith(suffix) and not file.startswith("."))
    problems = []
    if len(found) > _MAX_FILES:
        message = f"The folder contains {len(found):,} files that end in {suffix}; {_MAX_FILES:,} are read."
        problems.append(Problem(name, "", message, "Move some of them elsewhere.", "warning"))
    return [folder / file for file in found[:_MAX_FILES]], problems


def _subfolders(place: Path) -> list[str]:
    """The names of the folders in a folder; none if it can't be read."""
    try:
        with os.scandir(place) as entries:
            names = sorted(entry.name for entry in islice(entries, _MAX_ENTRIES))
    except (OSError, ValueError):
        return []
    visible = [name for name in names if name.isprintable() and name[0] not in "._"]
    return [name for name in visible if is_folder(place / name)][:_MAX_FOLDERS]


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()


def _listed(profiles: Sequence[Profile]) -> str:
    names = ", ".join(repr(profile.name) for profile in profiles[:_MAX_LISTED])
    return names + (f" and {len(profiles) - _MAX_LISTED} more" if len(profiles) > _MAX_LISTED else "")
