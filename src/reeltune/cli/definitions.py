"""`check` and `definitions copy`: the user's own definition files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reeltune.cli.options import AsJson, Id, Root, open_catalog
from reeltune.cli.output import notice, out, print_json, say

if TYPE_CHECKING:
    from reeltune.definitions import Catalog
    from reeltune.errors import Problem

_NAMED, _MANY = 6, 8  # files that a line about many names; as many have a line in common
definitions = typer.Typer(help="Definition files.", no_args_is_help=True)


def check(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Definition files, or folders of them (default: the root's finetunes/)."),
    ] = None,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Rewrite files pasted together from pieces as one JSON object; old texts are kept."),
    ] = False,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Check definition files: every problem with its place and its fix. Exit code 1 on any error."""
    from reeltune.definitions.checking import check_files, files_in

    catalog = open_catalog(root, quiet=True)
    own = catalog.root / "finetunes"
    if not paths and not own.is_dir():
        notice(f"There is no folder {own}: nothing to check.")
    paths = paths or [own] * own.is_dir()
    if fix and _repair(list(files_in(paths))):
        catalog = open_catalog(root, quiet=True)
    problems, count = check_files(catalog, paths)
    problems += _missing_files(catalog, list(files_in(paths)))
    errors = [problem for problem in problems if problem.severity == "error"]
    if as_json:
        keys = ("file", "where", "message", "fix", "severity")
        print_json([{key: getattr(problem, key) for key in keys} for problem in problems])
    else:
        for problem in _grouped(problems):
            _print_problem(problem)
        say(f"{count} definition(s) checked: {len(errors)} error(s), {len(problems) - len(errors)} warning(s).")
    if errors:
        raise typer.Exit(1)


def _repair(files: list[Path]) -> bool:
    """Repair what can be repaired, and report it; whether anything was."""
    from reeltune.definitions.writer import repair
    from reeltune.errors import ReeltuneError

    changed = False
    for path in files:
        try:
            kept = repair(path)
        except ReeltuneError:  # `check` reports it
            continue
        if kept is not None:
            changed = True
            notice(f"{path} is one JSON object now; its old text is in {kept.name}.")
    return changed


def _missing_files(catalog: Catalog, files: list[Path]) -> list[Problem]:
    """Paths on this machine that definitions list and that lead nowhere, or to what can't be used."""
    from reeltune.definitions.checking import load_definition
    from reeltune.errors import DefinitionError
    from reeltune.library.inventory import Inventory
    from reeltune.planning.local import local_problems
    from reeltune.preferences import load_preferences

    inventory = Inventory(catalog.root, load_preferences(catalog.root)[0].model_folders)
    found: list[Problem] = []
    for path in files:
        try:
            found += local_problems(load_definition(catalog, path), path, inventory)
        except DefinitionError:
            continue
    return found


def _grouped(problems: list[Problem]) -> list[Problem]:
    """The problems, with one line for all definitions of architectures that this program doesn't have."""
    from reeltune.definitions.catalog import UNKNOWN_ARCHITECTURE

    unknown = [row for row in problems if row.severity == "warning" and row.where == "model.architecture"]
    if len(unknown) < _MANY:
        return problems
    names = ", ".join(Path(row.file).name for row in unknown[:_NAMED])
    message = f"{len(unknown):,} definitions have {UNKNOWN_ARCHITECTURE}: {names} and {len(unknown) - _NAMED:,} more."
    folder = str(Path(unknown[0].file).parent)
    return [
        *(row for row in problems if row not in unknown),
        replace(unknown[0], file=folder, where="", message=message),
    ]


def _print_problem(problem: Problem) -> None:
    colour = "red" if problem.severity == "error" else "yellow"
    out.print(f"[{colour}]{problem.severity}[/] ", end="")
    say(str(problem))


@definitions.command("copy")
def copy(
    id: Id,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Id of the copy: its file name without .json.")],
    name: Annotated[str | None, typer.Option("--name", help="What the copy is called in lists.")] = None,
    root: Root = None,
) -> None:
    """Write finetunes/NEW.json, a complete definition of your own, equal to ID: a starting point for a finetune."""
    from reeltune.definitions.copying import copy_definition

    say(str(copy_definition(open_catalog(root), id, new, name or "")))
