"""`ls`, `rm`, `gc`, `verify`: what lies in `ckpts`, and what may go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from reeltune.cli.options import AsJson, Root, open_catalog, wishes
from reeltune.cli.output import interruptible, notice, print_json, say, showing, size, table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from reeltune.library.cleanup import Kept
    from reeltune.library.verify import Verdict

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would go, and delete nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


def ls(root: Root = None, as_json: AsJson = False) -> None:
    """List the files in ckpts/: their size, which definitions use them, and interrupted downloads."""
    from reeltune.library.cleanup import listing, total_bytes

    catalog = open_catalog(root)
    entries = listing(catalog)
    _tell_latents(catalog.root)
    if as_json:
        print_json(
            [
                {"path": str(row.path), "bytes": row.bytes, "state": row.state, "used_by": list(row.users),
                 "fetched": row.fetched}
                for row in entries
            ]
        )  # fmt: skip
        return
    if not entries:
        say(f"There is nothing in {catalog.root / 'ckpts'}.")
        return
    _print(entries, catalog.root / "ckpts")
    say(f"\n{size(total_bytes(entries))} in all.")


def _tell_latents(root: Path) -> None:
    """Name the latents that interrupted runs left: they are work, which is never swept away."""
    folder = root / wishes(root).outputs / "latents"
    left = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if left:
        total = size(sum(path.stat().st_size for path in left))
        notice(f"{len(left)} unfinished video(s), {total}: `reeltune decode {left[0]}` finishes the first.")


def _print(entries: Sequence[Kept], ckpts: Path) -> None:
    table(
        ("FILE", "SIZE", "STATE", "USED BY"),
        [(row.path.relative_to(ckpts).as_posix(), size(row.bytes), row.state, _users(row.users)) for row in entries],
    )


def _users(ids: Sequence[str]) -> str:
    return (", ".join(ids[:4]) + (f" and {len(ids) - 4} more" if len(ids) > 4 else "")) or "-"


def rm(
    id: Annotated[str, typer.Argument(metavar="ID", help="Id of a definition.")],
    root: Root = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Delete a model's files, but those another definition uses. The definition stays."""
    from reeltune.library.cleanup import listing
    from reeltune.library.places import label

    catalog = open_catalog(root)
    catalog.files_of(id)  # there must be one
    mine = [row for row in listing(catalog) if id in row.users]
    for row in mine:
        if row.users != (id,):
            others = _users([user for user in row.users if user != id])
            notice(f"{label(row.path, catalog.root / 'ckpts')} stays: {others} use(s) it too.")
    _sweep([row for row in mine if row.users == (id,)], catalog.root / "ckpts", dry_run, yes)


def gc(root: Root = None, dry_run: DryRun = False, yes: Yes = False) -> None:
    """Delete what was fetched and no definition lists any more, and leftovers. Other programs' files stay."""
    from reeltune.library.cleanup import leftovers, listing

    catalog = open_catalog(root)
    entries, leftover = listing(catalog), leftovers(catalog)
    others = [row for row in entries if not row.users and not row.leftover]
    if others:
        total = size(sum(row.bytes for row in others))
        notice(f"{len(others)} file(s) ({total}) that no definition lists stay: this program didn't download them.")
    _sweep(leftover, catalog.root / "ckpts", dry_run, yes)


def _sweep(entries: Sequence[Kept], ckpts: Path, dry_run: bool, yes: bool) -> None:
    from reeltune.library.cleanup import remove
    from reeltune.library.places import label

    if not entries:
        say("Nothing to delete.")
        return
    _print(entries, ckpts)
    say(f"\n{size(sum(row.bytes for row in entries))} {'would go' if dry_run else 'to delete'}.")
    if dry_run:
        return
    if not yes:
        typer.confirm("Delete them?", abort=True, err=True)
    failed = False
    for row in entries:
        if reason := remove(row):
            notice(f"{label(row.path, ckpts)} stays: {reason}.")
            failed = True
    say("Some files stay." if failed else "Deleted.")
    if failed:
        raise typer.Exit(1)


def verify(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="Ids (default: every file).")] = None,
    root: Root = None,
) -> None:
    """Read files in full and hold them against their sums and headers. Exit code 1 on any fault."""
    from reeltune.library.cleanup import listing
    from reeltune.library.places import label
    from reeltune.library.verify import verify as check

    catalog = open_catalog(root)
    for id in ids or []:
        catalog.files_of(id)
    entries = [row for row in listing(catalog) if not ids or set(ids) & set(row.users)]
    faults = count = 0
    ckpts = catalog.root / "ckpts"
    with interruptible() as cancel, showing() as listener:
        for entry in entries:
            verdicts = list(check(catalog, [entry], listener, cancel))
            bad = [row for row in verdicts if row.fault]
            count += len(verdicts)
            faults += len(bad)
            if verdicts and not bad:
                say(f"ok   {label(entry.path, ckpts)}: {_sound(verdicts)}")
            for row in bad:
                say(f"BAD  {label(row.path, ckpts)}: {row.fault}")
    say(f"{count} file(s) read, {faults} bad.")
    if faults:
        notice("Delete what is bad, and `reeltune pull` downloads it again. If you replaced a file yourself, delete")
        notice("ckpts/.index.sqlite, where sha256 are remembered.")
        raise typer.Exit(1)


def _sound(verdicts: Sequence[Verdict]) -> str:
    """What is known of a sound file, or of all files of a sound component."""
    files = f"{len(verdicts)} files, " if len(verdicts) > 1 else ""
    if all(row.known for row in verdicts):
        return f"{files}its sha256 is right" if not files else f"{files}their sha256 are right"
    stored = all(row.stored for row in verdicts)
    return f"{files}sound" + ("; its sha256 is remembered from now on" if stored else "; no sha256 to compare with")
