"""Layers of generation settings, and the settings that a model doesn't use or can't support.

Later layers override earlier ones: architecture, base model, definition, `settings/<id>_settings.json`, the call.
"""

from __future__ import annotations

from reeltune.families import Architecture
from reeltune.families.values import Settings
from reeltune.families.vocabulary import KEYS, shown

_OWN_TYPE = "reeltune"  # prefix of `type` in files written by reeltune


def layer(architecture: Architecture, *layers: Settings, call: Settings | None = None) -> Settings:
    """The architecture's defaults, overridden by each layer in turn and by the caller's settings.

    The architecture's call-only settings are removed from `layers`, except from files that reeltune wrote.
    """
    merged = dict(architecture.defaults)
    for overlay in layers:
        merged.update(stored_layer(architecture, overlay))
    merged.update(call or {})
    return merged


def stored_layer(architecture: Architecture, settings: Settings, program: str = "") -> Settings:
    """The settings of a definition or file without those that other programs write but don't use.

    `program`: the program that wrote them; by default the value of `type` in the settings.
    """
    if (program or str(settings.get("type", ""))).startswith(_OWN_TYPE):
        return dict(settings)
    return {key: value for key, value in settings.items() if key not in architecture.call_only}


def is_neutral(key: str, settings: Settings) -> bool:
    """Whether a setting has no effect: missing, with a neutral value, or dependent on a setting without effect."""
    setting = KEYS[key]
    if setting.descriptive or key not in settings or settings[key] in setting.neutral:
        return True
    return bool(setting.depends_on) and is_neutral(setting.depends_on, settings)


def unused(settings: Settings, architecture: Architecture) -> list[str]:
    """The settings that have an effect, but not in this architecture."""
    return [key for key in settings if key not in architecture.settings and not is_neutral(key, settings)]


def refusals(settings: Settings, architecture: Architecture) -> tuple[str, ...]:
    """Why videos can't be made with these settings, as clauses such as "it uses a perturbation …"; empty if they can.

    A definition whose own settings are refused isn't runnable. Lists, plans, downloads and generation all use this.
    """
    reasons = []
    value = settings.get("perturbation_switch", 0)
    if "perturbation_switch" in architecture.settings and value not in architecture.perturbations:
        known = "spatiotemporal" if 2 in architecture.perturbations else "skip-layer"
        reasons.append(f"it uses a perturbation other than {known} guidance (perturbation_switch={value})")
    reasons += [
        f"{architecture.id} does not support {key}={shown(settings[key])}: {reason}"
        for key, reason in architecture.refused.items()
        if not is_neutral(key, settings)
    ]
    return tuple(reasons)
