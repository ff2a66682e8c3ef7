"""The kinds of values of settings, and how they are validated and normalized.

A conversion accepts any value. It returns the normalized value, or raises ValueError with a description of valid
values; it raises nothing else.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reeltune.errors import InvalidJSON
from reeltune.untrusted import JsonObject, clean_text, parse_json

Settings = Mapping[str, Any]  # generation settings by key; the vocabulary defines the kind of each value

_MAX_NUMBER = 10**9  # of everything but seeds
_MAX_SIDE = 8192
_MAX_SEED = 2**63 - 1  # the largest that a torch generator accepts
_MAX_RATE = 240
MAX_FRAMES = 100_000
_MAX_SECONDS = 3600
_MAX_ITEMS = 1000  # of a list
_SECONDS = re.compile(r"\s*(\d{1,5}(?:\.\d{1,6})?)\s*s(?:ec|econds?)?\s*", re.IGNORECASE | re.ASCII)
_SIDES = re.compile(r"\s*(\d{2,5})\s*[xX×*]\s*(\d{2,5})\s*", re.ASCII)

RATE_SOURCES = ("auto", "control", "source")  # of `force_fps`: what the frame rate is taken from
DISTILLED_STEPS = "distilled_8_steps"  # the solver that LTX-2 makes fixed steps with, by a LoRA
PROMPT_MODES = ("G", "PG", "W", "PW", "FG")  # of `multi_prompts_gen_type`
WINDOW_MODES = ("W", "PW")  # those in which each prompt is for a window of one video
SOLVERS = (
    "unipc",
    "euler",
    "dpm++",
    "causvid",
    "flowmatch_causvid",
    "lcm",
    DISTILLED_STEPS,
)  # supported by at least one family
OTHER_SOLVERS = (  # solvers in settings files that no family supports
    "dpm++_sde", "beta", "er_sde", "default", "pingpong", "flash", "distill",
    "distilled_8_steps_ancestral", "res_2s", "res_multistep", "heun", "ddim",
)  # fmt: skip


@dataclass(frozen=True)
class ValueKind:
    """A kind of value, with its JSON Schema.

    `convert` returns the normalized value, or raises ValueError with a description of valid values.
    """

    name: str
    convert: Callable[[Any], Any]
    schema: JsonObject


def _integer_between(minimum: int, maximum: int = _MAX_NUMBER) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        number = _integer(value)
        if number is None or not minimum <= number <= maximum:
            raise ValueError(f"a whole number from {minimum} to {maximum}")
        return number

    return convert


def _integer(value: Any) -> int | None:
    """An integer, not converted through a float unless it is one; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass
    try:
        number = _number(value)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


_not_negative = _integer_between(0)


def _switch(value: Any) -> int:
    """0 or 1, or a boolean; some switches have further values."""
    return int(value) if isinstance(value, bool) else _not_negative(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("a number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError("a number") from None
    if not -_MAX_NUMBER <= number <= _MAX_NUMBER:  # also rejects NaN
        raise ValueError(f"a number from {-_MAX_NUMBER} to {_MAX_NUMBER}")
    return number


def _positive(value: Any) -> float:
    number = _number(value)
    if number <= 0:
        raise ValueError("a number above 0")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("text")
    return clean_text(value)


def _texts(value: Any) -> str:
    """Text, or a list of texts, which become lines."""
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return clean_text("\n".join(value))
    return _text(value)


def _size(value: Any) -> str:
    match = _SIDES.fullmatch(value[:40]) if isinstance(value, str) else None
    if not match:
        raise ValueError('WIDTHxHEIGHT, such as "832x480"')
    width = int(match[1])
    height = int(match[2])
    if max(width, height) > _MAX_SIDE:
        raise ValueError(f"WIDTHxHEIGHT with at most {_MAX_SIDE} pixels per side")
    return f"{width}x{height}"


def _length(value: Any) -> int | str:
    """A number of frames, or a duration such as `10s`."""
    seconds = seconds_of(value[:40]) if isinstance(value, str) else None
    if seconds is not None:
        if not 0 < seconds <= _MAX_SECONDS:
            raise ValueError(f"a duration up to {_MAX_SECONDS}s")
        return f"{seconds:g}s"
    number = _integer(value)
    if number is None or not 1 <= number <= MAX_FRAMES:
        raise ValueError(f'a number of frames from 1 to {MAX_FRAMES}, or a duration such as "10s"')
    return number


def seconds_of(length: int | str) -> float | None:
    """The seconds of a `video_length` that is a duration; None for a number of frames."""
    match = _SECONDS.fullmatch(length) if isinstance(length, str) else None
    return float(match[1]) if match else None


def _rate(value: Any) -> float | int | str:
    """Frames per second, or a source of RATE_SOURCES; an empty text stands for the model's own rate."""
    text = value.strip().lower() if isinstance(value, str) else None
    if value is None or text == "":
        return ""
    if text in RATE_SOURCES:
        return text
    valid_values = f"a number from 1 to {_MAX_RATE}, or one of: {', '.join(RATE_SOURCES)}"
    try:
        number = _number(value)
    except ValueError:
        raise ValueError(valid_values) from None
    if number == 0:
        return ""
    if not 1 <= number <= _MAX_RATE:
        raise ValueError(valid_values)
    return int(number) if number.is_integer() else number


def _prompt_mode(value: Any) -> str:
    mode = value.strip().upper() if isinstance(value, str) else ""
    if mode not in PROMPT_MODES:
        raise ValueError(f"one of {', '.join(PROMPT_MODES)}")
    return mode


def _solver(value: Any) -> str:
    name = value.strip().lower() if isinstance(value, str) else None
    if name is None or (name and name not in (*SOLVERS, *OTHER_SOLVERS)):
        raise ValueError(f"one of {', '.join(SOLVERS)}")
    return name


def _blocks(value: Any) -> list[int]:
    """Block numbers from a list, or from text such as `8, 9`."""
    valid_values = "a list of block numbers, such as [9]"
    if value is None:
        return []
    items = re.split(r"[\s,;\[\]]+", value[:4000].strip()) if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        items = [items]
    if len(items) > _MAX_ITEMS:
        raise ValueError(valid_values)
    blocks: set[int] = set()
    for item in items:
        if item == "":
            continue
        number = _integer(item)
        if number is None or not 0 <= number <= _MAX_NUMBER:
            raise ValueError(valid_values)
        blocks.add(number)
    return sorted(blocks)


def _paths(value: Any) -> Any:
    """A path or a list of paths, unchanged: the name of a file may not be valid Unicode."""
    if value is None or isinstance(value, str | os.PathLike):
        return value
    if not isinstance(value, list | tuple) or not all(isinstance(item, str | os.PathLike) for item in value):
        raise ValueError("the path of a file, or a list of paths")
    if len(value) > _MAX_ITEMS:
        raise ValueError(f"at most {_MAX_ITEMS} paths")
    return list(value)


def _names(value: Any) -> list[str]:
    """A list of file names or URLs."""
    if value is None or value == "":
        return []
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise ValueError("a list of file names")
    if len(items) > _MAX_ITEMS:
        raise ValueError(f"at most {_MAX_ITEMS} file names")
    return [clean_text(item) for item in items if item]


def _multipliers(value: Any) -> str:
    """The weights of LoRAs as text, separated by spaces."""
    if value is None:
        return ""
    items = value if isinstance(value, list | tuple) else [value]
    if len(items) > _MAX_ITEMS or not all(isinstance(item, str | int | float) for item in items):
        raise ValueError('text such as "1 0.5", one weight for each LoRA')
    return clean_text(" ".join(item if isinstance(item, str) else f"{_number(item):g}" for item in items))


def _anything(value: Any) -> Any:
    """Any JSON value, with its strings cleaned."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean_text(value)
    try:
        return parse_json(json.dumps(value, allow_nan=False), "the value")
    except (TypeError, ValueError, RecursionError, InvalidJSON):
        raise ValueError("text, a number, a list or an object") from None


INTEGER = ValueKind("integer", _integer_between(0), {"type": ["integer", "string"]})
SWITCH = ValueKind("switch", _switch, {"type": ["integer", "boolean", "string"]})
COUNT = ValueKind("count", _integer_between(1, 1000), {"type": ["integer", "string"]})
SEED = ValueKind("seed", _integer_between(-1, _MAX_SEED), {"type": ["integer", "string"]})
STEP_OR_NONE = ValueKind("step or none", _integer_between(-1), {"type": ["integer", "string"]})
NUMBER = ValueKind("number", _number, {"type": ["number", "string"]})
POSITIVE = ValueKind("positive number", _positive, {"type": ["number", "string"]})
TEXT = ValueKind("text", _text, {"type": "string"})
TEXTS = ValueKind("texts", _texts, {"type": ["string", "array"]})
SIZE = ValueKind("size", _size, {"type": "string", "pattern": r"^\s*\d{2,5}\s*[xX×*]\s*\d{2,5}\s*$"})
LENGTH = ValueKind("length", _length, {"type": ["integer", "string"]})
RATE = ValueKind("rate", _rate, {"type": ["number", "string", "null"]})
PROMPT_MODE = ValueKind("prompt mode", _prompt_mode, {"type": ["string", "integer"]})
SOLVER = ValueKind("solver", _solver, {"type": "string"})
BLOCKS = ValueKind("blocks", _blocks, {"type": ["array", "string", "integer", "null"]})
PATHS = ValueKind("paths", _paths, {"type": ["string", "array", "null"]})
NAMES = ValueKind("names", _names, {"type": ["array", "string", "null"]})
MULTIPLIERS = ValueKind("multipliers", _multipliers, {"type": ["string", "array", "number", "null"]})
ANY = ValueKind("any", _anything, {})
PLAIN = (TEXT, TEXTS, SIZE, LENGTH, RATE, PROMPT_MODE, SOLVER, MULTIPLIERS)  # kinds whose texts are not paths
