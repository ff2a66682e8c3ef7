"""The tab where videos are made: pick a model, describe the video, watch it come."""

from __future__ import annotations

import gradio as gr

from reeltune._text import counted
from reeltune.errors import ReeltuneError, Unreachable
from reeltune.fetch import plan_download
from reeltune.files import read_bytes
from reeltune.library.index import Index
from reeltune.service import drafts
from reeltune.service.studio import Studio
from reeltune.service.uploads import MOST_JSON_BYTES, discard
from reeltune.untrusted import decode_text
from reeltune.web import line, now, pick
from reeltune.web.clock import MODEL, MODELS, NOW, QUEUE, View, attempt
from reeltune.web.events import DOWNLOAD, LIVELY, QUIET, Make, Updates, listen, reporting
from reeltune.web.form import form_of
from reeltune.web.look import Look
from reeltune.web.markup import good, marked


def make_tab(studio: Studio, draft: gr.State, tabs: gr.Tabs) -> Make:
    """Draw the tab."""
    view = View(studio, draft.value, Look())
    with gr.Row(elem_classes="rt-columns"):
        with gr.Column(scale=3, min_width=250, elem_classes="rt-pick"):
            models = gr.HTML(attempt(show_models, view)[0], **LIVELY, elem_id="models")
        with gr.Column(scale=5, min_width=300, elem_classes="rt-form"):
            about = gr.HTML(attempt(show_model, view)[0], **LIVELY, elem_id="about")
            form_place = gr.Column(elem_id="form")
        with gr.Column(scale=5, min_width=300, elem_classes="rt-result"):
            live = gr.HTML(attempt(show_now, view)[0], **LIVELY, elem_id="now")
            with gr.Column(elem_id="jobs"):
                gr.HTML("<h3>Queue</h3>", apply_default_css=False)
                queue_said = gr.HTML("", elem_id="queue-said", apply_default_css=False)
                queue = gr.HTML(attempt(show_queue, view)[0], **LIVELY, elem_id="queue")
                with gr.Row(elem_classes="rt-small"):
                    load = gr.UploadButton("Import a queue", file_types=[".json"], size="sm", elem_id="import-queue")
    stale, name, content = (gr.Textbox(visible="hidden") for _ in range(3))
    parts = Make(models, about, live, queue, queue_said, stale, name, content, tabs)
    with form_place:
        form_of(studio, draft, parts)
    _picking(studio, draft, parts)
    _queueing(studio, draft, parts)

    @reporting(queue_said)
    def imported(path: str) -> Updates:
        return _import(studio, parts, path)

    load.upload(imported, load, [queue_said, queue], **QUIET)
    return parts


def show_models(view: View) -> str:
    """The list of models."""
    return pick.model_list(view.studio, view.draft["id"])


def show_model(view: View) -> str:
    """What the page says of the model that is picked."""
    return pick.headline(view.studio, view.draft["id"])


def show_now(view: View) -> str:
    """The job that runs, or the last one."""
    return now.panel(view.studio, view.jobs)


def show_queue(view: View) -> str:
    """All jobs."""
    return line.panel(view.studio, view.jobs)


# --- picking ----------------------------------------------------------------------------------------------------


def _picking(studio: Studio, draft: gr.State, parts: Make) -> None:
    @reporting(parts.queue_said)
    def picked(event: gr.EventData, given: drafts.Draft) -> Updates:
        if event._data.get("do") == "refresh":
            studio.reload()
            shown = marked(MODELS, pick.model_list(studio, given["id"]))
            return {parts.about: marked(MODEL, pick.headline(studio, given["id"])), parts.models: shown}
        id = str(event._data.get("pick", ""))
        return {draft: drafts.fresh(studio, id), parts.about: marked(MODEL, pick.headline(studio, id))}

    def asked(given: drafts.Draft) -> str:
        shown, error = attempt(lambda view: _look_up(view, given["id"]), View(studio, given, Look()))
        return marked(MODEL, pick.headline(studio, given["id"])) + (shown if error is not None else "")

    listen(parts.models, picked, draft, [draft, parts.about, parts.models, parts.queue_said])
    listen(parts.about, asked, draft, parts.about, queue=True, concurrency_limit=4, show_progress="minimal")


def _look_up(view: View, id: str) -> str:
    """Ask the servers for the sizes of what a model lacks, and remember them. Raises FetchError, OSError."""
    studio = view.studio
    _, survey = plan_download([studio.catalog()[id]], studio.preferences(), machine=studio.machine)
    ckpts = studio.root / "ckpts"
    ckpts.mkdir(parents=True, exist_ok=True)
    survey.remember(Index(ckpts))
    studio.reload()
    if survey.notices:
        raise Unreachable(" ".join(survey.notices[:3]))
    return ""


# --- the queue --------------------------------------------------------------------------------------------------


def _queueing(studio: Studio, draft: gr.State, parts: Make) -> None:
    @reporting(parts.queue_said)
    def pressed(event: gr.EventData) -> Updates:
        do, id = str(event._data.get("do", "")), int(event._data.get("job") or 0)
        answer: Updates = {parts.queue_said: "", parts.name: "", parts.content: ""}
        if do == "export":
            answer |= {parts.name: "queue.json", parts.content: studio.queue.export()}
        elif do in ("edit", "reuse"):
            answer[draft] = _reused(studio, id, edited=do == "edit")
            answer[parts.about] = marked(MODEL, pick.headline(studio, answer[draft]["id"]))
        else:
            line.act(studio, do, id)
        jobs = studio.queue.jobs()
        shown = marked(QUEUE, line.panel(studio, jobs)), marked(NOW, now.panel(studio, jobs))
        return {**answer, parts.queue: shown[0], parts.now: shown[1]}

    outputs = [draft, parts.about, parts.queue_said, parts.queue, parts.now, parts.name, parts.content]
    for html in (parts.queue, parts.now):
        listen(html, pressed, None, outputs).then(None, [parts.name, parts.content], None, js=DOWNLOAD, **QUIET)


def _reused(studio: Studio, id: int, *, edited: bool) -> drafts.Draft:
    """The settings of a job in the form, to change it or to make another."""
    job = studio.queue.get(id)
    draft = drafts.of_job(studio, job)
    message = good(f"The settings of job {id} are in the form.")
    return {**draft, "job": job.id if edited else None, "message": message}


def _import(studio: Studio, parts: Make, path: str) -> Updates:
    found = studio.confined(path)
    if found is None:
        raise ReeltuneError("That is no uploaded file.")
    try:
        added = studio.queue.import_text(decode_text(read_bytes(found, MOST_JSON_BYTES)))
    finally:
        discard([path], studio)
    studio.runner.wake()
    message = f"{counted(len(added), 'job')} added to the queue."
    return {parts.queue_said: good(message), parts.queue: marked(QUEUE, line.panel(studio, studio.queue.jobs()))}
