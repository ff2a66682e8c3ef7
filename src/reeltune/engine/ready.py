"""Everything that a definition needs before a video is made: files downloaded, quantized where that is preferred."""

from __future__ import annotations

from collections.abc import Sequence

from reeltune.definitions import Definition, load_catalog
from reeltune.events import CancelToken, Listener
from reeltune.fetch import pull, require
from reeltune.machine import Machine, probe
from reeltune.planning.estimate import check_memory
from reeltune.planning.fit import check_loras
from reeltune.planning.plan import Plan
from reeltune.preferences import Preferences
from reeltune.weights.lora import check_values
from reeltune.weights.saving import save_quantized


def make_ready(
    definition: Definition,
    preferences: Preferences,
    machine: Machine | None,
    loras: Sequence[str],
    listener: Listener,
    cancel: CancelToken | None,
) -> Plan:
    """Download what a definition lacks under the preferences; returns its plan, of which every file is there.

    `loras`: the URLs or paths of the LoRAs that are applied. They are read, and compared with the headers of the model.

    With `preferences.save_quantized` the int8 versions of its 16-bit files are written and listed in the definition
    first: the plan then holds the definition as it was read again. Raises DeviceMissing before anything is downloaded,
    NotEnoughMemory and LoraMismatch before anything is loaded, and what `pull` and `save_quantized` raise.
    """
    machine = machine or probe()
    if preferences.device not in ("auto", "cpu"):
        machine.check_device(preferences.device)
    if preferences.save_quantized and save_quantized(
        definition, preferences, machine=machine, listener=listener, cancel=cancel
    ):
        definition = load_catalog(definition.root)[definition.id].variant(definition.config)
    plan = pull(definition, preferences, loras=loras, listener=listener, cancel=cancel, machine=machine)
    require(plan)
    check_memory(plan)
    check_loras(plan)
    for lora in plan.loras:
        check_values(lora.item.path)
    return plan
