"""Reading of profiles and LoRA presets, which were written by other programs of any date.

A profile is a settings file in `profiles/<folder>/`. A LoRA preset is a file in a folder of LoRAs that ends in `.lset`.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from reeltune._text import counted, shortened
from reeltune.errors import FileError, InvalidJSON, SettingsError
from reeltune.families.base import LORA_SOURCES, LORA_WEIGHTS, LORAS
from reeltune.families.values import Settings
from reeltune.families.vocabulary import INPUT_KEYS, KEYS
from reeltune.files import read_bytes
from reeltune.profiles.model import Profile
from reeltune.settings import StoredSettings, is_lora_preset, listed, read_lora_preset, read_settings
from reeltune.settings.multipliers import items_of, parse_multipliers
from reeltune.untrusted import JsonObject, clean_text, parse_json

_MAX_BYTES = 1_000_000
_MAX_NAME = 200  # characters
_MAX_DESCRIPTION = 2000  # characters
_ABOUT = "about"  # the object in a profile of reeltune with its description and architectures
_HINT = "Fix or delete the file."
# What belongs to one video, and not to the way it is made: a profile leaves these settings to the user.
KEPT = frozenset(
    {
        "prompt", "negative_prompt", "alt_prompt", "resolution", "video_length", "duration_seconds", "seed",
        "repeat_generation", "multi_prompts_gen_type", "image_prompt_type", "video_prompt_type", "audio_prompt_type",
        "output_filename", *INPUT_KEYS,
    }
)  # fmt: skip


def read_profile(path: Path, folder: str, *, built_in: bool = False) -> Profile:
    """The profile in a file. `folder`: the folder of profiles that it is in.

    Raises SettingsError if the file can't be read, contains no setting, or has an invalid weight of a LoRA.
    """
    values = _read_object(path)
    about = values.get(_ABOUT)
    about = about if isinstance(about, dict) else {}
    stored = read_settings(values, path.name)
    loras = _loras(stored)
    multipliers, notices = _checked_multipliers(stored, loras)
    kept = [key for key in stored.settings if key in KEPT and stored.settings[key] not in KEYS[key].neutral]
    if kept:
        notices.append(f"A profile doesn't change these settings of the file: {listed(kept)}.")
    settings = _own_settings(stored.settings)
    if not settings and not loras:
        raise SettingsError(f"{path.name} contains no setting of a profile.", hint=_HINT)
    return Profile(
        name=_name(path),
        folder=folder,
        settings=settings,
        loras=loras,
        multipliers=multipliers,
        description=_description(about.get("description")),
        architectures=_texts(about.get("architectures")),
        file=None if built_in else path,
        notices=(*stored.notices(), *notices),
    )


def read_preset(path: Path, folder: str) -> Profile:
    """The LoRA preset in a file. `folder`: the folder of LoRAs that it is in.

    Its prompt replaces the user's if `full_prompt` is true, and is the description otherwise. Raises SettingsError if
    the file can't be read, contains no LoRA, or has an invalid weight.
    """
    values = _read_object(path)
    if not is_lora_preset(values):
        raise SettingsError(f"{path.name} is not a LoRA preset: it has no `loras`.", hint=_HINT)
    note = "" if values.get("full_prompt") is True else _description(values.get("prompt"))
    stored = read_lora_preset({**values, "prompt": ""} if note else values, path.name)
    loras = _loras(stored)
    if not loras:
        raise SettingsError(f"{path.name} names no LoRA.", hint=_HINT)
    _, notices = _checked_multipliers(stored, loras)
    return Profile(
        name=_name(path),
        folder=folder,
        settings=_own_settings(stored.settings),
        loras=loras,
        multipliers=stored.settings.get(LORA_WEIGHTS, ""),
        description=note,
        file=path,
        prompt=stored.settings.get("prompt", ""),
        preset=True,
        notices=(*stored.notices(), *notices),
    )


def _read_object(path: Path) -> JsonObject:
    """The JSON object in a small file. Raises SettingsError."""
    try:
        value = parse_json(read_bytes(path, _MAX_BYTES), path.name, max_bytes=_MAX_BYTES)
    except FileError as error:
        raise SettingsError(clean_text(error.message), hint=error.hint or _HINT) from error
    except InvalidJSON as error:
        raise SettingsError(clean_text(str(error)), hint=_HINT) from error
    if not isinstance(value, dict):
        raise SettingsError(f"{clean_text(path.name)} must contain a JSON object.", hint=_HINT)
    return value


def _loras(stored: StoredSettings) -> tuple[str, ...]:
    return tuple(stored.settings.get(LORA_SOURCES, ()))


def _checked_multipliers(stored: StoredSettings, loras: tuple[str, ...]) -> tuple[str, list[str]]:
    """One item for each LoRA, and notices about items without a LoRA. Raises SettingsError for an invalid item."""
    items = items_of(stored.settings.get(LORA_WEIGHTS, ""))
    notices = []
    if len(items) > len(loras):
        surplus = len(items) - len(loras)
        notices.append(f"{LORA_WEIGHTS} has {len(items)} items for {counted(len(loras), 'LoRA')}: {surplus} not used.")
    used = " ".join([*items[: len(loras)], *["1"] * (len(loras) - len(items))])
    parse_multipliers(used)
    return used, notices


def _own_settings(settings: Settings) -> Settings:
    """The settings that a profile changes."""
    return MappingProxyType(
        {
            key: value
            for key, value in settings.items()
            if key not in KEPT and key not in LORAS and not KEYS[key].descriptive
        }
    )


def _name(path: Path) -> str:
    """The name of a profile: its file's, without the suffix and with single spaces."""
    printable = "".join(character if character.isprintable() else " " for character in clean_text(path.stem))
    return shortened(" ".join(printable.split()), _MAX_NAME)


def _description(value: object) -> str:
    """The text of a description, of one line; empty for any other value."""
    if not isinstance(value, str):
        return ""
    printable = "".join(character if character.isprintable() else " " for character in value)
    return shortened(" ".join(printable.split()), _MAX_DESCRIPTION)


def _texts(value: object) -> tuple[str, ...]:
    """The texts in a list; empty for any other value."""
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
