"""`LTXV_config`: the configuration of LTX Video that a definition names.

WanGP's definitions name a YAML file of that program. The file isn't read: its values are part of the declaration of the
family, for every configuration that was published.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from reeltune.checkpoints.names import base_name
from reeltune.errors import Problem
from reeltune.families import Architecture
from reeltune.families.scales import LTX_CONFIGS, TwoScales, config_named, nearest_config

_FIXED_KEYS = frozenset({"num_inference_steps", "negative_prompt"})  # that have no effect on distilled models


def with_scales(
    architecture: Architecture, config: str | None, inherited: str | None, urls: list[str], file: str
) -> tuple[Architecture, list[Problem]]:
    """The architecture with the configuration that a definition names, and a warning about an unknown one.

    A definition that names none, but lists the files of a distilled model, gets that of distilled models; others get
    that of their base model. `inherited`: the configuration of the base model. `urls`: the versions of the transformer.
    Architectures without two scales are returned unchanged.
    """
    if architecture.scales is None:
        warnings = [Problem(file, "model.LTXV_config", _UNUSED, severity="warning")] if config else []
        return architecture, warnings
    if not config:
        distilled = bool(urls) and all("distilled" in base_name(url).lower() for url in urls)
        name = "distilled" if distilled else inherited or ""
        return _with(architecture, config_named(name) or nearest_config(name)), []
    scales = config_named(config)
    if scales is not None:
        return _with(architecture, scales), []
    scales = nearest_config(config)
    message = f"The configuration isn't a published one: the values of {scales.name} are used."
    fix = f"Use one of {', '.join(entry.name for entry in LTX_CONFIGS)}."
    return _with(architecture, scales), [Problem(file, "model.LTXV_config", message, fix, "warning")]


_UNUSED = "It is not used: only LTX Video has such configurations."


def _with(architecture: Architecture, scales: TwoScales) -> Architecture:
    """The architecture with a configuration. Settings that the configuration fixes are removed."""
    if not scales.distilled:
        return replace(architecture, scales=scales)
    defaults = {key: value for key, value in architecture.defaults.items() if key not in _FIXED_KEYS}
    return replace(
        architecture,
        scales=scales,
        settings=architecture.settings - _FIXED_KEYS,
        defaults=MappingProxyType(defaults),
        call_only=architecture.call_only | _FIXED_KEYS,
    )
