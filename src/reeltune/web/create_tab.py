"""The Create tab: describe a new finetune of a base model, next to the finetunes that exist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from reeltune.definitions import Definition
from reeltune.errors import ReeltuneError
from reeltune.service.drafts import Message, VideoDraft, new_draft
from reeltune.service.file_checks import FileCheck, FileNotChecked, check_new_finetune, require_fitting
from reeltune.service.finetunes import NewFinetune, create_finetune
from reeltune.service.workspace import Workspace
from reeltune.web.events import FOLLOWING, LIVELY, QUIET, SCROLL_TO_PROBLEM, Updates, button_data, on_button, reporting
from reeltune.web.markup import button, hint, problem, text
from reeltune.web.model_panel import model_description
from reeltune.web.own_finetunes import own_finetunes, own_ids
from reeltune.web.publish_part import publish_part

_WEIGHTS_HELP = "One URL or path per line, each a version of the same weights. Empty: the weights of the base model."
_MAX_OFFERED_BASES = 4  # as buttons


@dataclass(frozen=True)
class FinetuneFields:
    """The fields of a new finetune, in the order of `NewFinetune`."""

    id: gr.Textbox
    name: gr.Textbox
    description: gr.Textbox
    urls: gr.Textbox
    urls2: gr.Textbox
    modules: gr.Textbox
    auto_quantize: gr.Checkbox

    @property
    def all(self) -> list[Any]:
        """All fields."""
        return [self.id, self.name, self.description, self.urls, self.urls2, self.modules, self.auto_quantize]

    @property
    def sources(self) -> list[Any]:
        """The fields that name files."""
        return [self.urls, self.urls2, self.modules]


@dataclass(frozen=True)
class CreateComponents:
    """The components around the fields. `checks`: the results of checking the files."""

    base: gr.Dropdown
    about_base: gr.HTML
    checks: gr.HTML
    answer: gr.HTML
    create: gr.Button
    create_anyway: gr.Button


def create_tab(
    workspace: Workspace, draft: gr.State, tabs: gr.Tabs, about: gr.HTML
) -> tuple[gr.Dropdown, gr.Dropdown, gr.HTML]:
    """Draw the tab; returns the lists of base models and of the user's finetunes, which the clock updates."""
    current: VideoDraft = draft.value
    with gr.Row(elem_classes="rt-columns", elem_id="create"):
        with gr.Column(scale=3, min_width=300):
            gr.HTML("<h2>New finetune</h2>", apply_default_css=False)
            base = gr.Dropdown(base_choices(workspace), value=current.id, label="Based on", elem_id="base")
            base_text = about_base_model(workspace, current, current.id)
            about_base = gr.HTML(base_text, elem_id="base-line", apply_default_css=False)
            fields = _draw_fields()
            checks = gr.HTML("", **LIVELY, elem_id="seen")
            with gr.Row():
                check = gr.Button("Check the files", elem_id="look")
                create = gr.Button("Create", variant="primary", elem_id="create-finetune")
            create_anyway = gr.Button("Create anyway", size="sm", visible=False, elem_id="create-anyway")
            answer = gr.HTML("", elem_id="create-said", js_on_load=SCROLL_TO_PROBLEM, apply_default_css=False)
        with gr.Column(scale=2, min_width=300):
            own = own_finetunes(workspace)
            publication = publish_part(workspace, own)
    components = CreateComponents(base, about_base, checks, answer, create, create_anyway)
    _follow_draft(workspace, draft, components, fields)
    for event in (check.click, base.change, *(field.blur for field in fields.sources)):
        event(lambda *values: check_results(workspace, *values), [base, *fields.sources], checks, **FOLLOWING)
    on_button(checks, _select_base, None, base)
    _attach_create(workspace, draft, components, fields, (about, own, tabs))
    return base, own, publication


def _draw_fields() -> FinetuneFields:
    def textbox(key: str, label: str, lines: int = 1, help: str = "") -> gr.Textbox:
        return gr.Textbox(label=label, lines=lines, info=help or None, elem_id=f"finetune-{key}")

    name = textbox("name", "Name")
    id = textbox("id", "Id", help="The name of its file, after the id of the base model. Empty: made from the name.")
    description = textbox("description", "Description", 2)
    urls = textbox("urls", "Weights", 3, _WEIGHTS_HELP)
    urls2 = textbox("urls2", "Weights for low noise", 2, "The second model, which completes the video.")
    modules_help = "Weights that are merged into the model: one URL, path or definition id per line."
    modules = textbox("modules", "Modules", 2, modules_help)
    quantize_help = "Used if int8 is preferred and only 16-bit files are listed."
    auto_quantize = gr.Checkbox(True, label="Quantize while loading", info=quantize_help)
    return FinetuneFields(id, name, description, urls, urls2, modules, auto_quantize)


# --- the base model ---------------------------------------------------------------------------------------------


def base_choices(workspace: Workspace) -> list[tuple[str, str]]:
    """Labels and ids of the models that a finetune can be based on: base models, then finetunes."""
    summaries = [summary for summary in workspace.catalog().summaries() if summary.runnable]
    summaries.sort(key=lambda summary: (summary.kind != "base", summary.name.lower()))
    return [(f"{summary.name} ({summary.id})", summary.id) for summary in summaries]


def about_base_model(workspace: Workspace, current: VideoDraft, id: str) -> str:
    """Which settings the finetune will start from."""
    try:
        name = workspace.catalog()[id].name
    except ReeltuneError as error:
        return problem(error)
    settings = "the settings of the form under Make" if id == current.id else f"the settings of {name}"
    return hint(f"It will start with {settings}.")


def _select_base(event: gr.EventData) -> Any:
    return gr.update(value=button_data(event, "base"))


def _follow_draft(workspace: Workspace, draft: gr.State, components: CreateComponents, fields: FinetuneFields) -> None:
    """Select the model of the Make tab as the base model until another one is chosen here."""
    followed_id = gr.State(draft.value.id)

    def selected(current: VideoDraft, previous_id: str) -> tuple[Any, str]:
        if current.id == previous_id:
            return gr.skip(), previous_id
        return gr.update(choices=base_choices(workspace), value=current.id), current.id

    def described(current: VideoDraft, id: str) -> tuple[Any, ...]:
        urls2_visible, modules_visible = _used_fields(workspace, id)
        text = about_base_model(workspace, current, id)
        return text, gr.update(visible=urls2_visible), gr.update(visible=modules_visible)

    draft.change(selected, [draft, followed_id], [components.base, followed_id], **QUIET)
    for event in (draft.change, components.base.change):
        event(described, [draft, components.base], [components.about_base, fields.urls2, fields.modules], **QUIET)
    fields.urls2.visible, fields.modules.visible = _used_fields(workspace, draft.value.id)


def _used_fields(workspace: Workspace, id: str) -> tuple[bool, bool]:
    """Whether the base model has a second transformer, and whether it has modules."""
    try:
        slots = workspace.catalog()[id].slots
    except ReeltuneError:
        return False, False
    return "transformer_2" in slots, any(slot.startswith("modules") for slot in slots)


# --- creating ---------------------------------------------------------------------------------------------------


def _attach_create(
    workspace: Workspace,
    draft: gr.State,
    components: CreateComponents,
    fields: FinetuneFields,
    others: tuple[gr.HTML, gr.Dropdown, gr.Tabs],
) -> None:
    """Attach both Create buttons. `others`: the description of the model, the user's finetunes and the tabs."""
    about, own, tabs = others

    def create_with(*, require_checked: bool) -> Any:
        @reporting(components.answer)
        def created(current: VideoDraft, base_id: str, *values: Any) -> Updates:
            new = NewFinetune(*values)
            try:
                id = _create(workspace, current, base_id, new, require_checked=require_checked)
            except FileNotChecked as error:
                return {components.answer: problem(error), components.create_anyway: gr.update(visible=True)}
            return {
                draft: new_draft(workspace, id, Message(f"Created finetunes/{id}.json.")),
                about: model_description(workspace, id),
                own: gr.update(choices=own_ids(workspace), value=id),
                tabs: gr.update(selected="make"),
                components.answer: "",
                components.create_anyway: gr.update(visible=False),
            }

        return created

    inputs = [draft, components.base, *fields.all]
    outputs = [draft, about, components.answer, components.create_anyway, own, tabs]
    components.create.click(create_with(require_checked=True), inputs, outputs, **QUIET)
    components.create_anyway.click(create_with(require_checked=False), inputs, outputs, **QUIET)
    for field in fields.sources:
        field.input(lambda: gr.update(visible=False), None, components.create_anyway, **QUIET)


def _create(workspace: Workspace, current: VideoDraft, base_id: str, new: NewFinetune, *, require_checked: bool) -> str:
    """Create a finetune whose files fit; returns its id. Raises ReeltuneError."""
    base = workspace.catalog()[base_id]
    require_fitting(workspace, base, check_new_finetune(workspace, base, new), require_checked=require_checked)
    settings = current.settings if base_id == current.id else new_draft(workspace, base_id).settings
    nonempty_settings = {key: value for key, value in settings.items() if value not in (None, "", [])}
    return create_finetune(workspace, base, new, nonempty_settings)


def check_results(workspace: Workspace, base_id: str, urls: str, urls2: str, modules: str) -> str:
    """What the files are, whether they fit the base model, and which other base models they fit."""
    try:
        base = workspace.catalog()[base_id]
    except ReeltuneError as error:
        return problem(error)
    checks = check_new_finetune(workspace, base, NewFinetune("", "", "", urls, urls2, modules))
    items = "".join(_check_item(workspace, base, check) for check in checks)
    return f'<ul class="rt-versions">{items}</ul>' if items else ""


def _check_item(workspace: Workspace, base: Definition, check: FileCheck) -> str:
    file = f"<b>{text(check.name)}</b> {text(' · '.join(check.facts))}"
    if not check.objection:
        return f"<li>{file} <span>It fits.</span></li>"
    if not check.facts:
        return f"<li>{file}{problem(check.objection)}</li>"
    catalog = workspace.catalog()
    buttons = "".join(button("base", f"Use {catalog[id].name}", base=id) for id in check.fits[:_MAX_OFFERED_BASES])
    tools = f'<div class="rt-tools">{buttons}</div>' if buttons else ""
    return f"<li>{file}{problem(f'It does not fit {base.name}: {check.objection}')}{tools}</li>"
