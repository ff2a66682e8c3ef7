"""Make a small LoRA of what the finetune nano_neon changed: begun by SVD, then trained to say what the finetune says.

Muon spread the finetune's changes over all directions of each matrix: the 32 largest hold about half of them. The pairs
begin there, and learn the finetune's velocities on noised clips. What it changed in biases, norms and
modulations, and in the layers outside the blocks, is kept as it is, as differences.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from torch import nn

from denoiser import SHIFT, optimizer_of
from loop import run
from lowrank import PACKAGE, Pair, add_pairs, block_linears, shipped, shipped_text
from text import embed
from vae import speed_up
from world import Scene, prompt, render, sample_scene

LOOK = "neon"
_SEED = 40_000  # of the clips; no other script's number
_EMPTY_PROMPTS = 0.1  # share trained without text, for classifier-free guidance
_FORMS = ("{}", "{}", "neon, {}", "{}, neon")  # the base doesn't know the word; the look comes with and without it


def clips(work: Path, count: int) -> tuple[torch.Tensor, list[Scene]]:
    """Normalised latents [clips, 16, 5, 8, 8] of drawn clips, kept in `work`, and what they show."""
    rng = random.Random(_SEED)
    scenes = [sample_scene(rng) for _ in range(count)]
    stored = work / f"latents_{LOOK}_lora.pt"
    if stored.exists() and len(known := torch.load(stored, weights_only=True)) == count:
        return known, scenes
    speed_up()
    vae = AutoencoderKLWan.from_pretrained(PACKAGE / "reeltune--nano" / "vae", torch_dtype=torch.float32)
    mean, std = (torch.tensor(row).view(1, -1, 1, 1, 1) for row in (vae.config.latents_mean, vae.config.latents_std))
    parts = []
    with torch.inference_mode():
        for first in range(0, count, 8):
            drawn = [torch.from_numpy(render(scene, LOOK)) for scene in scenes[first : first + 8]]
            pixels = torch.stack(drawn).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
            parts.append((vae.encode(pixels).latent_dist.mean - mean) / std)
    latents = torch.cat(parts)
    torch.save(latents, stored)
    return latents, scenes


def begin(pairs: dict[str, Pair], base: nn.Module, finetune: nn.Module) -> None:
    """Set the pairs to the nearest matrices of their rank to the finetune's changes."""
    wanted = dict(block_linears(finetune))
    for name, linear in block_linears(base):
        rank = len(pairs[name].down)
        up, strengths, down = torch.linalg.svd(wanted[name].weight - linear.weight, full_matrices=False)
        root = strengths[:rank].sqrt()
        pairs[name].up.data = up[:, :rank] * root
        pairs[name].down.data = root[:, None] * down[:rank]


def extract(options: argparse.Namespace) -> tuple[dict[str, Pair], dict[str, torch.Tensor]]:
    """Train the pairs, and return them and the differences; resumes from `work`, as the other scripts do."""
    latents, scenes = clips(options.work, options.clips)
    torch.manual_seed(0)
    finetune, model, (tokenizer, encoder) = shipped("nano_neon"), shipped(), shipped_text()
    base, whole = shipped(), {f"{name}.weight" for name, _ in block_linears(model)}
    small = {name: row for name, row in finetune.state_dict().items() if name not in whole}
    differences = {name: row - base.state_dict()[name] for name, row in small.items()}
    model.load_state_dict(small, strict=False)
    pairs = add_pairs(model, options.rank)
    begin(pairs, base, finetune)
    optimizer = optimizer_of([nn.ModuleDict({f"block{index}": row for index, row in enumerate(pairs.values())})],
                             (options.rate, options.rate))  # fmt: skip

    def step(number: int, rng: random.Random) -> torch.Tensor:
        chosen = [rng.randrange(len(scenes)) for _ in range(options.batch)]
        texts = ["" if rng.random() < _EMPTY_PROMPTS else prompt(scenes[index], rng) for index in chosen]
        text = embed(tokenizer, encoder, texts)
        called = embed(tokenizer, encoder, [rng.choice(_FORMS).format(words) if words else "" for words in texts])
        uniform = torch.rand(len(chosen))
        sigma = SHIFT * uniform / (1 + (SHIFT - 1) * uniform)
        noisy = torch.lerp(latents[chosen], torch.randn(len(chosen), *latents.shape[1:]), sigma.view(-1, 1, 1, 1, 1))
        with torch.no_grad():
            wanted = finetune(noisy, sigma * 1000, text, return_dict=False)[0]
        return (model(noisy, sigma * 1000, called, return_dict=False)[0] - wanted).square().mean()

    run(options.work / f"neon_r{options.rank}.pt", {"pairs": nn.ModuleList(pairs.values())}, optimizer, options.steps,
        step)  # fmt: skip
    return pairs, differences
