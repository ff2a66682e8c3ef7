"""The list of models as HTML, and the description of the selected model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reeltune._text import counted, size
from reeltune.definitions import Catalog, Definition, Summary
from reeltune.definitions.slots import TRANSFORMERS
from reeltune.errors import PreferencesError, ReeltuneError
from reeltune.families import ARCHITECTURES, FAMILIES, Architecture
from reeltune.machine import free_disk
from reeltune.planning.choose import Choice
from reeltune.planning.estimate import estimate
from reeltune.planning.plan import Plan
from reeltune.service.model_states import ModelState
from reeltune.service.workspace import Workspace
from reeltune.web.markup import button, notices_list, problem, text
from reeltune.web.words import slot_in_words

_OTHER_FAMILIES = "Others"
_FILTERS = (("ready", "Ready"), ("text", "From text"), ("image", "From images"))
_SEARCH = '<input type="search" data-search class="rt-search" placeholder="Search models" aria-label="Search models">'
_NO_MATCH = (
    '<div class="rt-none" data-none hidden><p>No model matches.</p>'
    '<button type="button" class="rt-button" data-clear>Show all models</button></div>'
)


# --- the list ---------------------------------------------------------------------------------------------------


def model_list(workspace: Workspace, selected: str) -> str:
    """All models by family with their states, and the definition files that can't be read with their errors."""
    catalog = workspace.catalog()
    try:
        states = workspace.model_states()
    except PreferencesError:  # reported where the model is described
        states = {}
    summaries = [summary for summary in catalog.summaries() if summary.visible or summary.id == selected]
    summaries.sort(key=lambda summary: _order(summary, states.get(summary.id)))
    by_family: dict[str, list[Summary]] = {}
    for summary in summaries:
        by_family.setdefault(_family_label(summary), []).append(summary)
    labels = [*(family.label for family in FAMILIES), _OTHER_FAMILIES]
    sections = [_section(label, by_family[label], states, selected) for label in labels if label in by_family]
    refresh = button("refresh", "↻", title="Look for new and changed files")
    return (
        f'<div class="rt-tools">{_SEARCH}{refresh}</div>{_filters()}'
        f'<div class="rt-models" role="group" aria-label="Models" data-scroll data-arrows>'
        f"{''.join(sections)}{_broken_files(catalog)}{_NO_MATCH}</div>"
    )


def _order(summary: Summary, state: ModelState | None) -> tuple[bool, bool, str]:
    """Models that are ready come first, then base models."""
    ready = state is not None and state.ready
    return not ready, summary.kind != "base", summary.name.lower()


def _family_label(summary: Summary) -> str:
    architecture = ARCHITECTURES.get(summary.architecture)
    return architecture.family.label if architecture else _OTHER_FAMILIES


def _filters() -> str:
    buttons = "".join(
        f'<button type="button" class="rt-chip" data-filter="{tag}" data-key="filter-{tag}" aria-pressed="false">'
        f"{label}</button>"
        for tag, label in _FILTERS
    )
    return f'<div class="rt-chips" role="group" aria-label="Show only">{buttons}</div>'


def _section(label: str, summaries: Iterable[Summary], states: Mapping[str, ModelState], selected: str) -> str:
    items = "".join(_item(summary, states.get(summary.id), summary.id == selected) for summary in summaries)
    return f'<section data-group="{text(label)}"><h3>{text(label)}</h3>{items}</section>'


def _item(summary: Summary, state: ModelState | None, selected: bool) -> str:
    state_words, state_class = _state_in_words(summary, state)
    kind = "" if summary.kind == "base" else '<span class="rt-kind">finetune</span>'
    search_text = text(f"{summary.name} {summary.id} {summary.architecture} {summary.kind}".lower())
    tags = _input_tags(ARCHITECTURES.get(summary.architecture))
    if state_class == "ready":
        tags.append("ready")
    return (
        f'<button type="button" class="rt-model" data-do="pick" data-pick="{text(summary.id)}" '
        f'data-key="pick-{text(summary.id)}" data-words="{search_text}" data-tags="{" ".join(tags)}" '
        f'aria-current="{str(selected).lower()}" tabindex="{0 if selected else -1}">'
        f'<span class="rt-name">{text(summary.name)}{kind}</span>'
        f'<span class="rt-state {state_class}" title="{text(state_words)}">{text(state_words)}</span></button>'
    )


def _input_tags(architecture: Architecture | None) -> list[str]:
    """What a model starts from: "text" if it needs only a prompt, "image" if it takes images."""
    tags: list[str] = []
    if architecture is None:
        return tags
    if not any(model_input.required for model_input in architecture.inputs):
        tags.append("text")
    if any(model_input.kind.startswith("image") for model_input in architecture.inputs):
        tags.append("image")
    return tags


def _state_in_words(summary: Summary, state: ModelState | None) -> tuple[str, str]:
    """The state of a model in words, and its CSS class."""
    if not summary.runnable:
        return f"Can’t run here: {summary.reason}", "bad"
    if state is None:
        return "…", ""
    if state.ready:
        return "Ready", "ready"
    if state.reason:
        return f"Can’t run here: {state.reason}", "bad"
    return (f"{size(state.missing)} to download" if state.missing else "Not downloaded"), "fetch"


def _broken_files(catalog: Catalog) -> str:
    if not catalog.broken:
        return ""
    items = "".join(
        f'<div class="rt-model rt-broken" data-words="{text(path.name.lower())}" data-tags="">'
        f'<span class="rt-name">{text(path.name)}</span><span class="rt-state bad">{text(error)}</span></div>'
        for path, error in catalog.broken.items()
    )
    return f'<section data-group="broken"><h3>Can’t be read</h3>{items}</section>'


# --- the selected model -----------------------------------------------------------------------------------------


def model_description(workspace: Workspace, id: str) -> str:
    """Name and description, the files that are used and why, what must be downloaded, and the memory it takes."""
    try:
        definition = workspace.catalog()[id]
    except ReeltuneError as error:
        return problem(error)
    description = f"<p>{text(definition.description)}</p>" if definition.description else ""
    head = f"<h2>{text(definition.name)}</h2>{description}"
    if not definition.runnable:
        return head + problem(f"It can’t run here: {definition.reason}.", "Choose another model.")
    try:
        workspace.machine.check_device(workspace.preferences().device)
        plan = workspace.explain(definition)
    except ReeltuneError as error:
        return head + problem(error)
    notices = notices_list(_notices(definition, plan))
    return f"{head}{_versions(plan)}{_requirements(workspace, plan)}{notices}"


def _notices(definition: Definition, plan: Plan) -> list[str]:
    return [*map(str, definition.notices), *plan.notices]


def _versions(plan: Plan) -> str:
    """The version that is used in each slot, and the others with the reasons why they aren't used."""
    choices = {**plan.selection.choices, **plan.selection.components}
    rejected = plan.selection.rejected
    two_models = "transformer_2" in choices
    used = "".join(_version(slot, choice, two_models=two_models) for slot, choice in choices.items())
    html = f'<ul class="rt-versions">{used}</ul>'
    if not rejected:
        return html
    unused = "".join(
        f"<li><b>{text(rejection.version.file_name)}</b><span>{text(rejection.reason)}</span></li>"
        for rejection in rejected
    )
    summary = f"{counted(len(rejected), 'other version')}, not used"
    return f'{html}<details data-key="versions"><summary>{summary}</summary><ul>{unused}</ul></details>'


def _version(slot: str, choice: Choice, *, two_models: bool) -> str:
    """A file that is used and why. `two_models`: two transformers take turns, one at high and one at low noise."""
    role = ""
    if two_models and slot in TRANSFORMERS:
        role = "low noise" if slot == "transformer_2" else "high noise"
    elif slot != "transformer":
        role = slot_in_words(slot)
    label = f'<i class="rt-role">{text(role)}</i> ' if role else ""
    return f"<li><b>{text(choice.version.file_name)}</b> {label}<span>{text(choice.reason)}</span></li>"


def _requirements(workspace: Workspace, plan: Plan) -> str:
    """The download and the free disk, the memory of the weights and of the device."""
    lines = (_disk(workspace, plan), _memory(workspace, plan))
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    unknown_size = bool(plan.missing) and workspace.missing_bytes(plan) is None
    look_up = button("sizes", "Look up the size") if unknown_size else ""
    return f'<ul class="rt-facts">{items}</ul>{look_up}'


def _disk(workspace: Workspace, plan: Plan) -> str:
    if not plan.missing:
        return f"All files are on disk ({size(estimate(plan).disk)})."
    missing, free = workspace.missing_bytes(plan), free_disk(workspace.root)
    if missing is None:
        return f"{counted(len(plan.missing), 'part')} to download, {size(free)} free on this disk."
    end = ": not enough." if missing > free else "."
    return f"{size(missing)} to download, {size(free)} free on this disk{end}"


def _memory(workspace: Workspace, plan: Plan) -> str:
    device = workspace.machine.device(plan.preferences.device)
    available, needed = workspace.machine.memory_of(device), estimate(plan).peak
    if device.startswith("cuda") and not workspace.machine.gpus:
        memory = f"The memory of the graphics card ({device}) is unknown"
    elif device.startswith("cuda"):
        memory = f"{size(available)} on the graphics card ({device})"
    else:
        memory = f"{size(available)} of RAM"
    return f"{memory}; the weights take about {size(needed)}." if needed is not None else f"{memory}."
