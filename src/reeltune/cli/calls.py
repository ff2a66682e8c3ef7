"""The settings of a call, from the options that `generate` and `explain` share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reeltune.cli.profiles import SpeedProfile as SpeedProfile
from reeltune.cli.profiles import with_speed_profile
from reeltune.files import expand, is_file

if TYPE_CHECKING:
    from reeltune.definitions import Definition
    from reeltune.families.values import Settings

_WEIGHTS = re.compile(r"[-+.0-9eE,;]+")

Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting, such as num_inference_steps=20; may be repeated."),
]
SettingsFile = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        show_default=False,
        help="Use the settings in a generated video or image, or in a settings file, a profile or a LoRA preset "
        "(.lset). Other options override them.",
    ),
]
Loras = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="FILE|URL[:WEIGHTS]",
        help="Apply a LoRA: a file, a name in the folder of LoRAs, or a URL. Weights: 0.8 (default: 1); by step "
        "1,0.5,0; by phase 1;0. May be repeated.",
    ),
]


@dataclass(frozen=True)
class Given:
    """The settings that a command was given, by its options.

    `options`: settings with options of their own; None where they weren't given.
    """

    assignments: Sequence[str] | None
    settings: Path | None
    loras: Sequence[str] | None
    speed_profile: str | None
    options: Settings


def call_settings(definition: Definition, model_folders: Sequence[str], given: Given) -> Settings:
    """The settings of a call: those of the file, overridden by the profile, overridden by all other options.

    LoRAs are added to those of the definition's settings, the file and the profile. `model_folders`: as in the
    preferences. Raises SettingsError, MediaError.
    """
    from reeltune.cli.stored import stored_settings
    from reeltune.errors import SettingsError
    from reeltune.settings import parse_assignments

    own = {key: value for key, value in given.options.items() if value is not None}
    assigned = parse_assignments(given.assignments or [])
    duplicates = sorted(own.keys() & assigned.keys())
    if duplicates:
        message = f"{duplicates[0]} is given both by --set and by its own option or argument."
        raise SettingsError(message, hint="Leave out one of them.")
    stored: Settings = stored_settings(given.settings, definition) if given.settings is not None else {}
    call = with_speed_profile(given.speed_profile, definition, model_folders, {**assigned, **own}, stored)
    return _with_loras(definition, call, given.loras) if given.loras else call


def _with_loras(definition: Definition, call: Settings, loras: Sequence[str]) -> Settings:
    """The settings of a call with LoRAs after those that it would have anyway."""
    from reeltune.families.base import LORAS
    from reeltune.request.loras import add_loras
    from reeltune.request.parse import complete_settings

    complete, _ = complete_settings(definition, call)
    added = add_loras(complete, [split_lora(text) for text in loras])
    return {**call, **{key: added[key] for key in LORAS}}


def split_lora(text: str) -> tuple[str, str]:
    """The file or URL, and the weights, of `FILE|URL[:WEIGHTS]`; without weights, they are empty.

    A file that exists is found from the current folder; any other name, in the folder of LoRAs.
    """
    source, colon, weights = text.rpartition(":")
    if not colon or not source or not _WEIGHTS.fullmatch(weights):
        source, weights = text, ""
    if "://" not in source and is_file(expand(source)):
        source = str(expand(source).absolute())
    return source, weights
