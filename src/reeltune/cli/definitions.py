"""`check` and `definitions copy`: the user's own definition files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reeltune._text import counted
from reeltune.cli.options import AsJson, Id, Root, open_catalog
from reeltune.cli.output import out, print_json, print_line, print_notice

if TYPE_CHECKING:
    from reeltune.definitions import Catalog
    from reeltune.errors import Problem

_MIN_GROUP = 8  # definitions with an unknown architecture that share one line
_MAX_NAMES = 6  # names in that line
definitions = typer.Typer(help="Manage definition files.", no_args_is_help=True)


def check(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH", help="Definition files or folders (default: finetunes/ in the root)."),
    ] = None,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix",
            help="If a file consists of several JSON pieces, join them into one object; the old text is kept.",
        ),
    ] = False,
    online: Annotated[
        bool,
        typer.Option("--online", help="Also compare with what is behind the URLs: dead links, sizes, headers, names."),
    ] = False,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Check definition files and show each problem with its place and fix. Exit code 1 if there are errors."""
    from reeltune.definitions.checking import check_files, files_in

    catalog = open_catalog(root, quiet=True)
    paths = paths or _default_paths(catalog)
    if fix and _repair(list(files_in(paths))):
        catalog = open_catalog(root, quiet=True)
    problems, count = check_files(catalog, paths)
    problems += _local_problems(catalog, list(files_in(paths)))
    if online:
        problems += _online_problems(catalog, list(files_in(paths)))
    errors = [problem for problem in problems if problem.severity == "error"]
    if as_json:
        keys = ("file", "where", "message", "fix", "severity")
        print_json([{key: getattr(problem, key) for key in keys} for problem in problems])
    else:
        for problem in _grouped(problems):
            _print_problem(problem)
        counts = f"{counted(len(errors), 'error')}, {counted(len(problems) - len(errors), 'warning')}"
        print_line(f"{counted(count, 'definition')} checked: {counts}.")
    if errors:
        raise typer.Exit(1)


def _default_paths(catalog: Catalog) -> list[Path]:
    folder = catalog.root / "finetunes"
    if folder.is_dir():
        return [folder]
    print_notice(f"The folder {folder} doesn't exist: there is nothing to check.")
    return []


def _repair(files: list[Path]) -> bool:
    """Repair the files that can be repaired, and report them. Returns whether any file was changed."""
    from reeltune.definitions.writer import repair
    from reeltune.errors import ReeltuneError

    changed = False
    for path in files:
        try:
            backup = repair(path)
        except ReeltuneError:  # `check` reports it
            continue
        if backup is not None:
            changed = True
            print_notice(f"{path} is one JSON object now; the old file is kept as {backup.name}.")
    return changed


def _local_problems(catalog: Catalog, files: list[Path]) -> list[Problem]:
    """Problems with files on this machine that definitions list."""
    from reeltune.definitions.checking import load_definition
    from reeltune.errors import DefinitionError
    from reeltune.library.inventory import Inventory
    from reeltune.planning.local import local_problems
    from reeltune.preferences import load_preferences

    preferences, _ = load_preferences(catalog.root)
    inventory = Inventory(catalog.root, preferences.model_folders)
    problems: list[Problem] = []
    for path in files:
        try:
            problems += local_problems(load_definition(catalog, path), path, inventory)
        except DefinitionError:  # `check` reports it
            continue
    return problems


def _online_problems(catalog: Catalog, files: list[Path]) -> list[Problem]:
    """Problems with the URLs that definitions list."""
    from reeltune.cli.output import interruptible
    from reeltune.definitions.checking import load_definition
    from reeltune.errors import DefinitionError
    from reeltune.net import refuse_offline
    from reeltune.preferences import load_preferences
    from reeltune.sharing.online import online_problems

    refuse_offline("Nothing can be checked online: reeltune is offline.")
    preferences, _ = load_preferences(catalog.root)
    definitions = []
    for path in files:
        try:
            definitions.append((load_definition(catalog, path), path))
        except DefinitionError:  # `check` reports it
            continue
    with interruptible() as cancel:
        return online_problems(definitions, preferences.tokens, cancel=cancel)


def _grouped(problems: list[Problem]) -> list[Problem]:
    """The problems, where many definitions with unknown architectures share one line."""
    from reeltune.definitions.catalog import UNKNOWN_ARCHITECTURE

    unknown = [
        problem for problem in problems if problem.severity == "warning" and problem.where == "model.architecture"
    ]
    if len(unknown) < _MIN_GROUP:
        return problems
    names = ", ".join(Path(problem.file).name for problem in unknown[:_MAX_NAMES])
    message = (
        f"{len(unknown):,} definitions have {UNKNOWN_ARCHITECTURE}: {names} and {len(unknown) - _MAX_NAMES:,} more."
    )
    folder = str(Path(unknown[0].file).parent)
    others = [problem for problem in problems if problem not in unknown]
    return [*others, replace(unknown[0], file=folder, where="", message=message)]


def _print_problem(problem: Problem) -> None:
    color = "red" if problem.severity == "error" else "yellow"
    out.print(f"[{color}]{problem.severity}[/] ", end="")
    print_line(str(problem))


@definitions.command("copy")
def copy(
    id: Id,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Id of the copy: its file name without .json.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Name to show for the copy (default: from the original).")
    ] = None,
    root: Root = None,
) -> None:
    """Copy a definition to finetunes/NEW.json, as a starting point for a finetune of your own."""
    from reeltune.definitions.copying import copy_definition

    path = copy_definition(open_catalog(root), id, new, name or "")
    print_line(str(path))
