"""The user's own finetunes on the page: edited, exported, imported and deleted, or copied from the prebuilt ones."""

from __future__ import annotations

from typing import Any

import gradio as gr

from reeltune.errors import ReeltuneError
from reeltune.service import finetunes
from reeltune.service.studio import Studio
from reeltune.service.uploads import discard
from reeltune.web.events import DOWNLOAD, QUIET
from reeltune.web.markup import good, problem


def choices(studio: Studio) -> list[str]:
    """The ids of the user's own files."""
    return list(finetunes.own_files(studio))


def own_tab(studio: Studio) -> gr.Dropdown:
    """Draw the user's own finetunes, and the prebuilt ones that can be copied; returns the list of the former."""
    gr.HTML("<h3>Your finetunes</h3>", apply_default_css=False)
    files = gr.Dropdown(choices(studio), value=None, label="Finetune", elem_id="own-files")
    name = gr.Textbox(label="Name", elem_id="own-name")
    description = gr.Textbox(label="Description", lines=2, elem_id="own-description")
    content = gr.Code(label="Definition (JSON)", language="json", lines=12, max_lines=24, elem_id="own-text")
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
    gone.click(lambda id: _asked(id), files, [said, sure], **QUIET)
    sure.click(lambda id: _deleted(studio, id), files, [files, said, sure], **QUIET)
    take.upload(lambda path: _imported(studio, path), take, [files, said], **QUIET)
    _prebuilt(studio, files, said)
    return files


def _prebuilt(studio: Studio, files: gr.Dropdown, said: gr.HTML) -> None:
    gr.HTML("<h3>Prebuilt finetunes</h3>", apply_default_css=False)
    rows = [(f"{name} ({id})", id) for id, name in finetunes.prebuilt(studio).items()]
    given = gr.Dropdown(rows, value=None, label="Starting point", elem_id="prebuilt")
    with gr.Row(elem_classes="rt-small"):
        copy = gr.Button("Copy as my own", size="sm", elem_id="copy-prebuilt")

    def copied(id: str | None) -> tuple[Any, str]:
        try:
            new = finetunes.copy(studio, id or "")
        except ReeltuneError as error:
            return gr.skip(), problem(error)
        return gr.Dropdown(choices=choices(studio), value=new), good(f"finetunes/{new}.json is written; edit it here.")

    copy.click(copied, given, [files, said], **QUIET)


def _asked(id: str | None) -> tuple[str, Any]:
    """Whether deleting is meant; there must be something to delete."""
    if not id:
        return problem("Choose a finetune first."), gr.Button(visible=False)
    return "", gr.Button(f"Yes, delete {id}", visible=True)


def _opened(studio: Studio, id: str | None) -> tuple[Any, ...]:
    hidden = gr.Button(visible=False)
    if not id:
        return "", "", "", gr.skip(), hidden
    try:
        content, section = finetunes.read(studio, id)
    except ReeltuneError as error:
        return "", "", "", problem(error), hidden
    broken = next((row for path, row in studio.catalog().broken.items() if path.stem == id), None)
    said = problem(broken) if broken is not None else gr.skip()  # what was done with it stays
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
