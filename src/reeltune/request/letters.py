"""The letters of `image_prompt_type` and `video_prompt_type`: what each asks for, and which of it is done.

image_prompt_type: S start image, E end image, T text only, V video to continue, L the last video.
video_prompt_type: V control video, A mask, I reference images, K the first of them is a landscape, N what lies outside
the mask is masked, U the control video as it is, M what is masked becomes gray; P D S L C: how a control video is made
of any video; X Y Z W: what happens outside the mask.
"""

from __future__ import annotations

from collections.abc import Collection
from types import MappingProxyType

from reeltune.errors import NotRunnable, SettingsError
from reeltune.families import Architecture

_CONTINUED = MappingProxyType({"V": "continues a video (video_source)", "L": "continues the last video"})
_PROCESSED = MappingProxyType({"P": "poses", "D": "depth", "S": "a scribble", "L": "optical flow", "C": "gray"})
_OUTSIDE = "XYZW"
_DONE = {"image_prompt_type": "T", "video_prompt_type": "UMNK"}  # beside those of inputs


def flag(key: str) -> str:
    """The command line's option for an input."""
    return "--" + key.replace("_", "-")


def check_letters(
    architecture: Architecture, key: str, letters: str, given: Collection[str], continued: bool
) -> list[str]:
    """Notices about letters that ask for something that isn't there to be done.

    `key`: the setting they stand in; `given`: inputs of the request; `continued`: whether a video to continue is given.
    Raises SettingsError for a letter whose file is missing, NotRunnable for one that asks for what isn't done.
    """
    inputs = {row.letter: row.key for row in architecture.inputs if row.letters_key == key}
    notices = []
    for letter in dict.fromkeys(letters):
        if letter in inputs:
            _need(key, letters, letter, inputs[letter], given)
        elif key == "image_prompt_type" and letter in _CONTINUED and not continued:
            notices.append(f"{key} is {letters!r}: {letter} {_CONTINUED[letter]}, and there is none.")
        elif not letter.isspace() and letter not in _DONE[key]:
            _refuse(architecture, key, letters, letter, given)
    return notices


def _need(key: str, letters: str, letter: str, input_key: str, given: Collection[str]) -> None:
    if input_key not in given:
        message = f"{key} is {letters!r}: {letter} asks for {input_key}, which isn't given."
        raise SettingsError(message, hint=f"Give {flag(input_key)} FILE, or leave the letter out.")


def _refuse(architecture: Architecture, key: str, letters: str, letter: str, given: Collection[str]) -> None:
    """Raise NotRunnable, unless what the letter is about isn't given anyway."""
    leave = f"Leave {letter} out of {key}."
    if key == "image_prompt_type":
        what = f"{letter} {_CONTINUED[letter]}, which is not supported yet" if letter in _CONTINUED else ""
    elif letter in _PROCESSED:
        if "video_guide" not in given:
            return
        what = f"{letter} turns the control video into {_PROCESSED[letter]}, which is not supported yet"
        leave = f"Give a control video that shows {_PROCESSED[letter]} already, and leave {letter} out of {key}."
    elif letter in _OUTSIDE:
        if "video_mask" not in given:
            return
        what = f"{letter} changes the control video outside the mask, which is not supported yet"
    else:
        what = ""
    known = ", ".join(f"{row.letter} ({row.key})" for row in architecture.inputs if row.letters_key == key)
    what = what or f"{letter} means nothing for {architecture.id}, which knows {known}"
    raise NotRunnable(f"{key} is {letters!r}: {what}.", hint=leave)


def keeps_masked(letters: str) -> bool:
    """Whether the control video stays as it is under the mask; else it is gray there, as VACE was trained."""
    return "U" in letters and "M" not in letters


def inverts_mask(letters: str) -> bool:
    """Whether the model draws what lies outside the mask."""
    return "N" in letters
