"""The tab where finetunes are described: a new one over a base model, beside the user's own files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from reeltune.errors import ReeltuneError
from reeltune.service import drafts, finetunes, fitting
from reeltune.service.studio import Studio
from reeltune.web.events import INTO_VIEW, LIVELY, QUIET, Updates, listen, reporting
from reeltune.web.markup import button, good, problem, text
from reeltune.web.own import choices, own_tab
from reeltune.web.pick import headline

_LIST = "One URL or path per line, all of them versions of the same weights."
_MOST_OFFERED = 4  # base models that a file fits, as buttons


@dataclass(frozen=True)
class Form:
    """The components of the form, in the order of `finetunes.Wanted`."""

    id: gr.Textbox
    name: gr.Textbox
    description: gr.Textbox
    urls: gr.Textbox
    urls2: gr.Textbox
    modules: gr.Textbox
    auto_quantize: gr.Checkbox

    @property
    def boxes(self) -> list[Any]:
        """All of them."""
        return [self.id, self.name, self.description, self.urls, self.urls2, self.modules, self.auto_quantize]

    @property
    def sources(self) -> list[Any]:
        """Those that name files."""
        return [self.urls, self.urls2, self.modules]


@dataclass(frozen=True)
class Place:
    """What is around the form: the base model's choice, what the files are, the answer, and the button to insist."""

    base: gr.Dropdown
    about_base: gr.HTML
    seen: gr.HTML
    answer: gr.HTML
    make: gr.Button
    anyway: gr.Button


def create_tab(studio: Studio, draft: gr.State, tabs: gr.Tabs, about: gr.HTML) -> tuple[gr.Dropdown, gr.Dropdown]:
    """Draw the tab; returns the choice of the base model and the list of files, which follow the folder."""
    with gr.Row(elem_classes="rt-columns", elem_id="create"):
        with gr.Column(scale=3, min_width=300):
            gr.HTML("<h2>New finetune</h2>", apply_default_css=False)
            id = draft.value["id"]
            base = gr.Dropdown(bases(studio), value=id, label="Based on", elem_id="base")
            about_base = gr.HTML(base_line(studio, draft.value, id), elem_id="base-line", apply_default_css=False)
            form = _form()
            seen = gr.HTML("", **LIVELY, elem_id="seen")
            with gr.Row():
                look = gr.Button("Check the files", elem_id="look")
                make = gr.Button("Create", variant="primary", elem_id="create-finetune")
            anyway = gr.Button("Create anyway", size="sm", visible=False, elem_id="create-anyway")
            answer = gr.HTML("", elem_id="create-said", js_on_load=INTO_VIEW, apply_default_css=False)
        with gr.Column(scale=2, min_width=300):
            files = own_tab(studio)
    place = Place(base, about_base, seen, answer, make, anyway)
    _follow(studio, draft, place, form)
    for event in (look.click, base.change, *(box.blur for box in form.sources)):
        event(lambda *given: looked(studio, *given), [base, *form.sources], seen, **QUIET)
    listen(seen, _chosen, None, base)
    _creating(studio, draft, place, form, (about, files, tabs))
    return base, files


def _chosen(event: gr.EventData) -> Any:
    return gr.Dropdown(value=str(event._data.get("base", "")))


def _follow(studio: Studio, draft: gr.State, place: Place, form: Form) -> None:
    """The base is the model that is picked under Make, until another is chosen here."""
    followed = gr.State(draft.value["id"])

    def picked(given: drafts.Draft, before: str) -> tuple[Any, str]:
        if given["id"] == before:
            return gr.skip(), before
        return gr.Dropdown(choices=bases(studio), value=given["id"]), given["id"]

    def described(given: drafts.Draft, id: str) -> tuple[Any, ...]:
        return base_line(studio, given, id), *_fitting(studio, id)

    draft.change(picked, [draft, followed], [place.base, followed], **QUIET)
    for event in (draft.change, place.base.change):
        event(described, [draft, place.base], [place.about_base, form.urls2, form.modules], **QUIET)
    form.urls2.visible, form.modules.visible = (row["visible"] for row in _fitting(studio, draft.value["id"]))


def _creating(studio: Studio, draft: gr.State, place: Place, form: Form, others: tuple[Any, ...]) -> None:
    about, files, tabs = others

    def create(checked: bool) -> Any:
        @reporting(place.answer)
        def answer(given: drafts.Draft, base: str, *values: Any) -> Updates:
            try:
                id = _write(studio, given, base, finetunes.Wanted(*values), checked=checked)
            except fitting.NotLookedInto as error:
                return {place.answer: problem(error), place.anyway: gr.Button(visible=True)}
            return {
                draft: drafts.fresh(studio, id, good(f"finetunes/{id}.json is written.")),
                about: headline(studio, id), files: gr.Dropdown(choices=choices(studio), value=id),
                tabs: gr.Tabs(selected="make"), place.answer: "", place.anyway: gr.Button(visible=False),
            }  # fmt: skip

        return answer

    inputs, outputs = [draft, place.base, *form.boxes], [draft, about, place.answer, place.anyway, files, tabs]
    place.make.click(create(True), inputs, outputs, **QUIET)
    place.anyway.click(create(False), inputs, outputs, **QUIET)
    for box in form.sources:
        box.input(lambda: gr.Button(visible=False), None, place.anyway, **QUIET)


def _write(studio: Studio, given: drafts.Draft, base: str, wanted: finetunes.Wanted, *, checked: bool) -> str:
    """Write a finetune whose files fit. `checked`: all of them must have been looked into. Raises ReeltuneError."""
    definition = studio.catalog()[base]
    fitting.refuse_misfits(studio, definition, fitting.looked_into(studio, definition, wanted), unknown=checked)
    settings = given["settings"] if base == given["id"] else drafts.fresh(studio, base)["settings"]
    kept = {key: row for key, row in settings.items() if row not in (None, "", [])}
    return finetunes.write_new(studio, definition, wanted, kept)


def bases(studio: Studio) -> list[tuple[str, str]]:
    """What a finetune can be based on, as (name, id): base models, then finetunes."""
    rows = [row for row in studio.catalog().summaries() if row.runnable]
    rows.sort(key=lambda row: (row.kind != "base", row.name.lower()))
    return [(f"{row.name} ({row.id})", row.id) for row in rows]


def base_line(studio: Studio, given: drafts.Draft, id: str) -> str:
    """Which settings the finetune starts from."""
    try:
        name = studio.catalog()[id].name
    except ReeltuneError as error:
        return problem(error)
    whose = "those in the form under Make" if id == given["id"] else f"those of {name}"
    return f'<p class="rt-hint">Its settings will be {text(whose)}.</p>'


def _form() -> Form:
    def box(key: str, label: str, rows: int = 1, info: str = "") -> gr.Textbox:
        return gr.Textbox(label=label, lines=rows, info=info or None, elem_id=f"finetune-{key}")

    name = box("name", "Name")
    id = box("id", "Id", info="Its file name, after the id of the base. Empty: made from the name.")
    description = box("description", "Description", 2)
    urls = box("urls", "Weights", 3, f"{_LIST} Empty: those of the base.")
    urls2 = box("urls2", "Weights for low noise", 2, "The second of the two models, which finishes a video.")
    modules = box("modules", "Modules", 2, "Weights merged into the model: one URL, path or definition id per line.")
    quantize = gr.Checkbox(
        True, label="Quantize while loading", info="If int8 is preferred and only 16-bit files are listed."
    )
    return Form(id, name, description, urls, urls2, modules, quantize)


def _fitting(studio: Studio, id: str) -> tuple[Any, Any]:
    """Whether the base has a second transformer, and modules: what it has not isn't asked for."""
    try:
        slots = studio.catalog()[id].slots
    except ReeltuneError:
        slots = {}
    modules = any(slot.startswith("modules") for slot in slots)
    return gr.update(visible="transformer_2" in slots), gr.update(visible=modules)


def looked(studio: Studio, id: str, urls: str, urls2: str, modules: str) -> str:
    """What the files are, and whether they fit the base; where they don't, which models they fit."""
    try:
        base = studio.catalog()[id]
    except ReeltuneError as error:
        return problem(error)
    wanted = finetunes.Wanted("", "", "", urls, urls2, modules)
    rows = [_seen(studio, base.name, row) for row in fitting.looked_into(studio, base, wanted)]
    return f'<ul class="rt-versions">{"".join(rows)}</ul>' if rows else ""


def _seen(studio: Studio, base: str, row: fitting.Seen) -> str:
    shown = f"<b>{text(row.name)}</b> {text(' · '.join(row.facts))}"
    if not row.objection:
        return f"<li>{shown} <span>It fits.</span></li>"
    if not row.facts:
        return f"<li>{shown}{problem(row.objection)}</li>"
    others = "".join(button("base", f"Use {studio.catalog()[id].name}", base=id) for id in row.fits[:_MOST_OFFERED])
    tools = f'<div class="rt-tools">{others}</div>' if others else ""
    return f"<li>{shown}{problem(f'It does not fit {base}: {row.objection}')}{tools}</li>"
