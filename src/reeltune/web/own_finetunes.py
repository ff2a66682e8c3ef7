"""The user's finetunes in the Create tab: edited, exported, imported and deleted, or copied from prebuilt ones."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from reeltune.errors import ReeltuneError
from reeltune.service.finetunes import (
    change_finetune,
    copy_prebuilt,
    delete_finetune,
    import_finetune,
    own_files,
    prebuilt_finetunes,
    read_finetune,
    save_finetune_text,
)
from reeltune.service.uploads import discard_json_upload, uploaded_file
from reeltune.service.workspace import Workspace
from reeltune.web.events import DOWNLOAD, QUIET, Updates, reporting
from reeltune.web.markup import problem, success


def own_ids(workspace: Workspace) -> list[str]:
    """The ids of the user's finetunes."""
    return list(own_files(workspace))


def own_finetunes(workspace: Workspace) -> gr.Dropdown:
    """Draw the user's finetunes and the prebuilt ones; returns the list of the former."""
    return OwnFinetunes(workspace).draw()


@dataclass(frozen=True)
class _Fields:
    name: gr.Textbox
    description: gr.Textbox
    content: gr.Code


class OwnFinetunes:
    """One drawing of the lists of finetunes."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def draw(self) -> gr.Dropdown:
        """Draw everything; returns the list of the user's finetunes."""
        gr.HTML("<h3>Your finetunes</h3>", apply_default_css=False)
        self._list = gr.Dropdown(own_ids(self._workspace), value=None, label="Finetune", elem_id="own-files")
        name = gr.Textbox(label="Name", elem_id="own-name")
        description = gr.Textbox(label="Description", lines=2, elem_id="own-description")
        content = gr.Code(label="Definition (JSON)", language="json", lines=12, max_lines=24, elem_id="own-text")
        self._fields = _Fields(name, description, content)
        with gr.Row(elem_classes="rt-small"):
            save = gr.Button("Save changes", size="sm", elem_id="own-save")
            export = gr.Button("Export", size="sm", elem_id="own-export")
            delete = gr.Button("Delete", size="sm", elem_id="own-delete")
            self._confirm = gr.Button("Yes, delete it", size="sm", variant="stop", visible=False, elem_id="own-sure")
            upload = gr.UploadButton("Import", file_types=[".json"], size="sm", elem_id="own-import")
        self._answer = gr.HTML("", elem_id="own-said", apply_default_css=False)
        self._file_name, self._file_content = gr.Textbox(visible="hidden"), gr.Textbox(visible="hidden")
        self._attach(save, export, delete, upload)
        self._draw_prebuilt()
        return self._list

    def _attach(self, save: gr.Button, export: gr.Button, delete: gr.Button, upload: gr.UploadButton) -> None:
        report, fields = reporting(self._answer), self._fields
        texts = [fields.name, fields.description, fields.content]
        shown = [*texts, self._answer, self._confirm]
        file = [self._file_name, self._file_content]
        self._list.change(report(self._open), self._list, shown, **QUIET)
        save.click(report(self._save), [self._list, *texts], shown, **QUIET)
        exported = export.click(report(self._export), self._list, [self._answer, *file], **QUIET)
        exported.then(None, file, None, js=DOWNLOAD, **QUIET)
        delete.click(report(self._ask), self._list, [self._answer, self._confirm], **QUIET)
        self._confirm.click(report(self._delete), self._list, [self._list, self._answer, self._confirm], **QUIET)
        upload.upload(report(self._import), upload, [self._list, self._answer], **QUIET)

    def _draw_prebuilt(self) -> None:
        gr.HTML("<h3>Prebuilt finetunes</h3>", apply_default_css=False)
        choices = [(f"{name} ({id})", id) for id, name in prebuilt_finetunes(self._workspace).items()]
        prebuilt = gr.Dropdown(choices, value=None, label="Starting point", elem_id="prebuilt")
        with gr.Row(elem_classes="rt-small"):
            copy = gr.Button("Copy to your finetunes", size="sm", elem_id="copy-prebuilt")
        copied = reporting(self._answer)(self._copy)
        copy.click(copied, prebuilt, [self._list, self._answer], **QUIET)

    # --- what the buttons do ----------------------------------------------------------------------------------

    def _open(self, id: str | None) -> Updates:
        """Show a finetune, and the error if it can't be read; other answers stay."""
        fields = self._fields
        updates: Updates = {fields.name: "", fields.description: "", fields.content: ""}
        updates[self._confirm] = gr.update(visible=False)
        if not id:
            return updates
        try:
            content, model = read_finetune(self._workspace, id)
        except ReeltuneError as error:
            return {**updates, self._answer: problem(error)}
        updates |= {fields.name: model.get("name", ""), fields.description: model.get("description", "")}
        updates[fields.content] = content
        broken = self._workspace.catalog().broken
        errors = [error for path, error in broken.items() if path.stem == id]
        if errors:
            updates[self._answer] = problem(errors[0])
        return updates

    def _save(self, id: str | None, name: str, description: str, content: str) -> Updates:
        """Save the text if it was edited, else the fields, which leave the rest of the file as it is."""
        id = id or ""
        old_content = read_finetune(self._workspace, id)[0]
        if content.strip() != old_content.removeprefix("\ufeff").strip():
            save_finetune_text(self._workspace, id, content)
            message = f"Saved finetunes/{id}.json."
        else:
            changed = change_finetune(self._workspace, id, {"name": name, "description": description})
            message = f"Saved {' and '.join(changed)}." if changed else "Nothing has changed."
        return {**self._open(id), self._answer: success(message)}

    def _export(self, id: str | None) -> Updates:
        content = read_finetune(self._workspace, id or "")[0]
        return {self._answer: "", self._file_name: f"{id}.json", self._file_content: content}

    def _ask(self, id: str | None) -> Updates:
        """Ask for confirmation before a finetune is deleted."""
        if not id:
            return {self._answer: problem("Choose a finetune first."), self._confirm: gr.update(visible=False)}
        return {self._answer: "", self._confirm: gr.update(value=f"Yes, delete {id}", visible=True)}

    def _delete(self, id: str | None) -> Updates:
        hidden = {self._confirm: gr.update(visible=False)}
        try:
            delete_finetune(self._workspace, id or "")
        except ReeltuneError as error:
            return {self._answer: problem(error), **hidden}
        message = f"Deleted finetunes/{id}.json; its weights were not deleted."
        return {**self._list_updates(None, message), **hidden}

    def _import(self, path: str) -> Updates:
        upload = uploaded_file(self._workspace, path)
        try:
            id = import_finetune(self._workspace, upload)
        finally:
            discard_json_upload(self._workspace, upload)
        return self._list_updates(id, f"Created finetunes/{id}.json.")

    def _copy(self, id: str | None) -> Updates:
        copy_id = copy_prebuilt(self._workspace, id or "")
        return self._list_updates(copy_id, f"Created finetunes/{copy_id}.json. You can edit it here.")

    def _list_updates(self, selected: str | None, message: str) -> Updates:
        choices = gr.update(choices=own_ids(self._workspace), value=selected)
        return {self._list: choices, self._answer: success(message)}
