"""What this machine has: memory, disk, graphics cards and the data types they compute, without torch."""

from __future__ import annotations

import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

_BF16_SINCE = 8.0  # compute capability (Ampere): older NVIDIA cards have no bf16 units
_PROBE_SECONDS = 10


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA card: memory in bytes, compute capability as a number (8.6)."""

    name: str
    memory: int
    capability: float


@dataclass(frozen=True)
class Machine:
    """Memory in bytes; cards in the order of their numbers; `apple`: Apple silicon's own GPU."""

    ram: int
    ram_free: int
    gpus: tuple[Gpu, ...] = ()
    apple: bool = False

    def device(self, wish: str) -> str:
        """The device a wish comes to: "auto" takes the first card, then Apple's GPU, then the CPU."""
        if wish != "auto":
            return wish
        return "cuda" if self.gpus else "mps" if self.apple else "cpu"

    def memory_of(self, device: str) -> int:
        """Bytes of memory a device computes in: the card's own, else the machine's."""
        index = device.partition(":")[2]
        number = int(index) if index.isdigit() else 0
        on_card = device.startswith("cuda") and number < len(self.gpus)
        return self.gpus[number].memory if on_card else self.ram

    def data_types(self, wish: str) -> tuple[str, ...]:
        """Data types the device computes in, the better one first."""
        device = self.device(wish)
        if device.startswith("cuda"):
            index = device.partition(":")[2]
            number = int(index) if index.isdigit() else 0
            if number < len(self.gpus) and self.gpus[number].capability < _BF16_SINCE:
                return ("fp16",)
        return ("bf16", "fp16")


def probe() -> Machine:
    """Look at this machine; asks NVIDIA's own tool for cards, where it is installed."""
    memory = psutil.virtual_memory()
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    return Machine(memory.total, memory.available, _nvidia_cards(), apple)


def free_disk(folder: Path) -> int:
    """Bytes free where `folder` is, or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


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
