"""The layouts that a WanGP `ckpts` folder keeps components in, written out from the classes' own, name by name."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import save_file

from reeltune.checkpoints.formats.quanto_int8 import quantization_metadata
from reeltune.weights.formats.quanto_int8 import quantize_tensor

State = dict[str, torch.Tensor]
UMT5_FILE = "umt5-xxl/models_t5_umt5-xxl-enc-bf16.safetensors"
UMT5_INT8_FILE = "umt5-xxl/models_t5_umt5-xxl-enc-quanto_int8.safetensors"
CLIP_FILE = "xlm-roberta-large/models_clip_open-clip-xlm-roberta-large-vit-huge-14-bf16.safetensors"
VAE_FILE = "Wan2.1_VAE.safetensors"


def umt5(state: State) -> State:
    """UMT5's encoder as in the Wan release."""
    found = {"token_embedding.weight": state["shared.weight"], "norm.weight": state["encoder.final_layer_norm.weight"]}
    blocks = {int(row[1]) for name in state if (row := re.match(r"encoder\.block\.(\d+)\.", name))}
    for block in blocks:
        theirs, ours = f"encoder.block.{block}.layer", f"blocks.{block}"
        for letter in "qkvo":
            found[f"{ours}.attn.{letter}.weight"] = state[f"{theirs}.0.SelfAttention.{letter}.weight"]
        bias = state[f"{theirs}.0.SelfAttention.relative_attention_bias.weight"]
        found[f"{ours}.pos_embedding.embedding.weight"] = bias
        found[f"{ours}.norm1.weight"] = state[f"{theirs}.0.layer_norm.weight"]
        found[f"{ours}.norm2.weight"] = state[f"{theirs}.1.layer_norm.weight"]
        found[f"{ours}.ffn.gate.0.weight"] = state[f"{theirs}.1.DenseReluDense.wi_0.weight"]
        found[f"{ours}.ffn.fc1.weight"] = state[f"{theirs}.1.DenseReluDense.wi_1.weight"]
        found[f"{ours}.ffn.fc2.weight"] = state[f"{theirs}.1.DenseReluDense.wo.weight"]
    return found


def open_clip(state: State) -> State:
    """CLIP's vision model as in the Wan release, among what else the file holds."""
    found = {
        "visual.cls_embedding": state["embeddings.class_embedding"][None, None],
        "visual.pos_embedding": state["embeddings.position_embedding.weight"][None],
        "visual.patch_embedding.weight": state["embeddings.patch_embedding.weight"],
        "visual.head": torch.zeros(8, 4), "log_scale": torch.zeros(()), "textual.norm.weight": torch.zeros(8),
    }  # fmt: skip
    for name, tensor in state.items():
        kind = name.rpartition(".")[2]
        if name.startswith("pre_layrnorm"):
            found[f"visual.pre_norm.{kind}"] = tensor
        elif name.startswith("post_layernorm"):
            found[f"visual.post_norm.{kind}"] = tensor
        elif layer := re.match(r"encoder\.layers\.(\d+)\.(.+)\.", name):
            own = f"visual.transformer.{layer[1]}"
            plain = {"layer_norm1": "norm1", "layer_norm2": "norm2", "self_attn.out_proj": "attn.proj",
                     "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.2"}  # fmt: skip
            if layer[2] in plain:
                found[f"{own}.{plain[layer[2]]}.{kind}"] = tensor
            else:
                rows = [state[f"encoder.layers.{layer[1]}.self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
                found[f"{own}.attn.to_qkv.{kind}"] = torch.cat(rows)
    return found


def wan_vae(state: State) -> State:
    """Wan 2.1's VAE as in its release."""
    found = {}
    inner = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6",
             "conv_shortcut": "shortcut"}  # fmt: skip
    middle = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
    for name, tensor in state.items():
        parts = name.split(".")
        side, rest = parts[0], parts[1:]
        if side in ("quant_conv", "post_quant_conv"):
            found[".".join(["conv1" if side == "quant_conv" else "conv2", *rest])] = tensor
            continue
        if rest[0] in ("conv_in", "norm_out", "conv_out"):
            new = [side, {"conv_in": "conv1", "norm_out": "head.0", "conv_out": "head.2"}[rest[0]], *rest[1:]]
        elif rest[0] == "mid_block":
            new = [side, "middle", middle[f"{rest[1]}.{rest[2]}"], *rest[3:]]
        elif rest[0] == "down_blocks":
            new = [side, "downsamples", *rest[1:]]
        else:
            at = int(rest[3]) if rest[2] == "resnets" else 3
            new = [side, "upsamples", str(4 * int(rest[1]) + at), *rest[4:]]
        found[".".join(inner.get(part, part) if new[1] != "conv1" else part for part in new)] = tensor
    return found


def int8(state: State, layers: str) -> tuple[State, dict[str, str]]:
    """The state with the weights whose names match `layers` in quanto int8, and the file's metadata."""
    found, modules = {}, []
    for name, tensor in state.items():
        if not re.fullmatch(layers, name):
            found[name] = tensor
            continue
        module = name.removesuffix(".weight")
        found[f"{name}._data"], found[f"{name}._scale"] = quantize_tensor(tensor, torch.bfloat16)
        found |= {f"{module}.{which}_scale": torch.ones((), dtype=torch.bfloat16) for which in ("input", "output")}
        modules.append(module)
    return found, quantization_metadata(modules)


def write(path: Path, state: State, metadata: dict[str, str] | None = None) -> Path:
    """A safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: row.clone().contiguous() for name, row in state.items()}, path, metadata)
    return path
