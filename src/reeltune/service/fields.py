"""What the page asks of a model, as plain values: the settings its architecture uses and the inputs it takes.

Nothing of Gradio is here, so that a test can walk all architectures; `widgets` draws these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reeltune.definitions import Definition
from reeltune.families import Architecture
from reeltune.families.values import COUNT, INTEGER, LENGTH, NUMBER, POSITIVE, SEED, SIZE, STEP_OR_NONE, TEXT, TEXTS
from reeltune.families.vocabulary import DEFAULTS, KEYS
from reeltune.service.labels import choices_of, help_of, label_of, length
from reeltune.settings import frame_count, layer

# Settings that everybody looks at, in this order; all others are advanced.
BASIC = ("prompt", "resolution", "video_length", "num_inference_steps", "guidance_scale", "seed")
_ADVANCED_FIRST = ("negative_prompt", "repeat_generation", "multi_prompts_gen_type")
_SECOND = ("guidance_phases", "guidance2_scale", "switch_threshold")  # mean something to a second transformer only
_LEAST = {COUNT.name: 1, INTEGER.name: 0, STEP_OR_NONE.name: -1}
_LISTS = ("perturbation_layers",)
_LEAST_STEPS_SHOWN, _LEAST_FRAMES_SHOWN = 100, 129


@dataclass(frozen=True)
class Field:
    """One thing asked for. `kind`: "text" | "lines" | "size" | "seed" | "slider" | "number" | "whole" | "numbers"
    (several) | "choice" for settings, "image" | "images" | "video" for inputs. `choices`: (label, value); `least`,
    `most`, `step` of numbers; `rate`: frames per second, of the number of frames.
    """

    key: str
    kind: str
    label: str
    help: str
    basic: bool = False
    required: bool = False
    choices: tuple[tuple[str, Any], ...] = ()
    least: float | None = None
    most: float | None = None
    step: float | None = None
    rate: int = 0


def defaults(definition: Definition, stored: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings a model starts from, those saved as its defaults on top."""
    return as_shown(layer(definition.architecture, definition.settings, stored or {}), definition.architecture)


def as_shown(settings: Mapping[str, Any], architecture: Architecture) -> dict[str, Any]:
    """Complete settings with values in the form the page's fields have: a length in frames, one of the choices,
    and what counts where nothing is set, so that no field for a number is empty.
    """
    assumed = {key: value for key, value in DEFAULTS.items() if key in architecture.settings}
    shown = {**assumed, **settings}
    if "guidance2_scale" in architecture.settings:
        shown.setdefault("guidance2_scale", settings["guidance_scale"])
    if isinstance(settings["video_length"], str):
        shown["video_length"] = frame_count(settings, architecture)
    if solver := settings.get("sample_solver"):
        shown["sample_solver"] = architecture.family.solver(solver)
    if settings.get("skip_steps_cache_type"):
        shown["skip_steps_cache_type"] = "tea"
    if mode := settings.get("multi_prompts_gen_type"):
        shown["multi_prompts_gen_type"] = {"W": "G", "PW": "PG"}.get(mode, mode)
    return shown


def inputs_of(architecture: Architecture) -> list[Field]:
    """The images and videos a model takes."""
    kinds = {"image": "image", "images": "images", "video": "video", "mask": "video"}
    return [
        Field(row.key, kinds[row.kind], label_of(row.key), "", basic=True, required=row.required)
        for row in architecture.inputs
    ]


def fields_of(definition: Definition) -> list[Field]:
    """The settings a model uses, the basic ones first; without inputs and the letters that ask for them."""
    architecture = definition.architecture
    covered = {key for row in architecture.inputs for key in (row.key, row.letters_key)}
    if "transformer_2" not in definition.slots:
        covered |= set(_SECOND)
    used = [key for key in KEYS if key in architecture.settings and key not in covered]
    order = {key: place for place, key in enumerate((*BASIC, *_ADVANCED_FIRST))}
    used.sort(key=lambda key: order.get(key, len(order)))
    found = [_field(key, definition) for key in used]
    return [row for row in found if row.kind != "choice" or len(row.choices) > 1]


def _field(key: str, definition: Definition) -> Field:
    kind, own = KEYS[key].kind, defaults(definition)
    row = Field(key, "text", label_of(key), help_of(key, definition.architecture), key in BASIC)
    if words := choices_of(key):
        return _with(row, kind="choice", choices=words)
    if key == "sample_solver":
        solvers = definition.architecture.family.solvers
        return _with(row, kind="choice", choices=tuple((name, name) for name in solvers))
    if kind is SIZE:
        offered = [value for _, value in definition.resolutions]
        sizes = list(dict.fromkeys([own[key], *offered])) if offered else _sizes(own[key], definition.architecture)
        return _with(row, kind="size", choices=tuple((size, size) for size in sizes))
    if kind is SEED:
        return _with(row, kind="seed")
    if kind in (LENGTH, COUNT) and key in BASIC:
        return _slider(row, own.get(key, 1), definition.architecture)
    if kind.name in _LEAST:
        return _with(row, kind="whole", least=_LEAST[kind.name])
    if key in _LISTS:
        return _with(row, kind="numbers")
    if kind in (NUMBER, POSITIVE):
        return _with(row, kind="number", step=0.1)
    return _with(row, kind="lines") if kind in (TEXT, TEXTS) else row


def _with(row: Field, **changes: Any) -> Field:
    return Field(**{**row.__dict__, **changes})


def _slider(row: Field, own: int, architecture: Architecture) -> Field:
    if row.key != "video_length":
        return _with(row, kind="slider", least=1, most=max(_LEAST_STEPS_SHOWN, 2 * own), step=1)
    step, rate = architecture.family.frame_step, architecture.frame_rate
    most = math.ceil(max(_LEAST_FRAMES_SHOWN, 2 * own) / step) * step + 1
    return _with(row, kind="slider", least=1, most=most, step=step, help=length(own, rate), rate=rate)


def _sizes(own: str, architecture: Architecture) -> list[str]:
    """The model's own size, upright, square, and all of them smaller; others may be written."""
    width, height = (int(part) for part in own.split("x"))
    side = math.sqrt(width * height)
    step = architecture.resolution_step
    found = []
    for share in (1, 0.75, 0.5):
        for shape in ((width, height), (height, width), (side, side)):
            fitted = [max(step, round(part * share / step) * step) for part in shape]
            found.append(f"{fitted[0]}x{fitted[1]}")
    return list(dict.fromkeys([own, *found]))


def collect(definition: Definition, values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from what the page's fields hold; empty ones are left out, letters follow from the inputs given."""
    settings = {key: value for key, value in values.items() if value not in (None, "", []) or _may_be_empty(key)}
    settings = {key: "" if value is None else value for key, value in settings.items()}
    for letters_key in dict.fromkeys(row.letters_key for row in definition.architecture.inputs):
        rows = [row for row in definition.architecture.inputs if row.letters_key == letters_key]
        settings[letters_key] = "".join(row.letter for row in rows if row.key in settings)
    return settings


def _may_be_empty(key: str) -> bool:
    return key in ("prompt", "negative_prompt", "skip_steps_cache_type")  # empty is a value there
