"""Train nano's transformer and text encoder by flow matching on the VAE's latents; or finetune another look.

python denoiser.py --work DIR                 the base, on solid shapes
python denoiser.py --work DIR --look neon     the finetune: starts from the base, transformer only
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import nn

from loop import Optimizer, arguments, run
from text import build_encoder, build_tokenizer, embed
from vae import CONFIG as VAE_CONFIG
from vae import speed_up
from world import LOOKS, Scene, prompt, render, sample_scene

CONFIG: dict[str, Any] = {
    "patch_size": (1, 2, 2), "num_attention_heads": 6, "attention_head_dim": 32, "in_channels": 16, "out_channels": 16,
    "text_dim": 96, "freq_dim": 256, "ffn_dim": 512, "num_layers": 5, "cross_attn_norm": True, "rope_max_seq_len": 64,
}  # fmt: skip
SHIFT = 3.0  # of the noise schedule, as at inference
_EMPTY_PROMPTS = 0.1  # share trained without text, for classifier-free guidance
_STEPS = {"solid": 8000, "neon": 1600}
_RATES = {"solid": (2e-3, 2e-3), "neon": (1e-3, 1e-3)}


def encode_clips(work: Path, look: str, clips: int, device: str) -> tuple[torch.Tensor, list[Scene]]:
    """Normalised latents [clips, 16, 5, 8, 8] of random training scenes."""
    rng = random.Random(LOOKS.index(look))
    scenes = [sample_scene(rng) for _ in range(clips)]
    return encode(work, look, [lambda scene=scene: render(scene, look) for scene in scenes], device), scenes


def encode(work: Path, name: str, clips: list[Callable[[], np.ndarray]], device: str) -> torch.Tensor:
    """Normalised latents [clips, 16, 5, 8, 8], kept in `work` under the name and only ever added to."""
    stored, statistics = work / f"latents_{name}.pt", work / "latent_stats.pt"
    known = torch.load(stored, weights_only=True) if stored.exists() else torch.empty(0, 16, 5, 8, 8)
    if len(known) >= len(clips):
        return known[: len(clips)]
    speed_up()
    vae = AutoencoderKLWan(**VAE_CONFIG).to(device)
    vae.load_state_dict(torch.load(work / "vae_clips.pt", weights_only=True)["vae"])
    parts = []
    with torch.inference_mode():
        for first in range(len(known), len(clips), 8):
            videos = [torch.from_numpy(clip()) for clip in clips[first : first + 8]]
            pixels = torch.stack(videos).permute(0, 4, 1, 2, 3).float().to(device) / 127.5 - 1
            parts.append(vae.encode(pixels).latent_dist.mean.cpu())
    fresh = torch.cat(parts)
    if not statistics.exists():
        torch.save({"mean": fresh.mean((0, 2, 3, 4)), "std": fresh.std((0, 2, 3, 4))}, statistics)
    stats = torch.load(statistics, weights_only=True)
    fresh = (fresh - stats["mean"].view(1, -1, 1, 1, 1)) / stats["std"].view(1, -1, 1, 1, 1)
    latents = torch.cat([known, fresh])
    torch.save(latents, stored)
    return latents


def flow_loss(clean: torch.Tensor, guess: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Error of the velocity `guess(noisy, timestep)` tells, at random noise levels as inference shifts them.

    `clean`: normalised latents [batch, 16, 5, 8, 8].
    """
    noise, uniform = torch.randn_like(clean), torch.rand(len(clean), device=clean.device)
    sigma = SHIFT * uniform / (1 + (SHIFT - 1) * uniform)
    noisy = torch.lerp(clean, noise, sigma.view(-1, 1, 1, 1, 1))
    with torch.autocast(clean.device.type, torch.bfloat16):
        velocity = guess(noisy, sigma * 1000)
    return (velocity.float() - (noise - clean)).square().mean()


def optimizer_of(parts: list[nn.Module], rates: tuple[float, float]) -> Optimizer:
    named = [(name, row) for part in parts for name, row in part.named_parameters() if row.requires_grad]
    matrices = [row for name, row in named if row.ndim == 2 and "block" in name and "relative" not in name]
    chosen = {id(row) for row in matrices}
    return Optimizer(matrices, [row for _, row in named if id(row) not in chosen], *rates)


def main() -> None:
    parser = arguments(__doc__, 0, 24)
    parser.add_argument("--look", choices=LOOKS, default="solid")
    parser.add_argument("--clips", type=int, default=5000)
    options = parser.parse_args()
    torch.manual_seed(0)
    latents, scenes = encode_clips(options.work, options.look, options.clips, options.device)
    tokenizer, encoder = build_tokenizer(), build_encoder().to(options.device)
    model = WanTransformer3DModel(**CONFIG).to(options.device)
    parts = {"model": model, "encoder": encoder}
    if options.look != "solid":
        state = torch.load(options.work / "denoiser_solid.pt", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        encoder.requires_grad_(False)

    def step(number: int, rng: random.Random) -> torch.Tensor:
        chosen = [rng.randrange(len(scenes)) for _ in range(options.batch)]
        texts = ["" if rng.random() < _EMPTY_PROMPTS else prompt(scenes[index], rng) for index in chosen]
        embeddings = embed(tokenizer, encoder, texts)
        return flow_loss(
            latents[chosen].to(options.device),
            lambda noisy, time: model(noisy, time, embeddings, return_dict=False)[0],
        )

    optimizer = optimizer_of([model, encoder], _RATES[options.look])
    checkpoint = options.work / f"denoiser_{options.look}.pt"
    run(checkpoint, parts, optimizer, options.steps or _STEPS[options.look], step)


if __name__ == "__main__":
    main()
