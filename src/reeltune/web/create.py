"""The tab where finetunes are described: from the model that is picked, or one of the user's own files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from reeltune.errors import ReeltuneError
from reeltune.web import drafts, finetunes
from reeltune.web.events import DOWNLOAD, QUIET
from reeltune.web.markup import good, problem, text
from reeltune.web.pick import headline
from reeltune.web.studio import Studio
from reeltune.web.uploads import discard

NEW = "New finetune"
_LIST = "A link or a path a line, each a version of the same weights."


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


def create_tab(studio: Studio, draft: gr.State, tabs: gr.Tabs, about: gr.HTML) -> tuple[gr.HTML, gr.Dropdown]:
    """Draw the tab; returns the line on the base and the list of files, which follow the draft and the folder."""
    with gr.Row(elem_classes="rt-columns", elem_id="create"):
        with gr.Column(scale=3, min_width=300):
            base = gr.HTML(base_line(studio, draft.value), elem_id="base", apply_default_css=False)
            form = _form()
            with gr.Row():
                look = gr.Button("Look into the files", elem_id="look")
                make = gr.Button("Create", variant="primary", elem_id="create-finetune")
            seen = gr.HTML("", elem_id="seen", apply_default_css=False)
        with gr.Column(scale=2, min_width=300):
            files, said = _own(studio, draft)
    sources = [form.urls, form.urls2, form.modules]
    draft.change(lambda given: _fitting(studio, given), draft, sources[1:], **QUIET)
    extra = _fitting(studio, draft.value)
    form.urls2.visible, form.modules.visible = (row["visible"] for row in extra)
    look.click(lambda *given: looked(studio, *given), [draft, *sources], seen, **QUIET)
    for box in sources:
        box.blur(lambda *given: looked(studio, *given), [draft, *sources], seen, **QUIET)

    def create(given: drafts.Draft, *values: Any) -> tuple[Any, ...]:
        try:
            definition = studio.catalog()[given["id"]]
            settings = {key: row for key, row in given["settings"].items() if row not in (None, "", [])}
            id = finetunes.write_new(studio, definition, finetunes.Wanted(*values), settings)
        except ReeltuneError as error:
            return gr.skip(), gr.skip(), problem(error), gr.skip(), gr.skip()
        fresh = drafts.fresh(studio, id)
        listed = gr.Dropdown(choices=choices(studio), value=id)
        return fresh, headline(studio, id), good(f"finetunes/{id}.json is written."), listed, gr.Tabs(selected="make")

    make.click(create, [draft, *form.boxes], [draft, about, said, files, tabs], **QUIET)
    return base, files


def base_line(studio: Studio, given: drafts.Draft) -> str:
    """Which model the finetune is one of."""
    try:
        name = studio.catalog()[given["id"]].name
    except ReeltuneError as error:
        return problem(error)
    hint = '<p class="rt-hint">Pick another under Make. It starts from the settings there.</p>'
    return f"<h2>A finetune of {text(name)}</h2>{hint}"


def _form() -> Form:
    def box(key: str, label: str, rows: int = 1, info: str = "") -> gr.Textbox:
        return gr.Textbox(label=label, lines=rows, info=info or None, elem_id=f"finetune-{key}")

    name = box("name", "Name", info="What it is called in lists.")
    id = box("id", "Id", info="Its file name; the base’s id is put before it. Empty: from the name.")
    description = box("description", "Description", 2)
    urls = box("urls", "Weights", 3, f"{_LIST} Empty: the base’s own.")
    urls2 = box("urls2", "Weights of the second transformer", 2, "Only for models that have two.")
    modules = box("modules", "Modules", 2, "Merged into the model: a link, a path or an id a line.")
    quantize = gr.Checkbox(
        True, label="Quantize while loading", info="Where int8 is wished and only 16 bits are listed."
    )
    return Form(id, name, description, urls, urls2, modules, quantize)


def _fitting(studio: Studio, given: drafts.Draft) -> tuple[Any, Any]:
    """Whether the base has a second transformer, and modules: what it has not isn't asked for."""
    try:
        slots = studio.catalog()[given["id"]].slots
    except ReeltuneError:
        slots = {}
    modules = any(slot.startswith("modules") for slot in slots)
    return gr.update(visible="transformer_2" in slots), gr.update(visible=modules)


def looked(studio: Studio, given: drafts.Draft, urls: str, urls2: str, modules: str) -> str:
    """What the files are, and whether they fit the base."""
    try:
        base = studio.catalog()[given["id"]]
    except ReeltuneError as error:
        return problem(error)
    rows = []
    for content, slot in ((urls, "transformer"), (urls2, "transformer_2"), (modules, "modules")):
        for name, facts, objection in finetunes.inspected(studio, base, content, slot):
            shown = f"<b>{text(name)}</b> {text(' · '.join(facts))}"
            fits = problem(f"It does not fit: {objection}") if objection else "<span>It fits.</span>"
            rows.append(f"<li>{shown} {fits}</li>")
    return f'<ul class="rt-versions">{"".join(rows)}</ul>' if rows else ""


# --- the user's own files ---------------------------------------------------------------------------------------


def choices(studio: Studio) -> list[str]:
    """The ids of the user's own files."""
    return list(finetunes.own_files(studio))


def _own(studio: Studio, draft: gr.State) -> tuple[gr.Dropdown, gr.HTML]:
    gr.HTML("<h3>Your finetunes</h3>", apply_default_css=False)
    files = gr.Dropdown(choices(studio), value=None, label="File", elem_id="own-files")
    name = gr.Textbox(label="Name", elem_id="own-name")
    description = gr.Textbox(label="Description", lines=2, elem_id="own-description")
    content = gr.Code(label="The file", language="json", lines=12, max_lines=24, elem_id="own-text")
    with gr.Row(elem_classes="rt-small"):
        save = gr.Button("Save changes", size="sm", elem_id="own-save")
        out = gr.Button("Export", size="sm", elem_id="own-export")
        gone = gr.Button("Delete", size="sm", elem_id="own-delete")
        sure = gr.Button("Yes, delete it", size="sm", variant="stop", visible=False, elem_id="own-sure")
        take = gr.UploadButton("Import", file_types=[".json"], size="sm", elem_id="own-import")
    said = gr.HTML("", elem_id="own-said", apply_default_css=False)
    sink, body = gr.Textbox(visible="hidden"), gr.Textbox(visible="hidden")
    shown = [name, description, content, said, sure]

    files.change(lambda id: _opened(studio, id), files, shown, **QUIET)
    save.click(lambda *given: _saved(studio, *given), [files, name, description, content], shown, **QUIET)
    out.click(lambda id: _exported(studio, id), files, [said, sink, body], **QUIET).then(
        None, [sink, body], None, js=DOWNLOAD, **QUIET
    )
    gone.click(lambda: gr.Button(visible=True), None, sure, **QUIET)
    sure.click(lambda id: _deleted(studio, id), files, [files, said, sure], **QUIET)
    take.upload(lambda path: _imported(studio, path), take, [files, said], **QUIET)
    return files, said


def _opened(studio: Studio, id: str | None) -> tuple[Any, ...]:
    hidden = gr.Button(visible=False)
    if not id:
        return "", "", "", gr.skip(), hidden
    try:
        content, section = finetunes.read(studio, id)
    except ReeltuneError as error:
        return "", "", "", problem(error), hidden
    broken = next((row for path, row in studio.catalog().broken.items() if path.stem == id), None)
    said = problem(broken) if broken is not None else ""
    return section.get("name", ""), section.get("description", ""), content, said, hidden


def _saved(studio: Studio, id: str | None, name: str, description: str, content: str) -> tuple[Any, ...]:
    """The text where it was changed; else the fields, which leave everything else in the file as it is."""
    try:
        if content.strip() != finetunes.read(studio, id or "")[0].removeprefix("\ufeff").strip():
            finetunes.save_text(studio, id or "", content)
            said = good(f"finetunes/{id}.json is saved.")
        else:
            changed = finetunes.change(studio, id or "", {"name": name, "description": description})
            said = good(f"{', '.join(changed)} changed." if changed else "Nothing to change.")
    except ReeltuneError as error:
        return gr.skip(), gr.skip(), gr.skip(), problem(error), gr.skip()
    shown = _opened(studio, id)
    return *shown[:3], said, shown[4]


def _exported(studio: Studio, id: str | None) -> tuple[str, str, str]:
    try:
        return "", f"{id}.json", finetunes.read(studio, id or "")[0]
    except ReeltuneError as error:
        return problem(error), "", ""


def _deleted(studio: Studio, id: str | None) -> tuple[Any, ...]:
    try:
        finetunes.delete(studio, id or "")
    except ReeltuneError as error:
        return gr.skip(), problem(error), gr.Button(visible=False)
    listed = gr.Dropdown(choices=choices(studio), value=None)
    return listed, good(f"finetunes/{id}.json is deleted; its weights stay."), gr.Button(visible=False)


def _imported(studio: Studio, path: str) -> tuple[Any, str]:
    found = studio.confined(path)
    try:
        if found is None:
            raise ReeltuneError("That is no uploaded file.")
        id = finetunes.import_file(studio, found)
    except ReeltuneError as error:
        discard([path], studio)
        return gr.skip(), problem(error)
    discard([path], studio)
    return gr.Dropdown(choices=choices(studio), value=id), good(f"finetunes/{id}.json is written.")
