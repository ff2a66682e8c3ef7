"""`generate`: make a video with a definition."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reeltune._quiet import freeze_imported
from reeltune.cli.calls import Assignments, Given, Loras, SettingsFile, SpeedProfile, call_settings
from reeltune.cli.options import (
    Device,
    DType,
    Id,
    Profile,
    Quantization,
    Root,
    Threads,
    effective_preferences,
    open_catalog,
)
from reeltune.cli.output import interruptible, print_line, progress_display
from reeltune.files import expand, is_folder, reason

if TYPE_CHECKING:
    from reeltune import Engine
    from reeltune.definitions import Definition
    from reeltune.events import Listener
    from reeltune.families.values import Settings
    from reeltune.media.video import Video
    from reeltune.preferences import Preferences

_OUTPUT_HINT = "Choose another path with -o, or another folder with `outputs` in reeltune.json."


def generate(
    id: Id,
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="Description of the video (default: the definition's prompt)."),
    ] = None,
    assignments: Assignments = None,
    settings: SettingsFile = None,
    loras: Loras = None,
    speed_profile: SpeedProfile = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Random seed; the same seed gives the same video. -1 picks a random one."),
    ] = None,
    image_start: Annotated[str | None, typer.Option("--image-start", help="Image that the video starts with.")] = None,
    image_end: Annotated[str | None, typer.Option("--image-end", help="Image that the video ends with.")] = None,
    video_guide: Annotated[
        str | None, typer.Option("--video-guide", help="Control video that the video follows.")
    ] = None,
    video_mask: Annotated[
        str | None, typer.Option("--video-mask", help="Mask for the control video; white areas are generated.")
    ] = None,
    video_guide2: Annotated[
        str | None,
        typer.Option(
            "--video-guide2", help="Second control video: for Animate, the face. Nothing is extracted from it."
        ),
    ] = None,
    custom_guide: Annotated[
        str | None,
        typer.Option(
            "--custom-guide",
            help="For Animate: the video in which a person is replaced, without that person. For Wan-Move: "
            "trajectories of points (.npy).",
        ),
    ] = None,
    image_refs: Annotated[
        list[str] | None,
        typer.Option("--image-refs", help="Image of an object or person to show in the video; may be repeated."),
    ] = None,
    save_quantized: Annotated[
        bool,
        typer.Option(
            "--save-quantized",
            help="Save the int8 or fp8 version of a 16-bit file first, and list it in the definition.",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="MP4 file to write, or PNG file of a model for images (default: in outputs/)."
        ),
    ] = None,
    quantization: Quantization = None,
    dtype: DType = None,
    device: Device = None,
    profile: Profile = None,
    threads: Threads = None,
    root: Root = None,
) -> None:
    """Make a video. Missing files are downloaded first. Reports which files are used, and why."""
    catalog = open_catalog(root)
    definition = catalog[id]
    check_output(output, definition)
    preferences = effective_preferences(catalog.root, quantization, dtype, device, profile, threads)
    preferences = replace(preferences, save_quantized=save_quantized or preferences.save_quantized)
    check_writable(output or catalog.root / expand(preferences.outputs) / "video.mp4")
    files = {
        "image_start": image_start,
        "image_end": image_end,
        "video_guide": video_guide,
        "video_guide2": video_guide2,
        "custom_guide": custom_guide,
        "video_mask": video_mask,
    }
    options: dict[str, object] = {"prompt": prompt, "seed": seed, **_input_settings(files, image_refs or [])}
    given = Given(assignments, settings, loras, speed_profile, options)
    call = call_settings(definition, preferences.model_folders, given)
    _write_videos(definition, preferences, call, output)


def _write_videos(definition: Definition, preferences: Preferences, call: Settings, output: Path | None) -> None:
    """Make the videos and print their paths, even if a later one fails."""
    from reeltune import Engine  # imports torch: only after everything else has been checked

    freeze_imported()
    paths: list[Path] = []
    with (
        contextlib.ExitStack() as stack,
        interruptible() as cancel,
        progress_display() as listener,
        Engine(definition, preferences=preferences, listener=listener) as engine,
    ):
        stack.callback(_print_paths, paths)
        for number, video in enumerate(engine.generate_each(cancel=cancel, **call)):
            target = partial(_target, engine, video, output, number)
            paths.append(save_video(video, target, listener))


def _print_paths(paths: list[Path]) -> None:
    for path in paths:
        print_line(str(path))


def _input_settings(files: dict[str, str | None], references: list[str]) -> Settings:
    """The input images and videos as settings."""
    inputs: dict[str, object] = {key: _input_path(key, name) for key, name in files.items() if name is not None}
    if references:
        inputs["image_refs"] = [_input_path("image_refs", name) for name in references]
    return inputs


def _input_path(key: str, name: str) -> str:
    """The absolute path of an input file. The path is relative to the current folder, not to the root."""
    from reeltune.errors import SettingsError

    if not name:
        flag = "--" + key.replace("_", "-")
        raise SettingsError(f"{flag} is empty.", hint="Give the path of a file, or leave out the option.")
    return str(expand(name).absolute())


def check_output(output: Path | None, definition: Definition) -> None:
    """Raise MediaError, before any work is done, if `output` is not a path that a video can be written to.

    Definitions with `image_outputs` write images.
    """
    from reeltune.errors import MediaError
    from reeltune.media.kinds import IMAGE_SUFFIX, VIDEO_SUFFIX

    if output is None:
        return
    images = definition.architecture.image_outputs
    suffix = IMAGE_SUFFIX if images else VIDEO_SUFFIX
    if is_folder(output):
        name = "image.png" if images else "video.mp4"
        raise MediaError(f"{output} is a folder.", hint=f"Give the path of a file, such as -o {output / name}.")
    if output.suffix.lower() != suffix:
        written = f"{definition.id} makes images, which" if images else "videos"
        message = f"{output} doesn't end in {suffix}: {written} are written as {suffix[1:].upper()} files only."
        raise MediaError(message, hint=f"Use a name such as out{suffix}.")
    check_writable(output)


def check_writable(output: Path, hint: str = _OUTPUT_HINT) -> None:
    """Raise MediaError, before any work is done, if a file can't be written."""
    from reeltune.errors import MediaError

    try:
        output.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise MediaError(f"{output} can't be written: {reason(error)}.", hint=hint) from error
    folder = next(parent for parent in output.absolute().parents if is_folder(parent))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MediaError(f"{output} can't be written: {folder} is read-only.", hint=hint)


def save_video(video: Video, target: Callable[[], Path], listener: Listener) -> Path:
    """Write a video and return its path.

    If the path can't be written, the video is saved to a temporary folder, so that the work isn't lost, and MediaError
    is raised.
    """
    from reeltune.errors import MediaError

    try:
        return video.save(target(), listener=listener)
    except MediaError as error:
        temporary = Path(tempfile.mkdtemp(prefix="reeltune-")) / f"video{video.suffix}"
        path = video.save(temporary, listener=listener)
        # the cause doesn't mention the latents, which aren't needed because the video is saved
        original = error.__cause__ if isinstance(error.__cause__, MediaError) else error
        raise MediaError(f"{original.message} The video was saved to {path}.", hint=original.hint) from error


def _target(engine: Engine, video: Video, output: Path | None, number: int) -> Path:
    """The path of the video with this number, counted from 0: `out.mp4`, `out_2.mp4`, …"""
    if output is None:
        return engine.output_path(video)
    if number == 0:
        return output
    return output.with_stem(f"{output.stem}_{number + 1}")
