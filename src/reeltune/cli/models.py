"""`list`, `show`, `explain`: the available models, and the versions and files that would be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from reeltune._text import counted
from reeltune.cli.calls import Assignments, Given, Loras, SettingsFile, SpeedProfile, call_settings
from reeltune.cli.options import (
    AsJson,
    Device,
    DType,
    Id,
    Profile,
    Quantization,
    Root,
    effective_preferences,
    open_catalog,
)
from reeltune.cli.output import interruptible, print_event, print_json, print_line, print_notice, print_table, size
from reeltune.cli.steps import print_steps, steps_json

if TYPE_CHECKING:
    from reeltune.definitions import Definition, Summary
    from reeltune.families.values import Settings
    from reeltune.planning.plan import Plan
    from reeltune.untrusted import JsonObject

_MAX_IDS = 6  # ids in a notice


def list_models(
    root: Root = None,
    all_: Annotated[bool, typer.Option("--all", help="Also list hidden definitions.")] = False,
    as_json: AsJson = False,
) -> None:
    """List all models (base models and finetunes), and whether they can run on this machine."""
    from reeltune.planning.facts import local_summaries

    catalog = open_catalog(root)
    summaries = local_summaries(catalog, effective_preferences(catalog.root))
    listed = [summary for summary in summaries if summary.visible or all_]
    if as_json:
        keys = ("id", "name", "architecture", "kind", "runnable", "reason", "visible")
        print_json([{key: getattr(summary, key) for key in keys} for summary in listed])
        return
    print_table(("ID", "NAME", "ARCHITECTURE", "KIND", "RUNS HERE"), [_row(summary) for summary in listed])
    for line in _reasons(listed):
        print_notice(line)
    if len(listed) < len(summaries):
        hidden = counted(len(summaries) - len(listed), "hidden definition")
        print_notice(f"{hidden} not shown; --all shows them.")


def _row(summary: Summary) -> tuple[str, ...]:
    runs_here = "yes" if summary.runnable else "no"
    return (summary.id, summary.name, summary.architecture, summary.kind, runs_here)


def _reasons(summaries: list[Summary]) -> list[str]:
    """Why models can't run: a line for each reason, with the models that it applies to."""
    ids_by_cause: dict[str, list[str]] = {}
    for summary in summaries:
        if not summary.runnable:
            ids_by_cause.setdefault(summary.cause, []).append(summary.id)
    lines = []
    for cause, ids in ids_by_cause.items():
        text = ", ".join(ids[:_MAX_IDS])
        if len(ids) > _MAX_IDS:
            text += f" and {len(ids) - _MAX_IDS:,} more"
        lines.append(f"{cause.rstrip('.')}: {text}")
    return lines


def show(id: Id, root: Root = None, as_json: AsJson = False) -> None:
    """Show a definition: its files, its versions and its settings."""
    from reeltune.families.base import LORA_SOURCES
    from reeltune.machine import probe
    from reeltune.net import values_without_secrets, without_secrets
    from reeltune.planning.facts import reason_not_runnable

    catalog = open_catalog(root)
    definition = catalog[id]
    reason = reason_not_runnable(definition, effective_preferences(catalog.root), probe())
    if as_json:
        print_json(values_without_secrets(_definition_json(definition, reason)))
        return
    print_line(f"{definition.name}  ({definition.id})")
    if definition.description:
        print_line(definition.description)
    print_line("")
    architecture = definition.architecture
    print_line(f"architecture  {architecture.id} ({architecture.family.label}), {definition.kind}")
    print_line(f"runs here     {f'no: {reason}' if reason else 'yes'}")
    print_line(f"components    {definition.components}")
    if definition.variants is not None:
        labels = [f"{choice.id} ({choice.label})" for choice in definition.variants.choices]
        print_line(f"config        {definition.variants.name}: {', '.join(labels)}")
    if definition.resolutions:
        print_line(f"resolutions   {', '.join(value for _, value in definition.resolutions)}")
    print_line(f"files         {', '.join(str(path) for path in definition.files)}")
    for slot, versions in definition.all_versions.items():
        print_line(f"\n{slot}")
        for version in versions:
            print_line(f"  {without_secrets(version.url)}")
    second_pass = architecture.scales.lora if architecture.scales else ""
    own = [lora.url for lora in definition.loras if lora.url != second_pass]
    if own:
        print_line(f"\nloras         weights {definition.lora_multipliers or '1'}")
        for url in own:
            print_line(f"  {without_secrets(url)}")
    if second_pass:
        print_line(f"\nsecond pass   with a LoRA\n  {without_secrets(second_pass)}")
    print_line("\ndefault settings")
    for key, value in _settings(definition).items():
        shown = [without_secrets(source) for source in value] if key == LORA_SOURCES else value
        print_line(f"  {key} = {shown}")
    for problem in definition.notices:
        print_notice(str(problem))


def _settings(definition: Definition) -> Settings:
    from reeltune.settings import layer

    return layer(definition.architecture, definition.settings)


def _definition_json(definition: Definition, reason: str) -> JsonObject:
    return {
        **definition.as_json(),
        "runnable": not reason,
        "reason": reason,
        "settings": _settings(definition),
        "files": [str(path) for path in definition.files],
    }


def explain(
    id: Id,
    root: Root = None,
    quantization: Quantization = None,
    dtype: DType = None,
    device: Device = None,
    profile: Profile = None,
    assignments: Assignments = None,
    settings: SettingsFile = None,
    loras: Loras = None,
    speed_profile: SpeedProfile = None,
    online: Annotated[
        bool, typer.Option("--online", help="Also read headers and sizes of files that are not on disk.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Explain which version of a model would be used and why, which files it needs, and what each step does."""
    from reeltune.errors import NotRunnable
    from reeltune.net import values_without_secrets
    from reeltune.planning.memory import choose_profile
    from reeltune.planning.plan import explain as explain_definition
    from reeltune.request.parse import ParsedRequests, preview

    catalog = open_catalog(root)
    definition = catalog[id]
    preferences = effective_preferences(catalog.root, quantization, dtype, device, profile)
    sources: list[str] | None
    try:
        given = Given(assignments, settings, loras, speed_profile, {})
        parsed = preview(definition, call_settings(definition, preferences.model_folders, given))
        sources = [lora.source for request in parsed.requests for lora in request.loras]
    except NotRunnable as error:  # the plan is shown nevertheless
        print_notice(str(error))
        parsed = ParsedRequests((), (), definition)
        sources = None
    plan = explain_definition(parsed.definition, preferences, online=online, loras=sources)
    if online:
        plan = _with_sizes(plan)
    if as_json:
        chosen = choose_profile(plan)
        memory = {"profile": chosen.profile, "reason": chosen.reason, "pinned": chosen.pinned}
        steps = [steps_json(plan, request) for request in parsed.requests]
        values = {**plan.as_json(), "memory": memory, **(steps[0] if steps else {})}
        print_json(values_without_secrets(values))
        return
    print_plan(plan)
    for request in parsed.requests:
        print_steps(plan, request)
    for notice in parsed.notices:
        print_notice(notice)


def _with_sizes(plan: Plan) -> Plan:
    """The plan with the sizes that servers report. Prints a notice and returns the same plan if that fails."""
    from reeltune.errors import FetchError
    from reeltune.fetch import ask_sizes

    try:
        with interruptible() as cancel:
            plans, _ = ask_sizes([plan], listener=print_event, cancel=cancel)
    except FetchError as error:
        print_notice(str(error))
        return plan
    return plans[0]


def print_plan(plan: Plan) -> None:
    """Print the choices, the rejected versions and the files of a plan."""
    definition = plan.definition
    if not definition.runnable:
        print_line(f"{definition.id} can't run here: {definition.reason}.\n")
    print_line(f"{definition.name} on {plan.device}")
    for slot, choice in {**plan.selection.choices, **plan.selection.components}.items():
        print_line(f"\n{slot}: {choice.version.file_name}")
        print_line(f"  {choice.reason}")
        for rejection in plan.selection.rejected:
            if rejection.slot == slot:
                print_line(f"  not {rejection.version.file_name}: {rejection.reason}")
    print_line("")
    rows = []
    for item in plan.items:
        state = "in place" if item.in_place else "yes"
        rows.append((str(item.path), size(item.bytes), state if item.present else "no"))
        rows += [(str(path), "", state) for path in item.more]
    print_table(("FILE", "SIZE", "ON DISK"), rows)
    if plan.bytes_in_place:
        print_line(f"\n{size(plan.bytes_in_place)} are used where they are, and not downloaded.")
    for item in plan.items:
        if item.quantize:
            print_line(f"{item.subject}: quantized to int8 while loading")
    _print_memory(plan)
    if plan.products_in_fp32:
        print_line(f"arithmetic: fp32, because this processor is slow in {plan.dtype}; weights stay as stored")
    if plan.products_in_fp8:
        print_line("arithmetic: fp8 products, with a scale for each token")
    elif plan.keeps_fp8:
        print_line(f"arithmetic: fp8 weights are decoded to {plan.dtype}, one layer at a time")
    for problem in definition.notices:
        print_notice(str(problem))
    for line in plan.notices:
        print_notice(line)


def _print_memory(plan: Plan) -> None:
    """Print the estimate of the memory that a plan needs, if the headers are known."""
    from reeltune.errors import NotEnoughMemory
    from reeltune.planning.estimate import check_memory, estimate
    from reeltune.planning.memory import choose_profile

    sizes = estimate(plan)
    if sizes.transformer is None:
        print_notice("The needed memory is unknown until the headers of the weights are read (`--online`).")
        return
    weights = f"transformer {size(sizes.transformer)}"
    if sizes.encoders is not None:
        weights += f", encoders {size(sizes.encoders)} (released before it is loaded)"
    if sizes.upsampler:
        weights += f", latent upsampler {size(sizes.upsampler)}"
    available = size(plan.machine.memory_of(plan.device))
    print_line(f"\n{sizes.parameters or 0:,} parameters; memory for weights: {weights}; {plan.device} has {available}")
    chosen = choose_profile(plan)
    print_line(f"memory profile: {chosen.profile}, {chosen.reason}")
    try:
        check_memory(plan)
    except NotEnoughMemory as error:
        print_notice(f"This machine doesn't have enough memory. {error}")
