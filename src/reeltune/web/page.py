"""The whole page: its tabs, and which of their parts change by themselves."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from reeltune.errors import ReeltuneError
from reeltune.service import drafts
from reeltune.service.studio import Studio
from reeltune.web import pick
from reeltune.web.calls import Page
from reeltune.web.clock import MODEL, MODELS, NOW, QUEUE, Part, View, clock
from reeltune.web.configuration import configuration_tab
from reeltune.web.create import bases, create_tab
from reeltune.web.events import QUIET, Make
from reeltune.web.gallery import films, gallery_tab, grid
from reeltune.web.make import make_tab, show_model, show_models, show_now, show_queue
from reeltune.web.markup import marked
from reeltune.web.own import choices

_HEADER = """<header class="rt-header"><h1>reeltune</h1>
<button type="button" class="rt-button" id="rt-theme" aria-label="Dark or light colours">◐</button></header>"""
_OPENED_JS = "() => { document.body.dataset.opened = 'true'; }"  # the model it opens with is picked
_THEME_JS = "reeltune.theme(element.querySelector('#rt-theme'));"


def first_model(studio: Studio) -> str:
    """The model a page opens with: that of the latest job, else the first that is ready and needs nothing but words,
    else the first that runs.
    """
    catalog = studio.catalog()
    for job in sorted(studio.queue.jobs(), key=lambda job: job.id, reverse=True):
        if job.definition in catalog:
            return job.definition
    runnable = [row.id for row in catalog.summaries() if row.runnable]
    for id in runnable:
        try:
            definition = catalog[id]
            needy = any(row.required for row in definition.architecture.inputs)
            if not needy and not studio.explain(definition).missing:
                return id
        except ReeltuneError:
            continue
    return (runnable or list(catalog) or [""])[0]


def build(studio: Studio) -> gr.Blocks:
    """The page of a studio, ready to be served."""
    with Page(studio, title="reeltune", analytics_enabled=False) as page:
        draft = gr.State(drafts.fresh(studio, first_model(studio)))
        gr.HTML(_HEADER, js_on_load=_THEME_JS, apply_default_css=False)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Make", id="make"):
                make = make_tab(studio, draft, tabs)
            with gr.Tab("Gallery", id="gallery"):
                cards, look = gallery_tab(studio, draft, tabs, make)
            with gr.Tab("Create", id="create"):
                base, files = create_tab(studio, draft, tabs, make.about)
            with gr.Tab("Configuration", id="configuration"):
                again = lambda given: (pick.headline(studio, given["id"]), pick.model_list(studio, given["id"]))  # noqa: E731
                configuration_tab(studio, page, [make.about, make.models], (again, draft))
        opening = page.load(partial(_open, studio), draft, [draft, make.about, make.models], **QUIET)
        opening.then(None, js=_OPENED_JS, **QUIET)
        clock(partial(View, studio), [draft, look], _parts(make, cards, base, files), page)
    return page


def _open(studio: Studio, given: drafts.Draft) -> tuple[Any, ...]:
    """What a page that is opened begins with, where that is another model than when the server started."""
    try:
        id = first_model(studio)
        if id == given["id"]:
            return gr.skip(), gr.skip(), gr.skip()
        about, models = marked(MODEL, pick.headline(studio, id)), marked(MODELS, pick.model_list(studio, id))
        return drafts.fresh(studio, id), about, models
    except ReeltuneError:  # the parts of the page show it
        return gr.skip(), gr.skip(), gr.skip()


def _parts(make: Make, cards: gr.HTML, base: gr.Dropdown, files: gr.Dropdown) -> dict[str, Part]:
    """What changes by itself."""
    return {
        MODELS: Part(make.models, show_models),
        MODEL: Part(make.about, show_model),
        "form": Part(make.stale, lambda view: drafts.stale(view.studio, view.draft), _unless_empty, html=False),
        NOW: Part(make.now, show_now),
        QUEUE: Part(make.queue, show_queue),
        "gallery": Part(cards, lambda view: grid(films(view.studio), view.look)),
        "base models": Part(base, lambda view: bases(view.studio), lambda rows: gr.Dropdown(choices=rows), html=False),
        "list of finetunes": Part(
            files, lambda view: choices(view.studio), lambda ids: gr.Dropdown(choices=ids), html=False
        ),
    }


def _unless_empty(value: str) -> Any:
    """A value that is left as it was: the event of a form that is being drawn anew would go nowhere."""
    return value or gr.skip()
