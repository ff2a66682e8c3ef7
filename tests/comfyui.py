"""The layouts that ComfyUI and others keep components in, written out from the classes' own, name by name."""

from __future__ import annotations

import re
import struct

import torch

from wangp import State

FP8 = torch.float8_e4m3fn


def wan22_vae(state: State) -> State:
    """Wan 2.2's VAE as in its release."""
    found = {}
    inner = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6",
             "conv_shortcut": "shortcut"}  # fmt: skip
    middle = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
    for name, tensor in state.items():
        side, *rest = name.split(".")
        if side in ("quant_conv", "post_quant_conv"):
            found[".".join(["conv1" if side == "quant_conv" else "conv2", *rest])] = tensor
            continue
        if rest[0] in ("conv_in", "norm_out", "conv_out"):
            new = [{"conv_in": "conv1", "norm_out": "head.0", "conv_out": "head.2"}[rest[0]], *rest[1:]]
        elif rest[0] == "mid_block":
            new = ["middle", middle[f"{rest[1]}.{rest[2]}"], *(inner.get(part, part) for part in rest[3:])]
        else:
            lists = "downsamples" if side == "encoder" else "upsamples"
            last = "2" if side == "encoder" else "3"
            if rest[2] == "resnets":
                new = [lists, rest[1], lists, rest[3], *(inner.get(part, part) for part in rest[4:])]
            else:
                new = [lists, rest[1], lists, last, *rest[3:]]
        found[".".join([side, *new])] = tensor
    return found


def ltx_vae(state: State) -> State:
    """LTX Video's VAE as in its releases since 0.9.5, with the statistics that nothing needs."""
    found = {"per_channel_statistics.channel": torch.zeros(3), "per_channel_statistics.mean-of-stds": torch.zeros(3)}
    for name, tensor in state.items():
        new = {"latents_mean": "per_channel_statistics.mean-of-means",
               "latents_std": "per_channel_statistics.std-of-means"}.get(name, name)  # fmt: skip
        new = new.replace("encoder.mid_block.", "encoder.down_blocks.8.")
        new = re.sub(r"decoder\.(time_embedder|scale_shift_table)", r"decoder.last_\1", new)
        down = re.match(r"encoder\.down_blocks\.(\d)\.(resnets|downsamplers\.0)(.*)", name)
        up = re.match(r"decoder\.up_blocks\.(\d)\.(resnets|time_embedder|upsamplers\.0)(.*)", name)
        if down:
            number = 2 * int(down[1]) + (down[2] != "resnets")
            new = f"encoder.down_blocks.{number}{'.resnets' if down[2] == 'resnets' else ''}{down[3]}"
        elif up:
            sampler = up[2] == "upsamplers.0"
            number = 2 * int(up[1]) + (1 if sampler else 2)
            new = f"decoder.up_blocks.{number}{'' if sampler else '.' + up[2]}{up[3]}"
        new = new.replace("decoder.mid_block.", "decoder.up_blocks.0.").replace("resnets", "res_blocks")
        found[new] = tensor
    return found


def hunyuan_vae(state: State) -> State:
    """Hunyuan Video's VAE with the names of latent diffusion models, attention as convolutions."""
    found = {}
    names = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    for name, tensor in state.items():
        new = name.replace("conv_norm_out", "norm_out").replace("mid_block.resnets.0", "mid.block_1")
        new = new.replace("mid_block.resnets.1", "mid.block_2").replace("conv_shortcut", "nin_shortcut")
        for theirs, ours in names.items():
            new = new.replace(f"mid_block.attentions.0.{theirs}.", f"mid.attn_1.{ours}.")
        new = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", new)
        new = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d)\.resnets", lambda row: f"up.{3 - int(row[1])}.block", new)
        new = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda row: f"up.{3 - int(row[1])}.upsample", new)
        if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", new):
            tensor = tensor[:, :, None, None, None]
        found[new] = tensor
    return found


def llava(state: State) -> State:
    """Llava as transformers named it until version 4, as in WanGP's file."""
    found = {}
    for name, tensor in state.items():
        new = re.sub(r"^model\.language_model\.", "language_model.model.", name)
        new = re.sub(r"^model\.vision_tower\.", "vision_tower.vision_model.", new)
        found[re.sub(r"^model\.multi_modal", "multi_modal", new).replace("lm_head", "language_model.lm_head")] = tensor
    return found


def qwen(state: State) -> State:
    """Qwen2.5-VL as transformers named it until version 4, as in the files of ComfyUI and WanGP."""
    old = {"model.language_model.": "model.", "model.visual.": "visual."}
    return {re.sub(r"^model\.(language_model|visual)\.", lambda row: old[row[0]], name): state[name] for name in state}


def hunyuan15_vae(state: State) -> State:
    """The VAE of Hunyuan Video 1.5 as in its release."""
    found = {}
    for name, tensor in state.items():
        new = re.sub(r"(down|up)_blocks\.(\d)\.resnets\.", r"\1.\2.block.", name)
        new = re.sub(r"(down|up)_blocks\.(\d)\.(down|up)samplers\.0\.", r"\1.\2.\3sample.", new)
        new = new.replace("mid_block.resnets.0.", "mid.block_1.").replace("mid_block.resnets.1.", "mid.block_2.")
        new = re.sub(r"mid_block\.attentions\.0\.(?:to_)?(norm|q|k|v|proj_out)\.", r"mid.attn_1.\1.", new)
        found[new] = tensor
    return found


def llava_vision(state: State) -> State:
    """Llava's vision model, as in ComfyUI's file."""
    whole = llava(state)
    vision = {name.replace("vision_tower.", ""): row for name, row in whole.items() if name.startswith("vision_tower.")}
    return vision | {name: row for name, row in whole.items() if name.startswith("multi_modal")}


def prefixed(prefix: str, state: State) -> State:
    """The same names behind a prefix."""
    return {prefix + name: row for name, row in state.items()}


def scaled_fp8(state: State, layers: str) -> tuple[State, State]:
    """The state with the weights whose names match `layers` in scaled fp8, and what they are in bf16."""
    found, plain = {"scaled_fp8": torch.zeros(2, dtype=FP8)}, dict(state)
    for name, tensor in state.items():
        if not re.fullmatch(layers, name):
            found[name] = tensor
            continue
        scale = tensor.abs().amax().float() / 448
        found[name] = (tensor.float() / scale).clamp(-448, 448).to(FP8)
        found[name.replace(".weight", ".scale_weight")] = scale
        plain[name] = (found[name].float() * scale).to(tensor.dtype)
    return found, plain


# --- SentencePiece ------------------------------------------------------------------------------------------------


def sentencepiece(pieces: list[tuple[str, float, int]], charsmap: bytes = b"") -> torch.Tensor:
    """A SentencePiece model as bytes; pieces with their scores and types."""
    raw = b""
    for text, score, kind in pieces:
        piece = _field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind])
        raw += _field(1, piece)
    raw += _field(2, b"\x18\x01")  # the trainer's settings, which are left out
    if charsmap:
        raw += _field(3, _field(2, charsmap))
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8)


def _field(number: int, content: bytes) -> bytes:
    length, size = b"", len(content)
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content
