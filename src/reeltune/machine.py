"""What this machine has: memory, disk, graphics cards and the data types they compute, without torch."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from reeltune.errors import DeviceMissing, FileError
from reeltune.files import reason

_BF16_SINCE = 8.0  # compute capability (Ampere): older NVIDIA cards have no bf16 units
_PROBE_SECONDS = 10
_DRIVERS = ("/dev/kfd", "/dev/nvidiactl", "/dev/dxg")  # of AMD, of NVIDIA, of Windows' Linux
_FAST_SINCE = {"bf16": {"X86_V4", "AVX512_SKX"}, "fp16": {"AVX512_SPR"}}  # names of numpy 2.4 and of those before


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA card: memory in bytes, compute capability as a number (8.6)."""

    name: str
    memory: int
    capability: float


@dataclass(frozen=True)
class Machine:
    """Memory in bytes; cards in the order of their numbers; `apple`: Apple silicon's own GPU.

    `unlisted`: there may be cards besides, of a kind or with a driver that can't be asked without torch.
    `cpu_types`: 16-bit data types the processor multiplies about as fast as fp32, or faster.
    """

    ram: int
    ram_free: int
    gpus: tuple[Gpu, ...] = ()
    apple: bool = False
    unlisted: bool = False
    cpu_types: frozenset[str] = frozenset({"bf16", "fp16"})

    def device(self, preferred: str) -> str:
        """The device for a preference: "auto" is the first card, then Apple's GPU, then the CPU."""
        if preferred != "auto":
            return preferred
        return "cuda" if self.gpus else "mps" if self.apple else "cpu"

    def check_device(self, device: str) -> None:
        """Raise DeviceMissing where this machine certainly doesn't have a device ("cuda:1", say)."""
        kind, _, index = device.partition(":")
        if kind == "mps" and not self.apple:
            message = "The device 'mps' isn't there: this machine has no Apple GPU."
            raise DeviceMissing(message, hint=f"Use {self._devices()}.")
        if kind != "cuda" or self.unlisted:
            return
        if not self.gpus:
            message = f"The device {device!r} isn't there: no CUDA graphics card, or its driver isn't installed."
            raise DeviceMissing(message, hint=f"Use {self._devices()}; `nvidia-smi` lists the cards.")
        if index.isdigit() and int(index) >= len(self.gpus):
            cards = ", ".join(f"cuda:{number} ({gpu.name})" for number, gpu in enumerate(self.gpus))
            message = f"The device {device!r} isn't there. The graphics cards here: {cards}."
            raise DeviceMissing(message, hint="Use one of them.")

    def _devices(self) -> str:
        return "auto, mps or cpu" if self.apple else "auto or cpu"

    def memory_of(self, device: str) -> int:
        """Bytes of memory a device computes in: the card's own, else the machine's."""
        index = device.partition(":")[2]
        number = int(index) if index.isdigit() else 0
        on_card = device.startswith("cuda") and number < len(self.gpus)
        return self.gpus[number].memory if on_card else self.ram

    def data_types(self, preferred: str) -> tuple[str, ...]:
        """Data types the device computes in, the better one first."""
        device = self.device(preferred)
        if device.startswith("cuda"):
            index = device.partition(":")[2]
            number = int(index) if index.isdigit() else 0
            if number < len(self.gpus) and self.gpus[number].capability < _BF16_SINCE:
                return ("fp16",)
        return ("bf16", "fp16")

    def products_in_fp32(self, wish: str, dtype: str) -> bool:
        """Whether a run in `dtype` multiplies in fp32, because the device is a processor that is slow in `dtype`."""
        return self.device(wish) == "cpu" and dtype not in self.cpu_types


def probe() -> Machine:
    """Look at this machine; asks NVIDIA's own tool for cards, where it is installed.

    `CUDA_VISIBLE_DEVICES` counts as it does for torch: cards are those it lists, in its order.
    """
    memory = psutil.virtual_memory()
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    gpus = _visible(_nvidia_cards(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    unlisted = not gpus and any(Path(path).exists() for path in _DRIVERS) and shutil.which("nvidia-smi") is None
    return Machine(memory.total, memory.available, gpus, apple, unlisted, _cpu_types())


def _visible(gpus: tuple[Gpu, ...], variable: str | None) -> tuple[Gpu, ...]:
    """The cards of a `CUDA_VISIBLE_DEVICES` of numbers; the first that isn't there ends the list, as in CUDA."""
    if variable is None or any(part.strip().startswith(("GPU-", "MIG-")) for part in variable.split(",")):
        return gpus
    visible: list[Gpu] = []
    for part in variable.split(","):
        number = part.strip()
        if not number.isdigit() or int(number) >= len(gpus):
            break
        visible.append(gpus[int(number)])
    return tuple(visible)


def _cpu_types() -> frozenset[str]:
    """16-bit types that torch multiplies fast on this processor.

    On x86 its products are oneDNN's, which need AVX-512 (BW, DQ and VL) for bf16 and AVX512-FP16 for fp16; without,
    torch has plain loops. `ATEN_CPU_CAPABILITY` and `ONEDNN_MAX_CPU_ISA`, which limit what torch uses, count too. Other
    processors were not measured, and are taken to be fast in both.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return frozenset({"bf16", "fp16"})
    import numpy as np

    limits = {os.environ.get(name, "").lower() for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")}
    if limits & {"default", "sse41", "avx", "avx2", "avx2_vnni"}:
        return frozenset()
    found = set(np.show_config(mode="dicts")["SIMD Extensions"].get("found", []))
    return frozenset(dtype for dtype, extensions in _FAST_SINCE.items() if extensions & found)


def _exists(folder: Path) -> bool:
    try:
        return folder.exists()
    except OSError:  # a folder above it can't be read
        return False


def free_disk(folder: Path) -> int:
    """Bytes free where `folder` is, or will be. Raises FileError where that can't be told."""
    while not _exists(folder) and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError as error:
        raise FileError(f"The free space of {folder} can't be read: {reason(error)}.") from error


def _nvidia_cards() -> tuple[Gpu, ...]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):  # no driver behind the tool: no card to use
        return ()
    cards = []
    for line in answer.stdout.splitlines():
        name, memory, capability = (part.strip() for part in line.rsplit(",", 2))
        try:
            cards.append(Gpu(name, int(memory) * 2**20, float(capability)))
        except ValueError:
            continue
    return tuple(cards)
