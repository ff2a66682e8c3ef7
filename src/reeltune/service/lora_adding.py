"""Adding a LoRA that was uploaded to the folder of a model's LoRAs."""

from __future__ import annotations

import shutil
from pathlib import Path

from reeltune.definitions import Definition
from reeltune.errors import SettingsError
from reeltune.files import is_file, reason
from reeltune.service.drafts import Message, VideoDraft
from reeltune.service.fields import FormValues, displayed_settings
from reeltune.service.loras import check_loras
from reeltune.service.uploads import uploaded_file
from reeltune.service.workspace import Workspace

_MARK = 8  # characters of the sha256 in the name of a second file of the same name


def draft_with_lora(
    workspace: Workspace, draft: VideoDraft, definition: Definition, form_values: FormValues, upload: str
) -> VideoDraft:
    """The draft with an uploaded LoRA added to those of the form. `upload`: the path of the file.

    Raises SettingsError for a file that isn't a LoRA of the model, MediaError if the upload no longer exists.
    """
    name = add_lora(workspace, definition, upload)
    current = {**draft.settings, **{key: value for key, value in form_values.items() if value is not None}}
    loras = [*(current.get("activated_loras") or [])]
    if name not in loras:
        loras.append(name)
    settings = displayed_settings({**current, "activated_loras": loras}, definition.architecture)
    message = Message(f"{name} is in loras/{definition.architecture.loras}/ and applied with the weight 1.")
    return draft.with_changes(settings=settings, message=message)


def add_lora(workspace: Workspace, definition: Definition, upload: str) -> str:
    """Move an uploaded LoRA to the folder of the model's LoRAs; returns its name there.

    Another file of the same name stays, and the new one gets a name of its own. Raises as `draft_with_lora`.
    """
    if not workspace.local:
        message = "LoRAs can only be added on the machine that makes the videos."
        raise SettingsError(message, hint="Enter the URL of the LoRA instead.")
    source = uploaded_file(workspace, upload)
    check_loras(workspace, definition, [str(source)])
    folder = workspace.root / "loras" / definition.architecture.loras
    try:
        folder.mkdir(parents=True, exist_ok=True)
        target = _target(folder, source)
        if not is_file(target):
            shutil.move(source, target)
    except OSError as error:
        message = f"{source.name} can't be stored in {folder}: {reason(error)}."
        raise SettingsError(message, hint="Check the folder and the disk.") from error
    return target.name


def _target(folder: Path, source: Path) -> Path:
    """Where an upload goes. Its folder among the uploads is named by the sha256 of its content."""
    target = folder / source.name
    if not is_file(target) or _equal(target, source):
        return target
    return folder / f"{source.stem}-{source.parent.name[:_MARK]}{source.suffix}"


def _equal(one: Path, other: Path) -> bool:
    """Whether two files have the same content."""
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        while block := first.read(1 << 20):
            if block != second.read(1 << 20):
                return False
    return True
