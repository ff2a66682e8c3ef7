"""A working folder that was never used: its folders, with a note in each that shows what belongs there."""

from __future__ import annotations

import contextlib
from pathlib import Path

from reeltune.errors import FileError
from reeltune.files import write_atomic

_NOTE = "README.txt"
_NOTES = {
    "finetunes": """Your finetune definitions: JSON files, one for each model. Files in subfolders are not read.

    reeltune add FILE|URL              writes one for a weight file
    reeltune definitions copy ID NEW   writes one equal to another, to start from
    reeltune check                     names every mistake in them
""",
    "settings": """Settings that models start from, where they differ from their definitions': ID_settings.json.

    reeltune settings export ID        writes the settings that a model starts from
    reeltune settings export --all     writes those of every model
    Delete a file, and the model starts from its definition again.
""",
}


def prepare_root(root: Path) -> None:
    """Make the folders that users put files into, where they don't exist; a folder that can't be written is left."""
    for name, note in _NOTES.items():
        folder = root / name
        if not folder.exists() and not folder.is_symlink():
            with contextlib.suppress(FileError):  # what needs the folder reports it
                write_atomic(folder / _NOTE, note.encode("utf-8"))
