"""`--save-quantized`: from a definition's 16-bit files to quanto int8 ones in `ckpts/`, listed in the definition.

What can't be done is explained, never half done: files are listed only after all of them were verified, the edit keeps
everything else in the definition as it is, and lists of built-in or referenced definitions are never touched: an
override is written to `finetunes/<id>.json` instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from reeltune.checkpoints.names import quantized_name, read_name
from reeltune.definitions import Definition, Version, load_catalog
from reeltune.definitions.schema import MODEL_KEY
from reeltune.definitions.slots import TRANSFORMER, TRANSFORMER_2, has_modules
from reeltune.definitions.writer import create, edit
from reeltune.dtypes import DType, Quantization
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
    dtype: DType
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
        int8 = [version for version in definition.slots[slot] if _int8_dtype(explanation, version) == choice.dtype]
        listed = [version.file_name for version in int8 if version.remote or _is_here(explanation, version)]
        if listed:
            reasons.append(f"{definition.id} lists an int8 version in {choice.dtype} already: {listed[0]}.")
        elif choice.quantization is Quantization.QUANTO_INT8:
            reasons.append(f"{definition.id} lists no 16-bit version under {key} that could be quantized.")
        else:
            source = next(item.path for item in explanation.items if item.subject == slot)
            target = definition.root / "ckpts" / quantized_name(name_of_all(source), choice.dtype)
            if target in [saving.target for saving in plan]:
                reasons.append(f"the file of {key} would be called {target.name} as well: rename its source.")
            else:
                lost = next((version.url for version in int8), "")
                plan.append(Saving(key, choice.version.url, source, target, choice.dtype, lost))
    return plan, reasons


def _is_here(explanation: Explanation, version: Version) -> bool:
    definition = explanation.definition
    return Inventory(definition.root, explanation.preferences.model_folders).locate(version)[0] is not None


def _int8_dtype(explanation: Explanation, version: Version) -> DType | None:
    """What a version computes in if it is quanto int8, by its header where the file is here, else by its name."""
    definition = explanation.definition
    found, _ = Inventory(definition.root, explanation.preferences.model_folders).locate(version)
    if found is not None and found.identity is not None:
        quantization, dtype = found.identity.quantization, found.identity.dtype
    else:
        name = read_name(version.url)
        quantization, dtype = name.quantization, name.dtype or DType.BF16
    return dtype if quantization is Quantization.QUANTO_INT8 else None


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
    if plan:
        for notice in explanation.notices:
            listener(Notice(notice))
    for reason in reasons:
        listener(Notice(f"No quantized file is written: {reason}"))
    for saving in plan:
        _save(saving, listener, cancel)
    for saving in plan:
        listener(Notice(_list(definition.root, definition.id, saving)))
    return [saving.target for saving in plan]


def _save(saving: Saving, listener: Listener, cancel: CancelToken | None) -> None:
    """Make one file, or verify the one that is there. Raises as `quantize`."""
    source, target = saving.source, saving.target
    if saving.lost:
        listener(Notice(f"{saving.lost} is listed, but not there: it is made again."))
    if target.exists():
        check(source, target, dtype=saving.dtype, listener=listener, cancel=cancel)
        listener(Notice(f"{target.name} is there already and was verified against {source.name}."))
        return
    made = quantize(source, target, dtype=saving.dtype, listener=listener, cancel=cancel)
    listener(Notice(f"{target} was written and verified ({made.bytes:,} bytes, sha256 {made.sha256[:12]}…)."))


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
