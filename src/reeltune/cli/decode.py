"""`decode`: make the video from the latents that an interrupted run left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reeltune._quiet import freeze_imported
from reeltune.cli.generate import check_output, check_writable, save_video
from reeltune.cli.options import Device, Profile, Root, Threads, effective_preferences, open_catalog
from reeltune.cli.output import interruptible, print_line, progress_display
from reeltune.files import expand

_HINT = "The latents of unfinished videos are in outputs/latents/."


def decode(
    latents: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file in outputs/latents/, left by an interrupted run.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="MP4 file to write (default: in outputs/).")
    ] = None,
    device: Device = None,
    profile: Profile = None,
    threads: Threads = None,
    root: Root = None,
) -> None:
    """Finish an interrupted video: decode the latents that were saved after denoising, and write the video."""
    id = _definition_id(latents)
    catalog = open_catalog(root)
    definition = catalog[id]
    check_output(output, definition)
    preferences = effective_preferences(catalog.root, device=device, profile=profile, threads=threads)
    check_writable(output or catalog.root / expand(preferences.outputs) / "video.mp4")

    from reeltune import Engine  # imports torch: only after everything else has been checked

    freeze_imported()

    with (
        interruptible() as cancel,
        progress_display() as listener,
        Engine(definition, preferences=preferences, listener=listener) as engine,
    ):
        video = engine.decode(latents, cancel=cancel)
        path = save_video(video, lambda: output or engine.output_path(video), listener)
    print_line(str(path))


def _definition_id(latents: Path) -> str:
    """The id of the definition that latents were made with. Raises MediaError if the file has no latents."""
    from reeltune.checkpoints.header import read_header
    from reeltune.errors import CheckpointError, MediaError
    from reeltune.media.kinds import kind_of

    kind = kind_of(latents)
    try:
        id = read_header(latents).metadata.get("definition")
    except CheckpointError as error:
        message = f"{latents} is {kind.label}, not the latents of a video."
        raise MediaError(message, hint=_HINT) from error
    if not id:
        raise MediaError(f"{latents} is {kind.label}, but has no latents of reeltune.", hint=_HINT)
    return id
