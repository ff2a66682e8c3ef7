"""From settings to requests: what each video takes, worked out and checked before anything is loaded.

    parsed = parse(catalog["nano_t2v"], {"prompt": "a red circle", "seed": 7})
    parsed.requests[0].frames

The command line, the form of the page, the queue and the worker all come through here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from reeltune.definitions import Definition
from reeltune.definitions.slots import TRANSFORMER_2
from reeltune.errors import NotRunnable, SettingsError
from reeltune.families import Architecture
from reeltune.families.values import Settings
from reeltune.families.vocabulary import INPUT_KEYS, KEYS, shown
from reeltune.request.build import boundary, build_request, chosen_seed
from reeltune.request.values import Request
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
from reeltune.untrusted import clean_text

_LONGEST_VALUE = 20  # characters of a text that is shown without quotes


@dataclass(frozen=True)
class ParsedRequests:
    """The videos that settings ask for, in order, and what the user should know about them."""

    requests: tuple[Request, ...]
    notices: tuple[str, ...]


def check_runnable(definition: Definition) -> Definition:
    """The definition. Raises NotRunnable where this program can't run it."""
    if not definition.runnable:
        message = f"{definition.id} can't run here: {definition.reason}."
        raise NotRunnable(message, hint="`reeltune list` shows which do.")
    return definition


def parse(definition: Definition, call: Settings) -> ParsedRequests:
    """The requests that a definition's settings and those of a caller come to: one for each prompt and repeat.

    Raises SettingsError for settings that are unknown, impossible or incomplete, and for input files that aren't there;
    NotRunnable where they ask for something that would change the video and isn't supported.
    """
    settings, notices = complete_settings(definition, call)
    videos = split_videos(settings)
    first, more_notices = build_request(definition.architecture, videos[0], definition.root)
    others = (_with_prompt(first, video) for video in videos[1:])
    return ParsedRequests((first, *others), (*notices, *more_notices))


def parse_latents(definition: Definition, settings: Settings) -> Request:
    """The request that latents were made for, from the settings that were stored with them. Raises SettingsError."""
    architecture = definition.architecture
    complete = layer(architecture, definition.settings, call=settings)
    return build_request(architecture, complete, definition.root, inputs_needed=False)[0]


def complete_settings(definition: Definition, call: Settings) -> tuple[Settings, list[str]]:
    """All layers of settings for a call, and notices about what the model leaves unused. Raises as `parse`."""
    architecture = definition.architecture
    stored = stored_settings(definition.root, definition.id)
    checked_call = check_call(call)
    _refuse_foreign_inputs(architecture, checked_call)
    settings = layer(architecture, definition.settings, stored.settings, call=checked_call)
    if reasons := refusals(settings, architecture):
        message = f"{definition.id} can't be used with these settings: {'; '.join(reasons)}."
        raise NotRunnable(message, hint=_how_to_go_without(settings, architecture))
    notices = stored.problem_notices()
    not_used = [f"{key}={_short(settings[key])}" for key in unused(settings, architecture)]
    not_used += [f"{key} (unknown)" for key in stored.unknown]
    if not_used:
        notices.append(f"{architecture.id} does not use: {listed(not_used)}.")
    notices += _window_notices(settings)
    notices += _phase_notices(definition, settings)
    return settings, notices


def _with_prompt(request: Request, settings: Settings) -> Request:
    """The same video with the prompt and the seed of these settings."""
    seed = chosen_seed(settings["seed"])
    prompt = clean_text(settings["prompt"])
    record = {**request.settings, "prompt": settings["prompt"], "seed": seed}
    return replace(request, prompt=prompt, seed=seed, settings=record)


def _phase_notices(definition: Definition, settings: Settings) -> Iterator[str]:
    """A notice where the second of two transformers is never used."""
    if TRANSFORMER_2 not in definition.slots or boundary(settings) > 0:
        return
    phases = settings.get("guidance_phases", 1)
    reason = f"guidance_phases is {phases}" if phases <= 1 else "switch_threshold is 0"
    yield f"{reason}: the first transformer makes all the steps."


def _window_notices(settings: Settings) -> Iterator[str]:
    """A notice where prompts stand for windows of one video, and come to videos of their own."""
    mode = settings.get("multi_prompts_gen_type", "")
    if not mode.endswith("W") or len(split_prompts(settings["prompt"], mode)) == 1:
        return
    part = "paragraph" if mode.startswith("P") else "line"
    yield f"multi_prompts_gen_type={mode} asks for sliding windows, which aren't supported: each {part} is a video."


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) <= _LONGEST_VALUE:
        return value
    return shown(value)


def _how_to_go_without(settings: Settings, architecture: Architecture) -> str:
    """How to go without what is refused, where going without makes sense."""
    if not is_neutral("activated_loras", settings):
        return "Merge them into a model file with `reeltune quantize FILE --lora LORA`, and use that one."
    off = [f"{key}={shown(KEYS[key].neutral[-1])}" for key in architecture.refused if not is_neutral(key, settings)]
    if off:
        return f"Set {', '.join(off)} to go without."
    return "Choose another model, or other settings."


def _refuse_foreign_inputs(architecture: Architecture, call: Settings) -> None:
    """Raise SettingsError for an image or video that a caller gives and the model can't take: it would be missed."""
    accepted = [model_input.key for model_input in architecture.inputs]
    for key in INPUT_KEYS:
        if key in accepted or is_neutral(key, call):
            continue
        hint = f"It takes {', '.join(accepted)}." if accepted else "It takes no images or videos."
        raise SettingsError(f"{architecture.id} takes no {key}.", hint=hint)
