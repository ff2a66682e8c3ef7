"""The versions that are missing when a definition is published, quantized by the code of `--save-quantized`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reeltune.definitions import Definition
from reeltune.errors import PublishError
from reeltune.events import CancelToken, Listener
from reeltune.preferences import Preferences
from reeltune.sharing.own_files import MissingVersion, OwnFile


def make_missing(
    definition: Definition,
    preferences: Preferences,
    missing: Sequence[MissingVersion],
    listener: Listener,
    cancel: CancelToken | None,
) -> tuple[OwnFile, ...]:
    """Quantize the missing versions into `ckpts`; the definition isn't changed.

    A file that was made before is verified and used again. Raises PublishError if a version can't be made, and what
    `save_quantized` raises.
    """
    from reeltune.weights.saving import make_files  # loads torch

    made: list[OwnFile] = []
    for dtype in dict.fromkeys(version.dtype for version in missing):
        slots = {version.slot for version in missing if version.dtype == dtype}
        savings = make_files(definition, replace(preferences, dtype=str(dtype)), listener=listener, cancel=cancel)
        files = [
            OwnFile("", saving.target, saving.slot, f"int8-{dtype}")
            for saving in savings
            if saving.slot in slots and saving.dtype == dtype
        ]
        if {file.role for file in files} != slots:
            message = f"The version int8-{dtype} of {definition.id} can't be made; the notices tell the reason."
            raise PublishError(message, hint="Leave it out of --versions.")
        made += files
    return tuple(made)
