"""The list of models, and what the page says of the one that is picked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reeltune._text import counted, size
from reeltune.definitions import Catalog, Definition, Summary
from reeltune.errors import PreferencesError, ReeltuneError
from reeltune.families import ARCHITECTURES, FAMILIES, Architecture
from reeltune.machine import free_disk
from reeltune.planning.choose import Choice
from reeltune.planning.estimate import estimate
from reeltune.planning.plan import Explanation
from reeltune.service.states import Standing
from reeltune.service.studio import Studio
from reeltune.web.markup import button, notes, problem, text
from reeltune.web.words import slot_words

_UNKNOWN = "Others"
_FILTERS = (("ready", "Ready"), ("text", "From text"), ("image", "From images"))
_SEARCH = '<input type="search" data-search class="rt-search" placeholder="Search models" aria-label="Search models">'
_NONE = (
    '<div class="rt-none" data-none hidden><p>No model matches.</p>'
    '<button type="button" class="rt-button" data-clear>Show all models</button></div>'
)


def model_list(studio: Studio, chosen: str) -> str:
    """All models by family, each with its state; broken files with their errors."""
    catalog = studio.catalog()
    try:
        standings = studio.standings()
    except PreferencesError:  # reported where the model is described
        standings = {}
    groups: dict[str, list[Summary]] = {}

    def order(row: Summary) -> tuple[bool, bool, str]:
        standing = standings.get(row.id)
        return not (standing is not None and standing.ready), row.kind != "base", row.name.lower()

    rows = [row for row in catalog.summaries() if row.visible or row.id == chosen]
    for row in sorted(rows, key=order):
        groups.setdefault(_family(row), []).append(row)
    labels = [family.label for family in FAMILIES] + [_UNKNOWN]
    parts = [_group(label, groups[label], standings, chosen) for label in labels if label in groups]
    refresh = button("refresh", "↻", title="Look for new and changed files")
    return (
        f'<div class="rt-tools">{_SEARCH}{refresh}</div>{_filters()}'
        f'<div class="rt-models" role="group" aria-label="Models" data-scroll data-arrows>'
        f"{''.join(parts)}{''.join(_broken(catalog))}{_NONE}</div>"
    )


def _filters() -> str:
    chips = "".join(
        f'<button type="button" class="rt-chip" data-filter="{tag}" data-key="filter-{tag}" aria-pressed="false">'
        f"{label}</button>"
        for tag, label in _FILTERS
    )
    return f'<div class="rt-chips" role="group" aria-label="Show only">{chips}</div>'


def _family(row: Summary) -> str:
    architecture = ARCHITECTURES.get(row.architecture)
    return architecture.family.label if architecture else _UNKNOWN


def _group(label: str, rows: Iterable[Summary], standings: Mapping[str, Standing], chosen: str) -> str:
    items = "".join(_row(row, standings.get(row.id), row.id == chosen) for row in rows)
    return f'<section data-group="{text(label)}"><h3>{text(label)}</h3>{items}</section>'


def _row(row: Summary, standing: Standing | None, current: bool) -> str:
    state, mark = _state(row, standing)
    kind = "" if row.kind == "base" else '<span class="rt-kind">finetune</span>'
    words = text(f"{row.name} {row.id} {row.architecture} {row.kind}".lower())
    tags = " ".join([*(["ready"] if mark == "ready" else []), *_tags(ARCHITECTURES.get(row.architecture))])
    return (
        f'<button type="button" class="rt-model" data-do="pick" data-pick="{text(row.id)}" '
        f'data-key="pick-{text(row.id)}" data-words="{words}" data-tags="{tags}" '
        f'aria-current="{str(current).lower()}" tabindex="{0 if current else -1}">'
        f'<span class="rt-name">{text(row.name)}{kind}</span>'
        f'<span class="rt-state {mark}" title="{text(state)}">{text(state)}</span></button>'
    )


def _tags(architecture: Architecture | None) -> list[str]:
    """What a model starts from: "text" where words alone will do, "image" where it takes pictures."""
    if architecture is None:
        return []
    needs_more = any(row.required for row in architecture.inputs)
    takes_images = any(row.kind.startswith("image") for row in architecture.inputs)
    return [*([] if needs_more else ["text"]), *(["image"] if takes_images else [])]


def _state(row: Summary, standing: Standing | None) -> tuple[str, str]:
    """A model's state in words, and the class of its mark."""
    if not row.runnable:
        return f"Can’t run here: {row.reason}", "bad"
    if standing is None:
        return "…", ""
    if standing.ready:
        return "Ready", "ready"
    if standing.reason:
        return f"Can’t run here: {standing.reason}", "bad"
    return (f"{size(standing.missing)} to download" if standing.missing else "Not downloaded"), "fetch"


def _broken(catalog: Catalog) -> Iterable[str]:
    if not catalog.broken:
        return
    yield '<section data-group="broken"><h3>Can’t be read</h3>'
    for path, error in catalog.broken.items():
        yield (
            f'<div class="rt-model rt-broken" data-words="{text(path.name.lower())}" data-tags="">'
            f'<span class="rt-name">{text(path.name)}</span><span class="rt-state bad">{text(error)}</span></div>'
        )
    yield "</section>"


# --- the model that is picked -------------------------------------------------------------------------------


def headline(studio: Studio, id: str) -> str:
    """Name, description, which version is used and why, what there is to download and how much memory it takes."""
    try:
        definition = studio.catalog()[id]
    except ReeltuneError as error:
        return problem(error)
    description = f"<p>{text(definition.description)}</p>" if definition.description else ""
    head = f"<h2>{text(definition.name)}</h2>{description}"
    if not definition.runnable:
        return head + problem(f"It can’t run here: {definition.reason}.", "Pick another model.")
    try:
        studio.machine.check_device(studio.preferences().device)
        explanation = studio.explain(definition)
    except ReeltuneError as error:
        return head + problem(error)
    return head + _choices(explanation) + _plan(studio, explanation) + notes(_notices(definition, explanation))


def _notices(definition: Definition, explanation: Explanation) -> list[str]:
    return [*map(str, definition.notices), *explanation.notices]


def _choices(explanation: Explanation) -> str:
    choices, rejected = explanation.selection.choices, explanation.selection.rejected
    rows = "".join(_choice(slot, choice, two="transformer_2" in choices) for slot, choice in choices.items())
    others = "".join(
        f"<li><b>{text(row.version.file_name)}</b><span>{text(row.reason)}</span></li>" for row in rejected
    )
    summary = f"{counted(len(rejected), 'other version')}, not used"
    more = f'<details data-key="versions"><summary>{summary}</summary><ul>{others}</ul></details>'
    return f'<ul class="rt-versions">{rows}</ul>' + (more if others else "")


def _choice(slot: str, choice: Choice, *, two: bool) -> str:
    """A file that is used and why. `two`: the model consists of two transformers, which take turns."""
    role = ""
    if two and not slot.startswith("modules"):
        role = "low noise" if slot == "transformer_2" else "high noise"
    elif slot != "transformer":
        role = slot_words(slot)
    mark = f'<i class="rt-role">{text(role)}</i> ' if role else ""
    return f"<li><b>{text(choice.version.file_name)}</b> {mark}<span>{text(choice.reason)}</span></li>"


def _plan(studio: Studio, explanation: Explanation) -> str:
    """Bytes to download against the free disk, and the memory it takes against what there is."""
    unknown = bool(explanation.missing) and studio.missing_bytes(explanation) is None
    rows = "".join(f"<li>{text(row)}</li>" for row in (_disk(studio, explanation), _memory(studio, explanation)))
    ask = button("sizes", "Look up the size") if unknown else ""
    return f'<ul class="rt-facts">{rows}</ul>{ask}'


def _disk(studio: Studio, explanation: Explanation) -> str:
    if not explanation.missing:
        return f"Everything is on disk ({size(estimate(explanation).disk)})."
    missing, free = studio.missing_bytes(explanation), free_disk(studio.root)
    if missing is None:
        what = counted(len(explanation.missing), "part")
        return f"{what} to download, {size(free)} free on this disk."
    room = f"{size(free)} free on this disk"
    return f"{size(missing)} to download, {room}" + (": not enough." if missing > free else ".")


def _memory(studio: Studio, explanation: Explanation) -> str:
    device = studio.machine.device(explanation.preferences.device)
    room, need = studio.machine.memory_of(device), estimate(explanation).peak
    if device.startswith("cuda") and not studio.machine.gpus:
        where = f"The memory of the graphics card ({device}) isn’t known"
    elif device.startswith("cuda"):
        where = f"{size(room)} on the graphics card ({device})"
    else:
        where = f"{size(room)} of RAM"
    return f"{where}; the weights take about {size(need)}." if need is not None else f"{where}."
