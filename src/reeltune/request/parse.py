"""Parse settings into requests: all values are completed and checked before anything is loaded.

    parsed = parse(catalog["nano_t2v"], {"prompt": "a red circle", "seed": 7})
    parsed.requests[0].frames

The command line, the web form, the queue and the worker all use this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from reeltune.definitions import Definition
from reeltune.definitions.adapting import CONFIG
from reeltune.definitions.configs import selected_id
from reeltune.definitions.slots import TRANSFORMER_2
from reeltune.errors import NotRunnable, SettingsError
from reeltune.families import Architecture
from reeltune.families.values import WINDOW_MODES, Settings
from reeltune.families.vocabulary import DEFAULTS, INPUT_KEYS, KEYS, coerce, shown
from reeltune.request.build import build_request, chosen_seed
from reeltune.request.phases import phase_count
from reeltune.request.values import Request
from reeltune.request.windows import prompts_of
from reeltune.settings import (
    check_call,
    is_neutral,
    layer,
    listed,
    refusals,
    split_prompts,
    split_videos,
    stored_settings,
    unused,
)

_MAX_UNQUOTED = 20  # characters of a text that notices show without quotes


@dataclass(frozen=True)
class ParsedRequests:
    """The requests for all videos of some settings, in order, and notices about them.

    `definition`: the variant of the definition that makes them.
    """

    requests: tuple[Request, ...]
    notices: tuple[str, ...]
    definition: Definition


def check_runnable(definition: Definition) -> Definition:
    """Return the definition if videos can be made with it, else raise NotRunnable."""
    if not definition.runnable:
        message = f"{definition.id} can't run here: {definition.reason}."
        raise NotRunnable(message, hint="`reeltune list` shows which definitions can.")
    return definition


def parse(definition: Definition, call: Settings) -> ParsedRequests:
    """The requests for a definition's settings and a caller's: one for each prompt and repeat.

    Raises SettingsError for unknown, invalid or incomplete settings and for missing input files, and NotRunnable for
    settings that select an unsupported feature.
    """
    definition, config_notices = selected_variant(definition, call)
    if definition.config:
        check_runnable(definition)
    settings, notices = complete_settings(definition, call)
    videos = split_videos(settings, has_windows=definition.architecture.windows is not None)
    first, more_notices = build_request(definition, videos[0])
    others = (_with_prompts(first, definition.architecture, video) for video in videos[1:])
    return ParsedRequests((first, *others), (*config_notices, *notices, *more_notices), definition)


def preview(definition: Definition, call: Settings) -> ParsedRequests:
    """The request of the first video, whose input files may be missing: to show what would be done.

    Raises SettingsError and NotRunnable as `parse` for everything else.
    """
    definition, config_notices = selected_variant(definition, call)
    settings, notices = complete_settings(definition, call)
    videos = split_videos(settings, has_windows=definition.architecture.windows is not None)
    request, more_notices = build_request(definition, videos[0], inputs_needed=False)
    return ParsedRequests((request,), (*config_notices, *notices, *more_notices), definition)


def selected_variant(definition: Definition, call: Settings) -> tuple[Definition, list[str]]:
    """The variant of a definition that a caller's settings, the saved ones or its own select, and notices.

    The setting is `config`. An unknown variant is the definition itself, as in WanGP.
    """
    stored = stored_settings(definition.root, definition.id)
    settings = {**definition.settings, **stored.settings, **call}
    value = str(coerce(CONFIG, settings.get(CONFIG) or ""))
    id = selected_id(value)
    variant = definition.variant(id)
    if variant.config == id or definition.variants is None:  # without variants, the setting is reported as unused
        return variant, []
    ids = ", ".join(choice.id for choice in definition.variants.choices)
    return variant, [f"There is no variant {id!r}: {definition.variants.default_label!r} is used. Others are {ids}."]


def parse_latents(definition: Definition, settings: Settings) -> Request:
    """The request of stored latents, from the settings stored with them. Raises SettingsError."""
    definition, _ = selected_variant(definition, settings)
    complete = layer(definition.architecture, definition.settings, call=settings)
    return build_request(definition, complete, inputs_needed=False)[0]


def complete_settings(definition: Definition, call: Settings) -> tuple[Settings, list[str]]:
    """The merged layers of settings for a call, and notices about unused settings. Raises as `parse`."""
    architecture = definition.architecture
    stored = stored_settings(definition.root, definition.id)
    checked_call = check_call(call)
    _refuse_foreign_inputs(architecture, checked_call)
    settings = layer(architecture, definition.settings, stored.settings, call=checked_call)
    reasons = refusals(settings, architecture)
    if reasons:
        message = f"{definition.id} can't be used with these settings: {'; '.join(reasons)}."
        raise NotRunnable(message, hint=_hint_without_refused(settings, architecture))
    notices = stored.problem_notices()
    not_used = [f"{key}={_short(settings[key])}" for key in unused(settings, architecture)]
    not_used += [f"{key} (unknown)" for key in stored.unknown]
    if not_used:
        notices.append(f"{architecture.id} does not use: {listed(not_used)}.")
    notices += _window_notices(architecture, settings)
    notices += _phase_notices(definition, settings)
    return settings, notices


def _with_prompts(request: Request, architecture: Architecture, settings: Settings) -> Request:
    """The same request with the prompts and the seed of other settings."""
    seed = chosen_seed(settings["seed"])
    prompts = prompts_of(settings, architecture)
    record = {**request.settings, "prompt": settings["prompt"], "seed": seed}
    return replace(request, prompt=prompts[0], later_prompts=prompts[1:], seed=seed, settings=record)


def _phase_notices(definition: Definition, settings: Settings) -> Iterator[str]:
    """A notice if the second of two transformers is never used, or doesn't exist."""
    count = phase_count(settings)
    if TRANSFORMER_2 not in definition.slots:
        if count > 1 and definition.architecture.two_models:
            yield "The definition lists no second transformer (URLs2): one makes all steps."
        return
    last_of_first = settings.get("model_switch_phase") or 1
    threshold = "switch_threshold" if last_of_first == 1 else "switch_threshold2"
    if count == 1:
        yield "guidance_phases is 1: the first transformer is used for all steps."
    elif last_of_first >= count:
        yield f"model_switch_phase is {last_of_first} of {count} phases: the first transformer is used for all steps."
    elif not settings.get(threshold, DEFAULTS.get(threshold, 0)):
        yield f"{threshold} is 0: the first transformer is used for all steps."


def _window_notices(architecture: Architecture, settings: Settings) -> Iterator[str]:
    """A notice if prompts are meant for windows, and the model makes none: each becomes a video, as in WanGP."""
    mode = settings.get("multi_prompts_gen_type", "")
    if (
        mode not in WINDOW_MODES
        or architecture.windows is not None
        or len(split_prompts(settings["prompt"], mode)) == 1
    ):
        return
    unit = "paragraph" if mode.startswith("P") else "line"
    yield f"multi_prompts_gen_type={mode}: {architecture.id} makes no windows. Each {unit} is a video."


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) <= _MAX_UNQUOTED:
        return value
    return shown(value)


def _hint_without_refused(settings: Settings, architecture: Architecture) -> str:
    """How to make the video without the refused settings."""
    refused = [key for key in architecture.refused if not is_neutral(key, settings)]
    if refused:
        assignments = [f"{key}={shown(KEYS[key].neutral[-1])}" for key in refused]
        return f"Set {', '.join(assignments)}."
    return "Choose another model, or other settings."


def _refuse_foreign_inputs(architecture: Architecture, call: Settings) -> None:
    """Raise SettingsError for an image or video from the caller that the model doesn't support."""
    accepted = [model_input.key for model_input in architecture.inputs]
    for key in INPUT_KEYS:
        if key in accepted or is_neutral(key, call):
            continue
        hint = f"It accepts {', '.join(accepted)}." if accepted else "It accepts no images or videos."
        raise SettingsError(f"{architecture.id} does not accept {key}.", hint=hint)
