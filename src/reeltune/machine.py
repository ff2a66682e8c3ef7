"""This machine's memory, disk, GPUs and supported data types, detected without torch."""

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

_BF16_CAPABILITY = 8.0  # compute capability (Ampere); older NVIDIA cards have no bf16 units
_FP8_CAPABILITY = 8.9  # Ada; Hopper has 9.0
_PROBE_SECONDS = 10
_DRIVERS = ("/dev/kfd", "/dev/nvidiactl", "/dev/dxg")  # AMD, NVIDIA, WSL
_FAST_EXTENSIONS = {"bf16": {"X86_V4", "AVX512_SKX"}, "fp16": {"AVX512_SPR"}}  # as numpy 2.4 and earlier name them


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU. `memory` in bytes; `capability`: the compute capability, such as 8.6."""

    name: str
    memory: int
    capability: float


@dataclass(frozen=True)
class Machine:
    """The hardware of this machine.

    `ram`, `ram_free`: bytes. `gpus`: NVIDIA GPUs by index. `apple`: whether there is an Apple silicon GPU. `unlisted`:
    whether there may be other GPUs, which can't be listed without torch. `cpu_types`: 16-bit data types that the CPU
    multiplies about as fast as fp32, or faster.
    """

    ram: int
    ram_free: int
    gpus: tuple[Gpu, ...] = ()
    apple: bool = False
    unlisted: bool = False
    cpu_types: frozenset[str] = frozenset({"bf16", "fp16"})

    def device(self, preferred: str) -> str:
        """The device for a preference; "auto" is the first NVIDIA GPU, then Apple's GPU, then the CPU."""
        if preferred != "auto":
            return preferred
        if self.gpus:
            return "cuda"
        return "mps" if self.apple else "cpu"

    def check_device(self, device: str) -> None:
        """Raise DeviceMissing if this machine certainly has no such device; `device` is "cuda:1", for example."""
        kind, _, index = device.partition(":")
        if kind == "mps" and not self.apple:
            message = "The device 'mps' is not available: this machine has no Apple GPU."
            raise DeviceMissing(message, hint=f"Use {self._devices()}.")
        if kind != "cuda" or self.unlisted:
            return
        if not self.gpus:
            message = f"The device {device!r} is not available: no NVIDIA GPU, or its driver isn't installed."
            raise DeviceMissing(message, hint=f"Use {self._devices()}; `nvidia-smi` lists the GPUs.")
        if index.isdigit() and int(index) >= len(self.gpus):
            names = ", ".join(f"cuda:{number} ({gpu.name})" for number, gpu in enumerate(self.gpus))
            message = f"The device {device!r} is not available. This machine has {names}."
            raise DeviceMissing(message, hint="Use one of them.")

    def _devices(self) -> str:
        return "auto, mps or cpu" if self.apple else "auto or cpu"

    def memory_of(self, device: str) -> int:
        """Bytes of memory that a device computes in: the GPU's own, else the machine's."""
        gpu = self._gpu(device)
        return self.ram if gpu is None else gpu.memory

    def data_types(self, preferred: str) -> tuple[str, ...]:
        """Data types that the device supports, the best one first."""
        gpu = self._gpu(self.device(preferred))
        if gpu is not None and gpu.capability < _BF16_CAPABILITY:
            return ("fp16",)
        return ("bf16", "fp16")

    def stores_fp8(self, preferred: str) -> bool:
        """Whether the device can hold fp8 weights: torch has no fp8 on Apple's GPUs."""
        return self.device(preferred) != "mps"

    def computes_fp8(self, preferred: str) -> bool:
        """Whether the device multiplies in fp8: NVIDIA GPUs since Ada and Hopper."""
        gpu = self._gpu(self.device(preferred))
        return gpu is not None and gpu.capability >= _FP8_CAPABILITY

    def _gpu(self, device: str) -> Gpu | None:
        """The GPU that a device such as "cuda:1" names; None for a device that is not among `gpus`."""
        kind, _, index = device.partition(":")
        number = int(index) if index.isdigit() else 0
        if kind != "cuda" or number >= len(self.gpus):
            return None
        return self.gpus[number]

    def products_in_fp32(self, preferred: str, dtype: str) -> bool:
        """Whether a run in `dtype` multiplies in fp32, because the device is a CPU that is slow in `dtype`."""
        return self.device(preferred) == "cpu" and dtype not in self.cpu_types


def probe() -> Machine:
    """Detect this machine's hardware; NVIDIA GPUs are listed by `nvidia-smi`, if it is installed.

    `CUDA_VISIBLE_DEVICES` has the same effect as in torch: it selects and orders the GPUs.
    """
    memory = psutil.virtual_memory()
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    gpus = _visible(_nvidia_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    unlisted = not gpus and any(Path(path).exists() for path in _DRIVERS) and shutil.which("nvidia-smi") is None
    return Machine(memory.total, memory.available, gpus, apple, unlisted, _cpu_types())


def _visible(gpus: tuple[Gpu, ...], variable: str | None) -> tuple[Gpu, ...]:
    """The GPUs that `CUDA_VISIBLE_DEVICES` selects by index; the first invalid index ends the list, as in CUDA."""
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
    """16-bit data types that torch multiplies fast on this CPU.

    On x86 torch uses oneDNN, which needs AVX-512 (BW, DQ and VL) for bf16 and AVX512-FP16 for fp16; without them it
    falls back to slow loops. `ATEN_CPU_CAPABILITY` and `ONEDNN_MAX_CPU_ISA` limit the extensions that torch uses. Other
    CPUs were not measured, and are assumed to be fast in both.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return frozenset({"bf16", "fp16"})
    import numpy as np

    limits = {os.environ.get(name, "").lower() for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")}
    if limits & {"default", "sse41", "avx", "avx2", "avx2_vnni"}:
        return frozenset()
    supported = set(np.show_config(mode="dicts")["SIMD Extensions"].get("found", []))
    return frozenset(dtype for dtype, extensions in _FAST_EXTENSIONS.items() if extensions & supported)


def _exists(folder: Path) -> bool:
    try:
        return folder.exists()
    except OSError:  # a parent folder can't be read
        return False


def free_disk(folder: Path) -> int:
    """Free bytes on the disk of `folder`, which need not exist yet. Raises FileError if the disk can't be read."""
    while not _exists(folder) and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError as error:
        raise FileError(f"The free space of {folder} can't be read: {reason(error)}.") from error


def _nvidia_gpus() -> tuple[Gpu, ...]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        result = subprocess.run(query, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):  # the tool is installed without a working driver
        return ()
    gpus = []
    for line in result.stdout.splitlines():
        name, memory, capability = (part.strip() for part in line.rsplit(",", 2))
        try:
            gpus.append(Gpu(name, int(memory) * 2**20, float(capability)))
        except ValueError:
            continue
    return tuple(gpus)
