"""Keys of definitions that say how LTX Video and LTX-2 make videos at two scales.

`LTXV_config` names a YAML file of WanGP. The file isn't read: its values are part of the declaration of the family, for
every configuration that was published. `ltx2_pipeline` says whether a model of LTX-2 is a distilled one, and
`ltx2_lora_distilled` is the LoRA of the second scale of all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from reeltune.checkpoints.names import base_name
from reeltune.definitions.model import Version
from reeltune.definitions.section import ModelSection
from reeltune.errors import Problem
from reeltune.families import Architecture
from reeltune.families.scales import LTX_CONFIGS, TwoScales, config_named, nearest_config

SCALES_KEYS = ("LTXV_config", "ltx2_pipeline", "ltx2_lora_distilled")
_FIXED_KEYS = frozenset({"num_inference_steps", "negative_prompt"})  # that have no effect on distilled models
_DISTILLED, _PIPELINES = "distilled", ("distilled", "two_stage", "dev")


def with_scales(
    architecture: Architecture, model: ModelSection, inherited: Mapping[str, str | None], urls: list[str], file: str
) -> tuple[Architecture, list[Problem]]:
    """The architecture with the scales that a definition means, and warnings about keys without effect.

    `inherited`: the values of SCALES_KEYS in the definition or its base model. `urls`: the versions of the transformer.
    """
    if architecture.distilled is None:
        used: tuple[str, ...] = SCALES_KEYS[:1] if architecture.scales else ()
        adapted, warnings = _of_ltx_video(architecture, model.LTXV_config, inherited["LTXV_config"], urls, file)
    else:
        used = SCALES_KEYS[1:]
        adapted, warnings = _of_ltx2(architecture, inherited, urls, file)
    unused = [key for key in SCALES_KEYS if key not in used and getattr(model, key)]
    return adapted, [*warnings, *(Problem(file, f"model.{key}", _UNUSED[key], severity="warning") for key in unused)]


def scales_keys(architecture: Architecture) -> dict[str, str]:
    """The keys of a definition that mean the scales of an architecture."""
    scales = architecture.scales
    if scales is None:
        return {}
    if not scales.from_settings:
        return {"LTXV_config": f"{scales.name}.yaml"}
    return {"ltx2_pipeline": scales.name, **({"ltx2_lora_distilled": scales.lora} if scales.lora else {})}


def with_second_pass(loras: tuple[Version, ...], architecture: Architecture) -> tuple[Version, ...]:
    """The LoRAs of a definition with that of the second scale, if there is one."""
    lora = architecture.scales.lora if architecture.scales else ""
    return (*loras, Version(lora)) if lora else loras


def with_own_second_pass(architecture: Architecture, loras: tuple[Version, ...]) -> Architecture:
    """The architecture without its LoRA of the second scale, if a definition lists one of its own, with weights."""
    scales = architecture.scales
    if scales is None or not any(makes_distilled(lora.url) or lora.url == scales.lora for lora in loras):
        return architecture
    return replace(architecture, scales=replace(scales, lora=""))


def makes_distilled(source: str) -> bool:
    """Whether a LoRA makes a model a distilled one, by its name."""
    return "distilled-lora" in base_name(source).lower()


def _of_ltx2(
    architecture: Architecture, inherited: Mapping[str, str | None], urls: list[str], file: str
) -> tuple[Architecture, list[Problem]]:
    """LTX-2; without `ltx2_pipeline`, the names of the files tell whether the model is distilled."""
    pipeline, lora = inherited["ltx2_pipeline"] or "", inherited["ltx2_lora_distilled"]
    warnings = []
    if pipeline and pipeline not in _PIPELINES:
        message = (
            f"It isn't one of {', '.join(_PIPELINES)}: the names of the files tell whether the model is distilled."
        )
        warnings = [Problem(file, "model.ltx2_pipeline", message, severity="warning")]
    names_say_so = pipeline not in _PIPELINES and _are_distilled(urls)
    if architecture.distilled is not None and (pipeline == _DISTILLED or names_say_so):
        return architecture.distilled, warnings
    scales = architecture.scales
    return replace(architecture, scales=replace(scales, lora=lora) if scales and lora else scales), warnings


def _are_distilled(urls: list[str]) -> bool:
    return bool(urls) and all(_DISTILLED in base_name(url).lower() for url in urls)


def _of_ltx_video(
    architecture: Architecture, config: str | None, inherited: str | None, urls: list[str], file: str
) -> tuple[Architecture, list[Problem]]:
    """The architecture with the configuration that a definition names, and a warning about an unknown one.

    A definition that names none, but lists the files of a distilled model, gets that of distilled models; others get
    that of their base model. `inherited`: the configuration of the base model. `urls`: the versions of the transformer.
    Architectures without two scales are returned unchanged.
    """
    if architecture.scales is None:
        return architecture, []
    if not config:
        name = _DISTILLED if _are_distilled(urls) else inherited or ""
        return _with(architecture, config_named(name) or nearest_config(name)), []
    scales = config_named(config)
    if scales is not None:
        return _with(architecture, scales), []
    scales = nearest_config(config)
    message = f"The configuration isn't a published one: the values of {scales.name} are used."
    fix = f"Use one of {', '.join(entry.name for entry in LTX_CONFIGS)}."
    return _with(architecture, scales), [Problem(file, "model.LTXV_config", message, fix, "warning")]


_UNUSED = {
    "LTXV_config": "It is not used: only LTX Video has such configurations.",
    **dict.fromkeys(SCALES_KEYS[1:], "It is not used: only LTX-2 makes videos in such passes."),
}


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
