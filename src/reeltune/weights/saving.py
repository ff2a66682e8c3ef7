"""`--save-quantized`: from a definition's 16-bit files to quanto int8 ones in `ckpts/`, listed in the definition.

What can't be done is explained, never half done: files are listed only after all of them were verified, the edit keeps
everything else in the definition as it is, and lists of built-in or referenced definitions are never touched: an
override is written to `finetunes/<id>.json` instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from reeltune.checkpoints.names import QUANTO_INT8, quantized_name, read_name
from reeltune.definitions import Definition, Version, load_catalog
from reeltune.definitions.schema import MODEL_KEY
from reeltune.definitions.slots import TRANSFORMER, TRANSFORMER_2, has_modules
from reeltune.definitions.writer import create, edit
from reeltune.events import CancelToken, Listener, Notice, ignore
from reeltune.fetch import pull
from reeltune.library.inventory import Inventory
from reeltune.machine import Machine
from reeltune.planning.plan import Explanation, explain
from reeltune.preferences import Preferences
from reeltune.weights.parts import name_of_all
from reeltune.weights.quantize import check, quantize

KEYS = {TRANSFORMER: "URLs", TRANSFORMER_2: "URLs2"}


@dataclass(frozen=True)
class Saving:
    """A file to make: the definition's key whose list it joins, the entry there and the file it is made from, its place
    and its data type. `lost`: the file that is listed already but isn't there, if any.
    """

    key: str
    url: str
    source: Path
    target: Path
    dtype: str
    lost: str = ""


def plan_saving(explanation: Explanation) -> tuple[list[Saving], list[str]]:
    """What is to be made of a choice (of 16 bits), and why nothing is of the rest."""
    definition, choices = explanation.definition, explanation.selection.choices
    if has_modules(definition.slots):
        return [], [f"{definition.id} merges modules, which keep files of their own (`reeltune quantize FILE`)."]
    plan, reasons = list[Saving](), []
    for slot, key in KEYS.items():
        if slot not in choices:
            continue
        choice = choices[slot]
        int8 = [row for row in definition.slots[slot] if _int8_dtype(explanation, row) == choice.dtype]
        listed = [row.file_name for row in int8 if row.remote or _is_here(explanation, row)]
        if listed:
            reasons.append(f"{definition.id} lists an int8 version in {choice.dtype} already: {listed[0]}.")
        elif choice.quantization == QUANTO_INT8:
            reasons.append(f"{definition.id} lists no 16-bit version under {key} that could be quantized.")
        else:
            source = next(item.path for item in explanation.items if item.subject == slot)
            target = definition.root / "ckpts" / quantized_name(name_of_all(source), choice.dtype)
            if target in [row.target for row in plan]:
                reasons.append(f"the file of {key} would be called {target.name} as well: rename its source.")
            else:
                lost = next((row.url for row in int8), "")
                plan.append(Saving(key, choice.version.url, source, target, choice.dtype, lost))
    return plan, reasons


def _is_here(explanation: Explanation, version: Version) -> bool:
    definition = explanation.definition
    return Inventory(definition.root, explanation.preferences.model_folders).find_version(version)[0] is not None


def _int8_dtype(explanation: Explanation, version: Version) -> str | None:
    """What a version computes in if it is quanto int8, by its header where the file is here, else by its name."""
    definition = explanation.definition
    found, _ = Inventory(definition.root, explanation.preferences.model_folders).find_version(version)
    if found is not None and found.identity is not None:
        return found.identity.dtype if found.identity.quantization == QUANTO_INT8 else None
    name = read_name(version.url)
    return (name.dtype or "bf16") if name.quantization == QUANTO_INT8 else None


def save_quantized(
    definition: Definition,
    preferences: Preferences,
    *,
    machine: Machine | None = None,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
) -> list[Path]:
    """Make the int8 versions of a definition's 16-bit files and list them; reports what it does, or why nothing.

    The data type is the one that would be run in; whatever quantization is preferred, the sources are 16-bit files,
    downloaded where they are missing. A file that is listed but isn't there is made again. Returns the files that are
    listed now. Raises as `quantize` and `pull`, and DefinitionError where the definition can't be written (the files
    are there then).
    """
    sixteen = replace(preferences, quantization="bf16")
    explanation = explain(definition, sixteen, machine=machine)
    if plan_saving(explanation)[0]:  # else nothing need be downloaded to report why
        explanation = pull(definition, sixteen, weights_only=True, listener=listener, cancel=cancel, machine=machine)
    plan, reasons = plan_saving(explanation)
    for line in explanation.notices if plan else ():
        listener(Notice(line))
    for reason in reasons:
        listener(Notice(f"No quantized file is written: {reason}"))
    for row in plan:
        if row.lost:
            listener(Notice(f"{row.lost} is listed, but not there: it is made again."))
        if row.target.exists():
            check(row.source, row.target, dtype=row.dtype, listener=listener, cancel=cancel)
            listener(Notice(f"{row.target.name} is there already and was verified against {row.source.name}."))
            continue
        made = quantize(row.source, row.target, dtype=row.dtype, listener=listener, cancel=cancel)
        listener(Notice(f"{row.target} was written and verified ({made.bytes:,} bytes, sha256 {made.sha256[:12]}…)."))
    for row in plan:
        listener(Notice(_list(definition.root, definition.id, row)))
    return [row.target for row in plan]


def _list(root: Path, id: str, saving: Saving) -> str:
    """Append a local path to the list that counts today, in the user's own file; returns what was done."""
    definition, url = load_catalog(root)[id], f"ckpts/{saving.target.name}"
    own = definition.own_file or root / "finetunes" / f"{id}.json"
    slot = next(slot for slot, key in KEYS.items() if key == saving.key)
    urls = [version.url for version in definition.slots.get(slot, ())]
    if saving.url not in urls:
        return f"{saving.target} is not listed: {id} no longer lists {saving.url}, which it was made from."
    if url in urls:
        return f"{id} lists {url} already."
    if own.exists():
        edit(own, (MODEL_KEY, saving.key), [*urls, url])
    else:
        create(own, {MODEL_KEY: {saving.key: [*urls, url]}})
    return f"{own} lists {url} under {saving.key} now."
