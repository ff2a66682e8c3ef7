"""`ls`, `rm`, `gc`, `verify`: what is stored in ckpts/, and what can be deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from reeltune._text import counted
from reeltune.cli.found import list_everything
from reeltune.cli.options import AsJson, Root, effective_preferences, open_catalog
from reeltune.cli.output import interruptible, print_json, print_line, print_notice, print_table, progress_display, size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from reeltune.library.cleanup import LibraryEntry
    from reeltune.library.verify import VerifiedFile

_MAX_USERS = 4  # ids in a cell of a table
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted, and delete nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking for confirmation.")]


def ls(
    root: Root = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Also show the model folders and the Hub's cache, and what is used of them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the files in ckpts/ with their sizes and the definitions that use them, and interrupted downloads."""
    from reeltune.library.cleanup import list_entries, total_bytes

    catalog = open_catalog(root)
    if all_:
        list_everything(catalog, as_json=as_json)
        return
    ckpts = catalog.root / "ckpts"
    entries = list_entries(catalog)
    _print_unfinished_videos(catalog.root)
    if as_json:
        print_json([_entry_json(entry) for entry in entries])
        return
    if not entries:
        print_line(f"{ckpts} is empty.")
        return
    _print_entries(entries, ckpts)
    print_line(f"\n{size(total_bytes(entries))} in total.")


def _entry_json(entry: LibraryEntry) -> dict[str, object]:
    return {
        "path": str(entry.path),
        "bytes": entry.bytes,
        "state": entry.state,
        "used_by": list(entry.users),
        "fetched": entry.downloaded,
    }


def _print_unfinished_videos(root: Path) -> None:
    """Print a notice about the latents of interrupted runs, which are never deleted automatically."""
    folder = root / effective_preferences(root).outputs / "latents"
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if files:
        videos = counted(len(files), "unfinished video")
        total = size(sum(path.stat().st_size for path in files))
        print_notice(f"{videos} in outputs/latents/ ({total}). To finish the first: `reeltune decode {files[0]}`.")


def _print_entries(entries: Sequence[LibraryEntry], ckpts: Path) -> None:
    rows = [
        (entry.path.relative_to(ckpts).as_posix(), size(entry.bytes), entry.state, _shortened_ids(entry.users) or "-")
        for entry in entries
    ]
    print_table(("FILE", "SIZE", "STATE", "USED BY"), rows)


def _shortened_ids(ids: Sequence[str]) -> str:
    """The first few ids, and how many more there are."""
    text = ", ".join(ids[:_MAX_USERS])
    if len(ids) > _MAX_USERS:
        text += f" and {len(ids) - _MAX_USERS} more"
    return text


def rm(
    id: Annotated[str, typer.Argument(metavar="ID", help="Id of a definition: its file name without .json.")],
    root: Root = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Delete the files of a model, except those that other definitions use. The definition itself is kept."""
    from reeltune.library.cleanup import list_entries
    from reeltune.library.places import label

    catalog = open_catalog(root)
    ckpts = catalog.root / "ckpts"
    catalog.files_of(id)  # raises DefinitionNotFound
    own_entries = []
    for entry in list_entries(catalog):
        if entry.users == (id,):
            own_entries.append(entry)
        elif id in entry.users:
            others = _shortened_ids([user for user in entry.users if user != id])
            print_notice(f"{label(entry.path, ckpts)} is kept: it is also used by {others}.")
    _delete(own_entries, ckpts, dry_run, yes)


def gc(root: Root = None, dry_run: DryRun = False, yes: Yes = False) -> None:
    """Delete downloaded files that no definition uses, and what interrupted downloads left behind.

    Files of other programs are kept.
    """
    from reeltune.library.cleanup import leftovers, list_entries

    catalog = open_catalog(root)
    unused = [entry for entry in list_entries(catalog) if not entry.users and not entry.leftover]
    if unused:
        files = counted(len(unused), "file")
        total = size(sum(entry.bytes for entry in unused))
        print_notice(
            f"Kept {files} ({total}) that no definition uses: reeltune didn't download them, or a definition may still "
            "need them."
        )
    _delete(leftovers(catalog), catalog.root / "ckpts", dry_run, yes)


def _delete(entries: Sequence[LibraryEntry], ckpts: Path, dry_run: bool, yes: bool) -> None:
    """List the entries, ask for confirmation, and delete them."""
    from reeltune.library.cleanup import remove
    from reeltune.library.places import label

    if not entries:
        print_line("Nothing to delete.")
        return
    _print_entries(entries, ckpts)
    total = size(sum(entry.bytes for entry in entries))
    if dry_run:
        print_line(f"\n{total} would be deleted.")
        return
    print_line(f"\n{total} to delete.")
    if not yes:
        typer.confirm("Delete these files?", abort=True, err=True)
    failed = False
    for entry in entries:
        reason = remove(entry)
        if reason:
            print_notice(f"{label(entry.path, ckpts)} was not deleted: {reason}.")
            failed = True
    if failed:
        print_line("Some files were not deleted.")
        raise typer.Exit(1)
    print_line("Deleted.")


def verify(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="Ids of definitions whose files are checked (default: every file)."),
    ] = None,
    root: Root = None,
) -> None:
    """Read files completely and check their headers and sha256. Exit code 1 if a file is damaged."""
    from reeltune.library.cleanup import list_entries
    from reeltune.library.verify import verify as verify_entries

    catalog = open_catalog(root)
    for id in ids or []:
        catalog.files_of(id)  # raises DefinitionNotFound
    entries = [entry for entry in list_entries(catalog) if not ids or set(ids) & set(entry.users)]
    count = 0
    faults = 0
    with interruptible() as cancel, progress_display() as listener:
        for entry in entries:
            results = list(verify_entries(catalog, [entry], listener, cancel))
            count += len(results)
            faults += _print_results(entry, results, catalog.root / "ckpts")
    print_line(f"{counted(count, 'file')} checked, {faults} damaged.")
    if faults:
        print_notice("Delete damaged files; `reeltune pull` then downloads them again.")
        print_notice("If you replaced a file yourself, delete ckpts/.index.sqlite, which records the sha256 of files.")
        raise typer.Exit(1)


def _print_results(entry: LibraryEntry, results: Sequence[VerifiedFile], ckpts: Path) -> int:
    """Print the results for the files of an entry; returns the number of faults."""
    from reeltune.library.places import label

    damaged = [result for result in results if result.fault]
    for result in damaged:
        print_line(f"BAD  {label(result.path, ckpts)}: {result.fault}")
    if results and not damaged:
        print_line(f"ok   {label(entry.path, ckpts)}: {_describe_sound(results)}")
    return len(damaged)


def _describe_sound(results: Sequence[VerifiedFile]) -> str:
    """What was checked of a sound file, or of the files of a sound component."""
    if all(result.compared for result in results):
        text = "sha256 is correct"
    elif all(result.recorded for result in results):
        text = "sound; its sha256 is recorded for later checks"
    else:
        text = "sound; there is no sha256 to compare with"
    if len(results) > 1:
        text = f"{len(results)} files, {text}"
    return text
