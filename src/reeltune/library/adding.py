"""`add`: a weight file, here or behind a link, becomes a finetune definition; its header is all that is read."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reeltune.checkpoints.inspection import Inspection, inspect
from reeltune.checkpoints.names import SIXTEEN_BITS, base_name
from reeltune.definitions import Catalog, Definition
from reeltune.definitions.slots import TRANSFORMER, TRANSFORMER_2, has_modules
from reeltune.definitions.writer import create
from reeltune.errors import AmbiguousArchitecture, DefinitionError, UnsupportedFormat
from reeltune.files import expand
from reeltune.net import Session, file_url, run_within, shown, without_secrets
from reeltune.net.civitai import ResolvedFile, resolve
from reeltune.preferences import load_preferences

_TOKENS = re.compile(
    r"[_.-]?(quanto[_-]?)?(m?bf16|m?fp16|fp32|int8|fp8(_e4m3fn|_e5m2)?|scaled)(?![a-z0-9])", re.IGNORECASE
)
SECONDS = 60.0  # for all that is read of one file
_PART = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")


@dataclass(frozen=True)
class Looked:
    """A weight file looked at: where the definition will say it is, its name, and what its header tells."""

    url: str
    file_name: str
    inspection: Inspection

    @property
    def candidates(self) -> tuple[str, ...]:
        """Architectures it fits, the likeliest first. Several published models have the same header."""
        return self.inspection.identity.architectures


def look_at(catalog: Catalog, source: str, *, seconds: float = SECONDS) -> Looked:
    """Inspect a file or URL for `add`, for at most `seconds`.

    Raises CheckpointError, FetchError; UnsupportedFormat for what is no model.
    """
    url, name = _where(catalog.root, source)
    end = time.monotonic() + seconds
    with Session(tokens=load_preferences(catalog.root)[0].tokens) as session:
        real = _resolved(session, url, seconds) if "://" in url else None
        left = max(0.1, end - time.monotonic())
        inspection = inspect(real.url if real else expand(source), session=session, seconds=left)
    if real:
        inspection = replace(inspection, notices=(*inspection.notices, *real.notices))
    looked = Looked(url, (real.name if real else None) or name, inspection)
    if _PART.search(looked.file_name):
        raise UnsupportedFormat(
            f"{looked.file_name} is one part of a set.", hint="Join the parts into one safetensors file first."
        )
    if not looked.candidates:
        identity = looked.inspection.identity
        what = (
            f"a {identity.family} file of no known architecture" if identity.family else "no model this program knows"
        )
        raise UnsupportedFormat(f"{looked.file_name} is {what}.", hint="`reeltune inspect` tells what is in it.")
    return looked


def _resolved(session: Session, url: str, seconds: float) -> ResolvedFile:
    return run_within(seconds, lambda: resolve(session, url), stop=session.interrupt, name=shown(url))


def _where(root: Path, source: str) -> tuple[str, str]:
    """What a definition says for a source, and its file name: URLs lose their tokens, paths under the root it too."""
    if source.lower().startswith(("http://", "https://")):
        url = file_url(without_secrets(source))
        return url, base_name(url)
    path = Path(os.path.normpath(expand(source).absolute()))  # `..` would seem to stay inside the root
    inside = path.is_relative_to(root)
    return (path.relative_to(root).as_posix() if inside else str(path)), path.name


def add(
    catalog: Catalog, looked: Looked, *, architecture: str | None = None, id: str | None = None, name: str | None = None
) -> Path:
    """Write the definition of a file; returns its path.

    The id begins with the architecture's, as is the custom. Raises AmbiguousArchitecture where the header fits
    several and none is given, DefinitionError where the id exists or the architecture contradicts the header.
    """
    chosen = architecture or _only(looked)
    base, identity = _base(catalog, chosen), looked.inspection.identity
    merged = identity.role == "model" and _takes_modules(catalog, base, looked)
    if not merged and not identity.fits(base.architecture.id):
        listed = " or ".join(looked.candidates)
        message = f"{looked.file_name} can't be a {chosen}: its header says {listed}."
        raise DefinitionError(message, hint=f"--architecture {looked.candidates[0]}.")
    title = name or _TOKENS.sub("", Path(looked.file_name).stem).replace("_", " ").strip() or chosen
    path = catalog.root / "finetunes" / f"{definition_id(chosen, id or title)}.json"
    if path.stem in catalog:
        message = f"There is a definition {path.stem} already."
        raise DefinitionError(message, hint="Choose another with --id, or edit that one.")
    create(path, {"model": _model(base, chosen, looked, title, merged)})
    return path


def _only(looked: Looked) -> str:
    if len(looked.candidates) > 1:
        listed = ", ".join(looked.candidates)
        message = f"{looked.file_name} fits several architectures: {listed}."
        raise AmbiguousArchitecture(
            message, hint=f"Give one: --architecture {looked.candidates[0]}.", candidates=looked.candidates
        )
    return looked.candidates[0]


def _base(catalog: Catalog, chosen: str) -> Definition:
    """The base model an architecture's name stands for."""
    bases = {row.id for row in catalog.summaries() if row.kind == "base"}
    if chosen not in bases:
        known = ", ".join(sorted(bases))
        raise DefinitionError(f"{chosen!r} is no architecture or base model.", hint=f"Known: {known}.")
    return catalog[chosen]


def _takes_modules(catalog: Catalog, base: Definition, looked: Looked) -> bool:
    """Whether the file is what a base model merges its modules into, as any T2V model is for VACE."""
    if not has_modules(base.slots):
        return False
    siblings = _without_broken(
        catalog, [row.id for row in catalog.summaries() if row.kind == "base" and row.id != base.id]
    )
    return any(
        row.slots[TRANSFORMER] == base.slots[TRANSFORMER] and looked.inspection.identity.fits(row.architecture.id)
        for row in siblings
    )


def _without_broken(catalog: Catalog, ids: list[str]) -> Iterator[Definition]:
    """The definitions among `ids` that can be resolved: a user's override may have broken a base model."""
    for id in ids:
        with contextlib.suppress(DefinitionError):
            yield catalog[id]


def definition_id(architecture: str, text: str) -> str:
    """`t2v` and "Fusion X" -> `t2v_fusion_x`; a text that begins with the architecture keeps one of them."""
    slug = re.sub(r"[^a-z0-9.]+", "_", text.lower()).strip("_.") or "finetune"
    prefix = architecture.lower()
    slug = slug if slug == prefix or not slug.startswith(prefix + "_") else slug[len(prefix) + 1 :]
    return f"{architecture}_{slug}"[:120]


def _model(base: Definition, chosen: str, looked: Looked, name: str, merged: bool) -> dict[str, Any]:
    identity = looked.inspection.identity
    model: dict[str, Any] = {"name": name, "architecture": chosen, "description": ""}
    if identity.role == "module":
        second = {"URLs2": base.id} if TRANSFORMER_2 in base.slots else {}
        return model | {"URLs": base.id, **second, "modules": [[looked.url]]}
    model["URLs"] = [looked.url]
    if merged:
        model["modules"] = [base.id]
    if identity.quantization == SIXTEEN_BITS:
        model["auto_quantize"] = True  # who wishes int8 gets it while loading
    return model
