"""The form: drawn anew for each draft, from what the model takes and uses."""

from __future__ import annotations

from typing import Any

import gradio as gr

from reeltune.definitions import Definition
from reeltune.errors import ReeltuneError
from reeltune.web import drafts, line, now
from reeltune.web.events import DOWNLOAD, QUIET, Make
from reeltune.web.fields import Field, fields_of, inputs_of
from reeltune.web.markup import good, notes, problem, text
from reeltune.web.studio import Studio
from reeltune.web.uploads import discard, export_text, settings_of
from reeltune.web.widgets import draw, settings_from


def form_of(studio: Studio, draft: gr.State, parts: Make) -> None:
    """Draw the form here whenever the draft changes."""

    @gr.render(inputs=draft, show_progress="hidden")  # type: ignore[untyped-decorator]
    def form(given: drafts.Draft) -> None:
        try:
            definition = studio.catalog()[given["id"]]
        except ReeltuneError:
            return
        if definition.runnable:
            Form(studio, draft, parts, given, definition).draw()


class Form:
    """One drawing of the form: what a model is asked for, holding the draft's settings, and what is done with it."""

    def __init__(
        self, studio: Studio, draft: gr.State, parts: Make, given: drafts.Draft, definition: Definition
    ) -> None:
        self._studio, self._draft, self._parts, self._given = studio, draft, parts, given
        self._definition = definition
        self._wanted = [*inputs_of(definition.architecture), *fields_of(definition)]
        self._boxes: dict[str, Any] = {}

    def draw(self) -> None:
        """Prompt and inputs, the one large button, then the settings."""
        inputs = [row for row in self._wanted if row.kind in ("image", "images", "video")]
        mark = (
            f'<span class="rt-form-of" data-of="{text(self._definition.id)}" data-turn="{self._given["turn"]}"></span>'
        )
        gr.HTML(mark, apply_default_css=False)  # for whoever waits until this form is the one that shows
        self._draw([row for row in self._wanted if row.key == "prompt"])
        if inputs:
            with gr.Row(elem_classes="rt-fields"):
                self._draw(inputs)
        if self._given["said"]:
            gr.HTML(notes(self._given["said"]), apply_default_css=False)
        go, back = self._go()
        rest = [row for row in self._wanted if row.key not in self._boxes]
        with gr.Row(elem_classes="rt-fields"):
            self._draw([row for row in rest if row.basic])
        with gr.Accordion("More settings", open=False, elem_id="advanced"), gr.Row(elem_classes="rt-fields"):
            self._draw([row for row in rest if not row.basic])
        self._attach(go, back)
        self._more()

    def _draw(self, rows: list[Field]) -> None:
        for row in rows:
            self._boxes[row.key] = draw(row, self._given["settings"], self._studio, self._given["turn"])

    @property
    def _all(self) -> list[Any]:
        return [self._boxes[row.key] for row in self._wanted]

    def _go(self) -> tuple[gr.Button, gr.Button | None]:
        job = self._given["job"]
        with gr.Row():
            go = gr.Button(
                "Generate" if job is None else f"Save job {job}", variant="primary", elem_id="generate", scale=3
            )
            back = gr.Button("Leave it as it is", scale=1) if job is not None else None
        return go, back

    def _attach(self, go: gr.Button, back: gr.Button | None) -> None:
        parts = self._parts
        outputs = [parts.said, parts.queue, parts.now, self._draft]
        go.click(
            lambda *values: _submit(self._studio, self._given, settings_from(self._wanted, values)),
            self._all, outputs, **QUIET,
        )  # fmt: skip
        if back is not None:
            back.click(self._fresh, None, [self._draft, parts.said], **QUIET)

    def _more(self) -> None:
        """The small buttons."""
        parts, saved = self._parts, drafts.saved_file(self._studio, self._definition.id).exists()
        both = [self._draft, parts.said]
        with gr.Row(elem_classes="rt-small"):
            out = gr.Button("Export settings", size="sm", elem_id="export-settings")
            save = gr.Button("Save as this model’s defaults", size="sm", elem_id="save-defaults")
            reset = gr.Button("Reset", size="sm", elem_id="reset")
            forget = gr.Button("Forget saved defaults", size="sm", elem_id="forget-defaults", visible=saved)
            create = gr.Button("Make a finetune of this", size="sm", elem_id="to-create")
            take = gr.UploadButton(
                "Use settings of a file", file_types=[".mp4", ".json"], size="sm", elem_id="take-file"
            )
        save.click(self._keep, self._all, [parts.said, forget], **QUIET)
        forget.click(self._forget, None, both, **QUIET)
        create.click(self._to_create, self._all, [*both, parts.tabs], **QUIET)
        reset.click(self._fresh, None, both, **QUIET)
        sink = [parts.name, parts.content]
        out.click(self._export, self._all, [parts.said, *sink], **QUIET).then(None, sink, None, js=DOWNLOAD, **QUIET)
        take.upload(lambda path: take_file(self._studio, self._definition.id, path), take, both, **QUIET)

    # --- what the buttons do ----------------------------------------------------------------------------------

    def _checked(self, values: tuple[Any, ...]) -> dict[str, Any]:
        return drafts.check(self._studio, self._definition, settings_from(self._wanted, values))[0]

    def _fresh(self) -> tuple[drafts.Draft, str]:
        return drafts.fresh(self._studio, self._definition.id), ""

    def _forget(self) -> tuple[drafts.Draft, str]:
        drafts.saved_file(self._studio, self._definition.id).unlink(missing_ok=True)
        return self._fresh()[0], good("It starts from the definition’s own settings again.")

    def _keep(self, *values: Any) -> tuple[str, Any]:
        try:
            path = drafts.save_defaults(self._studio, self._definition.id, self._checked(values))
        except ReeltuneError as error:
            return problem(error), gr.skip()
        said = f"{self._definition.name} starts from these settings now ({self._studio.relative(path)})."
        return good(said), gr.Button(visible=True)

    def _export(self, *values: Any) -> tuple[str, str, str]:
        try:
            settings = self._checked(values)
        except ReeltuneError as error:
            return problem(error), "", ""
        return "", f"{self._definition.id}_settings.json", export_text(settings, self._definition.id)

    def _to_create(self, *values: Any) -> tuple[Any, ...]:
        try:
            settings = self._checked(values)
        except ReeltuneError as error:
            return gr.skip(), problem(error), gr.skip()
        return {**self._given, "settings": self._given["settings"] | settings}, "", gr.Tabs(selected="create")


def _submit(studio: Studio, given: drafts.Draft, values: dict[str, Any]) -> tuple[Any, ...]:
    """Queue a job, or change the one that is edited: message, queue, what runs now, draft."""
    id, job = given["id"], given["job"]
    try:
        definition = studio.catalog()[id]
        settings, notices = drafts.check(studio, definition, values)
        if job is None:
            added = studio.queue.add(id, settings)
            studio.runner.wake()
            said = good(f"Job {added.id} is in the queue.") + notes(notices)
        else:
            studio.queue.edit(job, settings, id)
            said = good(f"Job {job} is changed.") + notes(notices)
    except ReeltuneError as error:
        return problem(error), gr.skip(), gr.skip(), gr.skip()
    jobs = studio.queue.jobs()
    after = gr.skip() if job is None else {**given, "settings": given["settings"] | settings, "job": None}
    return said, line.panel(jobs), now.panel(studio, jobs), after


def take_file(studio: Studio, current: str, path: str) -> tuple[Any, str]:
    """A draft from a dropped video or settings file; what is neither is deleted and said."""
    found = studio.confined(path)
    try:
        if found is None:
            raise ReeltuneError("That is no uploaded file.")
        id, settings, unknown = settings_of(found)
    except ReeltuneError as error:
        discard([path], studio)
        return gr.skip(), problem(error)
    if found.suffix.lower() == ".json":
        discard([path], studio)
    known = id in studio.catalog()
    draft = drafts.of_settings(studio, id if known else current, settings, unknown)
    said = good(f"The settings of {found.name} are in the form.")
    if id and not known:
        said += notes([f"It was made with {id}, which isn’t here: the model you picked takes its settings."])
    return draft, said
