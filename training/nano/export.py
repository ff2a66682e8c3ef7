"""Write nano's trained parts into the package: checkpoints in the original Wan layout, bf16 and quanto int8.

python export.py --work DIR [--untrained]
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors.torch import save_file

from denoiser import CONFIG
from reeltune.checkpoints.keys import matches, translate
from reeltune.checkpoints.names import quantized_name
from reeltune.checkpoints.quanto import quantization_metadata
from reeltune.families.wan import WAN
from reeltune.weights.quanto import quantize_tensor
from text import build_encoder, build_tokenizer
from vae import CONFIG as VAE_CONFIG

PACKAGE = Path(__file__).parents[2] / "src" / "reeltune" / "nano"


def original_layout(model: WanTransformer3DModel) -> dict[str, torch.Tensor]:
    """bf16 weights under their original names."""
    state = {}
    for name, tensor in model.state_dict().items():
        original = translate(name, WAN, "diffusers")
        assert original is not None, name
        state[original] = tensor.to(torch.bfloat16).contiguous()
    return state


def write_versions(state: dict[str, torch.Tensor], name: str, folder: Path) -> None:
    """The bf16 file, and the quanto int8 file made from it."""
    metadata = {"format": "pt", "config": json.dumps(CONFIG)}
    save_file(state, folder / name, metadata)
    quantized: dict[str, torch.Tensor] = {}
    modules = []
    for key, tensor in state.items():
        module = key.removesuffix(".weight")
        if not (key.endswith(".weight") and any(matches(module, pattern) for pattern in WAN.quantizable)):
            quantized[key] = tensor
            continue
        modules.append(module)
        data, scale = quantize_tensor(tensor, torch.bfloat16, key)
        quantized |= {
            f"{key}._data": data,
            f"{key}._scale": scale,
            f"{module}.input_scale": torch.ones((), dtype=torch.bfloat16),
            f"{module}.output_scale": torch.ones((), dtype=torch.bfloat16),
        }
    save_file(quantized, folder / quantized_name(name, "bf16"), metadata | quantization_metadata(modules))


def write_components(work: Path, folder: Path, encoder: torch.nn.Module, trained: bool) -> None:
    """Tokenizer, text encoder and VAE in diffusers layout."""
    shutil.rmtree(folder, ignore_errors=True)
    build_tokenizer().save_pretrained(folder / "tokenizer")
    encoder.to(torch.bfloat16).save_pretrained(folder / "text_encoder")
    config = dict(VAE_CONFIG)
    if trained:
        stats = torch.load(work / "latent_stats.pt", weights_only=True)  # the decoder stage leaves latents as they are
        config |= {"latents_mean": stats["mean"].tolist(), "latents_std": stats["std"].tolist()}
    vae = AutoencoderKLWan(**config)
    if trained:
        polished = work / "vae_decoder.pt"  # the last stage; the one before it serves while it has not run
        checkpoint = polished if polished.exists() else work / "vae_clips.pt"
        vae.load_state_dict(torch.load(checkpoint, weights_only=True)["vae"])
    vae.to(torch.float16).save_pretrained(folder / "vae")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--untrained", action="store_true", help="random weights, for building against")
    options = parser.parse_args()
    torch.manual_seed(0)
    trained = not options.untrained
    for file, name in (("denoiser_solid.pt", "nano_t2v_bf16"), ("denoiser_neon.pt", "nano_neon_bf16")):
        model, encoder = WanTransformer3DModel(**CONFIG), build_encoder()
        if trained and not (options.work / file).exists():
            continue
        if trained:
            state = torch.load(options.work / file, weights_only=True)
            model.load_state_dict(state["model"])
            encoder.load_state_dict(state["encoder"])
        write_versions(original_layout(model), f"{name}.safetensors", PACKAGE)
        if name.startswith("nano_t2v"):
            write_components(options.work, PACKAGE / "reeltune--nano", encoder, trained)


if __name__ == "__main__":
    main()
