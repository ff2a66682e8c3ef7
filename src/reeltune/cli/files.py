"""`inspect`, `add`, `pull`, `urls replace`, `settings export`: weight files, downloads and settings files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from reeltune._text import counted
from reeltune.cli.models import print_plan
from reeltune.cli.options import (
    AsJson,
    Device,
    DType,
    Id,
    Quantization,
    Root,
    effective_preferences,
    open_catalog,
)
from reeltune.cli.output import (
    interruptible,
    print_event,
    print_json,
    print_line,
    print_notice,
    print_table,
    progress_display,
    size,
)
from reeltune.dtypes import Quantization as StoredAs
from reeltune.net import shown

if TYPE_CHECKING:
    from pathlib import Path

    from reeltune.checkpoints.identify import Identity
    from reeltune.checkpoints.inspection import Inspection
    from reeltune.definitions import Catalog, Definition
    from reeltune.errors import AmbiguousArchitecture
    from reeltune.fetch.survey import Survey

urls = typer.Typer(help="Change the URLs that a definition lists.", no_args_is_help=True)
settings = typer.Typer(help="Read and write settings files.", no_args_is_help=True)


def inspect(
    source: Annotated[str, typer.Argument(metavar="FILE|URL", help="A .safetensors or .gguf file, or its URL.")],
    as_json: AsJson = False,
) -> None:
    """Read the header of a weight file, not the weights, and show its model, data type and quantization."""
    from reeltune.checkpoints.inspection import inspect as inspect_file

    inspection = inspect_file(source)
    if as_json:
        print_json(inspection.as_json())
        return
    _print_inspection(inspection)


def _print_inspection(inspection: Inspection) -> None:
    """Print the facts in a header, one per line, and notices about contradictions."""
    identity = inspection.identity
    quantization = "16 bits or more" if identity.quantization == StoredAs.NONE else identity.quantization
    by_dtype = ", ".join(f"{dtype} {count:,}" for dtype, count in identity.dtypes.items())
    facts = {
        "family": identity.family or "unknown",
        "fits": " or ".join(identity.architectures) or "no known architecture",
        "role": identity.role,
        "layout": _layout(identity),
        "quantization": quantization,
        "data type": identity.dtype or "unknown",
        "parameters": f"{identity.parameters:,}",
        "by data type": by_dtype,
        "size": size(identity.bytes),
        "evidence": "; ".join(identity.evidence),
    }
    print_line(inspection.source)
    for name, value in facts.items():
        print_line(f"  {name:<13} {value}")
    for line in inspection.notices:
        print_notice(line)


def _layout(identity: Identity) -> str:
    layout = identity.layout or "unknown"
    return f"{layout}, prefix {identity.prefix!r}" if identity.prefix else layout


def add(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|URL",
            help="A .safetensors or .gguf file, or a shared definition (.json, .zip, a gist), on disk or at a URL.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Name to show for the model (default: from the file).")
    ] = None,
    id: Annotated[
        str | None,
        typer.Option("--id", help="Id of the definition; for a weight file it is prefixed with the architecture."),
    ] = None,
    architecture: Annotated[
        str | None, typer.Option("--architecture", help="The architecture, if the header fits several.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Install a definition without asking.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a definition of yours with the same id.")] = False,
    root: Root = None,
) -> None:
    """Create a finetune definition for a weight file, based on its header, or install a shared definition.

    A shared definition is shown completely before anything is written. Weights are not downloaded.
    """
    from reeltune.errors import DefinitionError
    from reeltune.sharing.incoming import is_definition_source

    if is_definition_source(source):
        if architecture is not None:
            message = "--architecture is for weight files; a definition names its own."
            raise DefinitionError(message, hint="Leave it out.")
        from reeltune.cli.shared import add_definition

        add_definition(open_catalog(root), source, id=id or "", name=name or "", yes=yes, force=force)
        return
    _add_weights(source, name, id, architecture, root)


def _add_weights(source: str, name: str | None, id: str | None, architecture: str | None, root: Path | None) -> None:
    """Create the definition of a weight file, and print its path."""
    from reeltune.errors import AmbiguousArchitecture
    from reeltune.library.adding import add as write_definition
    from reeltune.library.adding import inspect_source

    catalog = open_catalog(root)
    inspected = inspect_source(catalog, source)
    _print_inspection(inspected.inspection)
    try:
        path = write_definition(catalog, inspected, architecture=architecture, id=id, name=name)
    except AmbiguousArchitecture as error:
        chosen = ask_architecture(error)
        path = write_definition(catalog, inspected, architecture=chosen, id=id, name=name)
    print_line(f"\n{path}")
    definition = open_catalog(root)[path.stem]
    if definition.architecture.two_models and "transformer_2" not in definition.slots:
        architecture_id = definition.architecture.id
        print_notice(
            f"{architecture_id} has two transformers, but the definition lists one: add the other's URL as `URLs2`."
        )
    print_notice(f"To make a video: `reeltune generate {path.stem}`. Default settings can be added to the definition.")


def ask_architecture(error: AmbiguousArchitecture) -> str:
    """Ask the user for the architecture. Raises the error again if there is no answer."""
    print_notice(error.message)
    try:
        while True:
            answer = str(typer.prompt("Architecture", err=True)).strip()
            if answer in error.candidates:
                return answer
            print_notice(f"Enter one of: {', '.join(error.candidates)}.")
    except typer.Abort:
        raise error from None


def pull(
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="Ids of definitions: their file names without .json.")],
    root: Root = None,
    weights_only: Annotated[
        bool, typer.Option("--weights-only", help="Download only the weights, not the components.")
    ] = False,
    all_versions: Annotated[
        bool, typer.Option("--all-versions", help="Download every version of the weights, not only the chosen one.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be downloaded, and download nothing.")
    ] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Also download models that can't run here, for other programs.")
    ] = False,
    quantization: Quantization = None,
    dtype: DType = None,
    device: Device = None,
) -> None:
    """Download the files that models need. Interrupted downloads are resumed.

    Exit code 1 if files are still missing afterwards.
    """
    from reeltune.fetch import Scope, plan_download, pull_all, still_missing

    catalog = open_catalog(root)
    preferences = effective_preferences(catalog.root, quantization, dtype, device)
    definitions = [catalog[id] for id in ids]
    scope = Scope(weights_only, all_versions)
    if dry_run:
        with interruptible() as cancel:
            plans, survey = plan_download(
                definitions, preferences, scope, listener=print_event, cancel=cancel, anyway=anyway
            )
        for plan in plans:
            print_plan(plan)
        _print_survey(survey, catalog.root / "ckpts")
        return
    with interruptible() as cancel, progress_display() as listener:
        plans = pull_all(definitions, preferences, scope, listener=listener, cancel=cancel, anyway=anyway)
    for plan in plans:
        print_plan(plan)
    if still_missing(plans, scope):
        raise typer.Exit(1)


def _print_survey(survey: Survey, ckpts: Path) -> None:
    """Print every file and component to download with its size. Raises NotEnoughDisk if they don't fit."""
    from reeltune.library.places import label

    print_line("")
    if not survey.downloads:
        print_line("Nothing to download: all files are on disk.")
        return
    rows = []
    for download, file in zip(survey.downloads, survey.as_event().files, strict=True):
        name = label(download.item.path, ckpts) if download.partial_folder else file.name
        rows.append((name, size(file.bytes), size(file.kept), shown(download.item.url)))
    print_table(("TO DOWNLOAD", "SIZE", "DOWNLOADED", "URL"), rows)
    total = f"{size(survey.bytes_to_download)} to download"
    if survey.unknown_sizes:
        total += f", and {counted(survey.unknown_sizes, 'file')} of unknown size"
    print_line(f"\n{total}; {size(survey.free)} free.")
    survey.check_disk()


@urls.command("replace")
def replace_urls(
    id: Id,
    old: Annotated[str, typer.Argument(metavar="OLD", help="Text to replace.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Text to replace it with.")],
    root: Root = None,
) -> None:
    """Replace text in every URL that a definition lists. The rest of the file is unchanged."""
    from reeltune.definitions.writer import replace_urls as replace_in_file
    from reeltune.errors import DefinitionError

    catalog = open_catalog(root)
    own_files = [path for path in catalog.files_of(id) if path.parent == catalog.root / "finetunes"]
    if not own_files:
        hint = f"Create finetunes/{id}.json with the keys to override first."
        raise DefinitionError(f"{id} is built in and can't be edited.", hint=hint)
    if not old:
        raise DefinitionError("The text to replace is empty.", hint="Give the part of the URLs to replace.")
    counts = replace_in_file(own_files[0], lambda url: url.replace(old, new))
    if not counts:
        message = f"No URL in {own_files[0]} contains {old!r}."
        raise DefinitionError(message, hint=f"`reeltune show {id}` lists the URLs.")
    replaced = ", ".join(f"{count} in {key}" for key, count in counts.items())
    print_line(f"{own_files[0]}: replaced {replaced}.")


@settings.command("export")
def export_settings(
    id: Annotated[
        str | None, typer.Argument(metavar="ID", help="Id of a definition: its file name without .json.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Export the settings of every definition.")] = False,
    root: Root = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:
    """Write the default settings of a definition to settings/ID_settings.json."""
    from reeltune.errors import SettingsError

    catalog = open_catalog(root)
    if everything and id is not None:
        raise SettingsError("An id and --all can't be combined.", hint="Give an id, or --all.")
    if everything:
        _export_all(catalog, force)
    elif id is not None:
        definition = catalog[id]
        path = _settings_path(catalog, id)
        if path.exists() and not force:
            raise SettingsError(f"{path} exists already.", hint="Use --force to replace it.")
        _export(definition, path)
    else:
        raise SettingsError("There is nothing to export.", hint="Give an id, or --all.")


def _settings_path(catalog: Catalog, id: str) -> Path:
    return catalog.root / "settings" / f"{id}_settings.json"


def _export(definition: Definition, path: Path) -> None:
    """Write the settings file of one definition. Raises FileError."""
    from reeltune.files import write_atomic
    from reeltune.settings import layer, settings_text

    text = settings_text(definition.id, layer(definition.architecture, definition.settings))
    write_atomic(path, text.encode("utf-8"))
    print_line(str(path))


def _export_all(catalog: Catalog, force: bool) -> None:
    """Write the settings files of all definitions; existing files are kept unless `force`."""
    from reeltune.errors import DefinitionError

    unresolved = 0
    for id in catalog:
        try:
            definition = catalog[id]
        except DefinitionError:
            unresolved += 1
            continue
        path = _settings_path(catalog, id)
        if path.exists() and not force:
            print_notice(f"{path} exists already and is kept; use --force to replace it.")
            continue
        _export(definition, path)
    if unresolved:
        definitions = counted(unresolved, "definition")
        print_notice(f"{definitions} left out, because they can't be resolved; `reeltune list` shows why.")
