"""`add` of shared definitions, `update`, `lock`: definitions that several machines use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from reeltune._text import counted
from reeltune.cli.options import Id, Root, effective_preferences, open_catalog
from reeltune.cli.output import interruptible, print_line, print_notice, print_table, progress_display, size
from reeltune.net import shown

if TYPE_CHECKING:
    from reeltune.definitions import Catalog
    from reeltune.sharing.installing import SharedDefinition
    from reeltune.sharing.updating import Update

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Change files without asking for confirmation.")]


def add_definition(catalog: Catalog, source: str, *, id: str, name: str, yes: bool, force: bool) -> None:
    """Show a shared definition, ask, and install it."""
    from reeltune.errors import DefinitionError
    from reeltune.sharing.incoming import read_incoming
    from reeltune.sharing.installing import describe, install

    preferences = effective_preferences(catalog.root)
    with interruptible() as cancel:
        incoming = read_incoming(source, preferences)
        shared = describe(catalog, incoming, preferences, id=id, name=name, cancel=cancel)
    print_shared(shared)
    if shared.replaces is not None and not force:
        message = f"The definition {shared.id} exists already."
        raise DefinitionError(message, hint="Replace it with --force, or choose another id with --id.")
    if not yes:
        question = f"Replace finetunes/{shared.id}.json?" if shared.replaces else f"Install it as {shared.id}?"
        typer.confirm(question, abort=True, err=True)
    print_line(str(install(catalog, shared, force=force)))
    print_notice(f"To make a video: `reeltune generate {shared.id}`. The files are downloaded then, or by `pull`.")


def print_shared(shared: SharedDefinition) -> None:
    """Print everything that a shared definition contains and would download."""
    definition = shared.definition
    print_line(f"{definition.name}  ({shared.id})")
    print_line(f"  from          {shared.incoming.source}")
    if definition.description:
        print_line(f"  description   {definition.description}")
    print_line(f"  architecture  {definition.architecture.id} ({definition.architecture.family.label})")
    print_line(f"  license       {shared.license or 'not named'}")
    print_line(f"  components    {definition.components}")
    rows = []
    for file in shared.files:
        state = "on disk" if file.present else file.problem or "to download"
        rows.append((file.role, size(file.bytes), state, shown(file.url)))
    print_line("")
    print_table(("FILE OF", "SIZE", "STATE", "URL"), rows)
    print_line("\nOne version of each is downloaded when it is needed; `reeltune explain` tells which one.")
    if shared.own_settings:
        print_line("\nsettings")
        for key, value in shared.own_settings.items():
            print_line(f"  {key} = {value}")
    for notice in shared.notices:
        print_notice(notice)


def update(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="Ids of installed definitions (default: all that have a source)."),
    ] = None,
    root: Root = None,
    yes: Yes = False,
    force: Annotated[bool, typer.Option("--force", help="Also replace values that you have changed yourself.")] = False,
) -> None:
    """Show what has changed in shared definitions since they were installed, and apply it after asking.

    Exit code 1 if a definition can't be compared.
    """
    from reeltune.errors import ReeltuneError
    from reeltune.sharing.updating import apply_update, find_update, installed

    catalog = open_catalog(root)
    preferences = effective_preferences(catalog.root)
    chosen = ids or list(installed(catalog))
    if not chosen:
        print_line("No definition was installed from a URL.")
    failed = False
    for id in chosen:
        try:
            with interruptible() as cancel:
                found = find_update(catalog, id, preferences, cancel)
        except ReeltuneError as error:
            if ids and len(ids) == 1:
                raise
            print_notice(f"{id}: {error}")
            failed = True
            continue
        if found is None:
            print_line(f"{id}: nothing has changed.")
            continue
        _print_update(found)
        if not found.changes or yes or typer.confirm(f"Apply this to {id}?", err=True):
            for place in apply_update(found, force=force):
                print_notice(f"{id}: your own value of {place} is kept; --force replaces it.")
            print_line(f"{id}: updated.")
    if failed:
        raise typer.Exit(1)


def _print_update(found: Update) -> None:
    print_line(f"{found.id} has changed at {shown(found.source.url)}:")
    for change in found.changes:
        own = "  (you have changed it, too)" if change.conflict else ""
        print_line(f"  {change.words}{own}")
    if not found.changes:
        print_line("  only its layout")
    for file in found.shared.files:
        if not file.present and any(file.url in str(change.new) for change in found.changes):
            print_line(f"  new file: {file.name}, {size(file.bytes)} {file.problem}".rstrip())
    for notice in found.shared.notices:
        print_notice(notice)


def lock(
    id: Id,
    check: Annotated[
        bool, typer.Option("--check", help="Compare the files on disk with the lock, and write nothing.")
    ] = False,
    root: Root = None,
) -> None:
    """Write the size and sha256 of every file that a definition uses to finetunes/ID.lock.

    With this file beside the definition, another machine downloads the same bytes or reports an error.
    """
    from reeltune.sharing.locking import check_lock, lock_definition

    catalog = open_catalog(root)
    with interruptible() as cancel, progress_display() as listener:
        if check:
            missing = check_lock(catalog, id, listener=listener, cancel=cancel)
            print_line(f"{id}: all files on disk are the locked ones.")
            if missing:
                print_notice(f"{counted(len(missing), 'file')} not on disk: {', '.join(missing)}.")
            return
        path, written = lock_definition(catalog, id, listener=listener, cancel=cancel)
    total = sum(file.bytes for file in written.files.values())
    print_line(f"{path}  {counted(len(written.files), 'file')}, {size(total)}")
