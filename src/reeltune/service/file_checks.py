"""Checks the files and URLs of a new finetune before it is written: what they are and which base models they fit."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from reeltune._text import size
from reeltune.definitions import Definition
from reeltune.definitions.slots import TRANSFORMER, TRANSFORMER_2, Slot, has_modules, role_of
from reeltune.dtypes import Quantization
from reeltune.errors import DefinitionError, FetchError, ReeltuneError, Unreachable
from reeltune.files import expand
from reeltune.library.adding import InspectedFile, inspect_source
from reeltune.planning.contradiction import contradiction
from reeltune.service.finetunes import NewFinetune, allowed_source, nonempty_lines
from reeltune.service.workspace import Workspace

MODULES = Slot("modules")  # any module
_TOTAL_SECONDS = 60.0  # for all lines of a text box
_SECONDS_PER_FILE = 20.0


@dataclass(frozen=True)
class FileCheck:
    """The result of checking a file or URL.

    `facts`: what it is, in words. `objection`: why it doesn't fit the base model or can't be used; empty if it fits.
    `unknown`: whether it could not be read at this time. `fits`: ids of the base models that it fits.
    """

    name: str
    facts: tuple[str, ...] = ()
    objection: str = ""
    unknown: bool = False
    fits: tuple[str, ...] = ()


class FileNotChecked(DefinitionError):
    """A file of a new finetune could not be read at this time, because its server doesn't answer, for example."""


def check_new_finetune(workspace: Workspace, base: Definition, new: NewFinetune) -> list[FileCheck]:
    """Check all files and URLs of a new finetune."""
    boxes = ((new.urls, TRANSFORMER), (new.urls2, TRANSFORMER_2), (new.modules, MODULES))
    return [result for text, slot in boxes for result in check_files(workspace, base, text, slot)]


def check_files(workspace: Workspace, base: Definition, text: str, slot: Slot) -> list[FileCheck]:
    """Check the files and URLs in the lines of a text, for at most a minute however slow their servers are."""
    deadline = time.monotonic() + _TOTAL_SECONDS
    return [_check_file(workspace, base, source, slot, deadline) for source in nonempty_lines(text)]


def _check_file(workspace: Workspace, base: Definition, source: str, slot: Slot, deadline: float) -> FileCheck:
    if slot.is_module and source in workspace.catalog():
        return FileCheck(source, ("the modules of that definition",))
    try:
        inspected = _read(workspace, allowed_source(workspace, source), deadline)
    except FetchError as error:
        return FileCheck(source, objection=str(error), unknown=True)
    except ReeltuneError as error:
        return FileCheck(source, objection=str(error))
    identity = inspected.inspection.identity
    objection = contradiction(identity, base.architecture, role_of(slot, base.slots))
    fits = _fitting_bases(workspace, inspected, slot)
    return FileCheck(inspected.file_name, _facts(inspected), objection, fits=fits)


def _read(workspace: Workspace, source: str, deadline: float) -> InspectedFile:
    """Read the header of a file or URL. Raises FetchError, ReeltuneError."""
    seconds = min(_SECONDS_PER_FILE, deadline - time.monotonic())
    if seconds <= 0:
        raise Unreachable("It was not checked, because the servers of other files took too long.")
    if "://" not in source and not Path(source).is_absolute():
        source = str(workspace.root / expand(source))
    return inspect_source(workspace.catalog(), source, seconds=seconds)


def _fitting_bases(workspace: Workspace, inspected: InspectedFile, slot: Slot) -> tuple[str, ...]:
    """The base models that a file fits in a slot, first those whose architecture it is recognized as."""
    identity = inspected.inspection.identity
    recognized: list[str] = []
    others: list[str] = []
    for summary in workspace.catalog().summaries():
        if summary.kind != "base" or not summary.runnable:
            continue
        base = workspace.catalog()[summary.id]
        has_slot = has_modules(base.slots) if slot.is_module else slot in base.slots
        if has_slot and not contradiction(identity, base.architecture, role_of(slot, base.slots)):
            found = recognized if base.architecture.id in inspected.candidates else others
            found.append(summary.id)
    return (*recognized, *others)


def require_fitting(
    workspace: Workspace, base: Definition, checks: list[FileCheck], *, require_checked: bool = True
) -> None:
    """Raise DefinitionError for a file that doesn't fit the base model.

    Raises FileNotChecked, if `require_checked`, for a file that could not be read.
    """
    for check in checks:
        if check.unknown and require_checked:
            message = f"{check.name} could not be checked: {check.objection}"
            raise FileNotChecked(message, hint="Try again later, or create the finetune without this check.")
        if check.objection and not check.unknown:
            names = [workspace.catalog()[id].name for id in check.fits]
            hint = f"Choose a base model that it fits: {', '.join(names)}." if names else "Enter another file."
            raise DefinitionError(f"{check.name} does not fit {base.name}: {check.objection}", hint=hint)


def _facts(inspected: InspectedFile) -> tuple[str, ...]:
    identity = inspected.inspection.identity
    quantization = "16 bits or more" if identity.quantization == Quantization.NONE else identity.quantization
    amount = f"{identity.parameters:,} parameters, {size(identity.bytes)}"
    architectures = " or ".join(inspected.candidates)
    data_type = identity.dtype or "data type unknown"
    return (architectures, data_type, quantization, amount, *inspected.inspection.notices)
