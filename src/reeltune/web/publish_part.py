"""Publishing in the Create tab: the plan first, then the progress. It runs beside the queue."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from reeltune._text import size
from reeltune.errors import PublishError
from reeltune.service.publications import Publication, PublicationState
from reeltune.service.workspace import Workspace
from reeltune.sharing.licenses import SUGGESTED
from reeltune.sharing.process import PLAN, PUBLISH, PublishRequest
from reeltune.untrusted import JsonObject
from reeltune.web.clock import View
from reeltune.web.events import QUIET, Updates, reporting
from reeltune.web.markup import hint, marked, notices_list, problem, success, text

PUBLICATION = "publication"  # the part of the page
_STAGES = {"verify": "Checking", "quantize": "Quantizing", "upload": "Uploading", "download": "Downloading"}
_REPOSITORY_HELP = "NAME/REPO on the Hub. It is created if it doesn't exist."
_VERSIONS_HELP = "Such as bf16, int8-bf16, int8-fp16. Empty: those that are listed. Missing int8 versions are made."
_LICENSE_HELP = "It must be allowed by the license of the base model. It is remembered in the definition."


@dataclass(frozen=True)
class _PublishFields:
    repository: gr.Textbox
    license: gr.Dropdown
    license_name: gr.Textbox
    license_link: gr.Textbox
    versions: gr.Textbox
    public: gr.Checkbox
    pull_request: gr.Checkbox


def publish_part(workspace: Workspace, own: gr.Dropdown) -> gr.HTML:
    """Draw the part; returns the place where the publication is shown. `own`: the list of the user's finetunes."""
    gr.HTML("<h3>Publish</h3>", apply_default_css=False)
    gr.HTML(hint("Upload the selected finetune to the Hub, with a card and its definition."), apply_default_css=False)
    fields = _PublishFields(
        gr.Textbox(label="Repository", info=_REPOSITORY_HELP, elem_id="publish-repo"),
        gr.Dropdown(
            list(SUGGESTED), value=None, label="License", info=_LICENSE_HELP, allow_custom_value=True,
            elem_id="publish-license",
        ),
        gr.Textbox(label="Name of another license", visible=False, elem_id="publish-license-name"),
        gr.Textbox(label="URL of another license", visible=False, elem_id="publish-license-link"),
        gr.Textbox(label="Versions", info=_VERSIONS_HELP, elem_id="publish-versions"),
        gr.Checkbox(False, label="Public", info="Otherwise only you can see it.", elem_id="publish-public"),
        gr.Checkbox(False, label="As a pull request", elem_id="publish-pr"),
    )  # fmt: skip
    with gr.Row(elem_classes="rt-small"):
        plan = gr.Button("Show the plan", size="sm", elem_id="publish-plan")
        publish = gr.Button("Publish", size="sm", variant="primary", elem_id="publish")
        cancel = gr.Button("Cancel", size="sm", elem_id="publish-cancel")
    shown = gr.HTML(marked(PUBLICATION, ""), elem_id="publication", apply_default_css=False)
    answer = gr.HTML("", elem_id="publish-said", apply_default_css=False)
    is_other = fields.license.change(_show_other, fields.license, [fields.license_name, fields.license_link], **QUIET)
    assert is_other is not None
    inputs = [own, *vars(fields).values()]
    for button, action in ((plan, PLAN), (publish, PUBLISH)):
        button.click(_starter(workspace, action, answer, shown), inputs, [answer, shown], **QUIET)
    cancel.click(_canceller(workspace, answer), None, answer, **QUIET)
    return shown


def _show_other(license: str | None) -> tuple[object, object]:
    visible = gr.update(visible=license == "other")
    return visible, visible


def _starter(workspace: Workspace, action: str, answer: gr.HTML, shown: gr.HTML) -> object:
    @reporting(answer)
    def start(id: str | None, repository: str, license: str | None, *values: object) -> Updates:
        name, link, versions, public, pull_request = values
        if not workspace.local:
            raise PublishError("Only the owner of this machine can publish.", hint="Use the command line there.")
        if not id:
            raise PublishError("Choose a finetune first.")
        request = PublishRequest(
            action=action,
            id=id,
            repository=repository.strip(),
            public=bool(public),
            pull_request=bool(pull_request),
            versions=str(versions or ""),
            license=license or "",
            license_name=str(name or ""),
            license_link=str(link or ""),
        )
        workspace.publications.start(request)
        return {answer: "", shown: marked(PUBLICATION, publication_html(workspace.publications.current))}

    return start


def _canceller(workspace: Workspace, answer: gr.HTML) -> object:
    @reporting(answer)
    def cancel() -> Updates:
        workspace.publications.cancel()
        return {answer: ""}

    return cancel


def show_publication(view: View) -> str:
    """The current publication, for the clock."""
    return publication_html(view.workspace.publications.current)


def publication_html(publication: Publication) -> str:
    """The plan, the progress or the end of a publication."""
    plan = "" if publication.plan is None else _plan(publication.plan)
    notices = notices_list(publication.notices)
    match publication.state:
        case PublicationState.RUNNING:
            return f"{plan}{_progress(publication)}{notices}"
        case PublicationState.PUBLISHED:
            install = f"<code>reeltune add {text(publication.url)}</code>"
            words = success("Published.") + f'<p>{text(publication.page)}</p><p class="rt-hint">{install}</p>'
            return words + notices
        case PublicationState.FAILED:
            return plan + problem(publication.error, publication.hint) + notices
        case PublicationState.CANCELLED:
            return plan + hint("Cancelled. Publish again to continue.")
    return plan + notices


def _progress(publication: Publication) -> str:
    words = _STAGES.get(publication.stage, "Asking the Hub")
    amount = "" if publication.total is None else f"{size(publication.done)} of {size(publication.total)}"
    share = 100 * publication.done // publication.total if publication.total else 0
    bar = f'<progress max="100" value="{share}"></progress>' if publication.total else ""
    return (
        f'<div class="rt-line"><span>{text(words)} {text(publication.subject)}</span>{bar}<span>{amount}</span></div>'
    )


def _plan(plan: JsonObject) -> str:
    rows = "".join(
        f"<li><b>{text(file['name'])}</b> {_size(file['bytes'])} · {text(file['state'])}{_digest(file['sha256'])}</li>"
        for file in plan["files"]
    )
    where = "a new repository" if plan["is_new"] else "the repository"
    license = text(plan["license"]) or "not chosen yet"
    items = [hint(f"To {where} {plan['repository']}, in one commit."), f"<p>License: {license}</p>"]
    items += [f"<p>Example video: {text(example['prompt'])}</p>" for example in plan["examples"]]
    if plan["others"]:
        items.append(f"<p>Files of others, which stay where they are: {text(', '.join(plan['others']))}</p>")
    return f'<ul class="rt-versions" id="publish-files">{rows}</ul>{"".join(items)}{notices_list(plan["notices"])}'


def _size(count: int | None) -> str:
    return "to be made" if count is None else size(count)


def _digest(sha256: str) -> str:
    return f' · <code title="{text(sha256)}">{text(sha256[:12])}…</code>' if sha256 else ""
