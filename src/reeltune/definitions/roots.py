"""The first use of a working folder: create its subfolders, each with a README about its content."""

from __future__ import annotations

import contextlib
from pathlib import Path

from reeltune.errors import FileError
from reeltune.files import write_atomic

_NOTE = "README.txt"
_NOTES = {
    "finetunes": """Your finetune definitions: one JSON file for each model. Files in subfolders are not read.

    reeltune add FILE|URL              write a definition for a weight file
    reeltune definitions copy ID NEW   write a copy of another definition
    reeltune check                     report all mistakes in definitions
""",
    "settings": """Your default settings of models, in files named ID_settings.json. They override the definitions'.

    reeltune settings export ID        write the default settings of a model
    reeltune settings export --all     write those of all models
    Delete a file to use the settings of the definition again.
""",
}


def prepare_root(root: Path) -> None:
    """Create the folders for users' files where they don't exist; a folder that can't be written is skipped."""
    for name, note in _NOTES.items():
        folder = root / name
        if not folder.exists() and not folder.is_symlink():
            with contextlib.suppress(FileError):  # reported by the first operation that needs the folder
                write_atomic(folder / _NOTE, note.encode("utf-8"))
