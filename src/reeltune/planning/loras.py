"""The LoRAs of a plan: where each is on disk, or will be downloaded to."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from reeltune.definitions import Definition, Version
from reeltune.errors import SettingsError
from reeltune.library.index import fold
from reeltune.library.inventory import FileQuery, LoraInventory
from reeltune.library.places import is_valid_name
from reeltune.net import file_key, shown
from reeltune.planning.facts import listed_sha256
from reeltune.planning.item import Item
from reeltune.preferences import Preferences
from reeltune.request.loras import mode_loras
from reeltune.settings import layer, stored_settings

_SUBFOLDER = "|"  # in a URL, before the subfolder that its file is stored in, as in WanGP's settings
_MAX_DEPTH = 4


@dataclass(frozen=True)
class PlannedLora:
    """A LoRA of a plan. `source`: its URL or path, as it was written.

    `notices`: why files on disk, or the subfolder that it names, aren't used.
    """

    source: str
    item: Item
    notices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of its file."""
        return self.item.path.name


def default_loras(definition: Definition) -> tuple[str, ...]:
    """The LoRAs of a definition, followed by those of its settings, with the defaults that the user saved."""
    saved = stored_settings(definition.root, definition.id).settings
    settings = layer(definition.architecture, definition.settings, saved)
    of_mode: tuple[str, ...] = ()
    with contextlib.suppress(SettingsError):  # which a request reports
        of_mode = mode_loras(definition, settings)
    return (*of_mode, *(lora.url for lora in definition.loras), *(settings.get("activated_loras") or ()))


def planned_loras(definition: Definition, preferences: Preferences, sources: Sequence[str]) -> tuple[PlannedLora, ...]:
    """The LoRAs with these URLs or paths."""
    if not sources:
        return ()
    architecture = definition.architecture
    inventory = LoraInventory(
        definition.root, architecture.loras, preferences.model_folders, preloaded=architecture.mode_loras
    )
    reserved: dict[str, str] = {}
    planned = []
    for number, source in enumerate(sources):
        lora = _planned(definition, inventory, source, number, reserved)
        reserved.setdefault(fold(lora.name), file_key(lora.item.url))
        planned.append(lora)
    return tuple(planned)


def _planned(
    definition: Definition, inventory: LoraInventory, source: str, number: int, reserved: dict[str, str]
) -> PlannedLora:
    url, subfolder = split_source(source)
    folder = _folder(subfolder)
    notices = []
    if folder is None:
        place = f"loras/{definition.architecture.loras}"
        text = f"The subfolder {subfolder[:80]!r} of {shown(url)} can't be used: the file is stored in {place}."
        notices.append(text)
    version = Version(url)
    query = FileQuery(version, sha256=listed_sha256(definition.sha256, url, version.file_name))
    found, unusable = inventory.find(query)
    if found is not None:
        path = found.path
    else:
        path = inventory.download_path(query, unusable, reserved)
        if folder is not None and version.remote:
            path = path.parent / folder / path.name
    return PlannedLora(
        source,
        Item(
            subject=f"loras[{number}]",
            url=url,
            path=path,
            present=found is not None,
            bytes=found.bytes if found is not None else inventory.index.size_of_url(url),
            weights=True,
            sha256_by_name=definition.sha256,
            obstacle=next((file.reason for file in unusable if file.path == path), ""),
        ),
        (*notices, *(file.notice for file in unusable)),
    )


def split_source(source: str) -> tuple[str, str]:
    """The URL or path of a LoRA as it is opened, and the subfolder that a URL names behind `|`; empty if none.

    The path has forward slashes. Only URLs are cut: `|` may be part of a file's name.
    """
    source = source.strip()
    if not Version(source).remote:
        return source.replace("\\", "/"), ""
    url, _, subfolder = source.partition(_SUBFOLDER)
    return url.strip(), subfolder


def _folder(subfolder: str) -> PurePosixPath | None:
    """A subfolder as a relative path; None for one that can't be used."""
    folder = PurePosixPath(subfolder.replace("\\", "/").strip("/"))
    if len(folder.parts) > _MAX_DEPTH or not all(is_valid_name(part) for part in folder.parts):
        return None
    return folder
