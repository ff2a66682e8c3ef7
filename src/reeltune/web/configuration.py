"""The Configuration tab: all preferences, stored in `reeltune.json`."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from reeltune.errors import ReeltuneError
from reeltune.preferences import TOKENS, save_preferences
from reeltune.service.preference_fields import (
    DELETE_TOKEN,
    TOKEN_LABELS,
    PreferenceBox,
    preference_fields,
    preference_problems,
    preferences_from_form,
)
from reeltune.service.workspace import Workspace
from reeltune.web.events import QUIET
from reeltune.web.markup import problem, success

_TOKEN_HELP = f"Only sent to that site. A saved token is never shown again; enter “{DELETE_TOKEN}” to delete it."


def configuration_tab(workspace: Workspace, page: gr.Blocks) -> Any:
    """Draw the tab; returns the event after which the preferences may have changed."""
    fields = preference_fields(workspace)
    with gr.Column(elem_id="configuration"):
        problems = gr.HTML(_problems(workspace), apply_default_css=False)
        with gr.Row(elem_classes="rt-fields"):
            inputs = [_component(field) for field in fields]
        gr.HTML("<h3>Tokens</h3>", apply_default_css=False)
        with gr.Row(elem_classes="rt-fields"):
            tokens = [_token_box(name, workspace) for name in TOKENS]
        with gr.Row(elem_classes="rt-save"):  # the answer stands next to the button
            save = gr.Button("Save", variant="primary", elem_id="save-configuration", scale=0, min_width=120)
            answer = gr.HTML("", elem_id="configuration-said", apply_default_css=False)

    def saved(*values: Any) -> tuple[Any, ...]:
        form_values = {field.name: value for field, value in zip(fields, values[: len(fields)], strict=True)}
        entered_tokens = dict(zip(TOKENS, values[len(fields) :], strict=True))
        try:
            save_preferences(workspace.root, preferences_from_form(workspace, form_values, entered_tokens))
        except ReeltuneError as error:
            return problem(error), gr.skip(), *(gr.skip() for _ in tokens)
        file_name, now = workspace.preferences_file.name, time.strftime("%H:%M:%S")
        message = f"Saved in {file_name} at {now}. The next job uses it."
        return success(message), "", *_token_updates(workspace)

    def loaded() -> tuple[Any, ...]:
        """The preferences as they are stored when the page is opened."""
        stored = {field.name: field.value for field in preference_fields(workspace)}
        values = [stored.get(field.name, field.value) for field in fields]
        return _problems(workspace), *values, *_token_updates(workspace)

    page.load(loaded, None, [problems, *inputs, *tokens], **QUIET)
    return save.click(saved, [*inputs, *tokens], [answer, problems, *tokens], **QUIET)


def _problems(workspace: Workspace) -> str:
    return "".join(problem(error) for error in preference_problems(workspace))


def _component(field: PreferenceBox) -> Any:
    common = {"label": field.label, "info": field.help or None, "elem_id": f"preference-{field.name}"}
    match field.kind:
        case "device":
            return gr.Dropdown(list(field.choices), value=field.value, allow_custom_value=True, **common)
        case "choice":
            return gr.Radio(list(field.choices), value=field.value, **common)
        case "switch":
            return gr.Checkbox(field.value, **common)
        case "whole":
            return gr.Number(field.value, precision=0, **common)
        case "number":
            return gr.Number(field.value, **common)
    return gr.Textbox(field.value, lines=2 if field.kind == "lines" else 1, interactive=field.editable, **common)


def _token_box(name: str, workspace: Workspace) -> gr.Textbox:
    return gr.Textbox(
        "",
        label=TOKEN_LABELS[name],
        type="password",
        placeholder=_placeholder(name, workspace),
        elem_id=f"token-{name}",
        info=_TOKEN_HELP,
    )


def _token_updates(workspace: Workspace) -> list[Any]:
    return [gr.update(value="", placeholder=_placeholder(name, workspace)) for name in TOKENS]


def _placeholder(name: str, workspace: Workspace) -> str:
    saved = bool(workspace.preferences().tokens.get(name))
    return "Saved. Enter another one to replace it." if saved else "None"
