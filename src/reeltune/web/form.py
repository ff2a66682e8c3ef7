"""The form: drawn anew for each draft, from what the model takes and uses."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from reeltune.definitions import Definition
from reeltune.errors import NotRunnable, ReeltuneError
from reeltune.service import drafts
from reeltune.service.fields import Field, fields_of, inputs_of
from reeltune.service.studio import Studio
from reeltune.service.uploads import discard, export_text, settings_of
from reeltune.web import line, now, pick
from reeltune.web.clock import MODEL, NOW, QUEUE
from reeltune.web.events import DOWNLOAD, INTO_VIEW, QUIET, Make, Updates, reporting
from reeltune.web.markup import good, marked, notes, text
from reeltune.web.preset_row import PresetRow
from reeltune.web.widgets import draw, settings_from

_HINT = '<p class="rt-hint rt-keys"><kbd>Ctrl</kbd> + <kbd>Enter</kbd> generates.</p>'
_BLOCKED = '<p class="rt-hint">This model can’t run here: the reason is above.</p>'


def form_of(studio: Studio, draft: gr.State, parts: Make) -> None:
    """Draw the form here whenever the draft changes."""

    @gr.render(inputs=draft, show_progress="hidden")  # type: ignore[untyped-decorator]
    def form(given: drafts.Draft) -> None:
        try:
            definition = studio.catalog()[given["id"]]
        except ReeltuneError:  # shown where the model's name stands
            gr.HTML(given["message"], elem_id="said", apply_default_css=False)
            parts.stale.change(partial(_follow, studio, given), None, draft, **QUIET)
            return
        Form(studio, draft, parts, given, definition).draw()


def _follow(studio: Studio, given: drafts.Draft) -> drafts.Draft:
    """The draft on its definition, which can be read again."""
    return drafts.renewed(studio, given, given["settings"])


class Form:
    """One drawing of the form: what a model is asked for, holding the draft's settings, and what is done with it."""

    def __init__(
        self, studio: Studio, draft: gr.State, parts: Make, given: drafts.Draft, definition: Definition
    ) -> None:
        self._studio, self._draft, self._parts, self._given = studio, draft, parts, given
        self._definition = definition
        self._fields = [*inputs_of(definition.architecture), *fields_of(definition)]
        self._boxes: dict[str, Any] = {}

    def draw(self) -> None:
        """Prompt and inputs, the one large button with its answer below, then the settings."""
        self._draw([row for row in self._fields if row.key == "prompt"])
        if inputs := [row for row in self._fields if row.kind in ("image", "images", "video")]:
            with gr.Row(elem_classes="rt-fields rt-inputs"):
                self._draw(inputs)
        go, back = self._go()
        hint = _BLOCKED if self._given["blocked"] else _HINT
        message = self._given["message"] + notes(self._given["said"]) or hint
        self._said = gr.HTML(message, elem_id="said", js_on_load=INTO_VIEW, apply_default_css=False)
        rest = [row for row in self._fields if row.key not in self._boxes]
        with gr.Row(elem_classes="rt-fields"):
            self._draw([row for row in rest if row.basic])
        with gr.Accordion("More settings", open=False, elem_id="advanced"), gr.Row(elem_classes="rt-fields"):
            self._draw([row for row in rest if not row.basic])
        PresetRow(self._studio, self._definition, self._draft, self._said, self._all, self._checked).draw()
        self._attach(go, back)
        self._more()
        turn, id = self._given["turn"], text(self._definition.id)
        marker = f'<span class="rt-form-of" data-of="{id}" data-turn="{turn}"></span>'
        gr.HTML(marker, apply_default_css=False)  # for whoever waits until this form is the one that shows

    def _draw(self, fields: list[Field]) -> None:
        for field in fields:
            self._boxes[field.key] = draw(field, self._given["settings"], self._studio, self._given["turn"])

    @property
    def _all(self) -> list[Any]:
        return [self._boxes[field.key] for field in self._fields]

    def _go(self) -> tuple[gr.Button, gr.Button | None]:
        job, blocked = self._given["job"], self._given["blocked"]
        label = "Generate" if job is None else f"Save job {job}"
        with gr.Row(elem_classes="rt-go"):
            go = gr.Button(label, variant="primary", elem_id="generate", scale=3, interactive=not blocked)
            back = gr.Button("Discard changes", scale=1, elem_id="discard") if job is not None else None
        return go, back

    def _attach(self, go: gr.Button, back: gr.Button | None) -> None:
        parts, report = self._parts, reporting(self._said)
        go.click(report(self._submit), self._all, [self._said, parts.queue, parts.now, self._draft], **QUIET)
        parts.stale.change(report(self._renew), self._all, [self._draft, self._said], **QUIET)
        if back is not None:
            back.click(report(self._fresh), None, [self._draft, self._said], **QUIET)

    def _more(self) -> None:
        """The small buttons."""
        parts, saved = self._parts, drafts.saved_file(self._studio, self._definition.id).exists()
        report, both = reporting(self._said), [self._draft, self._said]
        with gr.Row(elem_classes="rt-small"):
            out = gr.Button("Export settings", size="sm", elem_id="export-settings")
            save = gr.Button("Save as this model’s defaults", size="sm", elem_id="save-defaults")
            reset = gr.Button("Reset", size="sm", elem_id="reset")
            self._forget_button = gr.Button(
                "Delete saved defaults", size="sm", elem_id="forget-defaults", visible=saved
            )
            create = gr.Button("Make a finetune of this", size="sm", elem_id="to-create")
            take = gr.UploadButton("Use settings of a file", size="sm", elem_id="take-file")
        save.click(report(self._keep), self._all, [self._said, self._forget_button], **QUIET)
        self._forget_button.click(report(self._forget), None, both, **QUIET)
        create.click(report(self._to_create), self._all, [*both, parts.tabs], **QUIET)
        reset.click(report(self._fresh), None, both, **QUIET)
        sink = [parts.name, parts.content]
        out.click(report(self._export), self._all, [self._said, *sink], **QUIET).then(
            None, sink, None, js=DOWNLOAD, **QUIET
        )
        take.upload(report(self._take), take, [*both, parts.about], **QUIET)

    # --- what the buttons do ----------------------------------------------------------------------------------

    def _checked(self, values: tuple[Any, ...]) -> tuple[dict[str, Any], list[str]]:
        definition = self._studio.catalog()[self._definition.id]  # as it is now
        return drafts.check(self._studio, definition, settings_from(self._fields, values))

    def _submit(self, *values: Any) -> Updates:
        """Queue a job, or change the one that is edited."""
        studio, id, job = self._studio, self._definition.id, self._given["job"]
        if blocked := studio.blocked(id):
            raise NotRunnable(f"{self._definition.name} can't run here: {blocked}", hint="Pick another model.")
        settings, notices = self._checked(values)
        if job is None:
            added = studio.queue.add(id, settings)
            studio.runner.wake()
            answer: Updates = {self._said: good(f"Job {added.id} is in the queue.") + notes(notices)}
        else:
            studio.queue.edit(job, settings, id)
            message = good(f"Job {job} is changed.") + notes(notices)
            changed = {"settings": self._given["settings"] | settings, "job": None, "message": message}
            answer = {self._draft: {**self._given, **changed}}
        jobs = studio.queue.jobs()
        shown = marked(QUEUE, line.panel(studio, jobs)), marked(NOW, now.panel(studio, jobs))
        return {**answer, self._parts.queue: shown[0], self._parts.now: shown[1]}

    def _renew(self, *values: Any) -> Updates:
        """Follow the definition, which was edited, with what was entered."""
        return {self._draft: drafts.renewed(self._studio, self._given, settings_from(self._fields, values))}

    def _fresh(self) -> Updates:
        return {self._draft: drafts.fresh(self._studio, self._definition.id)}

    def _forget(self) -> Updates:
        drafts.saved_file(self._studio, self._definition.id).unlink(missing_ok=True)
        message = good("It starts from the definition’s own settings again.")
        return {self._draft: drafts.fresh(self._studio, self._definition.id, message)}

    def _keep(self, *values: Any) -> Updates:
        path = drafts.save_defaults(self._studio, self._definition.id, self._checked(values)[0])
        message = f"{self._definition.name} starts from these settings now ({self._studio.relative(path)})."
        return {self._said: good(message), self._forget_button: gr.Button(visible=True)}

    def _export(self, *values: Any) -> Updates:
        content = export_text(self._checked(values)[0], self._definition.id)
        name = f"{self._definition.id}_settings.json"
        return {self._said: _HINT, self._parts.name: name, self._parts.content: content}

    def _to_create(self, *values: Any) -> Updates:
        settings = self._given["settings"] | self._checked(values)[0]
        draft = {**self._given, "settings": settings, "message": ""}
        return {self._draft: draft, self._parts.tabs: gr.Tabs(selected="create")}

    def _take(self, path: str) -> Updates:
        draft = take_file(self._studio, self._definition.id, path)
        return {self._draft: draft, self._parts.about: marked(MODEL, pick.headline(self._studio, draft["id"]))}


def take_file(studio: Studio, current: str, path: str) -> drafts.Draft:
    """A draft from a video or a settings file. A file without settings is deleted and raises ReeltuneError."""
    found = studio.confined(path)
    if found is None:
        raise ReeltuneError("That is no uploaded file.")
    try:
        id, settings, unknown = settings_of(found)
    except ReeltuneError:
        discard([path], studio)
        raise
    if found.suffix.lower() == ".json":
        discard([path], studio)
    return drafts.of_file(studio, (id, "", current), settings, unknown, found.name)
