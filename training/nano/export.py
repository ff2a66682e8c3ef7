"""Write nano's trained parts into the package: checkpoints in the original Wan layout, bf16 and quanto int8.

python export.py --work DIR [--untrained]
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel, WanVACETransformer3DModel
from safetensors.torch import save_file
from torch import nn

from control import I2V_CONFIG, VACE_CONFIG
from denoiser import CONFIG
from reeltune.checkpoints.keys import translate
from reeltune.checkpoints.names import quantized_name
from reeltune.families.wan import WAN
from reeltune.weights.quantize import quantize
from text import build_encoder, build_tokenizer
from vae import CONFIG as VAE_CONFIG

PACKAGE = Path(__file__).parents[2] / "src" / "reeltune" / "nano"


def original_layout(model: nn.Module) -> dict[str, torch.Tensor]:
    """bf16 weights under their original names."""
    state = {}
    for name, tensor in model.state_dict().items():
        original = translate(name, WAN, "diffusers")
        assert original is not None, name
        state[original] = tensor.to(torch.bfloat16).contiguous()
    return state


def write_versions(state: dict[str, torch.Tensor], name: str, config: dict[str, Any]) -> None:
    """The bf16 file, and the quanto int8 file made from it."""
    path = PACKAGE / f"{name}_bf16.safetensors"
    save_file(state, path, {"format": "pt", "config": json.dumps(config)})
    quantize(path, overwrite=True)
    for written in (path, path.with_name(quantized_name(path.name, "bf16"))):
        written.chmod(0o644)


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


MODELS: dict[str, tuple[type[nn.Module], dict[str, Any], str]] = {  # file: class, config, checkpoint in work/
    "nano_t2v": (WanTransformer3DModel, CONFIG, "denoiser_solid.pt"),
    "nano_neon": (WanTransformer3DModel, CONFIG, "denoiser_neon.pt"),
    "nano_i2v": (WanTransformer3DModel, I2V_CONFIG, "i2v.pt"),
    "nano_vace_module": (WanVACETransformer3DModel, VACE_CONFIG, "vace.pt"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--untrained", action="store_true", help="random weights, for building against")
    options = parser.parse_args()
    torch.manual_seed(0)
    trained = not options.untrained
    for name, (model_class, config, file) in MODELS.items():
        model, encoder = model_class(**config), build_encoder()
        if trained and not (options.work / file).exists():
            continue
        if trained:
            state = torch.load(options.work / file, weights_only=True)
            model.load_state_dict(state["model"])
        weights = original_layout(model)
        if name.endswith("module"):
            weights = {key: row for key, row in weights.items() if key.startswith("vace_")}
            config = {key: row for key, row in config.items() if key.startswith("vace_")}
        write_versions(weights, name, config)
        if name == "nano_t2v":
            if trained:
                encoder.load_state_dict(state["encoder"])
            write_components(options.work, PACKAGE / "reeltune--nano", encoder, trained)


if __name__ == "__main__":
    main()
