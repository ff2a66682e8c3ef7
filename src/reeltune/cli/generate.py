"""`generate`: a definition in, a video out."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reeltune._quiet import freeze_imported
from reeltune.cli.options import Device, DType, Id, Profile, Quantization, Root, Threads, open_catalog, wishes
from reeltune.cli.output import interruptible, say, showing
from reeltune.cli.stored import stored_call
from reeltune.files import expand, is_folder, reason

if TYPE_CHECKING:
    from reeltune import Engine
    from reeltune.definitions import Definition
    from reeltune.events import Listener
    from reeltune.media.video import Video
    from reeltune.preferences import Preferences

_ELSEWHERE = "Choose another place: -o, or `outputs` in reeltune.json."


def generate(
    id: Id,
    prompt: Annotated[str | None, typer.Argument(help="What the video shows (default: the definition's).")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting, such as num_inference_steps=20."),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            "--settings",
            show_default=False,
            help="Take the settings of a generated video or image, or of a settings file; other options win.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Same seed, same video; -1 picks one.")] = None,
    image_start: Annotated[str | None, typer.Option("--image-start", help="Image the video starts from.")] = None,
    image_end: Annotated[str | None, typer.Option("--image-end", help="Image it ends with.")] = None,
    video_guide: Annotated[str | None, typer.Option("--video-guide", help="Control video it follows.")] = None,
    video_mask: Annotated[
        str | None, typer.Option("--video-mask", help="Mask of the control video: white is generated.")
    ] = None,
    image_refs: Annotated[
        list[str] | None, typer.Option("--image-refs", help="Image of what appears in it; may be given several times.")
    ] = None,
    save_quantized: Annotated[
        bool,
        typer.Option(
            "--save-quantized", help="First write the int8 version of its 16-bit file, and list it in the definition."
        ),
    ] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write (default: in outputs/).")] = None,
    quantization: Quantization = None,
    dtype: DType = None,
    device: Device = None,
    profile: Profile = None,
    threads: Threads = None,
    root: Root = None,
) -> None:
    """Make a video. Missing files are downloaded first; which are used, and why, is reported."""
    check_output(output)
    catalog = open_catalog(root)
    definition = catalog[id]
    preferences = wishes(catalog.root, quantization, dtype, device, profile, threads)
    preferences = replace(preferences, save_quantized=save_quantized or preferences.save_quantized)
    check_writable(output or catalog.root / expand(preferences.outputs) / "video.mp4")
    files = {"image_start": image_start, "image_end": image_end, "video_guide": video_guide, "video_mask": video_mask}
    options = {"prompt": prompt, "seed": seed, **_inputs(files, image_refs or [])}
    call = stored_call(settings, definition) if settings is not None else {}
    _write_videos(definition, preferences, call | _given(assignments or [], options), output)


def _given(assignments: list[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings given by `--set` and by options of their own. Raises SettingsError for one that is given by both."""
    from reeltune.errors import SettingsError
    from reeltune.settings import parse_assignments

    own = {key: value for key, value in options.items() if value is not None}
    call = parse_assignments(assignments)
    if twice := sorted(own.keys() & call.keys()):
        raise SettingsError(f"{twice[0]} is given twice, once of them by --set.", hint="Leave out one of them.")
    return call | own


def _write_videos(definition: Definition, preferences: Preferences, call: dict[str, Any], output: Path | None) -> None:
    from reeltune import Engine  # heavy: only once everything cheap has been checked

    freeze_imported()
    paths: list[Path] = []
    with (
        contextlib.ExitStack() as saved,
        interruptible() as cancel,
        showing() as listener,
        Engine(
            definition, preferences=preferences, listener=listener, save_quantized=preferences.save_quantized
        ) as engine,
    ):
        saved.callback(_print_paths, paths)
        for number, video in enumerate(engine.generate_each(cancel=cancel, **call)):
            target = partial(_chosen, engine, video, output, number)
            paths.append(save_video(video, target, listener))


def _print_paths(paths: list[Path]) -> None:
    """What has been written, also where a later video failed."""
    for path in paths:
        say(str(path))


def _inputs(files: dict[str, str | None], references: list[str]) -> dict[str, Any]:
    """The images and videos given, as settings."""
    found: dict[str, Any] = {key: _input_path(key, name) for key, name in files.items() if name is not None}
    if references:
        found["image_refs"] = [_input_path("image_refs", name) for name in references]
    return found


def _input_path(key: str, name: str) -> str:
    """A file given on the command line, which is meant from the current folder, not from the root."""
    from reeltune.errors import SettingsError

    if not name:
        flag = "--" + key.replace("_", "-")
        raise SettingsError(f"{flag} is empty.", hint="Give the path of a file, or leave the option out.")
    return str(expand(name).absolute())


def check_output(output: Path | None) -> None:
    """Raise MediaError, before the work, where a video can't be written under the name asked for."""
    from reeltune.errors import MediaError

    if output is None:
        return
    if is_folder(output):
        raise MediaError(f"{output} is a folder.", hint=f"Name a file: -o {output / 'video.mp4'}.")
    if output.suffix.lower() != ".mp4":
        raise MediaError(
            f"{output} doesn't end in .mp4: only MP4 files are written.", hint="Use a name such as out.mp4."
        )
    check_writable(output)


def check_writable(output: Path) -> None:
    """Raise MediaError, before the work, where a file can't be written."""
    from reeltune.errors import MediaError

    try:
        output.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise MediaError(
            f"{output} can't be written: {reason(error)}.",
            hint="Choose another place: -o, or `outputs` in reeltune.json.",
        ) from error
    folder = next(parent for parent in output.absolute().parents if is_folder(parent))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MediaError(
            f"{output} can't be written: {folder} is read-only.",
            hint="Choose another folder: -o, or `outputs` in reeltune.json.",
        )


def save_video(video: Video, target: Callable[[], Path], listener: Listener) -> Path:
    """Write a video; where its place can't be written, keep it elsewhere: minutes or hours of work depend on it."""
    from reeltune.errors import MediaError

    try:
        return video.save(target(), listener=listener)
    except MediaError as error:
        kept = video.save(Path(tempfile.mkdtemp(prefix="reeltune-")) / "video.mp4", listener=listener)
        first = error.__cause__ if isinstance(error.__cause__, MediaError) else error  # before it named the latents
        raise MediaError(f"{first.message} The video is kept in {kept}.", hint=first.hint) from error


def _chosen(engine: Engine, video: Video, output: Path | None, number: int) -> Path:
    return _target(output, number) or engine.output_path(video)


def _target(output: Path | None, number: int) -> Path | None:
    """The file of the n-th video: `out.mp4`, `out_2.mp4`…"""
    if output is None or number == 0:
        return output
    return output.with_stem(f"{output.stem}_{number + 1}")
