"""The LoRAs on disk, which of them fit a model, and checks of those that were chosen.

for lora in loras_for(workspace, definition):
    print(lora.source, lora.reason or "fits")
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reeltune.checkpoints.formats import format_by_header
from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.identify import identify, original_shapes
from reeltune.checkpoints.keys import map_names
from reeltune.definitions import Definition, Version
from reeltune.definitions.slots import TRANSFORMER
from reeltune.errors import CheckpointError, ReeltuneError, SettingsError
from reeltune.families import FAMILIES, Family
from reeltune.files import is_file
from reeltune.jobs.confine import Confinement
from reeltune.library.folders import walk
from reeltune.library.inventory import PACKAGE_FILES, LoraInventory
from reeltune.planning.fit import reports_on_disk
from reeltune.planning.loras import PlannedLora, planned_loras
from reeltune.service.lora_files import LoraFacts, read_lora
from reeltune.service.workspace import Workspace

MAX_LORAS = 2_000  # that are read; others can still be named
_SUFFIX = ".safetensors"
_MAX_CACHED = 256  # models


@dataclass(frozen=True)
class LoraChoice:
    """A LoRA file on disk.

    `source`: how `activated_loras` names it: by its path in the folder of LoRAs, or by its absolute path. `own`:
    whether it is in the model's own folder. `reason`: why it can't be used with the model; empty if it can. `damaged`:
    whether it can't be used with any model.
    """

    source: str
    path: Path
    bytes: int
    own: bool
    reason: str = ""
    damaged: bool = False
    trigger: str = ""
    sample: str = ""

    @property
    def fits(self) -> bool:
        """Whether it can be used with the model, as far as its header tells."""
        return not self.reason


def loras_for(workspace: Workspace, definition: Definition) -> tuple[LoraChoice, ...]:
    """The LoRAs in the definition's folder and in all other folders of LoRAs, at most `MAX_LORAS`.

    For users from elsewhere only those that they may use, and that a relative path names.
    Those that fit the model come first, and of these those in its own folder. Damaged files are listed with the reason.
    Each header is read once, until the file changes. Raises PreferencesError.
    """
    folders = _folders(workspace, definition)
    size = _model_size(workspace, definition)
    family = definition.architecture.family
    own_folders = [folder for folder in folders if folder.name == definition.architecture.loras]
    files = walk(folders).by_name
    paths = [path for name, same in files.items() if name.lower().endswith(_SUFFIX) for path in same]
    paths.sort(key=lambda path: not _inside(path, own_folders))
    confinement = None if workspace.local else Confinement.of(workspace.root, workspace.preferences())
    choices = []
    for path in paths[:MAX_LORAS]:
        source = _source(path, folders)
        if confinement is not None and (Path(source).is_absolute() or not confinement.allows_lora(source)):
            continue  # it would be refused, and whoever comes from elsewhere learns no paths of this machine
        facts = read_lora(path)
        choices.append(
            LoraChoice(
                source=source,
                path=path,
                bytes=_bytes(path),
                own=_inside(path, own_folders),
                reason=facts.problem or _mismatch(facts, family, size),
                damaged=bool(facts.problem),
                trigger=facts.trigger,
                sample=facts.sample,
            )
        )
    return tuple(sorted(choices, key=lambda choice: (not choice.fits, not choice.own, choice.source.lower())))


def _folders(workspace: Workspace, definition: Definition) -> list[Path]:
    inventory = LoraInventory(workspace.root, definition.architecture.loras, workspace.preferences().model_folders)
    return [folder for folder in inventory.folders if folder != PACKAGE_FILES]


def _inside(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # deleted meanwhile
        return 0


def _source(path: Path, folders: Sequence[Path]) -> str:
    """The shortest text that stands for a file: LoRAs are looked for in each of the folders, in this order."""
    for folder in folders:
        if path.is_relative_to(folder):
            relative = path.relative_to(folder)
            found = (other / relative for other in folders if is_file(other / relative))
            if next(found, path) == path:
                return relative.as_posix()
    return str(path)


# --- what fits --------------------------------------------------------------------------------------------------


def _mismatch(facts: LoraFacts, family: Family, size: int | None) -> str:
    """Why a LoRA doesn't fit a model of this family and hidden size; empty if it fits, or if nothing tells."""
    if not facts.family:
        return "it belongs to a model of another kind"
    if facts.family != family.name:
        label = next(other.label for other in FAMILIES if other.name == facts.family)
        return f"it was made for {label}"
    if size is not None and facts.sides and size not in facts.sides:
        return f"it was made for a model of another size ({facts.sides[0]:,}, here {size:,})"
    return ""


def _model_size(workspace: Workspace, definition: Definition) -> int | None:
    """The hidden size of a model: that of its file if it is on disk, else that of the published models."""
    try:
        found = workspace.explain(definition).selection.choices[TRANSFORMER].facts.found
        if found is not None:
            status = found.path.stat()
            size = _size_of_file(found.path, status.st_size, status.st_mtime_ns, definition.architecture.family)
            return size or definition.architecture.signature.dim
    except (ReeltuneError, OSError, KeyError):  # the model can't run here, which is reported elsewhere
        pass
    return definition.architecture.signature.dim


@functools.lru_cache(maxsize=_MAX_CACHED)
def _size_of_file(path: Path, size: int, modified: int, family: Family) -> int | None:
    """The hidden size of a checkpoint. Its size and time are parameters so that changes are noticed."""
    header = read_header(path)
    identity = identify(header)
    names = map_names(header.tensors, family, identity.layout or "original", identity.prefix)
    return family.hidden_size(original_shapes(header, names, format_by_header(header)))


# --- checks -----------------------------------------------------------------------------------------------------


def check_loras(workspace: Workspace, definition: Definition, sources: Sequence[str]) -> list[str]:
    """Check LoRAs that were chosen, by their headers; returns notices about those that fit only in part.

    Files behind URLs are checked after their download. Raises SettingsError for a file that doesn't exist, may not be
    used, is damaged or another kind of file, or fits nothing of the model.
    """
    if not sources:
        return []
    if not workspace.local:
        confinement = Confinement.of(workspace.root, workspace.preferences())
        confinement.check_settings({"activated_loras": list(sources)})
    planned = planned_loras(definition, workspace.preferences(), sources)
    for lora in planned:
        if not lora.item.present and not Version(lora.item.url).remote:
            raise _unusable(workspace, definition, lora)
    return list(_partial_fits(workspace, definition, planned))


def _unusable(workspace: Workspace, definition: Definition, lora: PlannedLora) -> SettingsError:
    """The error for a LoRA whose file doesn't exist or can't be read."""
    if lora.item.obstacle:
        problem = lora.item.obstacle.replace(str(lora.item.path), lora.name)
        return SettingsError(f"The LoRA {lora.source} can't be used: {problem.removesuffix('.')}.")
    folder = f"loras/{definition.architecture.loras}/"
    message = f"{lora.source} isn't in {folder} or another folder of LoRAs."
    known = {choice.path.name: choice.source for choice in loras_for(workspace, definition) if choice.fits}
    similar = difflib.get_close_matches(lora.name[:100], known, n=1, cutoff=0.6)
    if similar:
        return SettingsError(message, hint=f"Did you mean {known[similar[0]]}?")
    return SettingsError(message, hint=f"Choose one from the list, enter a URL, or copy the file to {folder}.")


def _partial_fits(workspace: Workspace, definition: Definition, planned: Sequence[PlannedLora]) -> Iterator[str]:
    plan = workspace.explain(definition)
    others = [item for item in plan.items if item not in [lora.item for lora in plan.loras]]
    chosen = replace(plan, loras=tuple(planned), items=(*others, *(lora.item for lora in planned)))
    try:
        reports = reports_on_disk(chosen)
    except CheckpointError as error:
        message = error.message
        for lora in planned:
            message = message.replace(str(lora.item.path), lora.name)
        raise SettingsError(message, hint=error.hint) from error
    for lora, report in zip(planned, reports, strict=True):
        if report is not None and report.left:
            yield f"{lora.name}: {report}"
