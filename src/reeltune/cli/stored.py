"""Settings read back from generated videos and images, and from settings files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reeltune.cli.output import notice, say

if TYPE_CHECKING:
    from reeltune.definitions import Definition
    from reeltune.media.origin import Origin


def read_command(
    file: Annotated[Path, typer.Argument(help="A generated video or image, also of WanGP, or a settings file.")],
) -> None:
    """Print the settings inside a video, an image or a settings file, as a settings file."""
    from reeltune.media.origin import read_stored
    from reeltune.settings import settings_text

    origin = read_stored(file)
    say(settings_text(origin.definition, origin.settings).rstrip())
    _report(file, origin)


def stored_call(file: Path, definition: Definition) -> dict[str, Any]:
    """The settings in a file, as a caller of the definition gives them. Raises MediaError, SettingsError."""
    from reeltune.families.vocabulary import KEYS
    from reeltune.media.origin import read_stored
    from reeltune.settings import stored_layer

    origin = read_stored(file)
    _report(file, origin)
    if origin.definition and origin.definition != definition.id:
        notice(f"{file} was made with {origin.definition}; its settings are used with {definition.id}.")
    settings = stored_layer(definition.architecture, origin.settings, origin.program)
    return {key: value for key, value in settings.items() if not KEYS[key].descriptive}


def _report(file: Path, origin: Origin) -> None:
    from reeltune.settings import listed

    if origin.unknown:
        notice(f"{file}: left out, as unknown or impossible: {listed(origin.unknown)}.")
