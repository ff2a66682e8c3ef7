"""The Make tab: choose a model, describe a video and watch it being made."""

from __future__ import annotations

import gradio as gr

from reeltune._text import counted
from reeltune.errors import Unreachable
from reeltune.fetch import plan_download
from reeltune.library.index import Index
from reeltune.service.drafts import Message, VideoDraft, draft_of_job, new_draft
from reeltune.service.queue_view import import_queue, perform
from reeltune.service.workers import ask_worker
from reeltune.service.workspace import Workspace
from reeltune.web.clock import CURRENT_JOB, MODEL, MODELS, QUEUE, WORKERS, View, attempt
from reeltune.web.current_job_panel import current_job_panel
from reeltune.web.events import DOWNLOAD, LIVELY, QUIET, MakeComponents, Updates, button_data, on_button, reporting
from reeltune.web.gallery_state import GalleryState
from reeltune.web.markup import answer, marked
from reeltune.web.model_panel import model_description, model_list
from reeltune.web.queue_panel import queue_panel
from reeltune.web.settings_form import draw_form_for
from reeltune.web.workers_panel import workers_panel

_MAX_NOTICES = 3


def make_tab(workspace: Workspace, draft: gr.State, tabs: gr.Tabs) -> MakeComponents:
    """Draw the tab."""
    view = View(workspace, draft.value, GalleryState())
    with gr.Row(elem_classes="rt-columns"):
        with gr.Column(scale=3, min_width=250, elem_classes="rt-pick"):
            models = gr.HTML(attempt(show_models, view)[0], **LIVELY, elem_id="models")
        with gr.Column(scale=5, min_width=300, elem_classes="rt-form"):
            about = gr.HTML(attempt(show_model, view)[0], **LIVELY, elem_id="about")
            form_column = gr.Column(elem_id="form")
        with gr.Column(scale=5, min_width=300, elem_classes="rt-result"):
            current_job = gr.HTML(attempt(show_current_job, view)[0], **LIVELY, elem_id="now")
            with gr.Column(elem_id="jobs"):
                gr.HTML("<h3>Queue</h3>", apply_default_css=False)
                queue_answer = gr.HTML("", elem_id="queue-said", apply_default_css=False)
                queue = gr.HTML(attempt(show_queue, view)[0], **LIVELY, elem_id="queue")
                workers = gr.HTML(attempt(show_workers, view)[0], **LIVELY, elem_id="workers")
                with gr.Row(elem_classes="rt-small"):
                    upload = gr.UploadButton("Import a queue", file_types=[".json"], size="sm", elem_id="import-queue")
    outdated, file_name, file_content = (gr.Textbox(visible="hidden") for _ in range(3))
    make = MakeComponents(
        models, about, current_job, queue, workers, queue_answer, outdated, file_name, file_content, tabs
    )
    with form_column:
        draw_form_for(workspace, draft, make)
    _attach_models(workspace, draft, make)
    _attach_queue(workspace, draft, make)

    @reporting(queue_answer)
    def imported(path: str) -> Updates:
        count, notices = import_queue(workspace, path)
        message = Message(f"{counted(count, 'job')} added to the queue.", tuple(notices))
        html = marked(QUEUE, queue_panel(workspace, workspace.queue.jobs()))
        return {queue_answer: answer(message), queue: html}

    upload.upload(imported, upload, [queue_answer, queue], **QUIET)
    return make


def show_models(view: View) -> str:
    """The list of models."""
    return model_list(view.workspace, view.draft.id)


def show_model(view: View) -> str:
    """The description of the selected model."""
    return model_description(view.workspace, view.draft.id)


def show_current_job(view: View) -> str:
    """The running job, or the last one."""
    return current_job_panel(view.workspace, view.jobs)


def show_queue(view: View) -> str:
    """All jobs."""
    return queue_panel(view.workspace, view.jobs)


def show_workers(view: View) -> str:
    """The workers, if there are several."""
    return workers_panel(view.workspace)


# --- models -----------------------------------------------------------------------------------------------------


def _attach_models(workspace: Workspace, draft: gr.State, make: MakeComponents) -> None:
    @reporting(make.queue_answer)
    def pressed(event: gr.EventData, current: VideoDraft) -> Updates:
        if button_data(event, "do") == "refresh":
            workspace.reload()
            models = marked(MODELS, model_list(workspace, current.id))
            return {make.about: marked(MODEL, model_description(workspace, current.id)), make.models: models}
        id = button_data(event, "pick")
        return {draft: new_draft(workspace, id), make.about: marked(MODEL, model_description(workspace, id))}

    def look_up_sizes(current: VideoDraft) -> str:
        view = View(workspace, current, GalleryState())
        message, error = attempt(_look_up_sizes, view)
        description = marked(MODEL, model_description(workspace, current.id))
        return description + message if error is not None else description

    on_button(make.models, pressed, draft, [draft, make.about, make.models, make.queue_answer])
    on_button(make.about, look_up_sizes, draft, make.about, queue=True, concurrency_limit=4, show_progress="minimal")


def _look_up_sizes(view: View) -> str:
    """Ask the servers for the sizes of a model's missing files and store them. Raises FetchError, OSError."""
    workspace = view.workspace
    definition = workspace.catalog()[view.draft.id]
    _, survey = plan_download([definition], workspace.preferences(), machine=workspace.machine)
    ckpts = workspace.root / "ckpts"
    ckpts.mkdir(parents=True, exist_ok=True)
    survey.remember(Index(ckpts))
    workspace.reload()
    if survey.notices:
        raise Unreachable(" ".join(survey.notices[:_MAX_NOTICES]))
    return ""


# --- the queue --------------------------------------------------------------------------------------------------


def _attach_queue(workspace: Workspace, draft: gr.State, make: MakeComponents) -> None:
    @reporting(make.queue_answer)
    def pressed(event: gr.EventData) -> Updates:
        action, id = button_data(event, "do"), int(button_data(event, "job") or 0)
        updates: Updates = {make.queue_answer: "", make.file_name: "", make.file_content: ""}
        if action == "export":
            updates |= {make.file_name: "queue.json", make.file_content: workspace.queue.export()}
        elif action in ("edit", "reuse"):
            job_draft = draft_of_job(workspace, workspace.queue.get(id), edit=action == "edit")
            updates[draft] = job_draft
            updates[make.about] = marked(MODEL, model_description(workspace, job_draft.id))
        else:
            perform(workspace, action, id)
        jobs = workspace.queue.jobs()
        updates[make.queue] = marked(QUEUE, queue_panel(workspace, jobs))
        updates[make.current_job] = marked(CURRENT_JOB, current_job_panel(workspace, jobs))
        return updates

    @reporting(make.queue_answer)
    def asked(event: gr.EventData) -> Updates:
        ask_worker(workspace, button_data(event, "worker"), button_data(event, "do"))
        return {make.queue_answer: "", make.workers: marked(WORKERS, workers_panel(workspace))}

    on_button(make.workers, asked, None, [make.queue_answer, make.workers])
    file = [make.file_name, make.file_content]
    outputs = [draft, make.about, make.queue_answer, make.queue, make.current_job, *file]
    for html in (make.queue, make.current_job):
        on_button(html, pressed, None, outputs).then(None, file, None, js=DOWNLOAD, **QUIET)
