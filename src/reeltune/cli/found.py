"""`ls --all`: the checkpoints in all folders, and what each model saves by using them where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reeltune.cli.options import effective_preferences
from reeltune.cli.output import print_json, print_line, print_notice, print_table, size

if TYPE_CHECKING:
    from pathlib import Path

    from reeltune.definitions import Catalog
    from reeltune.library.found import FoundFile
    from reeltune.planning.savings import Savings
    from reeltune.untrusted import JsonObject


def list_everything(catalog: Catalog, *, as_json: bool) -> None:
    """Print every checkpoint by folder, what it is, and for each model the bytes that needn't be downloaded."""
    from reeltune.library.found import find_files
    from reeltune.library.inventory import Inventory
    from reeltune.planning.savings import savings_of

    preferences = effective_preferences(catalog.root)
    inventory = Inventory(catalog.root, preferences.model_folders)
    found = find_files(inventory)
    savings = savings_of(catalog, preferences, inventory)
    if as_json:
        print_json(
            {
                "files": [_file_json(file) for file in found.files],
                "models": [_savings_json(saved) for saved in savings],
                "notices": list(found.notices),
            }
        )
        return
    for folder in dict.fromkeys(file.folder for file in found.files):
        _print_folder(folder, [file for file in found.files if file.folder == folder])
    if not found.files:
        print_line("No checkpoints in ckpts/, the model folders and the Hub's cache.")
    rows = [(saved.id, size(saved.in_place), size(saved.missing), ", ".join(saved.subjects)) for saved in savings]
    if rows:
        print_line("")
        print_table(("MODEL", "USED WHERE IT IS", "TO DOWNLOAD", "PARTS"), rows)
    for notice in found.notices:
        print_notice(notice)


def _print_folder(folder: Path, files: list[FoundFile]) -> None:
    print_line(f"\n{folder}")
    rows = []
    for file in files:
        contents = "; ".join(file.contents) or "unknown"
        if file.problem:
            contents = f"can't be used: {file.problem}" if not file.contents else f"{contents}; {file.problem}"
        rows.append((file.path.relative_to(folder).as_posix(), size(file.bytes), file.format or "-", contents))
    print_table(("FILE", "SIZE", "FORMAT", "CONTENTS"), rows)


def _file_json(file: FoundFile) -> JsonObject:
    return {
        "folder": str(file.folder),
        "path": str(file.path),
        "bytes": file.bytes,
        "contents": list(file.contents),
        "format": file.format,
        "problem": file.problem,
    }


def _savings_json(saved: Savings) -> JsonObject:
    return {
        "id": saved.id,
        "bytes_in_place": saved.in_place,
        "bytes_to_download": saved.missing,
        "parts": list(saved.subjects),
    }
