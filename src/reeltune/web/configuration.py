"""The preferences on a page: every one that this program knows, kept in `reeltune.json`."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import gradio as gr

from reeltune._text import size
from reeltune.errors import DeviceMissing, PreferencesError, ReeltuneError
from reeltune.files import expand
from reeltune.machine import Machine
from reeltune.preferences import CHOICES, TOKENS, Preferences, load_preferences, save_preferences
from reeltune.service.labels import PREFERENCES
from reeltune.service.studio import Studio, preferences_file
from reeltune.web.events import QUIET
from reeltune.web.markup import good, problem

_HELP = {
    "quantization": "Int8 takes half the memory of 16-bit.",
    "dtype": "What models compute in; “auto” is what the device does best.",
    "text_encoder_quantization": "Used where a folder holds both versions.",
    "save_quantized": "Models quantized while loading are written to a file for the next time.",
    "memory_profile": "Resident: all weights on the device. Stages: one part at a time. Streamed and Minimum need the "
    "least memory and are the slowest.",
    "attention": "One that isn’t installed is replaced by another, with a notice.",
    "compile": "The first video takes longer, later ones are faster (torch.compile).",
    "int8": "Int8 products are faster on recent graphics cards, and slightly less exact.",
    "threads": "0 chooses by the size of the video.",
    "outputs": "A folder for videos only, relative to the working folder.",
    "model_folders": "Read-only folders with weights, such as another program’s; one per line.",
    "connections": "1 to 16.",
    "rate_limit": "For all downloads together; 0 for no limit.",
    "stall_seconds": "When a server sends nothing for that long.",
}
_WORDS = {
    "quantization": {"int8": "Scaled Int8", "bf16": "16-bit"},
    "text_encoder_quantization": {"int8": "Scaled Int8", "bf16": "16-bit"},
    "dtype": {"auto": "auto", "bf16": "BF16", "fp16": "FP16"},
    "memory_profile": {"auto": "Automatic", "resident": "Resident", "stages": "Stages", "streamed": "Streamed",
                       "minimum": "Minimum"},
    "attention": {"auto": "Automatic", "sdpa": "PyTorch (sdpa)", "flash": "FlashAttention",
                  "flash3": "FlashAttention 3", "sage": "SageAttention", "xformers": "xFormers"},
    "int8": {"weights": "16-bit products", "dynamic": "Int8 products"},
}  # fmt: skip
_TOKEN_TITLES = {"hub": "Hugging Face token", "civitai": "CivitAI token"}
_APART = ("extra", "tokens")
_LATER = ("model_folders", "device", "outputs", "connections", "rate_limit", "stall_seconds")  # after all others
_FOLDERS = ("outputs", "model_folders")


def configuration_tab(studio: Studio, page: gr.Blocks, refreshed: list[Any], refresh: Any) -> None:
    """Draw the tab. `refresh` gives new values for the components `refreshed` once preferences are saved."""
    current = load_preferences(studio.root)[0]
    names = [row.name for row in fields(Preferences) if row.name not in _APART]
    names.sort(key=lambda name: name in _LATER)  # how models run comes first
    with gr.Column(elem_id="configuration"):
        at_start = gr.HTML(_notices(studio), apply_default_css=False)
        with gr.Row(elem_classes="rt-fields"):
            boxes = [_box(name, getattr(current, name), studio) for name in names]
        gr.HTML("<h3>Tokens</h3>", apply_default_css=False)
        with gr.Row(elem_classes="rt-fields"):
            tokens = [_token_box(name, bool(current.tokens.get(name))) for name in TOKENS]
        with gr.Row(elem_classes="rt-save"):  # the answer is beside the button that asked
            save = gr.Button("Save", variant="primary", elem_id="save-configuration", scale=0, min_width=120)
            said = gr.HTML("", elem_id="configuration-said", apply_default_css=False)

    def keep(*values: Any) -> tuple[Any, ...]:
        given = dict(zip(names, values[: len(names)], strict=True))
        secrets = dict(zip(TOKENS, values[len(names) :], strict=True))
        try:
            preferences = _build(studio, given, secrets)
            save_preferences(studio.root, preferences)
        except ReeltuneError as error:
            return problem(error), gr.skip(), *([gr.skip()] * len(tokens))
        message = f"Saved in {preferences_file(studio.root).name} at {time.strftime('%H:%M:%S')}."
        return good(f"{message} It applies from the next job on."), "", *_token_states(preferences)

    def reload() -> tuple[Any, ...]:
        """The preferences as the file has them when the page is opened."""
        preferences = load_preferences(studio.root)[0]
        values = [_shown(getattr(preferences, name)) for name in names]
        return _notices(studio), *values, *_token_states(preferences)

    saving = save.click(keep, [*boxes, *tokens], [said, at_start, *tokens], **QUIET)
    saving.then(refresh[0], refresh[1], refreshed, **QUIET)
    page.load(reload, None, [at_start, *boxes, *tokens], **QUIET)


def _notices(studio: Studio) -> str:
    """What is wrong with the preferences as they are."""
    preferences, notices = load_preferences(studio.root)
    rows = [problem(line) for line in notices]
    try:
        studio.machine.check_device(preferences.device)
    except DeviceMissing as error:
        rows.append(problem(error))
    return "".join(rows)


def _shown(value: Any) -> Any:
    return "\n".join(value) if isinstance(value, tuple) else value


def _token_states(preferences: Preferences) -> list[Any]:
    return [gr.Textbox(value="", placeholder=_placeholder(bool(preferences.tokens.get(name)))) for name in TOKENS]


def _box(name: str, value: Any, studio: Studio) -> Any:
    title = PREFERENCES.get(name, name.replace("_", " ").capitalize())
    common = {"label": title, "info": _HELP.get(name) or None, "elem_id": f"preference-{name}"}
    if name == "device":
        return gr.Dropdown(devices(studio.machine), value=value, allow_custom_value=True, **common)
    if name in CHOICES:
        words = _WORDS.get(name, {})
        return gr.Radio([(words.get(row, row), row) for row in CHOICES[name]], value=value, **common)
    if isinstance(value, bool):
        return gr.Checkbox(value, **common)
    if isinstance(value, int | float):
        return gr.Number(value, precision=0 if isinstance(value, int) else None, **common)
    editable = studio.local or name not in _FOLDERS
    return gr.Textbox(_shown(value), lines=2 if isinstance(value, tuple) else 1, interactive=editable, **common)


def devices(machine: Machine) -> list[tuple[str, str]]:
    """The devices of a machine, as (words, value), each with the memory it computes in."""
    own = [
        (f"{gpu.name}, {size(gpu.memory)} (cuda:{number})", f"cuda:{number}") for number, gpu in enumerate(machine.gpus)
    ]
    if machine.unlisted:
        own.append(("Graphics card (cuda)", "cuda"))
    if machine.apple:
        own.append((f"Apple GPU, shares {size(machine.ram)} of RAM (mps)", "mps"))
    first = {"cuda": "the first graphics card", "mps": "the Apple GPU", "cpu": "the CPU"}[machine.device("auto")]
    return [(f"Automatic: {first}", "auto"), *own, (f"CPU, {size(machine.ram)} of RAM", "cpu")]


def _token_box(name: str, there: bool) -> gr.Textbox:
    return gr.Textbox(
        "", label=_TOKEN_TITLES[name], type="password", placeholder=_placeholder(there), elem_id=f"token-{name}",
        info="Sent to that site only. Once saved it is never shown again; enter “-” to delete it.",
    )  # fmt: skip


def _placeholder(there: bool) -> str:
    return "Saved. Enter another to replace it." if there else "None"


def _build(studio: Studio, given: dict[str, Any], secrets: dict[str, Any]) -> Preferences:
    """The preferences a form comes to. Raises PreferencesError; DeviceMissing for a device that isn't here."""
    before = studio.preferences() if preferences_file(studio.root).exists() else Preferences()
    folders = str(given.get("model_folders") or "")
    given["model_folders"] = tuple(row.strip() for row in folders.splitlines() if row.strip())
    if not studio.local:  # whoever can log in must not open other folders of this machine to the web
        given |= {name: getattr(before, name) for name in _FOLDERS}
    tokens = dict(before.tokens)
    for name, value in secrets.items():
        written = str(value or "").strip()
        if written == "-":
            tokens.pop(name, None)
        elif written:
            tokens[name] = written
    preferences = replace(before, **given, tokens=tokens)
    studio.machine.check_device(preferences.device)
    _check_folders(studio.root, preferences)
    return preferences


def _check_folders(root: Path, preferences: Preferences) -> None:
    if root.is_relative_to((root / expand(preferences.outputs)).resolve()):
        message = f"{preferences.outputs!r} holds more than videos."
        raise PreferencesError(message, hint="Choose a folder of their own: the page shows what is in it.")
    for folder in preferences.model_folders:
        if not (root / expand(folder)).is_dir():
            raise PreferencesError(f"There is no folder {folder!r}.", hint="Check the model folders.")
