"""Example videos of a published model: the newest ones from the outputs folder, without private tags."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reeltune.definitions import Definition
from reeltune.errors import FileError, MediaError
from reeltune.families.values import PATHS, Settings
from reeltune.families.vocabulary import KEYS
from reeltune.files import expand, is_file, make_folder
from reeltune.library.digests import sha256_of
from reeltune.library.index import Index
from reeltune.media.origin import Origin, read_origin
from reeltune.media.remuxing import copy_video
from reeltune.preferences import Preferences
from reeltune.sharing.hub import LargeFile
from reeltune.sharing.leaks import Secrets
from reeltune.untrusted import JsonObject

FOLDER = "examples"  # in the repository
_MAX_BYTES = 50_000_000  # of a video
_MAX_SEARCHED = 500  # of the newest videos
_NAME_LENGTH = 12  # digits of the sha256
_LORA_KEYS = ("activated_loras", "loras_multipliers")


@dataclass(frozen=True)
class Example:
    """A video to publish. `prompt`: what it was made from. `settings`: those that differ from a default are shown."""

    file: LargeFile
    prompt: str
    settings: Settings


def find_examples(
    definition: Definition, preferences: Preferences, count: int, secrets: Secrets, folder: Path
) -> list[Example]:
    """The newest videos of a definition with different prompts, at most `count`, copied into `folder`.

    Videos whose settings contain a secret anywhere but in the paths of input files are left out.
    """
    examples: list[Example] = []
    prompts: set[str] = set()
    outputs = definition.root / expand(preferences.outputs)
    for path in _newest_videos(outputs) if count else ():
        origin = _origin(path)
        if origin is None or origin.definition != definition.id:
            continue
        prompt = str(origin.settings.get("prompt", "")).strip()
        metadata = _public_metadata(origin)
        if not prompt or prompt in prompts or secrets.find_in(metadata):
            continue
        prompts.add(prompt)
        examples.append(_copied(path, metadata, prompt, folder))
        if len(examples) == count:
            break
    return examples


def _newest_videos(outputs: Path) -> Iterator[Path]:
    try:
        with os.scandir(outputs) as entries:
            found = [
                (entry.stat().st_mtime, entry.path)
                for entry in entries
                if entry.name.endswith(".mp4") and entry.is_file() and 0 < entry.stat().st_size <= _MAX_BYTES
            ]
    except OSError:  # no video was made yet
        return
    for _, path in sorted(found, reverse=True)[:_MAX_SEARCHED]:
        yield Path(path)


def _origin(path: Path) -> Origin | None:
    try:
        return read_origin(path)
    except MediaError:
        return None


def _public_metadata(origin: Origin) -> JsonObject:
    """The tags of a published video: how it was made, without the paths of input files and LoRAs."""
    metadata = origin.as_metadata()
    metadata["settings"] = {
        key: value
        for key, value in metadata["settings"].items()
        if key not in _LORA_KEYS and not (key in KEYS and KEYS[key].kind is PATHS)
    }
    return metadata


def _copied(path: Path, metadata: JsonObject, prompt: str, folder: Path) -> Example:
    make_folder(folder)
    copy = folder / path.name
    copy_video(path, copy, metadata)
    if not is_file(copy):
        raise FileError(f"{copy} can't be written.")
    digest = sha256_of(copy, Index(folder))
    file = LargeFile(f"{FOLDER}/{digest[:_NAME_LENGTH]}.mp4", copy, copy.stat().st_size, digest)
    return Example(file, prompt, metadata["settings"])
