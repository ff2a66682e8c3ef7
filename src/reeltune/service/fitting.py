"""Files and URLs of a new finetune, looked into before it is written: what they are, and which base models they fit."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from reeltune._text import size
from reeltune.checkpoints.identify import Identity
from reeltune.checkpoints.names import SIXTEEN_BITS
from reeltune.definitions import Definition
from reeltune.definitions.slots import Slot, has_modules, role_of
from reeltune.errors import DefinitionError, FetchError, ReeltuneError, Unreachable
from reeltune.files import expand
from reeltune.library.adding import InspectedFile, inspect_source
from reeltune.planning.choose import contradiction
from reeltune.service.finetunes import Wanted, allowed, lines
from reeltune.service.studio import Studio

_SECONDS = 60.0  # for all lines of a text box
_SECONDS_EACH = 20.0


@dataclass(frozen=True)
class Seen:
    """A file or URL that was looked into. `facts`: what it is, in words. `objection`: why it doesn't fit the base, or
    can't be used; empty where it fits. `unknown`: it couldn't be looked into now. `fits`: ids of base models it fits.
    """

    name: str
    facts: tuple[str, ...] = ()
    objection: str = ""
    unknown: bool = False
    fits: tuple[str, ...] = ()


def inspected(studio: Studio, base: Definition, text: str, slot: str) -> list[Seen]:
    """Every file or URL of a text box, looked into; for no longer than a minute, however slow their servers are."""
    end = time.monotonic() + _SECONDS
    return [_inspected(studio, base, row, slot, end) for row in lines(text)]


def _inspected(studio: Studio, base: Definition, source: str, slot: str, end: float) -> Seen:
    if slot == "modules" and source in studio.catalog():
        return Seen(source, ("the modules of that definition",))
    try:
        source = allowed(studio, source)
        inside = "://" in source or Path(source).is_absolute()
        left = min(_SECONDS_EACH, end - time.monotonic())
        if left <= 0:
            raise Unreachable("It was not looked into, as the servers of others took too long.")
        path = source if inside else str(studio.root / expand(source))
        looked = inspect_source(studio.catalog(), path, seconds=left)
    except FetchError as error:
        return Seen(source, objection=str(error), unknown=True)
    except ReeltuneError as error:
        return Seen(source, objection=str(error))
    identity = looked.inspection.identity
    role = role_of(Slot(slot), base.slots)
    objection = contradiction(identity, base.architecture, role)
    return Seen(looked.file_name, tuple(_facts(looked)), objection, fits=fitting(studio, identity, slot))


def fitting(studio: Studio, identity: Identity, slot: str) -> tuple[str, ...]:
    """The base models that a file of this identity fits in a slot."""
    found = []
    for row in studio.catalog().summaries():
        if row.kind != "base" or not row.runnable:
            continue
        base = studio.catalog()[row.id]
        role = role_of(Slot(slot), base.slots)
        has = slot in base.slots or (Slot(slot).is_module and has_modules(base.slots))
        if has and not contradiction(identity, base.architecture, role):
            found.append(row.id)
    return tuple(found)


def looked_into(studio: Studio, base: Definition, wanted: Wanted) -> list[Seen]:
    """All files and URLs that a finetune would list."""
    boxes = ((wanted.urls, "transformer"), (wanted.urls2, "transformer_2"), (wanted.modules, "modules"))
    return [seen for content, slot in boxes for seen in inspected(studio, base, content, slot)]


def refuse_misfits(studio: Studio, base: Definition, seen: list[Seen], *, unknown: bool) -> None:
    """Raise DefinitionError for a file that doesn't fit the base, NotLookedInto, where `unknown`, for one that couldn't
    be looked into.
    """
    for row in seen:
        if row.objection and not row.unknown:
            names = [studio.catalog()[id].name for id in row.fits]
            hint = f"Choose what it fits under “Based on”: {', '.join(names)}." if names else "Give another file."
            raise DefinitionError(f"{row.name} doesn't fit {base.name}: {row.objection}", hint=hint)
        if row.unknown and unknown:
            message = f"{row.name} couldn't be looked into: {row.objection}"
            raise NotLookedInto(message, hint="“Create anyway” writes the definition unchecked.")


class NotLookedInto(DefinitionError):
    """A file of a new definition couldn't be looked into now."""


def _facts(looked: InspectedFile) -> list[str]:
    identity = looked.inspection.identity
    quantization = "16 bits or more" if identity.quantization == SIXTEEN_BITS else identity.quantization
    what = " or ".join(looked.candidates)
    parts = f"{identity.parameters:,} parameters, {size(identity.bytes)}"
    return [what, identity.dtype or "data type unknown", quantization, parts, *looked.inspection.notices]
