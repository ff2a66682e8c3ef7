"""`--save-quantized`: from a definition's 16-bit files to 8-bit ones in `ckpts/`, listed in the definition.

They are quanto int8, or scaled fp8 where fp8 is preferred.

What can't be done is explained, never half done: files are listed only after all of them were verified, the edit keeps
everything else in the definition as it is, and lists of built-in or referenced definitions are never touched: an
override is written to `finetunes/<id>.json` instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from reeltune.checkpoints.names import read_name
from reeltune.definitions import Definition, Version, load_catalog
from reeltune.definitions.configs import KEY
from reeltune.definitions.schema import MODEL_KEY
from reeltune.definitions.slots import TRANSFORMERS, Slot, has_modules
from reeltune.definitions.writer import create, edit, has_object
from reeltune.dtypes import DType, Quantization
from reeltune.events import CancelToken, Listener, Notice, ignore
from reeltune.fetch import pull
from reeltune.library.inventory import Inventory
from reeltune.machine import Machine
from reeltune.planning.plan import Plan, explain
from reeltune.preferences import Preferences
from reeltune.weights.quantize import check, default_name, quantize
from reeltune.weights.recipe import FP8, INT8

_SOURCE_SLOTS = TRANSFORMERS  # whose 16-bit files are quantized


@dataclass(frozen=True)
class Saving:
    """A file to make for a slot: the listed version and the file it is made from, its path and data type.

    `to`: "int8" or "fp8". `missing`: the version that is listed already but doesn't exist; empty where there is none.
    """

    slot: Slot
    url: str
    source: Path
    target: Path
    dtype: DType
    to: str = INT8
    missing: str = ""


def plan_saving(plan: Plan, to: str = INT8) -> tuple[list[Saving], list[str]]:
    """The files to make from a plan (of 16-bit versions), and the reasons why none is made for the other slots.

    `to`: "int8" or "fp8".
    """
    definition = plan.definition
    if has_modules(definition.slots):
        return [], [f"{definition.id} merges modules, which keep files of their own (`reeltune quantize FILE`)."]
    savings: list[Saving] = []
    reasons: list[str] = []
    for slot in _SOURCE_SLOTS:
        if slot not in plan.selection.choices:
            continue
        saving = _saving(plan, slot, to)
        if isinstance(saving, str):
            reasons.append(saving)
        elif saving.target in [other.target for other in savings]:
            reasons.append(f"the file of {slot.key} would be called {saving.target.name} as well: rename its source.")
        else:
            savings.append(saving)
    return savings, reasons


def _saving(plan: Plan, slot: Slot, to: str) -> Saving | str:
    """The file to make for a slot, or the reason why none is made."""
    definition, choice = plan.definition, plan.selection.choices[slot]
    if choice.version not in definition.slots[slot]:
        return f"{choice.version.file_name}, which is used for {slot}, is a file of another program."
    inventory = Inventory(definition.root, plan.preferences.model_folders)
    made = [version for version in definition.slots[slot] if _is_like(inventory, version, to, choice.dtype)]
    for version in made:
        if version.remote or inventory.find_version(version)[0] is not None:
            kind = f"an int8 version in {choice.dtype}" if to == INT8 else "an fp8 version"
            return f"{definition.id} lists {kind} already: {version.file_name}."
    if choice.quantization is Quantization.QUANTO_INT8:
        return f"{definition.id} lists no 16-bit version under {slot.key} that could be quantized."
    source = plan.path(slot)
    return Saving(
        slot=slot,
        url=choice.version.url,
        source=source,
        target=definition.root / "ckpts" / default_name(source, to, choice.dtype, merged=False),
        dtype=choice.dtype,
        to=to,
        missing=made[0].url if made else "",
    )


def _is_like(inventory: Inventory, version: Version, to: str, dtype: DType) -> bool:
    """Whether a version is one that would be made: by its header where the file is on disk, else by its name."""
    found, _ = inventory.find_version(version)
    if found is not None and found.identity is not None:
        quantization, its_dtype = found.identity.quantization, found.identity.dtype
    else:
        name = read_name(version.url)
        quantization, its_dtype = name.quantization, name.dtype or DType.BF16
    if to == FP8:
        return quantization in (Quantization.FP8, Quantization.FP8_SCALED)
    return quantization is Quantization.QUANTO_INT8 and its_dtype == dtype


def save_quantized(
    definition: Definition,
    preferences: Preferences,
    *,
    machine: Machine | None = None,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
) -> list[Path]:
    """Make the int8 versions of a definition's 16-bit files and list them; reports what it does, or why nothing.

    Where fp8 is preferred, they are fp8 versions. The data type is the one that would be run in; whatever quantization
    is preferred, the sources are 16-bit files, downloaded where they are missing. A file that is listed but isn't there
    is made again. Returns the files that are listed now. Raises as `quantize` and `pull`, and DefinitionError where the
    definition can't be written (the files are there then).
    """
    savings = make_files(definition, preferences, machine=machine, listener=listener, cancel=cancel)
    for saving in savings:
        listener(Notice(_list_version(definition, saving)))
    return [saving.target for saving in savings]


def make_files(
    definition: Definition,
    preferences: Preferences,
    *,
    machine: Machine | None = None,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
) -> list[Saving]:
    """As `save_quantized`, but the files are not listed in the definition."""
    to = FP8 if preferences.quantization == FP8 else INT8
    sixteen_bits = replace(preferences, quantization="bf16")
    plan = explain(definition, sixteen_bits, machine=machine)
    if plan_saving(plan, to)[0]:  # else nothing needs to be downloaded to report why
        plan = pull(definition, sixteen_bits, weights_only=True, listener=listener, cancel=cancel, machine=machine)
    savings, reasons = plan_saving(plan, to)
    notices = [*plan.notices] if savings else []
    notices += [f"No quantized file is written: {reason}" for reason in reasons]
    for notice in notices:
        listener(Notice(notice))
    for saving in savings:
        _save(saving, listener, cancel)
    return savings


def _save(saving: Saving, listener: Listener, cancel: CancelToken | None) -> None:
    """Write and verify one file; one that exists already is only verified."""
    if saving.missing:
        listener(Notice(f"{saving.missing} is listed, but doesn't exist: it is made again."))
    if saving.target.exists():
        check(saving.source, saving.target, to=saving.to, dtype=saving.dtype, listener=listener, cancel=cancel)
        listener(Notice(f"{saving.target.name} exists already and was verified against {saving.source.name}."))
        return
    made = quantize(saving.source, saving.target, to=saving.to, dtype=saving.dtype, listener=listener, cancel=cancel)
    size = f"{made.bytes:,} bytes, sha256 {made.sha256[:12]}…"
    listener(Notice(f"{saving.target} was written and verified ({size})."))


def _list_version(definition: Definition, saving: Saving) -> str:
    """Append a file to the list that counts now, in the user's own definition file; returns what was done."""
    root, id = definition.root, definition.id
    current, url = load_catalog(root)[id].variant(definition.config), f"ckpts/{saving.target.name}"
    own_file = current.own_file or root / "finetunes" / f"{id}.json"
    urls = [version.url for version in current.slots.get(saving.slot, ())]
    if saving.url not in urls:
        return f"{saving.target} is not listed: {id} no longer lists {saving.url}, which it was made from."
    if url in urls:
        return f"{id} lists {url} already."
    key = saving.slot.key
    variant = current.variants.find(current.config) if current.variants is not None else None
    if variant is not None and getattr(variant.section, key) is not None:
        key_path: tuple[str, ...] = (MODEL_KEY, KEY, variant.id, key)
        if not own_file.exists() or not has_object(own_file, key_path[:-1]):
            return f"{saving.target} is not listed: the variant {variant.id} is not written in {own_file.name}."
    else:
        key_path = (MODEL_KEY, key)
    if own_file.exists():
        edit(own_file, key_path, [*urls, url])
    else:
        create(own_file, {MODEL_KEY: {key: [*urls, url]}})
    return f"{own_file} lists {url} under {'.'.join(key_path[1:])} now."
