"""The input files of a request: the images and videos in the settings, and checks that they exist."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reeltune.errors import SettingsError
from reeltune.families import Architecture, Input
from reeltune.families.values import Settings
from reeltune.files import expand, is_file, is_folder
from reeltune.media.kinds import display
from reeltune.request.letters import check_letters, flag, inverts_mask, keeps_masked
from reeltune.request.values import InputFiles

_MAX_IMAGES = 16
_LABELS = {
    "image": "an image", "images": "one or more images", "video": "a video", "mask": "a mask video",
    "tracks": "a NumPy file (.npy)",
}  # fmt: skip


def input_files(
    architecture: Architecture, settings: Settings, root: Path, notify: Callable[[str], None]
) -> InputFiles:
    """The files in the settings for the architecture's inputs.

    `notify` is called with a notice for each letter that has no effect. Raises SettingsError if a required file is
    missing or doesn't exist, and NotRunnable for a letter that selects an unsupported feature.
    """
    files: dict[str, tuple[Path, ...]] = {}
    for model_input in architecture.inputs:
        paths = _paths(model_input, settings.get(model_input.key), root)
        if paths:
            files[model_input.key] = paths
        elif model_input.required:
            raise SettingsError(
                f"{architecture.id} needs {model_input.key}: {_described(model_input)}.",
                hint=f"Use {flag(model_input.key)} FILE, or the setting {model_input.key}=….",
            )
    has_source = bool(settings.get("video_source"))
    for letters_key in dict.fromkeys(model_input.letters_key for model_input in architecture.inputs):
        letters = settings.get(letters_key) or ""
        for notice in check_letters(architecture, letters_key, letters, files, has_source):
            notify(notice)
    if "video_mask" in files and "video_guide" not in files:
        raise SettingsError("video_mask needs a video_guide to mask.", hint="Use --video-guide FILE.")
    kinds = {model_input.key: model_input.kind for model_input in architecture.inputs}
    custom = _first(files.get("custom_guide"))
    tracks = custom if kinds.get("custom_guide") == "tracks" else None
    if tracks is None:
        _check_replacement(files)
    letters = settings.get("video_prompt_type") or ""
    references = [model_input for model_input in architecture.inputs if model_input.key == "image_refs"]
    return InputFiles(
        start_image=_first(files.get("image_start")),
        end_image=_first(files.get("image_end")),
        control_video=_first(files.get("video_guide")),
        mask_video=_first(files.get("video_mask")),
        reference_images=files.get("image_refs", ()),
        face_video=_first(files.get("video_guide2")),
        background_video=None if tracks else custom,
        tracks=tracks,
        mask_inverted=inverts_mask(letters),
        control_kept=keeps_masked(letters),
        held=any(model_input.held for model_input in architecture.inputs),
        border=references[0].border if references else 255,
    )


def _check_replacement(files: Mapping[str, tuple[Path, ...]]) -> None:
    """Raise SettingsError for a background without a mask; with a face video also for a mask without a background."""
    if "custom_guide" in files and "video_mask" not in files:
        message = "custom_guide needs a video_mask, which is white where a person is replaced."
        raise SettingsError(message, hint="Use --video-mask FILE, or leave out the background.")
    if "video_mask" in files and "video_guide2" in files and "custom_guide" not in files:
        message = "video_mask needs a custom_guide: the video in which a person is replaced, without that person."
        raise SettingsError(message, hint="Use --custom-guide FILE, or leave out the mask.")


def _described(model_input: Input) -> str:
    """What an input is, with its label where that isn't the setting's."""
    label = f" ({model_input.label})" if model_input.label else ""
    return _LABELS[model_input.kind] + label


def _first(paths: tuple[Path, ...] | None) -> Path | None:
    return paths[0] if paths else None


def _paths(model_input: Input, value: Any, root: Path) -> tuple[Path, ...]:
    """The existing files in a setting. Raises SettingsError."""
    key = model_input.key
    if value in (None, ""):
        return ()
    names = value if isinstance(value, list | tuple) else [value]
    limit = _MAX_IMAGES if model_input.kind == "images" else 1
    if len(names) > limit:
        message = f"{key} has {len(names)} files; the limit is {limit}."
        raise SettingsError(message, hint=f"Use {_LABELS[model_input.kind]}.")
    paths = []
    for name in names:
        if not isinstance(name, str | Path):
            raise SettingsError(f"Invalid value {name!r} for {key}.", hint="Use the path of a file.", key=key)
        path = root / expand(name)
        if not is_file(path):
            problem = "is a folder" if is_folder(path) else "doesn't exist"
            raise SettingsError(f"{key}: {display(path)!r} {problem}.", hint="Check the path.")
        paths.append(path)
    return tuple(paths)
