"""Settings read from generated videos and images, and from settings files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reeltune.cli.output import print_json_text, print_notice

if TYPE_CHECKING:
    from reeltune.definitions import Definition
    from reeltune.families.values import Settings
    from reeltune.media.origin import Origin


def read_command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A video or image made with reeltune or WanGP, or a settings file.")
    ],
) -> None:
    """Print the settings in a video, an image or a settings file, in the format of settings files."""
    from reeltune.media.origin import read_stored
    from reeltune.settings import settings_text

    origin = read_stored(file)
    print_json_text(settings_text(origin.definition, origin.settings).rstrip())
    _print_unknown(file, origin)


def stored_settings(file: Path, definition: Definition) -> Settings:
    """The settings in a file that apply to a definition. Raises MediaError, SettingsError."""
    from reeltune.families.vocabulary import KEYS
    from reeltune.media.origin import read_stored
    from reeltune.settings import stored_layer

    origin = read_stored(file)
    _print_unknown(file, origin)
    if origin.definition and origin.definition != definition.id:
        print_notice(f"{file} was made with {origin.definition}; its settings are used for {definition.id}.")
    settings = stored_layer(definition.architecture, origin.settings, origin.program)
    return {key: value for key, value in settings.items() if not KEYS[key].descriptive}


def _print_unknown(file: Path, origin: Origin) -> None:
    from reeltune.settings import listed

    if origin.unknown:
        print_notice(f"{file}: ignored unknown or invalid settings: {listed(origin.unknown)}.")
