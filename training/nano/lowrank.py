"""What the makers of nano's LoRAs share: the shipped model, pairs of small matrices on its linears, and their file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrize
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from denoiser import CONFIG
from reeltune.checkpoints.keys import translate
from reeltune.families.wan import WAN

PACKAGE = Path(__file__).parents[2] / "src" / "reeltune" / "nano"
_PREFIX = "diffusion_model."  # before the original names, as most programs write them


class Pair(nn.Module):
    """A linear's weight [out, in] and up [out, rank] @ down [rank, in]; up is zeros at first."""

    def __init__(self, rows: int, columns: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, columns) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.up @ self.down


def shipped(name: str = "nano_t2v") -> WanTransformer3DModel:
    """A transformer of the package, fp32, frozen."""
    stored = load_file(PACKAGE / f"{name}_bf16.safetensors")
    model = WanTransformer3DModel(**CONFIG)
    model.load_state_dict({translate(key, WAN, "original"): row.float() for key, row in stored.items()})
    return model.requires_grad_(False)


def shipped_text() -> tuple[PreTrainedTokenizerFast, UMT5EncoderModel]:
    """Tokenizer and text encoder of the package, fp32, frozen."""
    folder = PACKAGE / "reeltune--nano"
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    encoder = UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    return tokenizer, encoder.requires_grad_(False)


def block_linears(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The linears of the blocks with their names in diffusers' layout: 50 of them."""
    for name, module in model.named_modules():
        if name.startswith("blocks.") and isinstance(module, nn.Linear):
            yield name, module


def add_pairs(model: nn.Module, rank: int) -> dict[str, Pair]:
    """Put a pair on each linear of the blocks. Returns them by the linears' names; they alone are trained."""
    pairs = {}
    for name, linear in list(block_linears(model)):
        pairs[name] = Pair(*linear.weight.shape, rank)
        parametrize.register_parametrization(linear, "weight", pairs[name])
    return pairs


def write_lora(
    path: Path,
    pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    differences: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
) -> None:
    """Write a bf16 LoRA in the original names: pairs as lora_up, lora_down and alpha, the rest as differences.

    `pairs`: up and down by a linear's name, `differences`: by a parameter's name, both in diffusers' layout.
    """
    tensors = {}
    for name, (up, down) in pairs.items():
        module = _PREFIX + original(f"{name}.weight").removesuffix(".weight")
        tensors[f"{module}.lora_up.weight"] = up
        tensors[f"{module}.lora_down.weight"] = down
        tensors[f"{module}.alpha"] = torch.tensor(float(down.shape[0]))  # the rank: a pair counts as it is
    for name, difference in differences.items():
        tensors[_PREFIX + difference_key(original(name))] = difference
    kept = {key: row.detach().to(torch.bfloat16).contiguous() for key, row in tensors.items()}
    save_file(kept, path, {"format": "pt", **metadata})
    path.chmod(0o644)


def original(name: str) -> str:
    """The original name of a parameter in diffusers' layout."""
    found = translate(name, WAN, "diffusers")
    assert found is not None, name
    return found


def difference_key(name: str) -> str:
    """The key of a parameter's difference: of a weight, a bias or a modulation."""
    for ending, part in ((".weight", ".diff"), (".bias", ".diff_b"), (".modulation", ".diff_m")):
        if name.endswith(ending):
            return name.removesuffix(ending) + part
    raise ValueError(name)
