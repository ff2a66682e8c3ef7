"""The kinds of values settings have: how each is checked and normalized.

A conversion returns the value as this program uses it, and raises ValueError with what the value must be. It never
raises anything else, whatever it is given.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reeltune.errors import InvalidJSON
from reeltune.untrusted import clean_text, parse_json

Settings = Mapping[str, Any]  # generation settings: each value is of the kind of its key in the vocabulary

_LARGEST = 10**9  # of everything but seeds
_LARGEST_SIDE = 8192
_LARGEST_SEED = 2**63 - 1  # a torch generator takes no more
_LARGEST_RATE = 240
_MOST_FRAMES = 100_000
_MOST_SECONDS = 3600
_MOST_ITEMS = 1000  # of a list
_SECONDS = re.compile(r"\s*(\d{1,5}(?:\.\d{1,6})?)\s*s(?:ec|econds?)?\s*", re.IGNORECASE | re.ASCII)
_SIDES = re.compile(r"\s*(\d{2,5})\s*[xX×*]\s*(\d{2,5})\s*", re.ASCII)

RATE_SOURCES = ("auto", "control", "source")  # of `force_fps`: what a frame rate can follow
PROMPT_MODES = ("G", "PG", "W", "PW", "FG")  # of `multi_prompts_gen_type`
SOLVERS = ("unipc", "euler", "dpm++")  # all that some family here has
OTHER_SOLVERS = (  # names that settings files hold, and no family here has
    "causvid", "lcm", "flowmatch_causvid", "dpm++_sde", "beta", "er_sde", "default", "pingpong", "flash", "distill",
    "distilled_8_steps", "distilled_8_steps_ancestral", "res_2s", "res_multistep", "heun", "ddim",
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of value: how it is checked, and its JSON Schema."""

    name: str
    convert: Callable[[Any], Any]  # raises ValueError with what the value must be
    schema: dict[str, Any]


def _whole(minimum: int, maximum: int = _LARGEST) -> Callable[[Any], int]:
    wanted = f"a whole number from {minimum} to {maximum}"

    def convert(value: Any) -> int:
        number = _exact(value)
        if number is None or not minimum <= number <= maximum:
            raise ValueError(wanted)
        return number

    return convert


def _exact(value: Any) -> int | None:
    """A whole number, never by way of a float that can't hold it; None for what is no whole number."""
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


_any_whole = _whole(0)


def _switch(value: Any) -> int:
    """0 and 1, or false and true; some switches have further values."""
    return int(value) if isinstance(value, bool) else _any_whole(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("a number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError("a number") from None
    if not -_LARGEST <= number <= _LARGEST:  # also refuses NaN
        raise ValueError(f"a number from {-_LARGEST} to {_LARGEST}")
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
    """Text, or a list of texts, one a line."""
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return clean_text("\n".join(value))
    return _text(value)


def _size(value: Any) -> str:
    match = _SIDES.fullmatch(value[:40]) if isinstance(value, str) else None
    if not match:
        raise ValueError('WIDTHxHEIGHT, such as "832x480"')
    if max(int(match[1]), int(match[2])) > _LARGEST_SIDE:
        raise ValueError(f"WIDTHxHEIGHT with at most {_LARGEST_SIDE} pixels a side")
    return f"{int(match[1])}x{int(match[2])}"


def _length(value: Any) -> int | str:
    """A number of frames, or a duration as `10s`."""
    if isinstance(value, str) and (match := _SECONDS.fullmatch(value[:40])):
        if not 0 < float(match[1]) <= _MOST_SECONDS:
            raise ValueError(f"a duration up to {_MOST_SECONDS}s")
        return f"{float(match[1]):g}s"
    number = _exact(value)
    if number is None or not 1 <= number <= _MOST_FRAMES:
        raise ValueError(f'a number of frames from 1 to {_MOST_FRAMES}, or a duration such as "10s"')
    return number


def seconds_of(length: int | str) -> float | None:
    """The seconds of a `video_length` that is a duration; None for a number of frames."""
    match = _SECONDS.fullmatch(length) if isinstance(length, str) else None
    return float(match[1]) if match else None


def _rate(value: Any) -> float | int | str:
    """Frames a second, or what they follow; an empty text is the model's own rate."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return ""
    if isinstance(value, str) and value.strip().lower() in RATE_SOURCES:
        return value.strip().lower()
    wanted = f"a number from 1 to {_LARGEST_RATE}, or one of: {', '.join(RATE_SOURCES)}"
    try:
        number = _number(value)
    except ValueError:
        raise ValueError(wanted) from None
    if number == 0:
        return ""
    if not 1 <= number <= _LARGEST_RATE:
        raise ValueError(wanted)
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
    """Numbers of blocks from a list, or from text such as `8, 9`."""
    wanted = "a list of block numbers, such as [9]"
    if value is None:
        return []
    items = re.split(r"[\s,;\[\]]+", value[:4000].strip()) if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        items = [items]
    if len(items) > _MOST_ITEMS:
        raise ValueError(wanted)
    numbers = [_exact(item) for item in items if item != ""]
    if any(number is None or not 0 <= number <= _LARGEST for number in numbers):
        raise ValueError(wanted)
    return sorted({number for number in numbers if number is not None})


def _paths(value: Any) -> Any:
    """A path or a list of paths. Texts stay as they are: a file's name may not be valid Unicode."""
    if value is None or isinstance(value, str | os.PathLike):
        return value
    if not isinstance(value, list | tuple) or not all(isinstance(item, str | os.PathLike) for item in value):
        raise ValueError("the path of a file, or a list of paths")
    if len(value) > _MOST_ITEMS:
        raise ValueError(f"at most {_MOST_ITEMS} paths")
    return list(value)


def _names(value: Any) -> list[str]:
    """File names or URLs."""
    if value is None or value == "":
        return []
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise ValueError("a list of file names")
    if len(items) > _MOST_ITEMS:
        raise ValueError(f"at most {_MOST_ITEMS} file names")
    return [clean_text(item) for item in items if item]


def _multipliers(value: Any) -> str:
    """One text: the weights of LoRAs, separated by blanks."""
    if value is None:
        return ""
    items = value if isinstance(value, list | tuple) else [value]
    if len(items) > _MOST_ITEMS or not all(isinstance(item, str | int | float) for item in items):
        raise ValueError('text such as "1 0.5", one weight for each LoRA')
    return clean_text(" ".join(item if isinstance(item, str) else f"{_number(item):g}" for item in items))


def _anything(value: Any) -> Any:
    """Whatever JSON can hold, with its texts cleaned."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean_text(value)
    try:
        return parse_json(json.dumps(value, allow_nan=False), "the value")
    except (TypeError, ValueError, RecursionError, InvalidJSON):
        raise ValueError("text, a number, a list or an object") from None


WHOLE = Kind("whole", _whole(0), {"type": ["integer", "string"]})
SWITCH = Kind("switch", _switch, {"type": ["integer", "boolean", "string"]})
REPEATS = Kind("repeats", _whole(1, 1000), {"type": ["integer", "string"]})
SEED = Kind("seed", _whole(-1, _LARGEST_SEED), {"type": ["integer", "string"]})
OFF_OR_COUNT = Kind("whole from -1", _whole(-1), {"type": ["integer", "string"]})
NUMBER = Kind("number", _number, {"type": ["number", "string"]})
POSITIVE = Kind("positive number", _positive, {"type": ["number", "string"]})
TEXT = Kind("text", _text, {"type": "string"})
TEXTS = Kind("texts", _texts, {"type": ["string", "array"]})
SIZE = Kind("size", _size, {"type": "string", "pattern": r"^\s*\d{2,5}\s*[xX×*]\s*\d{2,5}\s*$"})
LENGTH = Kind("length", _length, {"type": ["integer", "string"]})
RATE = Kind("rate", _rate, {"type": ["number", "string", "null"]})
PROMPT_MODE = Kind("prompt mode", _prompt_mode, {"type": ["string", "integer"]})
SOLVER = Kind("solver", _solver, {"type": "string"})
BLOCKS = Kind("blocks", _blocks, {"type": ["array", "string", "integer", "null"]})
PATHS = Kind("paths", _paths, {"type": ["string", "array", "null"]})
NAMES = Kind("names", _names, {"type": ["array", "string", "null"]})
MULTIPLIERS = Kind("multipliers", _multipliers, {"type": ["string", "array", "number", "null"]})
ANY = Kind("any", _anything, {})
PLAIN = (TEXT, TEXTS, SIZE, LENGTH, RATE, PROMPT_MODE, SOLVER, MULTIPLIERS)  # texts of these kinds are no paths
