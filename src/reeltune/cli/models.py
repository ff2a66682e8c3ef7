"""`list`, `show`, `explain`: what there is and what would be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from reeltune._text import counted
from reeltune.cli.options import AsJson, Device, DType, Id, Profile, Quantization, Root, open_catalog, wishes
from reeltune.cli.output import interruptible, notice, print_json, say, size, table, tell

if TYPE_CHECKING:
    from reeltune.definitions import Definition, Summary
    from reeltune.planning.plan import Plan

_NAMED = 6  # models that a line about many names


def list_models(
    root: Root = None,
    all_: Annotated[bool, typer.Option("--all", help="Also definitions that ask to be hidden.")] = False,
    as_json: AsJson = False,
) -> None:
    """List all models: base models and finetunes, and whether they run here."""
    from reeltune.planning.facts import summaries_here

    catalog = open_catalog(root)
    found = summaries_here(catalog, wishes(catalog.root))
    rows = [row for row in found if row.visible or all_]
    if as_json:
        keys = ("id", "name", "architecture", "kind", "runnable", "reason", "visible")
        print_json([{key: getattr(row, key) for key in keys} for row in rows])
        return
    table(
        ("ID", "NAME", "ARCHITECTURE", "KIND", "RUNS HERE"),
        [(row.id, row.name, row.architecture, row.kind, "yes" if row.runnable else "no") for row in rows],
    )
    for line in _reasons(rows):
        notice(line)
    if len(rows) < len(found):
        hidden = counted(len(found) - len(rows), "definition")
        notice(f"{hidden} not shown, as they ask to be hidden; --all shows them.")


def _reasons(rows: list[Summary]) -> list[str]:
    """Why models don't run here: a line for each cause, with the models it holds for."""
    groups: dict[str, list[Summary]] = {}
    for row in rows:
        if not row.runnable:
            groups.setdefault(row.cause, []).append(row)
    lines = []
    for cause, group in groups.items():
        ids = [row.id for row in group]
        shown = ", ".join(ids[:_NAMED]) + (f" and {len(ids) - _NAMED:,} more" if len(ids) > _NAMED else "")
        lines.append(f"{cause}: {shown}")
    return lines


def show(id: Id, root: Root = None, as_json: AsJson = False) -> None:
    """Show one definition: its versions, its settings, and where they come from."""
    from reeltune.machine import probe
    from reeltune.planning.facts import reason_here

    catalog = open_catalog(root)
    definition = catalog[id]
    reason = reason_here(definition, wishes(catalog.root), probe())
    if as_json:
        print_json(_as_json(definition, reason))
        return
    say(f"{definition.name}  ({definition.id})")
    if definition.description:
        say(definition.description)
    say("")
    say(f"architecture  {definition.architecture.id} ({definition.architecture.family.label}), {definition.kind}")
    say(f"runs here     {'no: ' + reason if reason else 'yes'}")
    say(f"components    {definition.components}")
    if definition.resolutions:
        say(f"resolutions   {', '.join(value for _, value in definition.resolutions)}")
    say(f"files         {', '.join(str(path) for path in definition.files)}")
    for slot, versions in definition.slots.items():
        say(f"\n{slot}")
        for version in versions:
            say(f"  {version.url}")
    say("\nsettings it starts from")
    for key, value in _settings(definition).items():
        say(f"  {key} = {value}")
    for problem in definition.notices:
        notice(str(problem))


def _settings(definition: Definition) -> dict[str, Any]:
    from reeltune.settings import layer

    return layer(definition.architecture, definition.settings)


def _as_json(definition: Definition, reason: str) -> dict[str, Any]:
    return {
        "id": definition.id,
        "name": definition.name,
        "description": definition.description,
        "kind": definition.kind,
        "architecture": definition.architecture.id,
        "runnable": not reason,
        "reason": reason,
        "slots": {slot: [version.url for version in versions] for slot, versions in definition.slots.items()},
        "preload": [version.url for version in definition.preload],
        "auto_quantize": definition.auto_quantize,
        "components": definition.components,
        "visible": definition.visible,
        "resolutions": [value for _, value in definition.resolutions],
        "settings": _settings(definition),
        "files": [str(path) for path in definition.files],
        "notices": [str(problem) for problem in definition.notices],
    }


def explain(
    id: Id,
    root: Root = None,
    quantization: Quantization = None,
    dtype: DType = None,
    device: Device = None,
    profile: Profile = None,
    online: Annotated[
        bool, typer.Option("--online", help="Also read the headers and sizes of files that aren't here.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Explain which version of a model would be used, why, and which files that takes."""
    from reeltune.planning.memory import choose_profile
    from reeltune.planning.plan import explain as explain_definition

    catalog = open_catalog(root)
    preferences = wishes(catalog.root, quantization, dtype, device, profile)
    plan = explain_definition(catalog[id], preferences, online=online)
    if online:
        plan = _with_sizes(plan)
    if as_json:
        chosen = choose_profile(plan)
        memory = {"profile": chosen.profile, "reason": chosen.reason, "pinned": chosen.pinned}
        print_json(plan.as_json() | {"memory": memory})
        return
    print_plan(plan)


def _with_sizes(plan: Plan) -> Plan:
    """The plan with the sizes that servers report; what is wrong with a file there is a notice."""
    from reeltune.errors import FetchError
    from reeltune.fetch import ask_sizes

    try:
        with interruptible() as cancel:
            return ask_sizes([plan], listener=tell, cancel=cancel)[0][0]
    except FetchError as error:
        notice(str(error))
        return plan


def print_plan(plan: Plan) -> None:
    """Choices, rejections and files, as `explain` and `pull` show them; first of all whether the model can run."""
    if not plan.definition.runnable:
        say(f"{plan.definition.id} can't run here: {plan.definition.reason}.\n")
    say(f"{plan.definition.name} on {plan.device}")
    for slot, choice in plan.selection.choices.items():
        say(f"\n{slot}: {choice.version.file_name}")
        say(f"  {choice.reason}")
        for row in plan.selection.rejected:
            if row.slot == slot:
                say(f"  not {row.version.file_name}: {row.reason}")
    say("")
    table(
        ("FILE", "SIZE", "HERE"),
        [(str(item.path), size(item.bytes), "yes" if item.present else "no") for item in plan.items],
    )
    _print_estimate(plan)
    if plan.products_in_fp32:
        dtype = plan.dtype
        say(f"arithmetic: fp32, since this processor is slow in {dtype}; weights stay as they are stored")
    for line in (*map(str, plan.definition.notices), *plan.notices):
        notice(line)


def _print_estimate(plan: Plan) -> None:
    """What the choice takes, as far as headers are known."""
    from reeltune.errors import NotEnoughMemory
    from reeltune.planning.estimate import check_memory, estimate
    from reeltune.planning.memory import choose_profile

    found = estimate(plan)
    device = plan.device
    room = plan.machine.memory_of(device)
    if found.transformer is None:
        notice("What it takes in memory is known once the weights' headers are (`--online`).")
        return
    encoders = f"; its encoders {size(found.encoders)}, before them" if found.encoders is not None else ""
    say(
        f"\n{found.parameters or 0:,} parameters; weights in memory {size(found.transformer)}{encoders}; "
        f"{device} has {size(room)}."
    )
    chosen = choose_profile(plan)
    say(f"memory profile: {chosen.profile}, {chosen.reason}")
    try:
        check_memory(plan)
    except NotEnoughMemory as error:
        notice(f"Generating would be refused. {error}")
