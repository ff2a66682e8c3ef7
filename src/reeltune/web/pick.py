"""The list of models, and what the page says of the one that is picked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reeltune._text import size
from reeltune.definitions import Catalog, Definition, Summary
from reeltune.errors import ReeltuneError
from reeltune.families import ARCHITECTURES, FAMILIES
from reeltune.fetch import Explanation
from reeltune.fetch.estimate import estimate
from reeltune.machine import free_disk
from reeltune.web.markup import button, notes, problem, text
from reeltune.web.studio import Standing, Studio

_UNKNOWN = "Others"


def model_list(studio: Studio, chosen: str) -> str:
    """All models by family, each with its state; broken files with their errors."""
    catalog = studio.catalog()
    standings = studio.standings()
    groups: dict[str, list[Summary]] = {}

    def order(row: Summary) -> tuple[bool, bool, str]:
        standing = standings.get(row.id)
        return not (standing is not None and standing.ready), row.kind != "base", row.name.lower()

    for row in sorted(catalog.summaries(), key=order):
        groups.setdefault(_family(row), []).append(row)
    labels = [family.label for family in FAMILIES] + [_UNKNOWN]
    parts = [_group(label, groups[label], standings, chosen) for label in labels if label in groups]
    search = (
        '<input type="search" data-search class="rt-search" placeholder="Search models" aria-label="Search models">'
    )
    refresh = button("refresh", "↻", title="Look for new and changed definitions")
    return (
        f'<div class="rt-tools">{search}{refresh}</div><div class="rt-models" role="list" data-scroll>'
        + "".join(parts)
        + "".join(_broken(catalog))
        + "</div>"
    )


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
    return (
        f'<button type="button" class="rt-model" role="listitem" data-do="pick" data-pick="{text(row.id)}" '
        f'data-key="pick-{text(row.id)}" data-words="{words}" aria-current="{str(current).lower()}">'
        f'<span class="rt-name">{text(row.name)}{kind}</span>'
        f'<span class="rt-state {mark}" title="{text(state)}">{text(state)}</span></button>'
    )


def _state(row: Summary, standing: Standing | None) -> tuple[str, str]:
    """A model's state in words, and the class of its mark."""
    if not row.runnable:
        return f"not runnable here: {row.reason}", "bad"
    if standing is None:
        return "…", ""
    if standing.ready:
        return "ready", "ready"
    if standing.reason:
        return f"not runnable here: {standing.reason}", "bad"
    return (f"{size(standing.missing)} to fetch" if standing.missing else "to be fetched"), "fetch"


def _broken(catalog: Catalog) -> Iterable[str]:
    if not catalog.broken:
        return
    yield '<section data-group="broken"><h3>Can’t be read</h3>'
    for path, error in catalog.broken.items():
        yield (
            f'<div class="rt-model rt-broken" role="listitem" data-words="{text(path.name.lower())}">'
            f'<span class="rt-name">{text(path.name)}</span><span class="rt-state bad">{text(error)}</span></div>'
        )
    yield "</section>"


# --- the model that is picked -------------------------------------------------------------------------------


def headline(studio: Studio, id: str) -> str:
    """Name, description, which version is used and why, what it takes to fetch and to hold."""
    try:
        definition = studio.catalog()[id]
    except ReeltuneError as error:
        return problem(error)
    head = f"<h2>{text(definition.name)}</h2><p>{text(definition.description)}</p>"
    if not definition.runnable:
        return head + problem(f"It can’t run here: {definition.reason}.", "Pick another model.")
    try:
        explanation = studio.explain(definition)
    except ReeltuneError as error:
        return head + problem(error)
    return head + _choices(explanation) + _plan(studio, explanation) + notes(_notices(definition, explanation))


def _notices(definition: Definition, explanation: Explanation) -> list[str]:
    return [*map(str, definition.notices), *explanation.notices]


def _choices(explanation: Explanation) -> str:
    selection = explanation.selection
    rows = "".join(
        f"<li><b>{text(choice.version.file_name)}</b> {text(_slot(slot))}<span>{text(choice.reason)}</span></li>"
        for slot, choice in selection.choices.items()
    )
    passed = "".join(
        f"<li><b>{text(row.version.file_name)}</b><span>{text(row.reason)}</span></li>" for row in selection.rejected
    )
    more = f"<details><summary>{len(selection.rejected)} passed over</summary><ul>{passed}</ul></details>"
    return f'<ul class="rt-versions">{rows}</ul>' + (more if passed else "")


def _slot(slot: str) -> str:
    return "" if slot == "transformer" else f"({slot}) "


def _plan(studio: Studio, explanation: Explanation) -> str:
    """Bytes to fetch against the disk's room, and the memory it takes against what there is."""
    facts = []
    if explanation.missing:
        missing = studio.missing_bytes(explanation)
        what = f"{size(missing)} to fetch" if missing is not None else f"{len(explanation.missing)} parts to fetch"
        free = free_disk(studio.root)
        facts.append(f"{what}, {size(free)} free on the disk")
        if missing is not None and missing > free:
            facts[-1] += ": not enough room"
    else:
        facts.append(f"everything is on disk ({size(estimate(explanation).disk)})")
    device = studio.machine.device(explanation.preferences.device)
    need, room = estimate(explanation).peak, studio.machine.memory_of(device)
    kind = "RAM" if device == "cpu" else "VRAM"
    if need is not None:
        facts.append(f"about {size(need)} of weights in {kind}, {device} has {size(room)}")
    else:
        facts.append(f"{device} has {size(room)} of {kind}")
    rows = "".join(f"<li>{text(row)}</li>" for row in facts)
    ask = button("sizes", "Ask how large") if explanation.missing and studio.missing_bytes(explanation) is None else ""
    return f'<ul class="rt-facts">{rows}</ul>{ask}'
