"""Layering of generation settings, what a model leaves unused of them, and what it can't be asked.

Later layers win: architecture < base model < definition < `settings/<id>_settings.json` < the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reeltune.families import Architecture
from reeltune.families.vocabulary import KEYS, shown

_MOST_PHASES = 2
_OWN = "reeltune"  # how the `type` of files that this program wrote begins


def layer(
    architecture: Architecture, *layers: Mapping[str, Any], call: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The architecture's defaults overlaid by each layer in turn, and by what a caller gives.

    Settings that count only where a caller gives them are left out of the other layers, but for files that this
    program wrote.
    """
    merged = dict(architecture.defaults)
    for overlay in layers:
        merged.update(stored_layer(architecture, overlay))
    merged.update(call or {})
    return merged


def stored_layer(architecture: Architecture, settings: Mapping[str, Any], program: str = "") -> dict[str, Any]:
    """Settings of a definition or file, less those that another program writes into every file and never uses.

    `program`: what wrote them, where that isn't among the settings as `type`.
    """
    if (program or str(settings.get("type", ""))).startswith(_OWN):
        return dict(settings)
    return {key: value for key, value in settings.items() if key not in architecture.call_only}


def neutral(key: str, settings: Mapping[str, Any]) -> bool:
    """Whether a setting asks for nothing: absent, neutral, or dependent on one that is."""
    row = KEYS[key]
    if row.descriptive or key not in settings or settings[key] in row.neutral:
        return True
    return bool(row.depends_on) and neutral(row.depends_on, settings)


def unused(settings: Mapping[str, Any], architecture: Architecture) -> list[str]:
    """Settings that ask for something this architecture does not do."""
    return [key for key in settings if key not in architecture.settings and not neutral(key, settings)]


def refusals(settings: Mapping[str, Any], architecture: Architecture) -> tuple[str, ...]:
    """What the settings ask for that would change the video and isn't done: a clause for each, as "it …".

    A model whose own settings are refused is not runnable: lists, plans, downloads and generation ask this function.
    """
    reasons = []
    if settings.get("guidance_phases", 1) > _MOST_PHASES:
        phases = settings["guidance_phases"]
        reasons.append(f"it asks for {phases} phases of guidance (guidance_phases), and {_MOST_PHASES} are supported")
    if not neutral("activated_loras", settings):
        names = shown(settings["activated_loras"])
        reasons.append(f"it applies LoRAs (activated_loras={names}), which are not supported yet")
    if "perturbation_switch" in architecture.settings and settings.get("perturbation_switch", 0) > 1:
        value = settings["perturbation_switch"]
        reasons.append(f"it asks for another guidance than skip-layer guidance (perturbation_switch={value})")
    reasons += [
        f"{architecture.id} can't take {key}={shown(settings[key])}: {why}"
        for key, why in architecture.refused.items()
        if not neutral(key, settings)
    ]
    return tuple(reasons)
