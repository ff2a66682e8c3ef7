"""Files in nvfp4 as ComfyUI, LightX2V and ModelOpt store them, and the numbers that they stand for.

Written with numpy from the documented rules, one scale after another, and not by the code that is tested.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from reeltune.checkpoints.header import read_header

LEVELS = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)
E4M3 = torch.arange(256, dtype=torch.int16).to(torch.uint8).view(torch.float8_e4m3fn).to(torch.float32).numpy()
KINDS = ("comfyui", "lightx2v", "lightx2v alpha", "modelopt")
NOTE = {"format": "nvfp4"}


def in_tiles(scales: np.ndarray) -> np.ndarray:
    """Scales [rows, columns] as tensor cores read them, in the padded shape."""
    rows, columns = scales.shape
    across = -(-columns // 4)
    shape = (-(-rows // 128) * 128, across * 4)
    tiled = np.zeros(shape[0] * shape[1], np.uint8)
    for row in range(rows):
        for column in range(columns):
            tile = row // 128 * across + column // 4
            tiled[512 * tile + 16 * (row % 32) + 4 * (row % 128 // 32) + column % 4] = scales[row, column]
    return tiled.reshape(shape)


def packed(codes: np.ndarray, *, high_first: bool) -> np.ndarray:
    """Two codes [rows, columns] in each byte."""
    first, second = codes[:, 0::2], codes[:, 1::2]
    return (first << 4 | second) if high_first else (second << 4 | first)


def numbers_of(codes: np.ndarray, scales: np.ndarray, factor: np.float32) -> np.ndarray:
    """What codes [rows, columns] and e4m3 scales [rows, columns / 16] stand for, in fp32."""
    whole = (np.float32(factor) * E4M3[scales]).astype(np.float32)
    return (LEVELS[codes] * whole.repeat(16, axis=1)).astype(np.float32)


def quantized(weight: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.float32]:
    """The codes, the scales and the factor of a weight [rows, columns]."""
    values = weight.float().numpy()
    factor = np.float32(np.abs(values).max() / 2688)
    wanted = np.abs(values.reshape(len(values), -1, 16)).max(axis=2) / 6 / factor
    scales = np.abs(E4M3[None, None, :127] - wanted[:, :, None]).argmin(axis=2).astype(np.uint8)
    steps = np.maximum(E4M3[scales] * factor, 1e-30).repeat(16, axis=1)
    codes = np.abs(LEVELS[None, None] - (values / steps)[:, :, None]).argmin(axis=2).astype(np.uint8)
    return codes, scales, factor


def layer(
    name: str, codes: np.ndarray, scales: np.ndarray, factor: np.float32, kind: str
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The tensors of a layer as a program stores them, and the numbers that they stand for."""
    stored_scales = scales if kind == "modelopt" else in_tiles(scales)
    state = {
        f"{name}.weight": torch.from_numpy(packed(codes, high_first=kind == "comfyui").copy()),
        f"{name}.weight_scale": torch.from_numpy(stored_scales.copy()).view(torch.float8_e4m3fn),
    }
    if kind == "lightx2v":
        divisor = np.float32(1) / factor
        state[f"{name}.weight_global_scale"] = torch.tensor(divisor)
        state[f"{name}.input_absmax"] = torch.tensor(3.0)
        factor = np.float32(1) / divisor
    elif kind == "lightx2v alpha":
        divisor = np.float32(300)
        alpha = np.float32(factor / divisor)
        state[f"{name}.alpha"] = torch.tensor(alpha)
        state[f"{name}.input_global_scale"] = torch.tensor([divisor])
        factor = np.float32(alpha * divisor)
    else:
        state[f"{name}.weight_scale_2"] = torch.tensor(factor)
        state[f"{name}.input_scale"] = torch.tensor(0.25)
    return state, torch.from_numpy(numbers_of(codes, scales, factor))


def stored_as(
    weights: dict[str, torch.Tensor], is_linear, kind: str, notes: str = "tensors", prefix: str = ""
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, str]]:
    """A model's tensors with its linears in nvfp4, the same as numbers, and the metadata that it needs.

    `notes`: of ComfyUI's files, in "tensors", in the "metadata", or "none"; `prefix`: of the layers' names.
    """
    state, numbers, layers = {}, {}, {}
    for name, tensor in weights.items():
        if not is_linear(name):
            state[prefix + name] = tensor
            numbers[name] = tensor
            continue
        module = name.removesuffix(".weight")
        of_layer, numbers[name] = layer(module, *quantized(tensor), kind)
        state |= {prefix + key: value for key, value in of_layer.items()}
        layers[prefix + module] = NOTE
        if kind == "comfyui" and notes == "tensors":
            note = torch.tensor(list(json.dumps(NOTE).encode()), dtype=torch.uint8)
            state[f"{prefix}{module}.comfy_quant"] = note
    metadata = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}
    return state, numbers, metadata if kind == "comfyui" and notes == "metadata" else {}


def in_blocks(name: str) -> bool:
    """Whether a tensor is the weight of a linear layer in a block of the transformer."""
    return "blocks." in name and name.endswith(".weight") and "norm" not in name


def convert(source: Path, target: Path, kind: str, decoded: Path, dtype: torch.dtype = torch.bfloat16, **more) -> Path:
    """A file's linears in blocks in nvfp4; and a file of the numbers that these stand for, in a 16-bit type."""
    weights = load_file(source)
    metadata = dict(read_header(source).metadata)

    def is_linear(name: str) -> bool:
        return in_blocks(name) and weights[name].ndim == 2 and weights[name].shape[1] % 16 == 0

    state, numbers, own = stored_as(weights, is_linear, kind, **more)
    save_file(state, target, metadata | own)
    plain = {name: tensor.to(dtype) if is_linear(name) else tensor for name, tensor in numbers.items()}
    save_file(plain, decoded, metadata)
    return target
