"""nvfp4: speed of decoding beside torchao and ComfyUI's rule; loading a 1.3B file.

    python bench/convert_nvfp4.py                 # both parts
    python bench/convert_nvfp4.py --part decoding --repeats 7
    python bench/convert_nvfp4.py --part loading --checkpoint /tmp/wan_1.3B_nvfp4.safetensors

Decoding: the linear layers of one block at the shapes of Wan 1.3B, random numbers and scales in tiles, one thread, all
programs in turns; medians. Loading: each run is a process of its own; the file has random numbers at the true names and
shapes, stored as LightX2V does, and is made where it is missing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from safetensors.torch import save_file
from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor
from torchao.prototype.mx_formats.utils import from_blocked

from convert_gguf import LAYERS, MILLION, print_loading
from make_checkpoint import SIZES, shapes
from reeltune.checkpoints.contents import Tensor
from reeltune.checkpoints.formats.nvfp4 import scale_shape
from reeltune.weights.formats.nvfp4 import Nvfp4Weight, arranged, fill
from reeltune.weights.formats.quanto_int8 import quantize_weight
from reeltune.weights.fp8 import decode

LEVELS = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def random_layer(rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Packed numbers, scales in tiles, and the scale of the weight."""
    random = torch.Generator().manual_seed(seed)
    packed = torch.randint(0, 256, (rows, columns // 2), dtype=torch.uint8, generator=random)
    shape = scale_shape((rows, columns // 2), tiled=True)
    scales = (torch.rand(shape, generator=random) * 400 + 40).to(torch.float8_e4m3fn)
    return packed, scales, torch.tensor(2e-5)


def decoders() -> dict[str, Callable[[], None]]:
    """What is measured, by its name. Each decodes every layer once."""
    layers = [random_layer(rows, columns, seed) for seed, (rows, columns) in enumerate(LAYERS)]
    tensors = [Tensor("x.weight", "U8", tuple(packed.shape), 0, packed.numel()) for packed, _, _ in layers]
    room = {shape: torch.empty(shape) for shape in LAYERS}
    levels = LEVELS.unsqueeze(1).to(torch.bfloat16)

    def torchao(dtype: torch.dtype) -> None:
        for packed, scales, factor in layers:
            NVFP4Tensor(packed, scales, 16, dtype, factor, is_swizzled_scales=True).dequantize(dtype)

    def by_the_rule() -> None:  # of comfy-kitchen where it has no kernels: looked up and multiplied in bf16
        for (rows, columns), (packed, scales, factor) in zip(LAYERS, layers, strict=True):
            codes = torch.stack((packed >> 4, packed & 15), dim=-1).view(rows, columns)
            numbers = torch.nn.functional.embedding(codes.int(), levels).view(rows, -1, 16)
            whole = factor.bfloat16() * from_blocked(scales, rows, columns // 16).bfloat16()
            (numbers * whole.unsqueeze(-1)).view(rows, columns)

    def weights() -> list[Nvfp4Weight]:
        return [
            Nvfp4Weight(packed, arranged(scales, tensor, True, 0, len(packed)), factor, True, "x")
            for tensor, (packed, scales, factor) in zip(tensors, layers, strict=True)
        ]

    def ours_fp32() -> None:
        for shape, weight in zip(LAYERS, weights(), strict=True):
            scales = decode(weight.scales, weight.factor.expand(len(weight.scales), 1), torch.float32)
            fill(weight.values, scales, weight.high_first, room[shape], "x")

    def ours_bf16() -> None:
        for weight in weights():
            weight.in_memory(torch.bfloat16)

    def ours_int8() -> None:
        for shape, weight in zip(LAYERS, weights(), strict=True):
            quantize_weight(weight, shape, torch.bfloat16, "x")

    return {
        "torchao, fp32": lambda: torchao(torch.float32), "torchao, bf16": lambda: torchao(torch.bfloat16),
        "ComfyUI's rule, bf16": by_the_rule, "reeltune, fp32": ours_fp32, "reeltune, bf16": ours_bf16,
        "reeltune, int8": ours_int8,
    }  # fmt: skip


def print_decoding(repeats: int) -> None:
    torch.set_num_threads(1)
    values = sum(rows * columns for rows, columns in LAYERS) / MILLION
    works = decoders()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(repeats + 1):  # the first round warms caches and compiles
        for name, work in works.items():
            start = time.thread_time()  # of this thread alone: other programs may run beside it
            work()
            if number:
                seconds[name].append(time.thread_time() - start)
    print("| | million values/s |")
    print("|---|---|")
    for name, taken in seconds.items():
        print(f"| {name} | {values / statistics.median(taken):,.0f} |")


def write_checkpoint(path: Path) -> None:
    """A file of Wan 1.3B whose linear layers in blocks are nvfp4, as LightX2V stores them."""
    state = {}
    for seed, (name, shape) in enumerate(shapes(SIZES["1.3B"]).items()):
        if not (name.startswith("blocks.") and name.endswith(".weight") and len(shape) == 2):
            state[name] = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul_(0.02).bfloat16()
            continue
        module = name.removesuffix(".weight")
        state[name], state[f"{module}.weight_scale"], factor = random_layer(*shape, seed)
        state[f"{module}.weight_global_scale"] = 1 / factor
    save_file(state, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("decoding", "loading"), action="append")
    parser.add_argument("--checkpoint", type=Path, default=Path(tempfile.gettempdir()) / "wan_1.3B_nvfp4.safetensors")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    parts = options.part or ("decoding", "loading")
    if "decoding" in parts:
        print_decoding(options.repeats)
    if "loading" in parts:
        if not options.checkpoint.exists():
            write_checkpoint(options.checkpoint)
        print_loading(options.checkpoint, options.repeats)


if __name__ == "__main__":
    main()
