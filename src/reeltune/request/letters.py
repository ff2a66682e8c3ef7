"""The letters of `image_prompt_type` and `video_prompt_type`, and checks that they are supported.

image_prompt_type: S start image, E end image, T text only, V continue a video, L continue the last video.
video_prompt_type: V control video, B face video, A mask, I reference images, K the first of them is a landscape, N
invert the mask, U use the control video unchanged, M make the masked area gray; P D S L C: convert a video to a control
video; X Y Z W: change the area outside the mask.
"""

from __future__ import annotations

from collections.abc import Collection
from types import MappingProxyType

from reeltune.errors import NotRunnable, SettingsError
from reeltune.families import Architecture

_CONTINUING = MappingProxyType({"V": "continues a video (video_source)", "L": "continues the last video"})
_CONVERTING = MappingProxyType({"P": "poses", "D": "depth", "S": "a scribble", "L": "optical flow", "C": "gray"})
_OUTSIDE_MASK = "XYZW"
_SUPPORTED = {"image_prompt_type": "T", "video_prompt_type": "UMNK"}  # besides the letters of inputs


def flag(key: str) -> str:
    """The command-line option of an input."""
    return "--" + key.replace("_", "-")


def check_letters(
    architecture: Architecture, key: str, letters: str, files: Collection[str], has_source: bool
) -> list[str]:
    """Notices about letters that have no effect because their file is missing.

    `key`: the setting with the letters. `files`: the inputs with a file. `has_source`: whether there is a video to
    continue. Raises SettingsError for the letter of an input without a file, and NotRunnable for a letter that selects
    an unsupported feature.
    """
    inputs = {
        letter: model_input.key
        for model_input in architecture.inputs
        for letter in model_input.letter
        if model_input.letters_key == key
    }
    notices = []
    for letter in dict.fromkeys(letters):
        if letter in inputs:
            _require_file(key, letters, letter, inputs[letter], files)
        elif key == "image_prompt_type" and letter in _CONTINUING and not has_source:
            notices.append(f"{key} is {letters!r}: {letter} {_CONTINUING[letter]}, but there is none.")
        elif not letter.isspace() and letter not in _SUPPORTED[key]:
            _refuse(architecture, key, letters, letter, files)
    return notices


def _require_file(key: str, letters: str, letter: str, input_key: str, files: Collection[str]) -> None:
    if input_key not in files:
        message = f"{key} is {letters!r}: {letter} needs {input_key}, which is not set."
        raise SettingsError(message, hint=f"Use {flag(input_key)} FILE, or remove the letter.")


def _refuse(architecture: Architecture, key: str, letters: str, letter: str, files: Collection[str]) -> None:
    """Raise NotRunnable, unless the file that the letter changes is missing, so that the letter has no effect."""
    hint = f"Remove {letter} from {key}."
    if key == "image_prompt_type" and letter in _CONTINUING:
        problem = f"{letter} {_CONTINUING[letter]}, which is not supported yet"
    elif key == "video_prompt_type" and letter in _CONVERTING:
        if "video_guide" not in files:
            return
        problem = f"{letter} converts the control video to {_CONVERTING[letter]}, which is not supported yet"
        hint = f"Use a control video that shows {_CONVERTING[letter]} already, and remove {letter} from {key}."
    elif key == "video_prompt_type" and letter in _OUTSIDE_MASK:
        if "video_mask" not in files:
            return
        problem = f"{letter} changes the control video outside the mask, which is not supported yet"
    else:
        inputs = [model_input for model_input in architecture.inputs if model_input.letters_key == key]
        pairs = [(model_input.letter, model_input.key) for model_input in inputs if model_input.letter]
        supported = ", ".join(f"{other} ({key})" for other, key in pairs)
        problem = f"{architecture.id} does not support {letter}; it supports {supported}"
    raise NotRunnable(f"{key} is {letters!r}: {problem}.", hint=hint)


def keeps_masked(letters: str) -> bool:
    """Whether the control video is unchanged under the mask; otherwise it is gray there, as in VACE's training."""
    return "U" in letters and "M" not in letters


def inverts_mask(letters: str) -> bool:
    """Whether the model changes the area outside the mask, instead of inside."""
    return "N" in letters
