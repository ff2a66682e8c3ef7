"""The preferences on a page: every one that this program knows, kept in `reeltune.json`."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import gradio as gr

from reeltune.errors import PreferencesError, ReeltuneError
from reeltune.files import expand
from reeltune.preferences import CHOICES, TOKENS, Preferences, load_preferences, save_preferences
from reeltune.web.events import QUIET
from reeltune.web.labels import PREFERENCES
from reeltune.web.markup import good, problem
from reeltune.web.studio import Studio, preferences_file

_HELP = {
    "quantization": "Which version of a model is preferred.",
    "dtype": "What models compute in; auto takes what the device does best.",
    "text_encoder_quantization": "Which one is used where a folder holds both.",
    "save_quantized": "Keep what is quantized while loading as a file, for the next time.",
    "memory_profile": "Where the weights are kept, from the fastest to the smallest.",
    "attention": "What computes it. If it isn’t installed, another is used and reported.",
    "compile": "Compiles the model’s blocks with torch: the first video takes longer, later ones are faster.",
    "int8": "Whether int8 weights meet 16-bit activations, or activations in int8 too.",
    "device": "auto, cpu, mps, cuda, or one card: cuda:1.",
    "outputs": "Where the videos go, relative to the working folder.",
    "model_folders": "Read-only folders with weights, such as another program’s; one per line.",
    "connections": "Parallel requests for one file, 1 to 16.",
    "rate_limit": "Megabytes per second for all downloads; 0 for none.",
    "stall_seconds": "A connection that sends nothing for so long is opened again.",
}
_WORDS = {
    "quantization": {"int8": "Scaled Int8", "bf16": "16-bit"},
    "text_encoder_quantization": {"int8": "Scaled Int8", "bf16": "16-bit"},
    "dtype": {"auto": "auto", "bf16": "BF16", "fp16": "FP16"},
}
_TOKEN_TITLES = {"hub": "Hugging Face token", "civitai": "CivitAI token"}
_APART = ("extra", "tokens")
_LATER = ("model_folders", "device", "outputs", "connections", "rate_limit", "stall_seconds")  # after all others
_FOLDERS = ("outputs", "model_folders")


def configuration_tab(studio: Studio, page: gr.Blocks, refreshed: list[Any], refresh: Any) -> None:
    """Draw the tab. `refresh` gives new values for the components `refreshed` once preferences are saved."""
    current, notices = load_preferences(studio.root)
    told = "".join(problem(line) for line in notices)
    names = [row.name for row in fields(Preferences) if row.name not in _APART]
    names.sort(key=lambda name: name in _LATER)  # how models run comes first
    with gr.Column(elem_id="configuration"):
        said = gr.HTML(told, apply_default_css=False)
        with gr.Row(elem_classes="rt-fields"):
            boxes = [_box(name, getattr(current, name), studio) for name in names]
        gr.HTML("<h3>Tokens</h3>", apply_default_css=False)
        with gr.Row(elem_classes="rt-fields"):
            tokens = [_token_box(name, bool(current.tokens.get(name))) for name in TOKENS]
        save = gr.Button("Save", variant="primary", elem_id="save-configuration")

    def keep(*values: Any) -> tuple[Any, ...]:
        given = dict(zip(names, values[: len(names)], strict=True))
        secrets = dict(zip(TOKENS, values[len(names) :], strict=True))
        try:
            preferences = _build(studio, given, secrets)
            save_preferences(studio.root, preferences)
        except ReeltuneError as error:
            return problem(error), *([gr.skip()] * len(tokens))
        stored = [gr.Textbox(value="", placeholder=_placeholder(bool(preferences.tokens.get(name)))) for name in TOKENS]
        return good(f"Saved in {preferences_file(studio.root).name}; it counts from the next job on."), *stored

    saving = save.click(keep, [*boxes, *tokens], [said, *tokens], **QUIET)
    saving.then(refresh[0], refresh[1], refreshed, **QUIET)


def _box(name: str, value: Any, studio: Studio) -> Any:
    title = PREFERENCES.get(name, name.replace("_", " ").capitalize())
    common = {"label": title, "info": _HELP.get(name) or None, "elem_id": f"preference-{name}"}
    if name in CHOICES:
        words = _WORDS.get(name, {})
        return gr.Radio([(words.get(row, row), row) for row in CHOICES[name]], value=value, **common)
    if isinstance(value, bool):
        return gr.Checkbox(value, **common)
    if isinstance(value, int | float):
        return gr.Number(value, precision=0 if isinstance(value, int) else None, **common)
    editable = studio.local or name not in _FOLDERS
    shown = "\n".join(value) if isinstance(value, tuple) else value
    return gr.Textbox(shown, lines=2 if isinstance(value, tuple) else 1, interactive=editable, **common)


def _token_box(name: str, there: bool) -> gr.Textbox:
    return gr.Textbox(
        "", label=_TOKEN_TITLES[name], type="password", placeholder=_placeholder(there), elem_id=f"token-{name}",
        info="Goes to that site only. Once saved it is never shown; write “-” to forget it.",
    )  # fmt: skip


def _placeholder(there: bool) -> str:
    return "saved; write another to replace it" if there else "none"


def _build(studio: Studio, given: dict[str, Any], secrets: dict[str, Any]) -> Preferences:
    """The preferences a form comes to. Raises PreferencesError."""
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
    _check_folders(studio.root, preferences)
    return preferences


def _check_folders(root: Path, preferences: Preferences) -> None:
    if root.is_relative_to((root / expand(preferences.outputs)).resolve()):
        message = f"{preferences.outputs!r} holds more than videos."
        raise PreferencesError(message, hint="Choose a folder of their own: the page shows what is in it.")
    for folder in preferences.model_folders:
        if not (root / expand(folder)).is_dir():
            raise PreferencesError(f"There is no folder {folder!r}.", hint="Check the model folders.")
