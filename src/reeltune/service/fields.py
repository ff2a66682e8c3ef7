"""The fields of a model's form as values: the settings that its architecture uses and the images and videos it takes.

for field in fields_of(definition):
    print(field.key, field.label, field.kind)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from reeltune.definitions import Definition
from reeltune.definitions.adapting import CONFIG
from reeltune.definitions.configs import selected_id
from reeltune.definitions.slots import TRANSFORMER_2
from reeltune.families import Architecture
from reeltune.families.values import (
    COUNT,
    INTEGER,
    LENGTH,
    NUMBER,
    POSITIVE,
    SEED,
    SIZE,
    STEP_OR_NONE,
    TEXT,
    TEXTS,
    WINDOW_MODES,
    Settings,
)
from reeltune.families.vocabulary import DEFAULTS, KEYS
from reeltune.request.phases import phase_count
from reeltune.service.labels import choices_of, help_of, label_of, length_in_words
from reeltune.settings import frame_count, layer

# The settings that everybody needs, in this order; all others are advanced.
BASIC_KEYS = ("prompt", "resolution", "video_length", "num_inference_steps", "guidance_scale", "seed")
_FIRST_ADVANCED_KEYS = ("negative_prompt", "repeat_generation", "multi_prompts_gen_type")
PHASE_KEYS = (
    "guidance_phases", "model_switch_phase", "switch_threshold", "guidance2_scale", "switch_threshold2",
    "guidance3_scale",
)  # fmt: skip
_LORA_KINDS = {"activated_loras": "loras", "loras_multipliers": "weights"}
_KEYS_THAT_MAY_BE_EMPTY = (
    "prompt",
    "negative_prompt",
    "skip_steps_cache_type",
    CONFIG,
    *_LORA_KINDS,
)  # an empty text is a value
_LIST_KEYS = ("perturbation_layers",)
_MINIMUMS = {COUNT.name: 1, INTEGER.name: 0, STEP_OR_NONE.name: -1}
_MIN_SLIDER_STEPS, _MIN_SLIDER_FRAMES = 100, 129  # a slider reaches at least this far
_INPUT_KINDS = {"image": "image", "images": "images", "video": "video", "mask": "video", "tracks": "tracks"}
FILE_KINDS = tuple(dict.fromkeys(_INPUT_KINDS.values()))  # of fields that take files

FormValues = Mapping[str, Any]  # what a browser sends, by the key of the setting


@dataclass(frozen=True)
class FormField:
    """A field of a form.

    `kind` of a setting: "text", "lines", "size", "seed", "slider", "number", "whole", "numbers" (a list), "choice",
    "loras" (a list of names) or "weights" (of LoRAs); of an input: "image", "images", "video" or "tracks" (a NumPy
    file). `choices`: pairs of label and value. `rate`: frames per second, if the value is a number of frames.
    """

    key: str
    kind: str
    label: str
    help: str
    basic: bool = False
    required: bool = False
    choices: tuple[tuple[str, Any], ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    rate: int = 0


# --- values of a form -------------------------------------------------------------------------------------------


def initial_settings(definition: Definition, saved: Settings | None = None) -> Settings:
    """The settings that a form starts with: those of the definition, overridden by the ones the user saved."""
    settings = layer(definition.architecture, definition.settings, saved or {})
    return displayed_settings(settings, definition.architecture)


def displayed_settings(settings: Settings, architecture: Architecture) -> Settings:
    """Complete settings as a form can display them: lengths in frames, known choices, no empty number fields."""
    displayed = {key: value for key, value in DEFAULTS.items() if key in architecture.settings}
    displayed |= settings
    if "guidance2_scale" in architecture.settings:
        displayed.setdefault("guidance2_scale", settings["guidance_scale"])
        if phase_count(settings) > 1:
            displayed.setdefault("guidance3_scale", displayed["guidance2_scale"])
            displayed.setdefault("switch_threshold2", 0)
    if isinstance(settings.get("video_length"), str):
        displayed["video_length"] = frame_count(settings, architecture)
    solver = settings.get("sample_solver")
    if solver:
        displayed["sample_solver"] = architecture.solver(solver)
    if settings.get("skip_steps_cache_type"):
        displayed["skip_steps_cache_type"] = "tea"
    if CONFIG in architecture.settings:
        displayed[CONFIG] = selected_id(str(settings.get(CONFIG) or ""))
    prompt_mode = settings.get("multi_prompts_gen_type")
    if prompt_mode and architecture.windows is None:
        displayed["multi_prompts_gen_type"] = {"W": "G", "PW": "PG"}.get(prompt_mode, prompt_mode)
    return displayed


def settings_from_form(definition: Definition, form_values: FormValues) -> Settings:
    """Settings from the values of a form, without empty ones. The letters follow from the inputs that have files."""
    settings = {}
    for key, value in form_values.items():
        if value not in (None, "", []):
            settings[key] = value
        elif key in _KEYS_THAT_MAY_BE_EMPTY:
            settings[key] = "" if value is None else value
    inputs = definition.architecture.inputs
    for letters_key in dict.fromkeys(model_input.letters_key for model_input in inputs):
        used = [item for item in inputs if item.letters_key == letters_key and item.key in settings]
        settings[letters_key] = "".join(item.letter for item in used)
    return settings


# --- fields -----------------------------------------------------------------------------------------------------


def inputs_of(architecture: Architecture) -> list[FormField]:
    """Fields for the images and videos that a model takes."""
    return [
        FormField(
            model_input.key,
            _INPUT_KINDS[model_input.kind],
            model_input.label or label_of(model_input.key),
            model_input.help,
            basic=True,
            required=model_input.required,
        )
        for model_input in architecture.inputs
    ]


def fields_of(definition: Definition, settings: Settings | None = None) -> list[FormField]:
    """Fields for the settings that a model uses, the basic ones first; a choice between one thing is left out.

    Those of phases are left out for a model with one transformer, unless it or `settings` use more than one phase.
    """
    architecture = definition.architecture
    other_keys = {key for model_input in architecture.inputs for key in (model_input.key, model_input.letters_key)}
    if architecture.scales is None and not _shows_phases(definition, settings or {}):
        other_keys |= set(PHASE_KEYS)
    keys = [key for key in KEYS if key in architecture.settings and key not in other_keys]
    order = {key: number for number, key in enumerate((*BASIC_KEYS, *_FIRST_ADVANCED_KEYS, *PHASE_KEYS))}
    keys.sort(key=lambda key: order.get(key, len(order)))
    fields = [_field(key, definition) for key in keys]
    return [field for field in fields if field.kind != "choice" or len(field.choices) > 1]


def _shows_phases(definition: Definition, settings: Settings) -> bool:
    """Whether settings of phases matter: with two transformers, or where more than one phase is used already."""
    counts = [values.get("guidance_phases") for values in (definition.settings, settings)]
    return TRANSFORMER_2 in definition.slots or any(type(count) is int and count > 1 for count in counts)


def _field(key: str, definition: Definition) -> FormField:
    architecture = definition.architecture
    value_kind, initial = KEYS[key].kind, initial_settings(definition)
    field = FormField(key, "text", label_of(key), help_of(key, architecture), key in BASIC_KEYS)
    if key == CONFIG and definition.variants is not None:
        variants = definition.variants
        named = [(choice.label, choice.id) for choice in variants.choices]
        choices: tuple[tuple[str, Any], ...] = ((variants.default_label, ""), *named)
        return replace(field, kind="choice", label=variants.name, choices=choices)
    choices = choices_of(key)
    if key == "multi_prompts_gen_type" and architecture.windows is None:
        choices = tuple(choice for choice in choices if choice[1] not in WINDOW_MODES)
    if key == "perturbation_switch" and 2 in architecture.perturbations:
        return replace(field, kind="choice", label="Spatiotemporal guidance", help="", choices=(("Off", 0), ("On", 2)))
    if key == "perturbation_layers" and 2 in architecture.perturbations:
        usual = ", ".join(str(block) for block in architecture.defaults.get(key, ()))
        help = f"Blocks, counted from 0, whose self-attention is left out for comparison; usually {usual}."
        return replace(field, kind="numbers", label="Blocks of spatiotemporal guidance", help=help)
    if key in ("perturbation_start_perc", "perturbation_end_perc") and 2 in architecture.perturbations:
        first = key == "perturbation_start_perc"
        label = f"Spatiotemporal guidance {'start' if first else 'end'} (%)"
        help = f"Percentage of the steps {'before' if first else 'after'} which it is off."
        return replace(field, kind="number", step=0.1, label=label, help=help)
    if key == "guidance_phases" and architecture.scales is not None:
        help = "Two make the video small first, and add detail at its full size."
        return replace(field, kind="choice", label="Passes", help=help, choices=choices[:2])
    if choices:
        return replace(field, kind="choice", choices=choices)
    if key in _LORA_KINDS:
        return replace(field, kind=_LORA_KINDS[key])
    if key == "model_mode":
        help = "Each kind has a LoRA of its own." if architecture.mode_loras else field.help
        return replace(field, kind="choice", label=architecture.mode_label, help=help, choices=architecture.modes)
    if key == "sample_solver":
        return replace(field, kind="choice", choices=tuple((name, name) for name in architecture.usable_solvers))
    if value_kind is SIZE:
        return replace(field, kind="size", choices=_sizes(definition, initial[key]))
    if value_kind is SEED:
        return replace(field, kind="seed")
    if value_kind in (LENGTH, COUNT) and key in BASIC_KEYS:
        return _slider(field, initial.get(key, 1), architecture)
    if value_kind.name in _MINIMUMS:
        return replace(field, kind="whole", minimum=_MINIMUMS[value_kind.name])
    if key in _LIST_KEYS:
        return replace(field, kind="numbers")
    if value_kind in (NUMBER, POSITIVE):
        return replace(field, kind="number", step=0.1)
    return replace(field, kind="lines") if value_kind in (TEXT, TEXTS) else field


def _slider(field: FormField, initial: int, architecture: Architecture) -> FormField:
    if field.key != "video_length":
        return replace(field, kind="slider", minimum=1, maximum=max(_MIN_SLIDER_STEPS, 2 * initial), step=1)
    step, rate = architecture.family.frame_step, architecture.frame_rate
    maximum = math.ceil(max(_MIN_SLIDER_FRAMES, 2 * initial) / step) * step + 1
    help = length_in_words(initial, rate)
    return replace(field, kind="slider", minimum=1, maximum=maximum, step=step, help=help, rate=rate)


def _sizes(definition: Definition, initial: str) -> tuple[tuple[str, str], ...]:
    """The sizes that the definition offers with their labels, and the initial one.

    If it offers none, these are the initial one in three shapes and three scales.
    """
    if definition.resolutions:
        labels = {value: label for label, value in reversed(definition.resolutions)}
        order = dict.fromkeys([initial, *(value for _, value in definition.resolutions)])
        return tuple((labels.get(value, value), value) for value in order)
    width, height = (int(part) for part in initial.split("x"))
    square_side = math.sqrt(width * height)
    multiple = definition.architecture.size_multiple
    sizes = [initial]
    for scale in (1, 0.75, 0.5):
        for shape in ((width, height), (height, width), (square_side, square_side)):
            sides = [max(multiple, round(side * scale / multiple) * multiple) for side in shape]
            sizes.append(f"{sides[0]}x{sides[1]}")
    return tuple((size, size) for size in dict.fromkeys(sizes))
