"""Tiny random Wan checkpoints of the real class, in any layout, prefix, data type and quantization."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file

from reeltune.checkpoints.formats.quanto_int8 import quantization_metadata
from reeltune.checkpoints.keys import matches, translate
from reeltune.families import Family
from reeltune.families.wan import WAN
from reeltune.weights.formats.quanto_int8 import quantize_tensor

CONFIG = {
    "num_attention_heads": 2, "attention_head_dim": 24, "in_channels": 16, "out_channels": 16, "text_dim": 32,
    "freq_dim": 32, "ffn_dim": 64, "num_layers": 2, "cross_attn_norm": True, "rope_max_seq_len": 64,
}  # fmt: skip
METADATA = {"format": "pt", "config": json.dumps({"num_attention_heads": 2, "rope_max_seq_len": 64})}


def original_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """fp32 weights under their original names."""
    torch.manual_seed(seed)
    state = WanTransformer3DModel(**CONFIG).state_dict()
    return {translate(name, WAN, "diffusers"): torch.randn_like(tensor) * 0.1 for name, tensor in state.items()}


def quantized(weights: dict[str, torch.Tensor], dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The weights with block linears in quanto int8, and the file's metadata."""
    state, metadata = quantized_file(weights, WAN, dtype)
    return state, METADATA | metadata


def quantized_file(
    state: dict[str, torch.Tensor], family: Family, dtype: torch.dtype
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """A family's original-layout weights with the block linears in quanto int8, and the file's metadata."""
    found, modules = {}, []
    for name, tensor in state.items():
        module = name.removesuffix(".weight")
        if name.endswith(".weight") and any(matches(module, pattern) for pattern in family.quantizable):
            modules.append(module)
            found[f"{name}._data"], found[f"{name}._scale"] = quantize_tensor(tensor, dtype, name)
            found[f"{module}.input_scale"] = torch.ones((), dtype=dtype)
            found[f"{module}.output_scale"] = torch.ones((), dtype=dtype)
        else:
            found[name] = tensor.to(dtype)
    return found, quantization_metadata(modules)


def write(path: Path, state: dict[str, torch.Tensor], metadata: dict[str, str] | None = None, prefix: str = "") -> Path:
    save_file({prefix + name: tensor.contiguous() for name, tensor in state.items()}, path, metadata or METADATA)
    return path


def inputs(dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "hidden_states": torch.randn(1, 16, 3, 8, 8, dtype=dtype),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, 7, 32, dtype=dtype),
    }


def forward(model: torch.nn.Module, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs(dtype), return_dict=False)[0]
