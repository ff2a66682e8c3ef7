"""The presets of a model in its form: one is chosen and its settings stand in the form, saved, or deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from reeltune.definitions import Definition
from reeltune.service import drafts, presets
from reeltune.service.studio import Studio
from reeltune.web.events import QUIET, Updates, reporting
from reeltune.web.markup import good

Checked = Callable[[tuple[Any, ...]], tuple[dict[str, Any], list[str]]]


class PresetRow:
    """One drawing of it. `said`: where answers are shown; `boxes`: the form's, whose values `checked` takes."""

    def __init__(
        self, studio: Studio, definition: Definition, draft: gr.State, said: gr.HTML, boxes: list[Any], checked: Checked
    ) -> None:
        self._studio, self._definition, self._checked = studio, definition, checked
        self._draft, self._said, self._boxes = draft, said, boxes

    def draw(self) -> None:
        """A list to choose from, a name to save under, and the buttons."""
        known = presets.names(self._studio, self._definition.id)
        title = f"Presets ({len(known)})" if known else "Presets"
        with gr.Accordion(title, open=False, elem_id="presets"):
            with gr.Row(elem_classes="rt-fields"):
                self._list = gr.Dropdown(known, value=None, label="Preset", elem_id="preset", interactive=True)
                self._list.preprocess = lambda value: value if isinstance(value, str) else ""
                self._name = gr.Textbox(label="Name", max_lines=1, elem_id="preset-name")
            with gr.Row(elem_classes="rt-small"):
                use = gr.Button("Use preset", size="sm", elem_id="preset-use")
                save = gr.Button("Save these settings", size="sm", elem_id="preset-save")
                gone = gr.Button("Delete preset", size="sm", elem_id="preset-delete")
        report, listed = reporting(self._said), [self._said, self._list, self._name]
        use.click(report(self._use), self._list, [self._draft, self._said], **QUIET)
        save.click(report(self._save), [self._name, self._list, *self._boxes], listed, **QUIET)
        gone.click(report(self._delete), self._list, listed, **QUIET)

    def _use(self, name: str) -> Updates:
        studio, id = self._studio, self._definition.id
        settings, unknown = presets.load(studio, id, name)
        message = good(f"The settings of the preset {name} are in the form.")
        return {self._draft: drafts.of_settings(studio, id, settings, unknown) | {"message": message}}

    def _save(self, name: str, chosen: str, *values: Any) -> Updates:
        """Under the name entered, else that of the preset chosen."""
        kept = presets.save(self._studio, self._definition.id, name or chosen or "", self._checked(values)[0])
        return self._listed(f"The preset {kept} is saved.", kept)

    def _delete(self, name: str) -> Updates:
        presets.delete(self._studio, self._definition.id, name)
        return self._listed(f"The preset {name} is deleted.", None)

    def _listed(self, message: str, chosen: str | None) -> Updates:
        known = presets.names(self._studio, self._definition.id)
        return {self._said: good(message), self._list: gr.Dropdown(choices=known, value=chosen), self._name: ""}
