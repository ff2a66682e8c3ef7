"""The form of the Make tab, drawn for each draft from what its model takes and uses."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from reeltune.definitions import Definition
from reeltune.errors import NotRunnable, ReeltuneError
from reeltune.families.values import Settings
from reeltune.service.drafts import (
    Message,
    VideoDraft,
    check_draft,
    defaults_file,
    draft_of_upload,
    new_draft,
    save_defaults,
    updated,
)
from reeltune.service.fields import FILE_KINDS, FormField, fields_of, inputs_of
from reeltune.service.workspace import Workspace
from reeltune.settings import settings_text
from reeltune.web.clock import CURRENT_JOB, MODEL, QUEUE
from reeltune.web.current_job_panel import current_job_panel
from reeltune.web.events import DOWNLOAD, QUIET, SCROLL_TO_PROBLEM, MakeComponents, Updates, reporting
from reeltune.web.lora_part import LORA_KINDS, LoraPart
from reeltune.web.markup import answer, hint, marked, notices_list, text
from reeltune.web.model_panel import model_description
from reeltune.web.preset_row import PresetRow
from reeltune.web.profile_picker import ProfilePicker
from reeltune.web.queue_panel import queue_panel
from reeltune.web.widgets import draw_field, form_values

_SHORTCUT = '<p class="rt-hint rt-keys"><kbd>Ctrl</kbd> + <kbd>Enter</kbd> generates.</p>'
_BLOCKED = hint("This model can’t run here. The reason is shown above.")


def draw_form_for(workspace: Workspace, draft: gr.State, make: MakeComponents) -> None:
    """Draw the form here, and again whenever the draft changes."""

    # Not on loading too, as is usual: opening the page changes the draft, and a form that is drawn twice loses what is
    # entered in between.
    @gr.render(inputs=draft, triggers=[draft.change], show_progress="hidden")  # type: ignore[untyped-decorator]
    def form(current: VideoDraft) -> None:
        try:
            definition = workspace.catalog()[current.id]
        except ReeltuneError:  # its error is shown in place of the model's description
            message = answer(current.message) if current.message is not None else ""
            gr.HTML(message, elem_id="said", apply_default_css=False)
            follow = partial(updated, workspace, current, current.settings)
            make.outdated.change(follow, None, draft, **QUIET)
            return
        SettingsForm(workspace, draft, make, current, definition).draw()


def _draw_help(inputs: list[FormField]) -> None:
    """Say below the inputs what their files must be: fields for files have no place for it."""
    lines = [f"{field.label}: {field.help}" for field in inputs if field.help]
    if lines:
        gr.HTML(notices_list(lines), elem_id="input-help", apply_default_css=False)


class SettingsForm:
    """One drawing of the form: the fields of a model with the settings of a draft, and the buttons that use them."""

    def __init__(
        self, workspace: Workspace, draft: gr.State, make: MakeComponents, current: VideoDraft, definition: Definition
    ) -> None:
        self._workspace, self._draft, self._make, self._current = workspace, draft, make, current
        self._definition = definition
        self._fields = [*inputs_of(definition.architecture), *fields_of(definition, current.settings)]
        self._labels = {field.key: field.label for field in self._fields}
        self._components: dict[str, Any] = {}

    def draw(self) -> None:
        """Draw the prompt and the inputs, the Generate button with its answer, and all other settings."""
        self._draw_fields([field for field in self._fields if field.key == "prompt"])
        inputs = [field for field in self._fields if field.kind in FILE_KINDS]
        if inputs:
            with gr.Row(elem_classes="rt-fields rt-inputs"):
                self._draw_fields(inputs)
            _draw_help(inputs)
        generate, discard = self._draw_main_buttons()
        self._answer = gr.HTML(
            self._first_answer(), elem_id="said", js_on_load=SCROLL_TO_PROBLEM, apply_default_css=False
        )
        picker = ProfilePicker(self._workspace, self._definition, self._draft, self._current, self._answer)
        picker.draw()
        others = [field for field in self._fields if field.key not in self._components]
        with gr.Row(elem_classes="rt-fields"):
            self._draw_fields([field for field in others if field.basic])
        loras = LoraPart(self._workspace, self._definition, self._current)
        self._components |= loras.draw([field for field in others if field.kind in LORA_KINDS])
        others = [field for field in others if field.key not in self._components]
        with gr.Accordion("More settings", open=False, elem_id="advanced"), gr.Row(elem_classes="rt-fields"):
            self._draw_fields(others)
        loras.attach(self._fields, self._inputs, self._draft, self._answer)
        picker.attach(self._fields, self._inputs)
        PresetRow(self._workspace, self._definition, self._draft, self._answer, self._inputs, self._checked).draw()
        self._attach_main_buttons(generate, discard)
        self._draw_small_buttons()
        id, version = text(self._definition.id), self._current.version
        marker = f'<span class="rt-form-of" data-of="{id}" data-turn="{version}"></span>'
        gr.HTML(marker, apply_default_css=False)  # tells tests which draft the form belongs to

    def _draw_fields(self, fields: list[FormField]) -> None:
        for field in fields:
            component = draw_field(field, self._current.settings, self._workspace, self._current.version)
            self._components[field.key] = component

    @property
    def _inputs(self) -> list[Any]:
        """The components of all fields, in the order of the fields."""
        return [self._components[field.key] for field in self._fields]

    def _first_answer(self) -> str:
        message = answer(self._current.message, self._labels) if self._current.message is not None else ""
        messages = message + notices_list(self._current.notices, self._labels)
        return messages or (_BLOCKED if self._current.blocked else _SHORTCUT)

    def _draw_main_buttons(self) -> tuple[gr.Button, gr.Button | None]:
        job = self._current.job
        label = "Generate" if job is None else f"Save job {job}"
        enabled = not self._current.blocked
        with gr.Row(elem_classes="rt-go"):
            generate = gr.Button(label, variant="primary", elem_id="generate", scale=3, interactive=enabled)
            discard = gr.Button("Discard changes", scale=1, elem_id="discard") if job is not None else None
        return generate, discard

    def _attach_main_buttons(self, generate: gr.Button, discard: gr.Button | None) -> None:
        make, report = self._make, reporting(self._answer, self._labels)
        outputs = [self._answer, make.queue, make.current_job, self._draft]
        generate.click(report(self._submit), self._inputs, outputs, **QUIET)
        make.outdated.change(report(self._update), self._inputs, [self._draft, self._answer], **QUIET)
        if discard is not None:
            discard.click(report(self._reset), None, [self._draft, self._answer], **QUIET)

    def _draw_small_buttons(self) -> None:
        saved = defaults_file(self._workspace, self._definition.id).exists()
        with gr.Row(elem_classes="rt-small"):
            export = gr.Button("Export settings", size="sm", elem_id="export-settings")
            save = gr.Button("Save as this model’s defaults", size="sm", elem_id="save-defaults")
            reset = gr.Button("Reset", size="sm", elem_id="reset")
            self._delete_defaults_button = gr.Button(
                "Delete saved defaults", size="sm", elem_id="forget-defaults", visible=saved
            )
            finetune = gr.Button("Make a finetune of this", size="sm", elem_id="to-create")
            upload = gr.UploadButton("Use settings of a file", size="sm", elem_id="take-file")
        make, report, outputs = self._make, reporting(self._answer, self._labels), [self._draft, self._answer]
        save.click(report(self._save_defaults), self._inputs, [self._answer, self._delete_defaults_button], **QUIET)
        self._delete_defaults_button.click(report(self._delete_defaults), None, outputs, **QUIET)
        finetune.click(report(self._open_create_tab), self._inputs, [*outputs, make.tabs], **QUIET)
        reset.click(report(self._reset), None, outputs, **QUIET)
        file = [make.file_name, make.file_content]
        exported = export.click(report(self._export), self._inputs, [self._answer, *file], **QUIET)
        exported.then(None, file, None, js=DOWNLOAD, **QUIET)
        upload.upload(report(self._use_upload), upload, [*outputs, make.about], **QUIET)

    # --- what the buttons do ----------------------------------------------------------------------------------

    def _checked(self, values: tuple[Any, ...]) -> tuple[Settings, list[str]]:
        """Settings and notices from the values of the components. Raises ReeltuneError."""
        definition = self._workspace.catalog()[self._definition.id]  # it may have changed since the form was drawn
        return check_draft(self._workspace, definition, form_values(self._fields, values))

    def _submit(self, *values: Any) -> Updates:
        """Add a job to the queue, or change the one that is edited."""
        workspace, id, edited_job = self._workspace, self._definition.id, self._current.job
        blocked = workspace.blocked(id)
        if blocked:
            raise NotRunnable(f"{self._definition.name} can't run here: {blocked}", hint="Choose another model.")
        settings, notices = self._checked(values)
        if edited_job is None:
            job = workspace.queue.add(id, settings)
            workspace.runner.wake()
            message = Message(f"Job {job.id} is in the queue.", tuple(notices))
            updates: Updates = {self._answer: answer(message, self._labels)}
        else:
            workspace.queue.edit(edited_job, settings, id)
            message = Message(f"Job {edited_job} was changed.", tuple(notices))
            draft_settings = {**self._current.settings, **settings}
            updates = {self._draft: self._current.with_changes(settings=draft_settings, job=None, message=message)}
        jobs = workspace.queue.jobs()
        updates[self._make.queue] = marked(QUEUE, queue_panel(workspace, jobs))
        updates[self._make.current_job] = marked(CURRENT_JOB, current_job_panel(workspace, jobs))
        return updates

    def _update(self, *values: Any) -> Updates:
        """Follow the definition, which has changed, and keep what was entered."""
        return {self._draft: updated(self._workspace, self._current, form_values(self._fields, values))}

    def _reset(self) -> Updates:
        return {self._draft: new_draft(self._workspace, self._definition.id)}

    def _save_defaults(self, *values: Any) -> Updates:
        path = save_defaults(self._workspace, self._definition.id, self._checked(values)[0])
        text = f"{self._definition.name} now starts with these settings ({self._workspace.relative(path)})."
        return {self._answer: answer(Message(text)), self._delete_defaults_button: gr.update(visible=True)}

    def _delete_defaults(self) -> Updates:
        defaults_file(self._workspace, self._definition.id).unlink(missing_ok=True)
        message = Message("The saved defaults were deleted. The form shows the definition’s own settings.")
        return {self._draft: new_draft(self._workspace, self._definition.id, message)}

    def _export(self, *values: Any) -> Updates:
        content = settings_text(self._definition.id, self._checked(values)[0])
        name = f"{self._definition.id}_settings.json"
        return {self._answer: _SHORTCUT, self._make.file_name: name, self._make.file_content: content}

    def _open_create_tab(self, *values: Any) -> Updates:
        settings = {**self._current.settings, **self._checked(values)[0]}
        draft = self._current.with_changes(settings=settings, message=None)
        return {self._draft: draft, self._make.tabs: gr.update(selected="create")}

    def _use_upload(self, path: str) -> Updates:
        draft = draft_of_upload(self._workspace, self._definition.id, path)
        return {self._draft: draft, self._make.about: marked(MODEL, model_description(self._workspace, draft.id))}
