"""The tab where videos are made: pick a model, say what is wanted, watch it come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from reeltune.errors import ReeltuneError
from reeltune.fetch import plan_download
from reeltune.inventory.index import Index
from reeltune.web import drafts, line, now, pick
from reeltune.web.fields import Field, fields_of, inputs_of
from reeltune.web.markup import CLICKS, good, notes, problem
from reeltune.web.studio import Studio
from reeltune.web.uploads import discard, export_text, settings_of
from reeltune.web.widgets import draw, settings_from

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}  # of every event on the page
LIVELY: dict[str, Any] = {"js_on_load": CLICKS, "apply_default_css": False}  # of HTML with buttons in it
INTO_VIEW = "watch('value', () => element.scrollIntoView({block: 'nearest', behavior: 'smooth'}));"
DOWNLOAD = """(name, text) => {
  if (!name) return;
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], {type: 'application/json'}));
  link.download = name; link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""


@dataclass(frozen=True)
class Make:
    """Components of the tab that others speak to."""

    models: gr.HTML
    about: gr.HTML
    said: gr.HTML
    now: gr.HTML
    queue: gr.HTML
    name: gr.Textbox
    content: gr.Textbox
    tabs: gr.Tabs


def listen(html: gr.HTML, *args: Any, **more: Any) -> Any:
    """Attach to the buttons inside a piece of HTML; the function's last argument is what the button is about."""
    return html.click(*args, **{**QUIET, "queue": False, **more})


def make_tab(studio: Studio, draft: gr.State, tabs: gr.Tabs) -> Make:
    """Draw the tab."""
    first = draft.value
    with gr.Row(elem_classes="rt-columns"):
        with gr.Column(scale=3, min_width=250, elem_classes="rt-pick"):
            models = gr.HTML(pick.model_list(studio, first["id"]), **LIVELY, elem_id="models")
        with gr.Column(scale=5, min_width=300, elem_classes="rt-form"):
            about = gr.HTML(pick.headline(studio, first["id"]), **LIVELY, elem_id="about")
            form_place = gr.Column(elem_id="form")
            said = gr.HTML("", elem_id="said", js_on_load=INTO_VIEW, apply_default_css=False)
        with gr.Column(scale=5, min_width=300, elem_classes="rt-result"):
            jobs = studio.queue.jobs()
            live = gr.HTML(now.panel(studio, jobs), **LIVELY, elem_id="now")
            gr.HTML("<h3>Queue</h3>", apply_default_css=False)
            queue = gr.HTML(line.panel(jobs), **LIVELY, elem_id="queue")
            load = gr.UploadButton("Import a queue", file_types=[".json"], size="sm", elem_id="import-queue")
    name, content = gr.Textbox(visible="hidden"), gr.Textbox(visible="hidden")
    parts = Make(models, about, said, live, queue, name, content, tabs)
    with form_place:
        _form(studio, draft, parts)
    _picking(studio, draft, parts)
    _queueing(studio, draft, parts)
    load.upload(lambda path: _import(studio, path), load, [said, queue], queue=False, **QUIET)
    return parts


# --- the form ---------------------------------------------------------------------------------------------------


def _form(studio: Studio, draft: gr.State, parts: Make) -> None:
    @gr.render(inputs=draft, show_progress="hidden", queue=False)
    def form(given: drafts.Draft) -> None:
        try:
            definition = studio.catalog()[given["id"]]
        except ReeltuneError:
            return
        if not definition.runnable:
            return
        wanted = [*inputs_of(definition.architecture), *fields_of(definition)]
        prompt = [row for row in wanted if row.key == "prompt"]
        wanted = [*prompt, *[row for row in wanted if row.key != "prompt"]]
        boxes = _draw_all(wanted, given, studio)
        if given["said"]:
            gr.HTML(notes(given["said"]), apply_default_css=False)
        _buttons(studio, draft, parts, given, wanted, boxes)


def _draw_all(wanted: list[Field], given: drafts.Draft, studio: Studio) -> list[Any]:
    def group(rows: list[Field]) -> None:
        files = [row for row in rows if row.kind in ("image", "images", "video")]
        for row in (row for row in rows if row.key == "prompt"):
            boxes[row.key] = draw(row, given["settings"], studio)
        if files:
            with gr.Row(elem_classes="rt-fields"):
                for row in files:
                    boxes[row.key] = draw(row, given["settings"], studio)
        with gr.Row(elem_classes="rt-fields"):
            for row in rows:
                if row.key not in boxes:
                    boxes[row.key] = draw(row, given["settings"], studio)

    boxes: dict[str, Any] = {}
    group([row for row in wanted if row.basic])
    with gr.Accordion("More settings", open=False, elem_id="advanced"):
        group([row for row in wanted if not row.basic])
    return [boxes[row.key] for row in wanted]


def _buttons(
    studio: Studio, draft: gr.State, parts: Make, given: drafts.Draft, wanted: list[Field], boxes: list[Any]
) -> None:
    id, job = given["id"], given["job"]

    def submit(*values: Any) -> tuple[Any, ...]:
        return _submit(studio, given, settings_from(wanted, values))

    def keep(*values: Any) -> str:
        try:
            definition = studio.catalog()[id]
            settings, _ = drafts.check(studio, definition, settings_from(wanted, values))
            path = drafts.save_defaults(studio, id, settings)
        except ReeltuneError as error:
            return problem(error)
        return good(f"{definition.name} starts from these settings now ({studio.relative(path)}).")

    def export(*values: Any) -> tuple[str, str, str]:
        try:
            settings, _ = drafts.check(studio, studio.catalog()[id], settings_from(wanted, values))
        except ReeltuneError as error:
            return problem(error), "", ""
        return "", f"{id}_settings.json", export_text(settings, id)

    def to_create(*values: Any) -> tuple[Any, ...]:
        try:
            settings, _ = drafts.check(studio, studio.catalog()[id], settings_from(wanted, values))
        except ReeltuneError as error:
            return gr.skip(), problem(error), gr.skip()
        return {**given, "settings": given["settings"] | settings}, "", gr.Tabs(selected="create")

    with gr.Row(elem_classes="rt-small"):
        out = gr.Button("Export settings", size="sm", elem_id="export-settings")
        save = gr.Button("Save as this model’s defaults", size="sm", elem_id="save-defaults")
        reset = gr.Button("Reset", size="sm", elem_id="reset")
        if drafts.saved_file(studio, id).exists():
            forget = gr.Button("Forget saved defaults", size="sm", elem_id="forget-defaults")
            forget.click(lambda: _forget(studio, id), None, [draft, parts.said], queue=False, **QUIET)
        more = gr.Button("Make a finetune of this", size="sm", elem_id="to-create")
        take = gr.UploadButton("Use settings of a file", file_types=[".mp4", ".json"], size="sm", elem_id="take-file")
    with gr.Row(elem_classes="rt-go"):
        label = "Generate" if job is None else f"Save job {job}"
        go = gr.Button(label, variant="primary", elem_id="generate", scale=3)
        if job is not None:
            back = gr.Button("Don’t change it", scale=1)
            back.click(lambda: (drafts.fresh(studio, id), ""), None, [draft, parts.said], queue=False, **QUIET)
    go.click(submit, boxes, [parts.said, parts.queue, parts.now, draft], queue=False, **QUIET)
    save.click(keep, boxes, parts.said, queue=False, **QUIET)
    more.click(to_create, boxes, [draft, parts.said, parts.tabs], queue=False, **QUIET)
    reset.click(lambda: (drafts.fresh(studio, id), ""), None, [draft, parts.said], queue=False, **QUIET)
    out.click(export, boxes, [parts.said, parts.name, parts.content], queue=False, **QUIET).then(
        None, [parts.name, parts.content], None, js=DOWNLOAD, **QUIET
    )
    take.upload(lambda path: take_file(studio, id, path), take, [draft, parts.said], queue=False, **QUIET)


def _forget(studio: Studio, id: str) -> tuple[drafts.Draft, str]:
    drafts.saved_file(studio, id).unlink(missing_ok=True)
    return drafts.fresh(studio, id), good("It starts from the definition’s own settings again.")


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


# --- picking ----------------------------------------------------------------------------------------------------


def _picking(studio: Studio, draft: gr.State, parts: Make) -> None:
    def picked(event: gr.EventData, given: drafts.Draft) -> tuple[Any, ...]:
        if event._data.get("do") == "refresh":
            studio.reload()
            return given, pick.headline(studio, given["id"]), pick.model_list(studio, given["id"]), ""
        id = str(event._data.get("pick", ""))
        return drafts.fresh(studio, id), pick.headline(studio, id), gr.skip(), ""

    def asked(given: drafts.Draft) -> str:
        try:
            _, survey = plan_download([studio.catalog()[given["id"]]], studio.preferences(), machine=studio.machine)
            ckpts = studio.root / "ckpts"
            ckpts.mkdir(parents=True, exist_ok=True)
            survey.remember(Index(ckpts))
        except (ReeltuneError, OSError) as error:
            told = error if isinstance(error, ReeltuneError) else str(error)
            return pick.headline(studio, given["id"]) + problem(told)
        return pick.headline(studio, given["id"])

    listen(parts.models, picked, draft, [draft, parts.about, parts.models, parts.said])
    listen(parts.about, asked, draft, parts.about, queue=True, concurrency_limit=4, show_progress="minimal")


# --- the queue --------------------------------------------------------------------------------------------------


def _queueing(studio: Studio, draft: gr.State, parts: Make) -> None:
    def pressed(event: gr.EventData) -> tuple[Any, ...]:
        do, id = str(event._data.get("do", "")), int(event._data.get("job") or 0)
        changed: Any = gr.skip()
        said, name, content = "", "", ""
        try:
            if do == "export":
                name, content = "queue.json", studio.queue.export()
            elif do in ("edit", "reuse"):
                job = studio.queue.get(id)
                changed = drafts.of_job(studio, job) | ({} if do == "edit" else {"job": None})
                said = good(f"The settings of job {id} are in the form.")
            else:
                line.act(studio, do, id)
        except ReeltuneError as error:
            said = problem(error)
        jobs = studio.queue.jobs()
        return changed, said, line.panel(jobs), now.panel(studio, jobs), name, content

    outputs = [draft, parts.said, parts.queue, parts.now, parts.name, parts.content]
    for html in (parts.queue, parts.now):
        listen(html, pressed, None, outputs).then(None, [parts.name, parts.content], None, js=DOWNLOAD, **QUIET)


def _import(studio: Studio, path: str) -> tuple[str, str]:
    found = studio.confined(path)
    try:
        if found is None:
            raise ReeltuneError("That is no uploaded file.")
        added = studio.queue.import_text(found.read_text(encoding="utf-8", errors="replace"))
        said = good(f"{len(added)} jobs are in the queue.")
        studio.runner.wake()
    except ReeltuneError as error:
        said = problem(error)
    discard([path], studio)
    return said, line.panel(studio.queue.jobs())
