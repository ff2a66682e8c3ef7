"""The whole page: its tabs, and the parts that the clock updates."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from reeltune.errors import ReeltuneError
from reeltune.service.drafts import VideoDraft, new_draft, outdated
from reeltune.service.workspace import Workspace
from reeltune.web.calls import Page
from reeltune.web.clock import CURRENT_JOB, MODEL, MODELS, QUEUE, WORKERS, PagePart, View, start_clock
from reeltune.web.configuration import configuration_tab
from reeltune.web.create_tab import base_choices, create_tab
from reeltune.web.events import QUIET, MakeComponents
from reeltune.web.gallery import gallery_tab, video_grid
from reeltune.web.make_tab import make_tab, show_current_job, show_model, show_models, show_queue, show_workers
from reeltune.web.markup import marked
from reeltune.web.model_panel import model_description, model_list
from reeltune.web.own_finetunes import own_ids
from reeltune.web.publish_part import PUBLICATION, show_publication

_HEADER = """<header class="rt-header"><h1>reeltune</h1><div class="rt-header-buttons">{log_out}
<button type="button" class="rt-button" id="rt-theme" aria-label="Dark or light colours">◐</button></div></header>"""
_LOG_OUT = """<form method="post" action="logout"><button type="submit" class="rt-button" id="log-out">Log out</button>
</form>"""
_OPENED_JS = "() => { document.body.dataset.opened = 'true'; }"  # the first model is selected
_THEME_JS = "reeltune.theme(element.querySelector('#rt-theme'));"


def build_page(workspace: Workspace, *, protected: bool = False) -> gr.Blocks:
    """The page of a workspace. `protected`: whether its users log in, so that they can log out."""
    header = _HEADER.format(log_out=_LOG_OUT if protected else "")
    with Page(workspace, title="reeltune", analytics_enabled=False) as page:
        draft = gr.State(new_draft(workspace, workspace.first_model()))
        gr.HTML(header, js_on_load=_THEME_JS, apply_default_css=False)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Make", id="make"):
                make = make_tab(workspace, draft, tabs)
            with gr.Tab("Gallery", id="gallery"):
                cards, gallery = gallery_tab(workspace, draft, tabs, make)
            with gr.Tab("Create", id="create"):
                base, own, publication = create_tab(workspace, draft, tabs, make.about)
            with gr.Tab("Configuration", id="configuration"):
                saved = configuration_tab(workspace, page)
        saved.then(partial(_show_models_again, workspace), draft, [make.about, make.models], **QUIET)
        opening = page.load(partial(_open, workspace), None, [draft, make.about, make.models], **QUIET)
        opening.then(None, js=_OPENED_JS, **QUIET)
        start_clock(
            partial(View, workspace),
            [draft, gallery],
            {**_parts(make, cards, base, own), PUBLICATION: PagePart(publication, show_publication)},
            page,
        )
    return page


def _show_models_again(workspace: Workspace, draft: VideoDraft) -> tuple[str, str]:
    """The models under changed preferences."""
    return model_description(workspace, draft.id), model_list(workspace, draft.id)


def _open(workspace: Workspace) -> tuple[Any, ...]:
    """Select the first model when the page is opened, which draws its form."""
    try:
        id = workspace.first_model()
        description = marked(MODEL, model_description(workspace, id))
        models = marked(MODELS, model_list(workspace, id))
        return new_draft(workspace, id), description, models
    except ReeltuneError:  # the parts of the page report it
        return gr.skip(), gr.skip(), gr.skip()


def _parts(make: MakeComponents, cards: gr.HTML, base: gr.Dropdown, own: gr.Dropdown) -> dict[str, PagePart]:
    """The parts that the clock updates."""
    return {
        MODELS: PagePart(make.models, show_models),
        MODEL: PagePart(make.about, show_model),
        "form": PagePart(make.outdated, _show_outdated, _skip_if_empty, html=False),
        CURRENT_JOB: PagePart(make.current_job, show_current_job),
        QUEUE: PagePart(make.queue, show_queue),
        WORKERS: PagePart(make.workers, show_workers),
        "gallery": PagePart(cards, lambda view: video_grid(view.workspace, view.gallery)),
        "base models": PagePart(base, lambda view: base_choices(view.workspace), _dropdown, html=False),
        "list of finetunes": PagePart(own, lambda view: own_ids(view.workspace), _dropdown, html=False),
    }


def _show_outdated(view: View) -> str:
    return outdated(view.workspace, view.draft)


def _dropdown(choices: list[Any]) -> Any:
    return gr.update(choices=choices)


def _skip_if_empty(value: str) -> Any:
    """No update for an empty value: a form that is just being drawn would miss its event."""
    return value or gr.skip()
