"""Train nano's transformer and text encoder by flow matching on the VAE's latents; or finetune another look.

python denoiser.py --work DIR --minutes 30
python denoiser.py --work DIR --minutes 8 --look neon        (starts from the base, transformer only)
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from text import build_encoder, build_tokenizer, embed
from vae import CONFIG as VAE_CONFIG
from world import Scene, prompt, render, sample_scene

CONFIG: dict[str, Any] = {
    "patch_size": (1, 2, 2), "num_attention_heads": 6, "attention_head_dim": 32, "in_channels": 16, "out_channels": 16,
    "text_dim": 96, "freq_dim": 256, "ffn_dim": 512, "num_layers": 5, "cross_attn_norm": True, "rope_max_seq_len": 64,
}  # fmt: skip
SHIFT = 3.0  # of the noise schedule, as at inference
_EMPTY_PROMPTS = 0.1  # share trained without text, for classifier-free guidance


def encode_clips(work: Path, look: str, clips: int, device: str) -> tuple[torch.Tensor, list[Scene]]:
    """Normalised latents [clips, 16, 5, 8, 8] of random training scenes, made once and kept in `work`."""
    rng = random.Random(100 if look == "solid" else 200)
    scenes = [sample_scene(rng) for _ in range(clips)]
    stored = work / f"latents_{look}.pt"
    if stored.exists():
        latents = torch.load(stored, weights_only=True)
        return latents, scenes[: len(latents)]
    vae = AutoencoderKLWan(**VAE_CONFIG).to(device)
    vae.load_state_dict(torch.load(work / "vae.pt", weights_only=True))
    parts = []
    with torch.inference_mode():
        for first in range(0, clips, 8):
            videos = [torch.from_numpy(render(scene, look)) for scene in scenes[first : first + 8]]
            pixels = torch.stack(videos).permute(0, 4, 1, 2, 3).float().to(device) / 127.5 - 1
            parts.append(vae.encode(pixels).latent_dist.mean.cpu())
    latents = torch.cat(parts)
    if not (work / "latent_stats.pt").exists():
        stats = {"mean": latents.mean((0, 2, 3, 4)), "std": latents.std((0, 2, 3, 4))}
        torch.save(stats, work / "latent_stats.pt")
    stats = torch.load(work / "latent_stats.pt", weights_only=True)
    latents = (latents - stats["mean"].view(1, -1, 1, 1, 1)) / stats["std"].view(1, -1, 1, 1, 1)
    torch.save(latents, stored)
    return latents, scenes


def train(work: Path, minutes: float, look: str, clips: int, batch: int, rate: float, device: str) -> None:
    """Train for a wall-clock time; keeps an average of the weights, which is what is exported."""
    torch.manual_seed(0)
    latents, scenes = encode_clips(work, look, clips, device)
    tokenizer, encoder = build_tokenizer(), build_encoder().to(device)
    model = WanTransformer3DModel(**CONFIG).to(device)
    target = work / ("denoiser.pt" if look == "solid" else f"denoiser_{look}.pt")
    source = target if target.exists() else work / "denoiser.pt"
    if source.exists():
        state = torch.load(source, weights_only=True)
        model.load_state_dict(state["model"])
        encoder.load_state_dict(state["encoder"])
    parameters = list(model.parameters()) + (list(encoder.parameters()) if look == "solid" else [])
    encoder.requires_grad_(look == "solid")
    average, average_encoder = copy.deepcopy(model), copy.deepcopy(encoder)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, betas=(0.9, 0.99))
    rng, start, step, said, smooth = random.Random(time.time_ns()), time.time(), 0, 0.0, 0.0
    while (done := (time.time() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))) * min(1, (step + 1) / 200)
        chosen = [rng.randrange(len(scenes)) for _ in range(batch)]
        clean = latents[chosen].to(device)
        texts = ["" if rng.random() < _EMPTY_PROMPTS else prompt(scenes[index], rng) for index in chosen]
        noise, uniform = torch.randn_like(clean), torch.rand(batch, device=device)
        sigma = SHIFT * uniform / (1 + (SHIFT - 1) * uniform)
        noisy = torch.lerp(clean, noise, sigma.view(-1, 1, 1, 1, 1))
        guess = model(noisy, sigma * 1000, embed(tokenizer, encoder, texts), return_dict=False)[0]
        loss = (guess - (noise - clean)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        decay = min(0.998, step / (step + 20))
        _average(average, model, decay)
        _average(average_encoder, encoder, decay)
        smooth = loss.item() if step == 1 else 0.99 * smooth + 0.01 * loss.item()
        if time.time() - said > 60:
            said = time.time()
            print(f"{done:.0%} step {step} loss {smooth:.4f}", flush=True)
            torch.save({"model": average.state_dict(), "encoder": average_encoder.state_dict()}, target)
    torch.save({"model": average.state_dict(), "encoder": average_encoder.state_dict()}, target)
    print(f"{step} steps, loss {smooth:.4f}", flush=True)


@torch.no_grad()
def _average(average: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--look", choices=("solid", "neon"), default="solid")
    parser.add_argument("--clips", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    train(
        options.work,
        options.minutes,
        options.look,
        options.clips,
        options.batch,
        options.rate,
        options.device,
    )


if __name__ == "__main__":
    main()
