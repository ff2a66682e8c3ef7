"""`decode`: make the video of latents that an interrupted run left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reeltune._quiet import freeze_imported
from reeltune.cli.generate import check_output, check_writable, save_video
from reeltune.cli.options import Device, Profile, Root, Threads, open_catalog, wishes
from reeltune.cli.output import interruptible, say, showing
from reeltune.files import expand

_WHERE = "`reeltune ls` lists the latents of unfinished videos; they are in outputs/latents/."


def decode(
    latents: Annotated[Path, typer.Argument(help="A file of outputs/latents/, left by an interrupted run.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write (default: in outputs/).")] = None,
    device: Device = None,
    profile: Profile = None,
    threads: Threads = None,
    root: Root = None,
) -> None:
    """Finish a run that ended between denoising and the video: decode its latents, write the video."""
    check_output(output)
    id = _definition_of(latents)
    catalog = open_catalog(root)
    definition = catalog[id]
    preferences = wishes(catalog.root, device=device, profile=profile, threads=threads)
    check_writable(output or catalog.root / expand(preferences.outputs) / "video.mp4")

    from reeltune import Engine  # heavy: only once everything cheap has been checked

    freeze_imported()

    with (
        interruptible() as cancel,
        showing() as listener,
        Engine(definition, preferences=preferences, listener=listener) as engine,
    ):
        video = engine.decode(latents, cancel=cancel)
        path = save_video(video, lambda: output or engine.output_path(video), listener)
    say(str(path))


def _definition_of(latents: Path) -> str:
    """The id of the definition that latents on disk were made with. Raises MediaError for any other file."""
    from reeltune.checkpoints.header import read_header
    from reeltune.errors import CheckpointError, MediaError
    from reeltune.media.kinds import kind_of

    kind = kind_of(latents)
    try:
        id = read_header(latents).metadata.get("definition")
    except CheckpointError as error:
        message = f"{latents} is {kind.label}, not the latents of a video."
        raise MediaError(message, hint=_WHERE) from error
    if not id:
        raise MediaError(f"{latents} is {kind.label} that holds no latents of this program.", hint=_WHERE)
    return id
