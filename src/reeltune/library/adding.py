"""`add`: create a finetune definition for a weight file on disk or behind a URL. Only the file's header is read."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from reeltune.checkpoints.inspection import Inspection, inspect
from reeltune.checkpoints.names import base_name
from reeltune.definitions import Catalog, Definition
from reeltune.definitions.slots import TRANSFORMER, TRANSFORMER_2, has_modules
from reeltune.definitions.writer import create
from reeltune.dtypes import Quantization
from reeltune.errors import AmbiguousArchitecture, DefinitionError, UnsupportedFormat
from reeltune.files import expand
from reeltune.net import Session, file_url, run_within, shown, without_secrets
from reeltune.net.civitai import ResolvedFile, resolve
from reeltune.preferences import load_preferences
from reeltune.untrusted import JsonObject

_FORMAT_TOKENS = re.compile(
    r"[_.-]?(quanto[_-]?)?(m?bf16|m?fp16|fp32|int8|fp8(_e4m3fn|_e5m2)?|scaled|(ud-)?i?q\d_(k(_(xs|s|m|l|xl))?|[01]|nl|xs)|f16)"
    r"(?![a-z0-9])",
    re.IGNORECASE,
)
_PART_OF_SEVERAL = re.compile(r"-\d{5}-of-\d{5}\.(safetensors|gguf)$")
_MIN_SECONDS = 0.1
_MAX_ID_LENGTH = 120
INSPECTION_SECONDS = 60.0  # for all requests and reads of one file


@dataclass(frozen=True)
class InspectedFile:
    """A weight file whose header was read.

    `url`: the URL or path that the definition will list.
    """

    url: str
    file_name: str
    inspection: Inspection

    @property
    def candidates(self) -> tuple[str, ...]:
        """The architectures that the header fits, most likely first. Several published models have equal headers."""
        return self.inspection.identity.architectures


def inspect_source(catalog: Catalog, source: str, *, seconds: float = INSPECTION_SECONDS) -> InspectedFile:
    """Inspect a weight file, given by its path or URL, for at most `seconds`.

    Raises CheckpointError or FetchError if the header can't be read, and UnsupportedFormat if the file is not a
    complete model of a known architecture.
    """
    url, name = listed_location(catalog.root, source)
    end = time.monotonic() + seconds
    preferences, _ = load_preferences(catalog.root)
    with Session(tokens=preferences.tokens) as session:
        if "://" in url:
            resolved = _resolve(session, url, seconds)
            remaining = max(_MIN_SECONDS, end - time.monotonic())
            inspection = inspect(resolved.url, session=session, seconds=remaining)
            inspection = replace(inspection, notices=(*inspection.notices, *resolved.notices))
            name = resolved.name or name
        else:
            inspection = inspect(expand(source), session=session, seconds=seconds)
    inspected = InspectedFile(url, name, inspection)
    _check_supported(inspected)
    return inspected


def _check_supported(inspected: InspectedFile) -> None:
    """Raise UnsupportedFormat unless the file is a complete model of a known architecture."""
    if _PART_OF_SEVERAL.search(inspected.file_name):
        message = f"{inspected.file_name} is one part of a model that is split into several files."
        raise UnsupportedFormat(message, hint="Join the parts into one file first.")
    if not inspected.candidates:
        family = inspected.inspection.identity.family
        message = f"{inspected.file_name} is not a model that reeltune knows."
        if family:
            message = f"{inspected.file_name} is a {family} file, but not of a known architecture."
        raise UnsupportedFormat(message, hint="`reeltune inspect` shows what it contains.")


def _resolve(session: Session, url: str, seconds: float) -> ResolvedFile:
    return run_within(seconds, lambda: resolve(session, url), stop=session.interrupt, name=shown(url))


def listed_location(root: Path, source: str) -> tuple[str, str]:
    """The URL or path that a definition lists for a source, and the file name.

    Tokens are removed from URLs; paths below the root become relative to it.
    """
    if source.lower().startswith(("http://", "https://")):
        url = file_url(without_secrets(source))
        return url, base_name(url)
    path = Path(os.path.normpath(expand(source).absolute()))  # otherwise `..` could seem to stay below the root
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix(), path.name
    return str(path), path.name


def add(
    catalog: Catalog,
    inspected: InspectedFile,
    *,
    architecture: str | None = None,
    id: str | None = None,
    name: str | None = None,
) -> Path:
    """Write the definition of a weight file and return its path. Raises as `planned_definition`."""
    path, model = planned_definition(catalog, inspected, architecture=architecture, id=id, name=name)
    create(path, {"model": model})
    return path


def planned_definition(
    catalog: Catalog,
    inspected: InspectedFile,
    *,
    architecture: str | None = None,
    id: str | None = None,
    name: str | None = None,
) -> tuple[Path, JsonObject]:
    """The path and the `model` object of the definition that `add` would write.

    By convention the id starts with the architecture. Raises AmbiguousArchitecture if the header fits several
    architectures and `architecture` is None, and DefinitionError if the id exists already or `architecture`
    contradicts the header.
    """
    chosen = architecture or _only_architecture(inspected)
    base = _base_model(catalog, chosen)
    identity = inspected.inspection.identity
    merges_modules = identity.role == "model" and _is_base_for_modules(catalog, base, inspected)
    if not merges_modules and not identity.fits(base.architecture.id):
        candidates = " or ".join(inspected.candidates)
        message = f"{inspected.file_name} is not a {chosen} model: its header is that of {candidates}."
        raise DefinitionError(message, hint=f"Use --architecture {inspected.candidates[0]}.")
    title = name or _title(inspected) or chosen
    path = unused_path(catalog, definition_id(chosen, id or title))
    return path, _model_section(base, chosen, inspected, title, merges_modules)


def unused_path(catalog: Catalog, id: str) -> Path:
    """The path of a new definition. Raises DefinitionError if its id exists already."""
    path = catalog.root / "finetunes" / f"{id}.json"
    if id in catalog or path.exists():
        message = f"The definition {id} exists already."
        raise DefinitionError(message, hint="Choose another id with --id, or edit the existing definition.")
    return path


def _title(inspected: InspectedFile) -> str:
    """A title made from the file name, without its data types and quantization."""
    return _FORMAT_TOKENS.sub("", Path(inspected.file_name).stem).replace("_", " ").strip()


def _only_architecture(inspected: InspectedFile) -> str:
    candidates = inspected.candidates
    if len(candidates) > 1:
        message = f"{inspected.file_name} fits several architectures: {', '.join(candidates)}."
        hint = f"Choose one, such as --architecture {candidates[0]}."
        raise AmbiguousArchitecture(message, hint=hint, candidates=candidates)
    return candidates[0]


def _base_model(catalog: Catalog, architecture: str) -> Definition:
    """The base model with the name of an architecture. Raises DefinitionError if there is none."""
    base_ids = _base_model_ids(catalog)
    if architecture not in base_ids:
        message = f"{architecture!r} is not an architecture or a base model."
        raise DefinitionError(message, hint=f"Known: {', '.join(sorted(base_ids))}.")
    return catalog[architecture]


def _base_model_ids(catalog: Catalog) -> list[str]:
    return [summary.id for summary in catalog.summaries() if summary.kind == "base"]


def _is_base_for_modules(catalog: Catalog, base: Definition, inspected: InspectedFile) -> bool:
    """Whether the file is a model that `base` merges its modules into, as VACE does with any T2V model."""
    if not has_modules(base.slots):
        return False
    identity = inspected.inspection.identity
    other_ids = [id for id in _base_model_ids(catalog) if id != base.id]
    return any(
        other.slots[TRANSFORMER] == base.slots[TRANSFORMER] and identity.fits(other.architecture.id)
        for other in _resolvable(catalog, other_ids)
    )


def _resolvable(catalog: Catalog, ids: list[str]) -> Iterator[Definition]:
    """The definitions of `ids` that can be resolved: a user's override may have broken a base model."""
    for id in ids:
        with contextlib.suppress(DefinitionError):
            yield catalog[id]


def definition_id(architecture: str, text: str) -> str:
    """The id of a new definition: `t2v` and "Fusion X" give `t2v_fusion_x`.

    A text that starts with the architecture doesn't repeat it.
    """
    slug = re.sub(r"[^a-z0-9.]+", "_", text.lower()).strip("_.") or "finetune"
    prefix = architecture.lower() + "_"
    return f"{architecture}_{slug.removeprefix(prefix)}"[:_MAX_ID_LENGTH]


def _model_section(
    base: Definition, architecture: str, inspected: InspectedFile, name: str, merges_modules: bool
) -> JsonObject:
    """The `model` object of the new definition."""
    identity = inspected.inspection.identity
    model: JsonObject = {"name": name, "architecture": architecture, "description": ""}
    if identity.role == "module":
        model["URLs"] = base.id
        if TRANSFORMER_2 in base.slots:
            model["URLs2"] = base.id
        model["modules"] = [[inspected.url]]
        return model
    model["URLs"] = [inspected.url]
    if merges_modules:
        model["modules"] = [base.id]
    if identity.quantization == Quantization.NONE:
        model["auto_quantize"] = True  # so that users who prefer int8 get it while loading
    return model
