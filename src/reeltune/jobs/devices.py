"""Which workers this machine runs: the option `--workers` as one specification for each worker process.

specs = parse_workers("cuda:0,cuda:1", probe(), os.environ)
workers = local_workers(root, specs)
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from reeltune.errors import DeviceMissing, WorkersError
from reeltune.machine import Machine

FIRST_WORKER = "local-1"  # the name of the only worker where nothing was chosen
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_ORDER = "CUDA_DEVICE_ORDER"
_MOST_WORKERS = 64
_DEVICE = re.compile(r"cpu|mps|cuda(?::(\d{1,3}))?")
_HOW = "Use auto, a number, or devices separated by commas, such as cuda:0,cuda:1 or cpu,cpu."
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class WorkerSpec:
    """One worker process of this machine.

    `name`: the same each time the program starts with the same devices. `device`: what it computes on, as users write
    it; empty for that of the preferences. `option`: what that device is called inside the process, which may see only
    this one; empty for that of the preferences. `environment`: variables of the process, besides those of the program.
    `threads`: CPU threads at most; 0 for all. `memory_bytes`: memory of the device; None if unknown.
    """

    name: str
    device: str = ""
    option: str = ""
    environment: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    threads: int = 0
    memory_bytes: int | None = None


def one_worker(machine: Machine, preferred: str = "auto") -> WorkerSpec:
    """The worker of a program that was started without the option: one, on the device of the preferences."""
    device = machine.device(preferred)
    return WorkerSpec(FIRST_WORKER, device, memory_bytes=_memory(machine, device))


def parse_workers(
    text: str, machine: Machine, environment: Mapping[str, str], *, cores: int | None = None, preferred: str = "auto"
) -> tuple[WorkerSpec, ...]:
    """The workers that `--workers` asks for.

    `auto`: one for each NVIDIA card, else one on the device of the preferences. A number: so many cards, or so many CPU
    workers where there is no card. Else: one for each device in a list; only `cpu` may be in it several times.

    Args:
        text: The value of the option.
        machine: The hardware, with the cards that `environment` makes visible.
        environment: The variables of the program.
        cores: CPU cores that the workers share; by default those of this machine.
        preferred: The device of the preferences.

    Raises WorkersError for a value that can't be understood, DeviceMissing for a device that isn't there.
    """
    cores = cores or _usable_cores()
    words = [word.strip().lower() for word in text.split(",")]
    if words == ["auto"]:
        if not machine.gpus:
            return (one_worker(machine, preferred),)
        return _specs(
            [f"cuda:{number}" for number in range(_card_count(machine, environment))], machine, environment, cores
        )
    if len(words) == 1 and re.fullmatch(r"[+-]?\d{1,9}", words[0]):
        return _specs(_first_devices(int(words[0]), machine, environment), machine, environment, cores)
    return _specs([_device(word, text) for word in words], machine, environment, cores)


def _first_devices(count: int, machine: Machine, environment: Mapping[str, str]) -> list[str]:
    """So many devices. Raises WorkersError, DeviceMissing."""
    if not 1 <= count <= _MOST_WORKERS:
        raise WorkersError(f"{count} workers are not possible.", hint=f"Use 1 to {_MOST_WORKERS}, or auto.")
    if machine.gpus:
        cards = _card_count(machine, environment)
        if count > cards:
            have = "one NVIDIA card" if cards == 1 else f"{cards} NVIDIA cards"
            message = f"{count} workers need {count} cards, and this machine has {have}."
            raise DeviceMissing(message, hint="Use auto for one worker on each card.")
        return [f"cuda:{number}" for number in range(count)]
    if machine.unlisted:
        message = "The graphics cards of this machine can't be counted."
        raise WorkersError(message, hint="Name them, such as --workers cuda:0,cuda:1, or use cpu.")
    if machine.apple:
        if count > 1:
            raise DeviceMissing(
                f"{count} workers need {count} graphics cards, and this machine has one.",
                hint="Use auto, or cpu,cpu for two workers on the CPU.",
            )
        return ["mps"]
    return ["cpu"] * count


def _device(word: str, text: str) -> str:
    """One device of a list, with the number of its card. Raises WorkersError."""
    found = _DEVICE.fullmatch(word)
    if found is None:
        shown = text if len(text) <= 60 else text[:59] + "…"
        raise WorkersError(f"Invalid workers {shown!r}.", hint=_HOW)
    if word.startswith("cuda"):
        return f"cuda:{int(found[1] or 0)}"
    return word


def _specs(
    devices: Sequence[str], machine: Machine, environment: Mapping[str, str], cores: int
) -> tuple[WorkerSpec, ...]:
    """A specification for each device. Raises WorkersError, DeviceMissing."""
    if len(devices) > _MOST_WORKERS:
        raise WorkersError(f"{len(devices)} workers are not possible.", hint=f"Use at most {_MOST_WORKERS}.")
    threads = max(1, cores // len(devices)) if len(devices) > 1 else 0
    used: Counter[str] = Counter()
    specs = []
    for device in devices:
        used[device] += 1
        if device != "cpu" and used[device] > 1:
            message = f"{device} was named {devices.count(device)} times; each card has one worker."
            raise WorkersError(message, hint="Two models on one card would each have half of its memory.")
        variables = _environment(device, machine, environment)
        kind, _, number = device.partition(":")
        specs.append(
            WorkerSpec(
                name=f"{kind}-{number or used[device]}",
                device=device,
                option=kind,
                environment=variables,
                threads=threads,
                memory_bytes=_memory(machine, device, environment),
            )
        )
    return tuple(specs)


def _environment(device: str, machine: Machine, environment: Mapping[str, str]) -> Mapping[str, str]:
    """The variables by which a process sees only this device. Raises DeviceMissing."""
    kind, _, number = device.partition(":")
    if kind != "cuda":
        machine.check_device(device)
        return {_VISIBLE: ""} if kind == "cpu" else _NOTHING
    visible = _visible_cards(environment)
    if visible is None or not _has_names(visible):
        machine.check_device(device)
    if visible is None:
        card = number
    elif int(number) < len(visible):
        card = visible[int(number)]
    else:
        message = f"The device {device!r} is not available: {_VISIBLE} makes {len(visible)} of the cards visible."
        raise DeviceMissing(message, hint="Count from 0 among the cards that it names, or change the variable.")
    # nvidia-smi numbers the cards like this; CUDA alone would begin with the fastest one
    order = {} if _ORDER in environment else {_ORDER: "PCI_BUS_ID"}
    return {_VISIBLE: card, **order}


def _visible_cards(environment: Mapping[str, str]) -> list[str] | None:
    """The cards that the program may use, as the variable names them; None where it isn't set."""
    variable = environment.get(_VISIBLE)
    if variable is None:
        return None
    return [part.strip() for part in variable.split(",") if part.strip()]


def _has_names(visible: Sequence[str]) -> bool:
    """Whether cards are named by identifiers and not numbered; `Machine.gpus` has another order then."""
    return any(not card.isdigit() for card in visible)


def _card_count(machine: Machine, environment: Mapping[str, str]) -> int:
    visible = _visible_cards(environment)
    return len(visible) if visible is not None and _has_names(visible) else len(machine.gpus)


def _memory(machine: Machine, device: str, environment: Mapping[str, str] = _NOTHING) -> int | None:
    """Memory of a device in bytes; None if unknown."""
    if device.startswith("cuda"):
        visible = _visible_cards(environment)
        if not machine.gpus or (visible is not None and _has_names(visible)):
            return None
    return machine.memory_of(device)


def _usable_cores() -> int:
    """The cores that this program may use, as containers and `taskset` limit them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
