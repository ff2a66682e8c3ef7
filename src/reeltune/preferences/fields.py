"""The declaration of every preference: its name, help text, accepted values and parsing."""

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

_MAX_PATH = 4096  # characters, as in Linux
_MAX_PATHS = 100
_YES = ("true", "yes", "on", "1")
_NO = ("false", "no", "off", "0")
_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")


@dataclass(frozen=True)
class PreferenceField:
    """The declaration of one preference.

    `accepts`: a description of valid values. `check`: returns the normalized value, or raises ValueError. `parse`:
    converts the text of a command line to a value for `check`.
    """

    name: str
    help: str
    accepts: str
    check: Callable[[Any], Any]
    parse: Callable[[str], Any] = field(default=lambda text: text)
    choices: tuple[str, ...] = ()

    def checked(self, value: Any) -> Any:
        """The normalized value. Raises PreferencesError for an invalid one."""
        try:
            return self.check(value)
        except ValueError:
            raise PreferencesError(
                f"Invalid value {shown(value)} for {self.name}.", hint=f"Use {self.accepts}."
            ) from None


def shown(value: Any) -> str:
    """The representation of a value for a message: shortened, and without control characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def unknown_name_hint(name: str) -> str:
    """The hint for an unknown preference."""
    matches = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.6)
    return f"Did you mean {matches[0]!r}?" if matches else "`reeltune config list` shows all."


# --- kinds ------------------------------------------------------------------------------------------------------


def _choice(
    name: str, help: str, choices: tuple[str, ...], aliases: Mapping[str, str] | None = None
) -> PreferenceField:
    by_name = {choice: choice for choice in choices} | dict(aliases or {})

    def check(value: Any) -> str:
        name = value.strip().lower() if isinstance(value, str) else ""
        if name not in by_name:
            raise ValueError
        return by_name[name]

    return PreferenceField(name, help, f"one of: {', '.join(choices)}", check, choices=choices)


def _switch(name: str, help: str) -> PreferenceField:
    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError
        return value

    def parse(text: str) -> Any:
        word = text.strip().lower()
        if word in _YES:
            return True
        return False if word in _NO else text

    return PreferenceField(name, help, "true or false", check, parse)


def _number(name: str, help: str, minimum: int, maximum: int, *, integer: bool = False) -> PreferenceField:
    def check(value: Any) -> int | float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not minimum <= value <= maximum:
            raise ValueError
        if not integer:
            return float(value)
        if value != int(value):
            raise ValueError
        return int(value)

    def parse(text: str) -> Any:
        number = text.strip()
        if not _NUMBER.fullmatch(number):
            return text
        return float(number) if "." in number else int(number)

    kind = "a whole number" if integer else "a number"
    return PreferenceField(name, help, f"{kind} from {minimum} to {maximum:,}", check, parse)


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_PATH:
        raise ValueError
    text = clean_text(value)
    if any(ord(character) < 32 for character in text):  # includes NUL, which is invalid in every path
        raise ValueError
    return text


def _paths(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > _MAX_PATHS:
        raise ValueError
    return tuple(_path(item) for item in value)


def _device(value: Any) -> str:
    device = value.strip().lower() if isinstance(value, str) else ""
    if not _DEVICE.fullmatch(device):
        raise ValueError
    return device


def token(value: Any) -> str:
    """A token to send in a header, unchanged. Raises ValueError for a value that a header can't contain."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or set(value) & set(" \t"):
        raise ValueError
    return value


# --- the preferences --------------------------------------------------------------------------------------------

# Other names of the same value, used by people and other programs.
_SIXTEEN_BITS = {"fp16": "bf16", "16bit": "bf16", "16-bit": "bf16", "16 bits": "bf16", "16": "bf16", "none": "bf16"}
_EIGHT_BITS = {"8bit": "int8", "8-bit": "int8", "8": "int8", "qint8": "int8", "scaled int8": "int8"}
_FP8 = {"float8": "fp8", "fp8_e4m3fn": "fp8", "fp8_scaled": "fp8"}
_DTYPES = {"float16": "fp16", "half": "fp16", "f16": "fp16", "bfloat16": "bf16"}

_DECLARATIONS = (
    _choice(
        "quantization",
        "Preferred version of a model: int8, fp8, or bf16 for 16 bits.",
        ("int8", "fp8", "bf16"),
        _SIXTEEN_BITS | _EIGHT_BITS | _FP8,
    ),
    _choice(
        "dtype", "Data type to compute in; auto is the best one for the device.", ("auto", "bf16", "fp16"), _DTYPES
    ),
    _choice(
        "text_encoder_quantization",
        "Preferred version of a text encoder: int8, or bf16 for 16 bits.",
        ("int8", "bf16"),
        _SIXTEEN_BITS | _EIGHT_BITS,
    ),
    _choice(
        "memory_profile",
        "Where the weights are stored while generating, from fastest to least memory.",
        ("auto", "resident", "stages", "streamed", "minimum"),
    ),
    _choice(
        "attention",
        "Implementation of attention; if it isn't installed, another is used, with a notice.",
        ("auto", "sdpa", "flash", "flash3", "sage", "xformers"),
    ),
    _switch("compile", "Compile the transformer's blocks with torch: a slower start, then faster steps."),
    _choice(
        "int8",
        "How int8 weights are multiplied: weights (16-bit activations) or dynamic (int8 activations).",
        ("weights", "dynamic"),
    ),
    _choice(
        "fp8",
        "How fp8 weights are multiplied on cards that compute fp8: dynamic (fp8 activations) or weights (16-bit ones).",
        ("dynamic", "weights"),
    ),
    _switch(
        "merge_loras",
        "Merge LoRAs with a constant weight into 16-bit files while loading.",
    ),
    _switch("save_quantized", "Write the int8 versions of 16-bit files (fp8 if that is preferred) and list them."),
    PreferenceField("device", "Device to compute on.", "auto, cpu, mps, cuda, or one card such as cuda:1", _device),
    PreferenceField("outputs", "Folder of the videos, relative to the root.", "the path of a folder", _path),
    PreferenceField(
        "model_folders",
        "Read-only folders with weights, such as an installation of WanGP or ComfyUI.",
        "a list of paths",
        _paths,
    ),
    _number("threads", "CPU threads to use; 0 chooses by the size of the video.", 0, 256, integer=True),
    _number("connections", "Connections per download.", 1, 16, integer=True),
    _number("rate_limit", "Megabytes per second for all downloads; 0 for no limit.", 0, 100_000),
    _number("stall_seconds", "Seconds without data before a download reconnects.", 1, 600),
    _switch("input_urls", "Let programs name images and videos by URL, which the server then downloads."),
    _number(
        "worker_idle_minutes",
        "Minutes without a job after which a worker ends and releases its memory; 0 for never.",
        0,
        10_080,
    ),
    _number(
        "queue_limit",
        "Programs can't add jobs while so many wait.",
        1,
        10_000,
        integer=True,
    ),
)

FIELDS: Mapping[str, PreferenceField] = MappingProxyType({field.name: field for field in _DECLARATIONS})
CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {field.name: field.choices for field in _DECLARATIONS if field.choices}
)
