"""Train nano's VAE in three stages: single frames, whole clips, and the decoder alone on fixed latents.

python vae.py --work DIR frames     then `clips`, then `decoder`
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders import autoencoder_kl_wan
from torch import nn

from loop import Optimizer, arguments, run
from world import BACKGROUNDS, FRAMES, LOOKS, render, sample_scene

CONFIG: dict[str, Any] = {
    "base_dim": 8,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
}
SHIPPED = Path(__file__).parents[2] / "src" / "reeltune" / "nano" / "reeltune--nano" / "vae"
STAGES = ("frames", "clips", "decoder")
_STEPS = {"frames": 1300, "clips": 2400, "decoder": 1600}
_FRAMES_A_CLIP = 1  # frame batches between two clip batches: a clip batch takes seven times as long
_SHAPE_WEIGHT = 10.0  # the background fills most of the frame and would drown the shapes' colours
_LATENT_NOISE = 0.03


def speed_up() -> None:
    """Make the classes train faster on a CPU without changing what they compute."""
    causal = autoencoder_kl_wan.WanCausalConv3d
    plain = causal.forward

    def forward(self: Any, x: torch.Tensor, cache_x: torch.Tensor | None = None) -> torch.Tensor:
        if x.shape[2] > 1 or cache_x is not None or self.stride[0] > 1 or self._padding[4] != self.kernel_size[0] - 1:
            return plain(self, x, cache_x)
        kernel, padding = self.weight[:, :, -1], (self._padding[2], self._padding[0])  # of a lone frame's past: zeros
        return F.conv2d(x[:, :, 0], kernel, self.bias, self.stride[1:], padding)[:, :, None]

    def norm(self: Any, x: torch.Tensor) -> torch.Tensor:
        dim = 1 if self.channel_first else -1
        length = x.square().sum(dim, keepdim=True).clamp_min(1e-24).rsqrt()
        return x * length * self.scale * self.gamma + self.bias

    causal.forward = forward
    autoencoder_kl_wan.WanRMS_norm.forward = norm


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


def reconstruction_loss(error: torch.Tensor, shapes: torch.Tensor) -> torch.Tensor:
    """Absolute and squared error, the shapes' pixels counting more."""
    weight = 1 + _SHAPE_WEIGHT * shapes
    return ((error.abs() + 2 * error.square()) * weight).sum() / weight.expand_as(error).sum()


def optimizer_of(module: nn.Module, rate: float) -> Optimizer:
    matrices = [row for row in module.parameters() if row.ndim > 3 and row.flatten(1).shape[1] > 1 and row.shape[0] > 3
                and max(row.shape[1:]) > 1]  # fmt: skip
    chosen = {id(row) for row in matrices}
    others = [row for row in module.parameters() if id(row) not in chosen]
    return Optimizer(matrices, others, rate, rate)


def main() -> None:
    parser = arguments(__doc__, 0, 0)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--rate", type=float, default=4e-3)
    options = parser.parse_args()
    speed_up()
    torch.manual_seed(0)
    vae = AutoencoderKLWan(**CONFIG).to(options.device)
    options.work.mkdir(parents=True, exist_ok=True)
    before = STAGES.index(options.stage) - 1
    earlier = options.work / f"vae_{STAGES[before]}.pt"
    if before >= 0 and earlier.exists():
        vae.load_state_dict(torch.load(earlier, weights_only=True)["vae"])
    elif before >= 0:
        print(f"{earlier} is not there: starting from the VAE in the package.")
        vae.load_state_dict(AutoencoderKLWan.from_pretrained(SHIPPED, torch_dtype=torch.float32).state_dict())
    fixed = options.stage == "decoder"
    if fixed:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)

    def step(number: int, rng: random.Random) -> torch.Tensor:
        clip = options.stage != "frames" and number % (_FRAMES_A_CLIP + 1) == 0
        pixels, shapes = (row.to(options.device) for row in batch(rng, *((3, FRAMES) if clip else (16, 1))))
        with torch.set_grad_enabled(not fixed):
            mean = vae.encode(pixels).latent_dist.mean
        spread = mean.detach().std() if fixed else 1.0
        noisy = mean + _LATENT_NOISE * spread * torch.randn_like(mean)
        return reconstruction_loss(decode_unclamped(vae, noisy) - pixels, shapes) + 1e-4 * mean.square().mean()

    trained = nn.ModuleList([vae.decoder, vae.post_quant_conv]) if fixed else vae
    optimizer = optimizer_of(trained, options.rate)
    steps = options.steps or _STEPS[options.stage]
    run(options.work / f"vae_{options.stage}.pt", {"vae": vae}, optimizer, steps, step)


if __name__ == "__main__":
    main()
