"""Rewrites messages of the package for the page: labels instead of setting names, no options of the command line.

Errors are raised below the page and the command line, so their messages name settings by their keys, and some advise
an option or a command. On the page the same thing has a label or a button.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from reeltune._text import shortened
from reeltune.families.vocabulary import INPUT_KEYS, KEYS
from reeltune.service.labels import label_of
from reeltune.service.preference_fields import PREFERENCE_LABELS

NO_LABELS: Mapping[str, str] = MappingProxyType({})
_SETTING_OF_OPTION = {
    "prompt": "prompt",
    "seed": "seed",
    "resolution": "resolution",
    "frames": "video_length",
    "steps": "num_inference_steps",
    "negative-prompt": "negative_prompt",
}
_ADVICE_FOR_COMMAND = {  # other commands have no equivalent on the page
    "decode": "“Resume” tries again.",
    "pull": "“Generate” downloads what is missing.",
    "config": "Change it under Configuration.",
    "add": "“Create” makes a definition of it.",
    "check": "“Create” shows and edits your definitions.",
}
_MAX_LENGTH = 2_000  # of a message: the time these patterns take grows with the square of it
_REMARK = re.compile(r"\s*\((?:`reeltune [^`]*`|`?--[a-z][^)]*)\)")  # about the command line, in brackets
_LAST_ALTERNATIVE = re.compile(r",? or [^,.]*--[a-z][^,.]*")
_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?])\s+(?=[A-Z`“'\"-])")
_OPTION = re.compile(r"--([a-z][a-z0-9-]*)")
_COMMAND = re.compile(r"`reeltune ([a-z]+)\b")
_LONG_KEYS = sorted((key for key in KEYS if "_" in key), key=len, reverse=True)
_LONG_KEY = re.compile(rf"\b({'|'.join(_LONG_KEYS)})\b")
_SHORT_KEY = re.compile(r"(?<=for )(prompt|seed|resolution)\b")
_PREFERENCE = re.compile(rf"(?<=for )({'|'.join(PREFERENCE_LABELS)})\b(?=\.)")
_SLOT = re.compile(r"\b(transformer_2|modules\[(\d+)\])")


def in_words(message: str, labels: Mapping[str, str] = NO_LABELS) -> str:
    """A message as the page shows it, cut off where it is far too long. `labels`: those of a form, by setting."""
    without_remarks = _LAST_ALTERNATIVE.sub("", _REMARK.sub("", shortened(message, _MAX_LENGTH)))
    sentences = [_sentence_in_words(sentence, labels) for sentence in _BETWEEN_SENTENCES.split(without_remarks)]
    return " ".join(dict.fromkeys(sentence for sentence in sentences if sentence))


def _sentence_in_words(sentence: str, labels: Mapping[str, str]) -> str:
    """The sentence, another one with the same meaning on the page, or an empty text."""
    option = _OPTION.search(sentence)
    if option:
        return _advice_for_option(option[1], labels)
    command = _COMMAND.search(sentence)
    if command:
        return _ADVICE_FOR_COMMAND.get(command[1], "")
    sentence = _SLOT.sub(lambda match: slot_in_words(match[0]), sentence)

    def quoted(match: re.Match[str]) -> str:
        return f"“{labels.get(match[1]) or label_of(match[1])}”"

    sentence = _LONG_KEY.sub(quoted, sentence)
    for label in labels.values():
        if f"“{label}”" in sentence:
            sentence = sentence.replace(f" ({label})", "")  # which explains the name of the setting
    sentence = _PREFERENCE.sub(lambda match: f"“{PREFERENCE_LABELS[match[1]]}”", sentence)
    return _SHORT_KEY.sub(quoted, sentence)


def _advice_for_option(option: str, labels: Mapping[str, str]) -> str:
    key = option.replace("-", "_")
    if key in INPUT_KEYS:
        return f"Add a file to “{labels.get(key) or label_of(key)}”."
    if option in _SETTING_OF_OPTION:
        return f"Change “{label_of(_SETTING_OF_OPTION[option])}”."
    if key in PREFERENCE_LABELS:
        return f"Change “{PREFERENCE_LABELS[key]}” under Configuration."
    return ""


def slot_in_words(slot: str) -> str:
    """The name of a slot as users see it."""
    if slot == "transformer":
        return "model"
    if slot == "transformer_2":
        return "second model"
    module = re.fullmatch(r"modules\[(\d+)\]", slot)
    return f"module {int(module[1]) + 1}" if module else slot.replace("_", " ")
