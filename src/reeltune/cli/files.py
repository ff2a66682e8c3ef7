"""`inspect`, `add`, `pull`, `urls replace`, `settings export`: files in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from reeltune._text import counted
from reeltune.cli.models import print_plan
from reeltune.cli.options import AsJson, Device, DType, Id, Quantization, Root, open_catalog, wishes
from reeltune.cli.output import interruptible, notice, print_json, say, showing, size, table, tell
from reeltune.dtypes import Quantization as StoredAs
from reeltune.net import shown

if TYPE_CHECKING:
    from pathlib import Path

    from reeltune.checkpoints.inspection import Inspection
    from reeltune.errors import AmbiguousArchitecture
    from reeltune.fetch.survey import Survey

urls = typer.Typer(help="Change the URLs a definition lists.", no_args_is_help=True)
settings = typer.Typer(help="Settings files.", no_args_is_help=True)


def inspect(
    source: Annotated[str, typer.Argument(metavar="FILE|URL", help="A .safetensors file, or its URL.")],
    as_json: AsJson = False,
) -> None:
    """Inspect a weight file by its header: which model, data type, quantization. Nothing is downloaded."""
    from reeltune.checkpoints.inspection import inspect as look

    found = look(source)
    if as_json:
        print_json(found.as_json())
        return
    print_inspection(found)


def print_inspection(found: Inspection) -> None:
    """What a header tells, a line for each fact, and what contradicts it."""
    identity = found.identity
    histogram = ", ".join(f"{dtype} {count:,}" for dtype, count in identity.dtypes.items())
    rows: dict[str, Any] = {
        "family": identity.family or "unknown",
        "fits": " or ".join(identity.architectures) or "no known architecture",
        "role": identity.role,
        "layout": f"{identity.layout or 'unknown'}" + (f", prefix {identity.prefix!r}" if identity.prefix else ""),
        "quantization": identity.quantization if identity.quantization != StoredAs.NONE else "16 bits or more",
        "data type": identity.dtype or "unknown",
        "parameters": f"{identity.parameters:,}",
        "by data type": histogram,
        "size": size(identity.bytes),
        "told by": "; ".join(identity.evidence),
    }
    say(found.source)
    for label, value in rows.items():
        say(f"  {label:<13} {value}")
    for line in found.notices:
        notice(line)


def add(
    source: Annotated[str, typer.Argument(metavar="FILE|URL", help="A .safetensors file, or its link.")],
    name: Annotated[str | None, typer.Option("--name", help="Name to show (default: from the file's).")] = None,
    id: Annotated[str | None, typer.Option("--id", help="Id; the architecture's is put before it.")] = None,
    architecture: Annotated[
        str | None, typer.Option("--architecture", help="Where the header fits several: which it is.")
    ] = None,
    root: Root = None,
) -> None:
    """Write a finetune definition for a weight file, told by its header. Nothing is downloaded."""
    from reeltune.errors import AmbiguousArchitecture
    from reeltune.library.adding import add as write
    from reeltune.library.adding import look_at

    catalog = open_catalog(root)
    looked = look_at(catalog, source)
    print_inspection(looked.inspection)
    try:
        path = write(catalog, looked, architecture=architecture, id=id, name=name)
    except AmbiguousArchitecture as error:
        chosen = _ask(error)
        path = write(catalog, looked, architecture=chosen, id=id, name=name)
    say(f"\n{path}")
    written = open_catalog(root)[path.stem]
    if "guidance_phases" in written.architecture.defaults and "transformer_2" not in written.slots:
        notice(f"It lists one of {written.architecture.id}'s two transformers: add the other's URL as `URLs2`.")
    notice(f"`reeltune generate {path.stem}` makes a video with it; the settings it starts from can be added there.")


def _ask(error: AmbiguousArchitecture) -> str:
    """Which architecture it is; where nobody can be asked, the error stands."""
    notice(error.message)
    try:
        while (answer := str(typer.prompt("Which is it?", err=True)).strip()) not in error.candidates:
            notice(f"One of: {', '.join(error.candidates)}.")
    except typer.Abort:
        raise error from None
    return answer


def pull(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of definitions.")],
    root: Root = None,
    weights_only: Annotated[bool, typer.Option("--weights-only", help="Only the weights, not the components.")] = False,
    all_versions: Annotated[
        bool, typer.Option("--all-versions", help="Every version of the weights, not only the one used here.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be downloaded, and download nothing.")
    ] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Also what can't run here, for other programs or machines.")
    ] = False,
    quantization: Quantization = None,
    dtype: DType = None,
    device: Device = None,
) -> None:
    """Download what models need under the preferences. Interrupted downloads continue where they were.

    Exit code 1 where something is still missing afterwards.
    """
    from reeltune.fetch import Scope, plan_download, pull_all, still_missing

    catalog = open_catalog(root)
    preferences = wishes(catalog.root, quantization, dtype, device)
    definitions, scope = [catalog[id] for id in ids], Scope(weights_only, all_versions)
    if dry_run:
        with interruptible() as cancel:
            plans, survey = plan_download(definitions, preferences, scope, listener=tell, cancel=cancel, anyway=anyway)
        for plan in plans:
            print_plan(plan)
        _print_survey(survey, catalog.root / "ckpts")
        return
    with interruptible() as cancel, showing() as listener:
        plans = pull_all(definitions, preferences, scope, listener=listener, cancel=cancel, anyway=anyway)
    for plan in plans:
        print_plan(plan)
    if still_missing(plans, scope):
        raise typer.Exit(1)


def _print_survey(survey: Survey, ckpts: Path) -> None:
    """Every file and component of a plan with its size and what of it is here, and whether it fits."""
    from reeltune.library.places import label

    say("")
    if not survey.needs:
        say("Everything is here: nothing to download.")
        return
    rows = zip(survey.needs, survey.as_event().files, strict=True)
    table(
        ("TO DOWNLOAD", "SIZE", "HERE", "FROM"),
        [
            (label(need.item.path, ckpts) if need.aside else row.name, size(row.bytes), size(row.kept),
             shown(need.item.url))
            for need, row in rows
        ],
    )  # fmt: skip
    more = f", and {survey.unknown} file(s) of unknown size" if survey.unknown else ""
    say(f"\n{size(survey.to_fetch)} to download{more}; {size(survey.free)} free.")
    survey.check_disk()


@urls.command("replace")
def replace_urls(
    id: Id,
    old: Annotated[str, typer.Argument(help="Text to look for in its URLs.")],
    new: Annotated[str, typer.Argument(help="Text to put in its place.")],
    root: Root = None,
) -> None:
    """Replace a text in every URL a definition lists; nothing else in the file changes."""
    from reeltune.definitions.writer import replace_urls as replace
    from reeltune.errors import DefinitionError

    catalog = open_catalog(root)
    own = [path for path in catalog.files_of(id) if path.parent == catalog.root / "finetunes"]
    if not own:
        raise DefinitionError(
            f"{id} is built in and never edited.",
            hint=f"Override what you need in finetunes/{id}.json first.",
        )
    if not old:
        raise DefinitionError("The text to look for is empty.", hint="Give the part of the URLs that changes.")
    counts = replace(own[0], lambda url: url.replace(old, new))
    if not counts:
        raise DefinitionError(f"No URL in {own[0]} contains {old!r}.", hint=f"`reeltune show {id}` lists them.")
    say(f"{own[0]}: {', '.join(f'{count} in {key}' for key, count in counts.items())} replaced.")


@settings.command("export")
def export_settings(
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Id of a definition.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="For every definition that can be read.")] = False,
    root: Root = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Write settings/ID_settings.json: the settings a definition starts from."""
    from reeltune.errors import DefinitionError, SettingsError
    from reeltune.files import write_atomic
    from reeltune.settings import layer, settings_text

    catalog = open_catalog(root)
    if everything == (id is not None):
        raise SettingsError("Nothing to export.", hint="Give an id, or --all.")
    folder = catalog.root / "settings"
    unresolved = 0
    for name in list(catalog) if everything else [id or ""]:
        path = folder / f"{name}_settings.json"
        try:
            definition = catalog[name]
        except DefinitionError:
            if not everything:
                raise
            unresolved += 1
            continue
        if path.exists() and not force:
            if not everything:
                raise SettingsError(f"{path} exists already.", hint="Give --force to replace it.")
            notice(f"{path} exists already and is kept; --force replaces it.")
            continue
        text = settings_text(name, layer(definition.architecture, definition.settings))
        write_atomic(path, text.encode("utf-8"))
        say(str(path))
    if unresolved:
        notice(f"{counted(unresolved, 'definition')} left out that can't be resolved; `reeltune list` shows why.")
