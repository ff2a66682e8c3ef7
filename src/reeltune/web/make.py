"""The tab where videos are made: pick a model, say what is wanted, watch it come."""

from __future__ import annotations

from typing import Any

import gradio as gr

from reeltune.errors import ReeltuneError
from reeltune.fetch import plan_download
from reeltune.inventory.index import Index
from reeltune.web import drafts, line, now, pick
from reeltune.web.events import DOWNLOAD, INTO_VIEW, LIVELY, QUIET, Make, listen
from reeltune.web.form import form_of
from reeltune.web.markup import good, problem
from reeltune.web.studio import Studio
from reeltune.web.uploads import discard


def make_tab(studio: Studio, draft: gr.State, tabs: gr.Tabs) -> Make:
    """Draw the tab."""
    first = draft.value
    with gr.Row(elem_classes="rt-columns"):
        with gr.Column(scale=3, min_width=250, elem_classes="rt-pick"):
            models = gr.HTML(pick.model_list(studio, first["id"]), **LIVELY, elem_id="models")
        with gr.Column(scale=5, min_width=300, elem_classes="rt-form"):
            about = gr.HTML(pick.headline(studio, first["id"]), **LIVELY, elem_id="about")
            said = gr.HTML("", elem_id="said", js_on_load=INTO_VIEW, apply_default_css=False)
            form_place = gr.Column(elem_id="form")
        with gr.Column(scale=5, min_width=300, elem_classes="rt-result"):
            jobs = studio.queue.jobs()
            live = gr.HTML(now.panel(studio, jobs), **LIVELY, elem_id="now")
            gr.HTML("<h3>Queue</h3>", apply_default_css=False)
            queue = gr.HTML(line.panel(jobs), **LIVELY, elem_id="queue")
            load = gr.UploadButton("Import a queue", file_types=[".json"], size="sm", elem_id="import-queue")
    name, content = gr.Textbox(visible="hidden"), gr.Textbox(visible="hidden")
    parts = Make(models, about, said, live, queue, name, content, tabs)
    with form_place:
        form_of(studio, draft, parts)
    _picking(studio, draft, parts)
    _queueing(studio, draft, parts)
    load.upload(lambda path: _import(studio, path), load, [said, queue], **QUIET)
    return parts


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
