"""The presets of a model in its form: choose one and use it, save the form as one, or delete one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from reeltune.definitions import Definition
from reeltune.families.values import Settings
from reeltune.service.drafts import Message, draft_with_settings
from reeltune.service.presets import delete_preset, load_preset, preset_names, save_preset
from reeltune.service.workspace import Workspace
from reeltune.web.events import QUIET, Updates, reporting
from reeltune.web.markup import success

CheckValues = Callable[[tuple[Any, ...]], tuple[Settings, list[str]]]


class PresetRow:
    """The presets of one drawing of the form.

    `answer`: where answers are shown. `inputs`: the components of the form. `check`: converts their values to settings.
    """

    def __init__(
        self,
        workspace: Workspace,
        definition: Definition,
        draft: gr.State,
        answer: gr.HTML,
        inputs: list[Any],
        check: CheckValues,
    ) -> None:
        self._workspace, self._definition, self._check = workspace, definition, check
        self._draft, self._answer, self._inputs = draft, answer, inputs

    def draw(self) -> None:
        """Draw the list of presets, the name of a new one, and the buttons."""
        names = preset_names(self._workspace, self._definition.id)
        title = f"Presets ({len(names)})" if names else "Presets"
        with gr.Accordion(title, open=False, elem_id="presets"):
            with gr.Row(elem_classes="rt-fields"):
                self._list = gr.Dropdown(names, value=None, label="Preset", elem_id="preset", interactive=True)
                self._list.preprocess = lambda value: value if isinstance(value, str) else ""
                self._name = gr.Textbox(label="Name", max_lines=1, elem_id="preset-name")
            with gr.Row(elem_classes="rt-small"):
                use = gr.Button("Use preset", size="sm", elem_id="preset-use")
                save = gr.Button("Save these settings", size="sm", elem_id="preset-save")
                delete = gr.Button("Delete preset", size="sm", elem_id="preset-delete")
        report, outputs = reporting(self._answer), [self._answer, self._list, self._name]
        use.click(report(self._use), self._list, [self._draft, self._answer], **QUIET)
        save.click(report(self._save), [self._name, self._list, *self._inputs], outputs, **QUIET)
        delete.click(report(self._delete), self._list, outputs, **QUIET)

    def _use(self, name: str) -> Updates:
        id = self._definition.id
        stored = load_preset(self._workspace, id, name)
        draft = draft_with_settings(self._workspace, id, stored.settings, stored.unknown)
        message = Message(f"The form shows the settings of the preset {name}.")
        return {self._draft: draft.with_changes(message=message)}

    def _save(self, name: str, selected: str, *values: Any) -> Updates:
        """Save under the name that was entered, else replace the selected preset."""
        settings = self._check(values)[0]
        saved_name = save_preset(self._workspace, self._definition.id, name or selected or "", settings)
        return self._list_updates(f"The preset {saved_name} is saved.", saved_name)

    def _delete(self, name: str) -> Updates:
        delete_preset(self._workspace, self._definition.id, name)
        return self._list_updates(f"The preset {name} is deleted.", None)

    def _list_updates(self, message: str, selected: str | None) -> Updates:
        names = preset_names(self._workspace, self._definition.id)
        return {
            self._answer: success(message),
            self._list: gr.update(choices=names, value=selected),
            self._name: "",
        }
