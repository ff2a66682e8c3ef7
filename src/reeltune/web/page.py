"""The whole page: its tabs, and the clock that keeps them as things are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr

from reeltune.errors import ReeltuneError
from reeltune.web import drafts, line, now, pick
from reeltune.web.configuration import configuration_tab
from reeltune.web.create import base_line, choices, create_tab
from reeltune.web.events import QUIET
from reeltune.web.gallery import films, gallery_tab, grid
from reeltune.web.make import make_tab
from reeltune.web.markup import problem
from reeltune.web.studio import Studio

_TICK_SECONDS = 1.0
_HEADER = """<header class="rt-header"><h1>reeltune</h1>
<button type="button" class="rt-button" id="rt-theme" aria-label="Dark or light">◐</button></header>"""
_THEME_JS = """
element.querySelector('#rt-theme').addEventListener('click', () => document.body.classList.toggle('dark'));
"""


@dataclass(frozen=True)
class Shown:
    """The parts of the page that change by themselves, and the states they depend on."""

    draft: gr.State
    number: gr.State
    parts: dict[str, Any]


def asset(name: str) -> str:
    """A text file that ships with the page."""
    return (Path(str(resources.files("reeltune.web"))) / "assets" / name).read_text(encoding="utf-8")


def first_model(studio: Studio) -> str:
    """The model a page opens with: that of the latest job, else the first that is ready and needs nothing but words,
    else the first that runs.
    """
    catalog = studio.catalog()
    for job in studio.queue.jobs():
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
    with gr.Blocks(title="reeltune", analytics_enabled=False) as page:
        draft = gr.State(drafts.fresh(studio, first_model(studio)))
        gr.HTML(_HEADER, js_on_load=_THEME_JS, apply_default_css=False)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Make", id="make"):
                make = make_tab(studio, draft, tabs)
            with gr.Tab("Gallery", id="gallery"):
                cards, number = gallery_tab(studio, draft, tabs, make)
            with gr.Tab("Create", id="create"):
                base, files = create_tab(studio, draft, tabs, make.about)
            with gr.Tab("Configuration", id="configuration"):
                again = lambda given: (pick.headline(studio, given["id"]), pick.model_list(studio, given["id"]))  # noqa: E731
                configuration_tab(studio, page, [make.about, make.models], (again, draft))
        parts = {
            "models": make.models,
            "now": make.now,
            "queue": make.queue,
            "gallery": cards,
            "base": base,
            "files": files,
        }
        _clock(studio, page, Shown(draft, number, parts))
    return page


def _clock(studio: Studio, page: gr.Blocks, shown: Shown) -> None:
    """Look once a second; what is as it was last time is left alone."""
    seen = gr.State({})
    clock = gr.Timer(_TICK_SECONDS)
    names, outputs = list(shown.parts), list(shown.parts.values())

    def look(given: drafts.Draft, number: int, before: dict[str, str]) -> tuple[Any, ...]:
        try:
            fresh = _fresh(studio, given, number)
        except ReeltuneError as error:  # a disk that is full, a file that was broken by hand
            fresh = dict.fromkeys(names, "") | {"now": problem(error)}
        marks = {name: hashlib.sha1(str(value).encode("utf-8", "replace")).hexdigest() for name, value in fresh.items()}
        changed = {name for name in names if before.get(name) != marks[name]}
        if not changed:
            return gr.skip(), *([gr.skip()] * len(names))
        drawn = {**fresh, "files": gr.Dropdown(choices=fresh["files"])}
        return marks, *(drawn[name] if name in changed else gr.skip() for name in names)

    inputs = [shown.draft, shown.number, seen]
    clock.tick(look, inputs, [seen, *outputs], queue=False, **QUIET)
    page.load(look, inputs, [seen, *outputs], queue=False, **QUIET)


def _fresh(studio: Studio, given: drafts.Draft, number: int) -> dict[str, Any]:
    jobs = studio.queue.jobs()
    return {
        "models": pick.model_list(studio, given["id"]),
        "now": now.panel(studio, jobs),
        "queue": line.panel(jobs),
        "gallery": grid(films(studio), number),
        "base": base_line(studio, given),
        "files": choices(studio),
    }
