"""Applying profiles to settings, and removing them again.

Settings don't name their profile. In `loras_multipliers`, the items left of `|` belong to it: its LoRAs are the first
ones of `activated_loras`, as many as there are items. All other LoRAs are the user's own. WanGP has the same rule, so
settings files can be exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reeltune.checkpoints.names import lora_name
from reeltune.definitions import Definition
from reeltune.errors import SettingsError
from reeltune.families.base import LORA_SOURCES, LORA_WEIGHTS, LORAS
from reeltune.families.values import Settings
from reeltune.families.vocabulary import KEYS
from reeltune.profiles.model import Profile
from reeltune.settings import layer, stored_layer, stored_settings
from reeltune.settings.multipliers import items_of, join_profile, parse_multipliers, split_profile


@dataclass(frozen=True)
class _Sides:
    """The LoRAs of settings: a profile's with an item for each, and the user's own with the text of their weights."""

    profile: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    text: str = ""


def apply_profile(settings: Settings, profile: Profile) -> Settings:
    """The settings with a profile, whose LoRAs replace those of the profile before it.

    The profile's settings override the others. The prompt, the seed, the size, the length, the inputs and the user's
    own LoRAs stay; an own LoRA with the file name of one of the profile's is left out (see `repeated_loras`). Settings
    that only the profile before set stay, too: call `remove_profile` first. The LoRAs of a preset replace the user's
    own ones instead, and its prompt replaces the user's. Raises SettingsError if `loras_multipliers` is invalid.
    """
    sides = _replaced(_sides(settings), profile)
    applied = {**settings, **profile.settings}
    if profile.prompt:
        applied["prompt"] = profile.prompt
    return _with_sides(applied, sides)


def remove_profile(settings: Settings, base: Settings, profile: Profile | None = None) -> Settings:
    """The settings without a profile: without its LoRAs, and with the values of `base` for the settings it set.

    `base`: the settings that the model starts from; a setting that they don't contain is removed. `profile`: the one to
    remove, None if it isn't known. Raises SettingsError if `loras_multipliers` is invalid.
    """
    sides = _sides(settings)
    restored = dict(settings)
    for key in profile.settings if profile else ():
        restored.pop(key, None)
        if key in base:
            restored[key] = base[key]
    return _with_sides(restored, _Sides(own=sides.own, text=sides.text))


def applied_profile(settings: Settings, profiles: Sequence[Profile]) -> Profile | None:
    """The profile that settings were made with, by its LoRAs and their weights; None if it is none of `profiles`.

    Of several, the one with the most settings in common. A profile without LoRAs must have all settings in common.
    """
    try:
        sides = _sides(settings)
    except SettingsError:
        return None
    names = [_name(lora) for lora in sides.profile]
    candidates = []
    for profile in profiles:
        if [_name(lora) for lora in profile.loras] != names or profile.preset:
            continue
        common = sum(settings.get(key) == value for key, value in profile.settings.items())
        if names and not _equal_weights(" ".join(sides.items), profile.multipliers):
            continue
        if names or common == len(profile.settings):
            candidates.append((common, profile))
    return max(candidates, key=lambda candidate: candidate[0])[1] if candidates else None


def repeated_loras(settings: Settings, profile: Profile) -> tuple[str, ...]:
    """The user's own LoRAs that `apply_profile` leaves out, because the profile has LoRAs of the same names.

    Raises SettingsError if `loras_multipliers` is invalid.
    """
    if profile.preset:
        return ()
    names = {_name(lora) for lora in profile.loras}
    return tuple(lora for lora in _sides(settings).own if _name(lora) in names)


def call_with_profile(
    definition: Definition,
    profile: Profile | None,
    offered: Sequence[Profile],
    call: Settings,
    stored: Settings | None = None,
) -> Settings:
    """A caller's settings with a profile, or without any for None.

    `offered`: all profiles of the definition, to find the one that the user's saved settings contain. `call`: settings
    that override the profile's; their LoRAs are the user's own. `stored`: settings that the profile overrides, such as
    those of a file. Raises SettingsError.
    """
    base = layer(definition.architecture, definition.settings)
    previous = applied_profile(settings_of_call(definition, {}, stored), offered)
    changed = remove_profile(settings_of_call(definition, call, stored), base, previous)
    result = dict(stored or {})
    for key in previous.settings if previous else ():
        result[key] = changed.get(key, _neutral(key))
    if profile is not None:
        changed = apply_profile(changed, profile)
        result |= stored_layer(definition.architecture, profile.settings)
        result |= {"prompt": profile.prompt} if profile.prompt else {}
    result |= call
    return result | {key: changed[key] for key in LORAS if key in changed}


def settings_of_call(definition: Definition, call: Settings, stored: Settings | None = None) -> Settings:
    """The complete settings of a call, before its profile is applied.

    LoRAs without weights are the user's own: they get the weights right of `|` in the stored text. Weights without
    LoRAs and without `|` are those of the stored LoRAs in order, of which the profile's are still the first ones.
    `stored`: settings such as those of a file. Raises SettingsError for several `|`.
    """
    saved = stored_settings(definition.root, definition.id).settings
    before = layer(definition.architecture, definition.settings, saved, call=stored or {})
    complete = layer(definition.architecture, definition.settings, saved, call={**(stored or {}), **call})
    if LORA_SOURCES in call and LORA_WEIGHTS not in call:
        return {**complete, LORA_WEIGHTS: _sides(before).text}
    if LORA_WEIGHTS in call and LORA_SOURCES not in call:
        return _with_sides(complete, _reweighted(_sides(before), call[LORA_WEIGHTS] or ""))
    return complete


def _reweighted(sides: _Sides, text: str) -> _Sides:
    """The sides with other weights. Raises SettingsError for several `|`."""
    count = len(sides.profile)
    items, own = split_profile(text)
    loras = (*sides.profile, *sides.own)
    if not items and count:
        items = items_of(text)
        items, own = (*items[:count], *["1"] * (count - len(items))), " ".join(items[count:])
    items = items[: len(loras)]
    return _Sides(loras[: len(items)], items, loras[len(items) :], own)


def _neutral(key: str) -> Any:
    """The value of a setting that has no effect, which overrides one that the user has saved."""
    return next(iter(KEYS[key].neutral), None)


def _sides(settings: Settings) -> _Sides:
    """The LoRAs of a profile and of the user. Raises SettingsError for several `|`."""
    loras = tuple(settings.get(LORA_SOURCES) or ())
    items, text = split_profile(settings.get(LORA_WEIGHTS) or "")
    items = items[: len(loras)]
    return _Sides(loras[: len(items)], items, loras[len(items) :], text)


def _replaced(sides: _Sides, profile: Profile) -> _Sides:
    """The sides with the LoRAs of a profile. Raises SettingsError for an invalid text of the user."""
    if profile.preset:
        items, text = split_profile(profile.multipliers)
        items = items[: len(profile.loras)]
        own = profile.loras[len(items) :]
        if not items:
            return _Sides(sides.profile, sides.items, own, text)
        return _Sides(profile.loras[: len(items)], items, own, text)
    names = {_name(lora) for lora in profile.loras}
    own, text = sides.own, sides.text
    if any(_name(lora) in names for lora in own):
        text = " ".join(item for lora, item in zip(own, items_of(text), strict=False) if _name(lora) not in names)
        own = tuple(lora for lora in own if _name(lora) not in names)
    return _Sides(profile.loras, items_of(profile.multipliers), own, text)


def _with_sides(settings: Settings, sides: _Sides) -> Settings:
    """The settings with these LoRAs; unchanged if there were none and there are none."""
    loras = [*sides.profile, *sides.own]
    if not loras and not settings.get(LORA_SOURCES) and not settings.get(LORA_WEIGHTS):
        return settings
    return {**settings, LORA_SOURCES: loras, LORA_WEIGHTS: join_profile(sides.items, sides.text)}


def _name(lora: str) -> str:
    """The name by which two LoRAs are compared, whatever their folder, server and case."""
    return lora_name(lora).casefold()


def _equal_weights(left: str, right: str) -> bool:
    """Whether two texts stand for the same weights."""
    try:
        return parse_multipliers(left) == parse_multipliers(right)
    except SettingsError:
        return left == right
