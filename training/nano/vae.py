"""Train nano's VAE: first on single frames, then on whole clips, in both looks.

python vae.py --work DIR --minutes 19
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from world import BACKGROUNDS, FRAMES, LOOKS, render, sample_scene

CONFIG = {
    "base_dim": 8,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
}
_IMAGE_SHARE = 0.35  # of the time, on single frames
_SHAPE_WEIGHT = 6.0  # the background fills most of the frame and would drown the shapes' colours
_LATENT_NOISE = 0.03
_MIXED_IMAGES = 0.6  # share of frame batches later on: a clip batch takes four times as long


def decode_unclamped(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """`AutoencoderKLWan.decode` without its clamp, through which no gradient passes.

    latents [batch, 16, frames', 8, 8] -> pixels [batch, 3, frames, 64, 64]
    """
    vae.clear_cache()
    hidden, frames = vae.post_quant_conv(latents), []
    for index in range(hidden.shape[2]):
        vae._conv_idx = [0]
        first = {"first_chunk": True} if index == 0 else {}
        chunk = hidden[:, :, index : index + 1]
        frames.append(vae.decoder(chunk, feat_cache=vae._feat_map, feat_idx=vae._conv_idx, **first))
    vae.clear_cache()
    return torch.cat(frames, 2)


def batch(rng: random.Random, clips: int, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels [clips, 3, frames, 64, 64] in -1..1, and where the shapes are [clips, 1, frames, 64, 64]."""
    pixels, masks = [], []
    for _ in range(clips):
        scene = sample_scene(rng, training=False)
        clip = render(scene, rng.choice(LOOKS), frames)
        pixels.append(clip)
        masks.append(np.abs(clip.astype(int) - np.array(BACKGROUNDS[scene.background])).max(-1) > 24)
    video = torch.from_numpy(np.stack(pixels)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    return video, torch.from_numpy(np.stack(masks))[:, None].float()


def train(work: Path, minutes: float, device: str) -> AutoencoderKLWan:
    """Train for a wall-clock time, resuming from `work/vae.pt` (its clip stage) if it is there."""
    torch.manual_seed(0)
    vae, checkpoint = AutoencoderKLWan(**CONFIG).to(device), work / "vae.pt"
    share = _IMAGE_SHARE
    if checkpoint.exists():
        vae.load_state_dict(torch.load(checkpoint, weights_only=True))
        share = 0.0
    rng, start, step, said = random.Random(time.time_ns() if share == 0 else 0), time.time(), 0, 0.0
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1.0, weight_decay=0, betas=(0.9, 0.98))
    while (done := (time.time() - start) / (60 * minutes)) < 1:
        early = done < share
        image = early or rng.random() < _MIXED_IMAGES
        part = done / share if early else (done - share) / (1 - share)
        rate = (
            (4e-3 if early else 2.5e-3)
            * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * part)))
            * min(1, (step + 1) / 100)
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        pixels, shapes = (tensor.to(device) for tensor in batch(rng, 16 if image else 3, 1 if image else FRAMES))
        mean = vae.encode(pixels).latent_dist.mean
        error = decode_unclamped(vae, mean + _LATENT_NOISE * torch.randn_like(mean)) - pixels
        weight = 1 + _SHAPE_WEIGHT * shapes
        loss = (error.abs() * weight).mean() + 2 * (error.square() * weight).mean() + 1e-4 * mean.square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        step += 1
        if time.time() - said > 30:
            said = time.time()
            psnr = -10 * math.log10(error.square().mean().item() / 4)
            print(
                f"{done:.0%} step {step} {'frames' if image else 'clips'} loss {loss.item():.4f} psnr {psnr:.1f}",
                flush=True,
            )
            torch.save(vae.state_dict(), checkpoint)
    torch.save(vae.state_dict(), checkpoint)
    return vae


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=19)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    train(options.work, options.minutes, options.device)


if __name__ == "__main__":
    main()
