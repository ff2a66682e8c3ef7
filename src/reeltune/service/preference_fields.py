"""The preferences as fields of a form: labels, help texts, the choices that make sense on this machine.

for field in preference_fields(workspace):
    print(field.label, field.value)
save_preferences(workspace.root, preferences_from_form(workspace, form_values, tokens={}))
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from reeltune._text import size
from reeltune.errors import DeviceMissing, PreferencesError, ReeltuneError
from reeltune.files import expand
from reeltune.machine import Machine
from reeltune.preferences import CHOICES, TOKENS, Preferences, check_outputs, load_preferences
from reeltune.service.fields import FormValues
from reeltune.service.workspace import Workspace

PREFERENCE_LABELS = {
    "quantization": "Transformer Model Quantization",
    "dtype": "Transformer Data Type",
    "text_encoder_quantization": "Text encoder quantization",
    "save_quantized": "Save quantized models",
    "memory_profile": "Memory profile",
    "attention": "Attention",
    "compile": "Compile",
    "merge_loras": "Merge LoRAs",
    "int8": "Int8 computation",
    "fp8": "FP8 computation",
    "threads": "Threads",
    "model_folders": "Model folders",
    "device": "Device",
    "outputs": "Output folder",
    "connections": "Connections per download",
    "rate_limit": "Download limit (MB/s)",
    "stall_seconds": "Reconnect after (seconds)",
    "input_urls": "Let programs name images and videos by URL",
    "queue_limit": "Waiting jobs of programs",
    "worker_idle_minutes": "End idle workers after (minutes)",
}
TOKEN_LABELS = {"hub": "Hugging Face token", "civitai": "CivitAI token"}
DELETE_TOKEN = "-"  # entered in place of a token
_HELP = {
    "quantization": "Int8 and FP8 take half the memory of 16-bit weights.",
    "dtype": "The data type that models compute in; “auto” is the best one of the device.",
    "text_encoder_quantization": "Scaled Int8 also quantizes 16-bit text encoders while they are loaded.",
    "save_quantized": "Models that are quantized while loading are also written to a file, which loads faster.",
    "memory_profile": "Resident keeps all weights on the device, Stages one component at a time. Streamed and Minimum "
    "need the least memory and are the slowest.",
    "attention": "The library that computes attention.",
    "merge_loras": "Merge LoRAs with a constant weight into 16-bit files while loading. Steps are as fast as without "
    "LoRAs, but for another LoRA or weight the model is loaded again.",
    "compile": "Compile models with torch.compile: the first video takes longer, later ones are faster.",
    "int8": "Int8 products are faster on recent graphics cards, and slightly less exact.",
    "fp8": "FP8 products are faster on the graphics cards that compute them, and less exact.",
    "threads": "The number of CPU threads; 0 chooses it by the size of the video.",
    "outputs": "A folder only for videos, relative to the working folder.",
    "model_folders": "Folders with weights, such as an installation of WanGP or ComfyUI; one per line. They are never "
    "changed.",
    "connections": "1 to 16.",
    "rate_limit": "The speed of all downloads together; 0 for no limit.",
    "stall_seconds": "How long a server may send nothing.",
    "input_urls": "The server downloads what such URLs lead to, but nothing from private addresses.",
    "queue_limit": "When so many jobs wait, programs are told to try again later.",
    "worker_idle_minutes": "A worker that runs no job for so long releases its memory; 0 for never.",
}
_BITS = {"int8": "Scaled Int8", "bf16": "16-bit"}
_CHOICE_LABELS = {
    "quantization": {"int8": "Scaled Int8", "fp8": "FP8", "bf16": "16-bit"},
    "text_encoder_quantization": _BITS,
    "dtype": {"auto": "auto", "bf16": "BF16", "fp16": "FP16"},
    "memory_profile": {
        "auto": "Automatic",
        "resident": "Resident",
        "stages": "Stages",
        "streamed": "Streamed",
        "minimum": "Minimum",
    },
    "attention": {
        "auto": "Automatic (PyTorch)",
        "sdpa": "PyTorch (sdpa)",
        "flash": "FlashAttention",
        "flash3": "FlashAttention 3",
        "sage": "SageAttention",
        "xformers": "xFormers",
    },
    "int8": {"weights": "16-bit products", "dynamic": "Int8 products"},
    "fp8": {"weights": "16-bit products", "dynamic": "FP8 products"},
}
_ATTENTION_MODULES = {
    "flash": "flash_attn",
    "flash3": "flash_attn_interface",
    "sage": "sageattention",
    "xformers": "xformers",
}
_FOLDER_NAMES = ("outputs", "model_folders")


@dataclass(frozen=True)
class PreferenceBox:
    """A field of the form. `kind`: "choice", "device", "switch", "whole", "number", "text" or "lines".

    `choices`: pairs of label and value. `editable`: whether users of this workspace may change it.
    """

    name: str
    kind: str
    label: str
    help: str
    value: Any
    choices: tuple[tuple[str, str], ...] = ()
    editable: bool = True


def preference_fields(workspace: Workspace) -> list[PreferenceBox]:
    """Fields for all preferences that have an effect on this machine, with their values."""
    preferences = load_preferences(workspace.root)[0]
    preference_fields = [_field(name, getattr(preferences, name), workspace) for name in PREFERENCE_LABELS]
    return [field for field in preference_fields if field.kind != "choice" or len(field.choices) > 1]


def _field(name: str, value: Any, workspace: Workspace) -> PreferenceBox:
    field = PreferenceBox(name, "text", PREFERENCE_LABELS[name], _HELP.get(name, ""), value)
    if name == "device":
        return replace(field, kind="device", choices=tuple(device_choices(workspace.machine)))
    if name in CHOICES:
        return replace(field, kind="choice", choices=_choices(name, value, workspace.machine))
    if isinstance(value, bool):
        return replace(field, kind="switch")
    if isinstance(value, int | float):
        return replace(field, kind="whole" if isinstance(value, int) else "number")
    editable = workspace.local or name not in _FOLDER_NAMES
    if isinstance(value, tuple):
        return replace(field, kind="lines", value="\n".join(value), editable=editable)
    return replace(field, editable=editable)


def _choices(name: str, value: str, machine: Machine) -> tuple[tuple[str, str], ...]:
    labels = _CHOICE_LABELS.get(name, {})
    choices = [choice for choice in CHOICES[name] if choice == value or _has_effect(name, choice, machine)]
    return tuple((labels.get(choice, choice), choice) for choice in choices)


def _has_effect(name: str, choice: str, machine: Machine) -> bool:
    """Whether a choice differs from the others on this machine."""
    if name not in ("attention", "memory_profile") or choice == "auto":
        return True
    has_card = bool(machine.gpus) or machine.unlisted
    if name == "memory_profile":  # a CPU computes with the weights where they are, whatever the profile
        return has_card or machine.apple
    if choice == "sdpa":  # what "auto" uses
        return False
    return has_card and importlib.util.find_spec(_ATTENTION_MODULES[choice]) is not None


def device_choices(machine: Machine) -> list[tuple[str, str]]:
    """The devices of a machine as pairs of label and value, each with the memory that it uses."""
    choices = [
        (f"{gpu.name}, {size(gpu.memory)} (cuda:{number})", f"cuda:{number}") for number, gpu in enumerate(machine.gpus)
    ]
    if machine.unlisted:
        choices.append(("Graphics card (cuda)", "cuda"))
    if machine.apple:
        choices.append((f"Apple GPU, shares {size(machine.ram)} of RAM (mps)", "mps"))
    automatic = {"cuda": "the first graphics card", "mps": "the Apple GPU", "cpu": "the CPU"}[machine.device("auto")]
    cpu = (f"CPU, {size(machine.ram)} of RAM", "cpu")
    return [(f"Automatic: {automatic}", "auto"), *choices, cpu]


def preference_problems(workspace: Workspace) -> list[ReeltuneError | str]:
    """What is wrong with the stored preferences."""
    preferences, notices = load_preferences(workspace.root)
    problems: list[ReeltuneError | str] = list(notices)
    try:
        workspace.machine.check_device(preferences.device)
    except DeviceMissing as error:
        problems.append(error)
    return problems


def preferences_from_form(workspace: Workspace, form_values: FormValues, tokens: FormValues) -> Preferences:
    """The preferences with the values of a form and new tokens; an empty token keeps the old one.

    Raises PreferencesError, and DeviceMissing for a device that doesn't exist.
    """
    stored = workspace.preferences() if workspace.preferences_file.exists() else Preferences()
    names = {field.name for field in fields(Preferences)}
    changes = {name: value for name, value in form_values.items() if name in names}
    folders = str(form_values.get("model_folders") or "")
    changes["model_folders"] = tuple(line.strip() for line in folders.splitlines() if line.strip())
    if not workspace.local:  # other users must not open folders of this machine to the network
        changes |= {name: getattr(stored, name) for name in _FOLDER_NAMES}
    preferences = replace(stored, **changes, tokens=_merged_tokens(stored.tokens, tokens))
    workspace.machine.check_device(preferences.device)
    _check_folders(workspace.root, preferences)
    return preferences


def _merged_tokens(stored: Mapping[str, str], entered: FormValues) -> dict[str, str]:
    tokens = dict(stored)
    for name in TOKENS:
        token = str(entered.get(name) or "").strip()
        if token == DELETE_TOKEN:
            tokens.pop(name, None)
        elif token:
            tokens[name] = token
    return tokens


def _check_folders(root: Path, preferences: Preferences) -> None:
    check_outputs(root, preferences)
    for folder in preferences.model_folders:
        if not (root / expand(folder)).is_dir():
            raise PreferencesError(f"There is no folder {folder!r}.", hint="Check the model folders.")
