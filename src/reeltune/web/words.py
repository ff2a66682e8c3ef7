"""Messages of the package in the words of the page: labels for setting names, no options of the command line.

What is raised below knows neither page nor command line; its messages name settings by their keys, and some advise an
option or a command. On the page the same thing has a label, or a button.
"""

from __future__ import annotations

import re

from reeltune._text import shortened
from reeltune.families.vocabulary import INPUT_KEYS, KEYS
from reeltune.service.labels import PREFERENCES, label_of

_SETTINGS = {
    "prompt": "prompt", "seed": "seed", "resolution": "resolution", "frames": "video_length",
    "steps": "num_inference_steps", "negative-prompt": "negative_prompt",
}  # fmt: skip
_COMMANDS = {  # what does the same on the page; the other commands have nothing there
    "decode": "“Resume” tries again.",
    "pull": "“Generate” downloads what is missing.",
    "config": "Change it under Configuration.",
    "add": "“Create” makes a definition of it.",
    "check": "“Create” shows and edits your definitions.",
}
_MOST_CHARACTERS = 2_000  # the time these patterns take grows with the square of a text of a stranger
_ASIDE = re.compile(r"\s*\((?:`reeltune [^`]*`|`?--[a-z][^)]*)\)")  # a remark on the command line
_ALTERNATIVE = re.compile(r",? or [^,.]*--[a-z][^,.]*")  # the last of several steps
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`“'\"-])")
_OPTION = re.compile(r"--([a-z][a-z0-9-]*)")
_COMMAND = re.compile(r"\breeltune ([a-z]+)\b")
_KEY = re.compile(r"\b(" + "|".join(sorted((key for key in KEYS if "_" in key), key=len, reverse=True)) + r")\b")
_SLOT = re.compile(r"\b(transformer_2|modules\[(\d+)\])")
_PREFERENCE = re.compile(rf"(?<=for )({'|'.join(PREFERENCES)})\b(?=\.)")
_BARE = re.compile(r"(?<=for )(prompt|seed|resolution)\b")


def in_words(message: str) -> str:
    """A message as the page shows it, cut off where it is far too long."""
    general = _ALTERNATIVE.sub("", _ASIDE.sub("", shortened(message, _MOST_CHARACTERS)))
    sentences = [_sentence(row) for row in _SENTENCE.split(general)]
    return " ".join(dict.fromkeys(row for row in sentences if row))


def _sentence(sentence: str) -> str:
    """One sentence, another one that means the same here, or none."""
    if option := _OPTION.search(sentence):
        return _instead_of_option(option[1])
    if command := _COMMAND.search(sentence):
        return _COMMANDS.get(command[1], "")
    named = _KEY.sub(lambda found: f"“{label_of(found[1])}”", _SLOT.sub(_slot, sentence))
    named = _PREFERENCE.sub(lambda found: f"“{PREFERENCES[found[1]]}”", named)
    return _BARE.sub(lambda found: f"“{label_of(found[1])}”", named)


def _instead_of_option(option: str) -> str:
    key = option.replace("-", "_")
    if key in INPUT_KEYS:
        return f"Add a file to “{label_of(key)}”."
    if option in _SETTINGS:
        return f"Change “{label_of(_SETTINGS[option])}”."
    if key in PREFERENCES:
        return f"Change “{PREFERENCES[key]}” under Configuration."
    return ""


def _slot(found: re.Match[str]) -> str:
    return slot_words(found[0])


def slot_words(slot: str) -> str:
    """What people call a slot of a model."""
    if slot == "transformer":
        return "model"
    if slot == "transformer_2":
        return "second model"
    number = re.fullmatch(r"modules\[(\d+)\]", slot)
    return f"module {int(number[1]) + 1}" if number else slot.replace("_", " ")
