"""Every preference by name: its kind, what it means, which values are accepted, and how it is written as text."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from reeltune.errors import PreferencesError
from reeltune.untrusted import clean_text

TOKENS: Mapping[str, str] = MappingProxyType({"hub": "HF_TOKEN", "civitai": "CIVITAI_TOKEN"})  # environment variables

_MOST_CHARACTERS = 4096  # of a path: the longest that Linux takes
_MOST_PATHS = 100
_YES = ("true", "yes", "on", "1")
_NO = ("false", "no", "off", "0")
_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")


@dataclass(frozen=True)
class Field:
    """One preference.

    `check` returns a value as the preference keeps it, and raises ValueError with what it must be. `parse` does the
    same for the text of a command line. `accepts`: the accepted values in words.
    """

    name: str
    help: str
    accepts: str
    check: Callable[[Any], Any]
    parse: Callable[[str], Any] = field(default=lambda text: text)
    choices: tuple[str, ...] = ()

    def checked(self, value: Any) -> Any:
        """A value as the preference keeps it. Raises PreferencesError."""
        try:
            return self.check(value)
        except ValueError:
            raise PreferencesError(
                f"Invalid value {shown(value)} for {self.name}.", hint=f"Use {self.accepts}."
            ) from None


def shown(value: Any) -> str:
    """A value as an error message shows it: short, and without control characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def nearest_field(name: str) -> str:
    """A hint for a name that is no preference."""
    close = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}?" if close else "`reeltune config list` shows all."


# --- kinds ------------------------------------------------------------------------------------------------------


def _choice(name: str, help: str, choices: tuple[str, ...], aliases: Mapping[str, str] | None = None) -> Field:
    known = {choice: choice for choice in choices} | dict(aliases or {})

    def check(value: Any) -> str:
        written = value.strip().lower() if isinstance(value, str) else ""
        if written not in known:
            raise ValueError
        return known[written]

    return Field(name, help, f"one of: {', '.join(choices)}", check, choices=choices)


def _switch(name: str, help: str) -> Field:
    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError
        return value

    def parse(text: str) -> Any:
        word = text.strip().lower()
        if word in _YES:
            return True
        return False if word in _NO else text

    return Field(name, help, "true or false", check, parse)


def _number(name: str, help: str, least: int, most: int, *, whole: bool = False) -> Field:
    def check(value: Any) -> int | float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ValueError
        if not whole:
            return float(value)
        if value != int(value):
            raise ValueError
        return int(value)

    def parse(text: str) -> Any:
        number = text.strip()
        if not _NUMBER.fullmatch(number):
            return text
        return float(number) if "." in number else int(number)

    kind = "a whole number" if whole else "a number"
    return Field(name, help, f"{kind} from {least} to {most:,}", check, parse)


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > _MOST_CHARACTERS:
        raise ValueError
    text = clean_text(value)
    if any(ord(character) < 32 for character in text):  # NUL among them, which no system takes in a path
        raise ValueError
    return text


def _paths(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > _MOST_PATHS:
        raise ValueError
    return tuple(_path(item) for item in value)


def _device(value: Any) -> str:
    written = value.strip().lower() if isinstance(value, str) else ""
    if not _DEVICE.fullmatch(written):
        raise ValueError
    return written


def token(value: Any) -> str:
    """A token as it is sent in a header. Raises ValueError for anything a header can't hold."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or set(value) & set(" \t"):
        raise ValueError
    return value


# --- the preferences --------------------------------------------------------------------------------------------

# Names that people and other programs use for the same value.
_SIXTEEN_BITS = {"fp16": "bf16", "16bit": "bf16", "16-bit": "bf16", "16 bits": "bf16", "16": "bf16", "none": "bf16"}
_EIGHT_BITS = {"8bit": "int8", "8-bit": "int8", "8": "int8", "qint8": "int8", "scaled int8": "int8"}
_DTYPES = {"float16": "fp16", "half": "fp16", "f16": "fp16", "bfloat16": "bf16"}

_ROWS = (
    _choice(
        "quantization",
        "Preferred version of a model: int8, or bf16 for 16 bits.",
        ("int8", "bf16"),
        _SIXTEEN_BITS | _EIGHT_BITS,
    ),
    _choice("dtype", "Data type to compute in; auto is the device's best.", ("auto", "bf16", "fp16"), _DTYPES),
    _choice(
        "text_encoder_quantization",
        "Preferred text encoder of a folder that holds several: int8, or bf16 for 16 bits.",
        ("int8", "bf16"),
        _SIXTEEN_BITS | _EIGHT_BITS,
    ),
    _choice(
        "memory_profile",
        "Where the weights are kept while generating, from fastest to smallest.",
        ("auto", "resident", "stages", "streamed", "minimum"),
    ),
    _choice(
        "attention",
        "Implementation of attention; one that isn't installed is replaced, with a notice.",
        ("auto", "sdpa", "flash", "flash3", "sage", "xformers"),
    ),
    _switch("compile", "Compile the transformer's blocks with torch: slow at first, then faster."),
    _choice(
        "int8",
        "Arithmetic of int8 weights: weights (16-bit activations) or dynamic (int8 activations too).",
        ("weights", "dynamic"),
    ),
    _switch("save_quantized", "Write the int8 versions of 16-bit files and list them in the definition."),
    Field("device", "Device to compute on.", "auto, cpu, mps, cuda, or one card such as cuda:1", _device),
    Field("outputs", "Folder of the videos, relative to the root.", "the path of a folder", _path),
    Field("model_folders", "Read-only folders with weights, such as another program's.", "a list of paths", _paths),
    _number("threads", "CPU threads to compute with; 0 chooses by the size of the video.", 0, 256, whole=True),
    _number("connections", "Connections used for one download.", 1, 16, whole=True),
    _number("rate_limit", "Megabytes per second for all downloads; 0 for no limit.", 0, 100_000),
    _number("stall_seconds", "Seconds without a byte before a connection is made again.", 1, 600),
)

FIELDS: Mapping[str, Field] = MappingProxyType({row.name: row for row in _ROWS})
CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType({row.name: row.choices for row in _ROWS if row.choices})
