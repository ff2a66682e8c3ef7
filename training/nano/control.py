"""Train what steers nano: a VACE module that follows a control video, and a finetune that starts from an image.

python control.py --work DIR vace     the module alone; the base stays as it is
python control.py --work DIR i2v      the base with 20 more input channels, all of it
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel
from torch import nn

from denoiser import CONFIG, encode, flow_loss, optimizer_of
from loop import arguments, run
from text import build_encoder, build_tokenizer, embed
from world import DIRECTIONS, SIZE, Scene, prompt, render, sample_scene, silhouette, wander

VACE_CONFIG: dict[str, Any] = CONFIG | {"vace_layers": [0, 2], "vace_in_channels": 96}
I2V_CONFIG: dict[str, Any] = CONFIG | {"in_channels": 36}
_MASK_CHANNELS = 64  # 8 x 8 pixels of the mask, all of it to be drawn
_EMPTY_PROMPTS = 0.1
_STEPS = {"vace": 2400, "i2v": 1200}
_RATES = {"vace": (2e-3, 2e-3), "i2v": (1e-3, 1e-3)}
Model = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def wandering(clips: int) -> list[tuple[Scene, np.ndarray]]:
    """Scenes whose shapes follow paths of their own; the direction they are said to take is the nearest."""
    rng, found = random.Random(7), []
    for _ in range(clips):
        scene = sample_scene(rng)
        path = wander(rng, scene.radius)
        found.append((said(scene, path), path))
    return found


def said(scene: Scene, path: np.ndarray) -> Scene:
    """The scene with the direction that its path takes most."""
    across, down = path[-1] - path[0]
    direction = max(DIRECTIONS, key=lambda name: across * DIRECTIONS[name][0] + down * DIRECTIONS[name][1])
    return Scene(scene.colour, scene.shape, direction, scene.background, scene.radius, scene.start, scene.travel)


def gray(frames: np.ndarray, kept: int) -> np.ndarray:
    """The clip [frames, 64, 64, 3] with only its first `kept` frames; the rest says nothing."""
    clip = np.full(frames.shape, 127.5, np.float32)
    clip[:kept] = frames[:kept]
    return clip


def vace_data(options: Any) -> tuple[torch.Tensor, torch.Tensor, list[Scene]]:
    """Latents of the clips, what is given of each [clips, 96, 5, 8, 8], and what they show."""
    rows = wandering(options.clips)
    draw = [lambda row=row: render(row[0], path=row[1]) for row in rows]
    guides = [lambda row=row: silhouette(*row) for row in rows]
    clean = encode(options.work, "wander", draw, options.device)
    reactive = encode(options.work, "silhouettes", guides, options.device)
    blank = np.zeros((17, SIZE, SIZE, 3), np.uint8)
    nothing = encode(options.work, "nothing", [lambda: gray(blank, 0)], options.device).expand_as(reactive)
    mask = torch.ones(len(rows), _MASK_CHANNELS, *reactive.shape[2:])
    return clean, torch.cat([nothing, reactive, mask], 1), [scene for scene, _ in rows]


def i2v_data(options: Any) -> tuple[torch.Tensor, torch.Tensor, list[Scene]]:
    """Latents of the clips, the mask and the image of each [clips, 20, 5, 8, 8], and what they show."""
    rng = random.Random(0)  # as the base's own, whose latents are there
    scenes = [sample_scene(rng) for _ in range(options.clips)]
    clean = encode(options.work, "solid", [lambda row=row: render(row) for row in scenes], options.device)
    images = [lambda row=row: gray(render(row), 1) for row in scenes]
    image = encode(options.work, "images", images, options.device)
    mask = torch.zeros(len(scenes), 4, *image.shape[2:])
    mask[:, :, 0] = 1
    return clean, torch.cat([mask, image], 1), scenes


def build_vace(base: dict[str, torch.Tensor]) -> tuple[WanVACETransformer3DModel, Model]:
    """The base with a module that changes nothing yet: its blocks begin as the base's, between layers of zeros."""
    model = WanVACETransformer3DModel(**VACE_CONFIG)
    model.load_state_dict(base, strict=False)
    for block, layer in zip(model.vace_blocks, VACE_CONFIG["vace_layers"], strict=True):
        block.load_state_dict(model.blocks[layer].state_dict(), strict=False)
        for projection in (getattr(block, "proj_in", None), block.proj_out):
            if projection is not None:
                nn.init.zeros_(projection.weight)
                nn.init.zeros_(projection.bias)
    for name, row in model.named_parameters():
        row.requires_grad_(name.startswith("vace_"))
    scale = torch.ones(len(VACE_CONFIG["vace_layers"]))

    def guess(noisy: torch.Tensor, time: torch.Tensor, text: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        return model(noisy, time, text, None, given, scale.to(noisy), return_dict=False)[0]

    return model, guess


def build_i2v(base: dict[str, torch.Tensor]) -> tuple[WanTransformer3DModel, Model]:
    """The base with input channels for a mask and an image, which count for nothing yet."""
    model = WanTransformer3DModel(**I2V_CONFIG)
    wide = torch.zeros_like(model.patch_embedding.weight)
    wide[:, : base["patch_embedding.weight"].shape[1]] = base["patch_embedding.weight"]
    model.load_state_dict(base | {"patch_embedding.weight": wide})

    def guess(noisy: torch.Tensor, time: torch.Tensor, text: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        return model(torch.cat([noisy, given], 1), time, text, return_dict=False)[0]

    return model, guess


def main() -> None:
    parser = arguments(__doc__, 0, 24)
    parser.add_argument("what", choices=_STEPS)
    parser.add_argument("--clips", type=int, default=3000)
    options = parser.parse_args()
    torch.manual_seed(0)
    clean, given, scenes = (vace_data if options.what == "vace" else i2v_data)(options)
    state = torch.load(options.work / "denoiser_solid.pt", weights_only=True)
    tokenizer, encoder = build_tokenizer(), build_encoder().to(options.device).requires_grad_(False)
    encoder.load_state_dict(state["encoder"])
    model, guess = (build_vace if options.what == "vace" else build_i2v)(state["model"])
    model.to(options.device)

    def step(number: int, rng: random.Random) -> torch.Tensor:
        chosen = [rng.randrange(len(scenes)) for _ in range(options.batch)]
        texts = ["" if rng.random() < _EMPTY_PROMPTS else prompt(scenes[index], rng) for index in chosen]
        text, condition = embed(tokenizer, encoder, texts), given[chosen].to(options.device)
        return flow_loss(clean[chosen].to(options.device), lambda noisy, time: guess(noisy, time, text, condition))

    optimizer = optimizer_of([model], _RATES[options.what])
    run(options.work / f"{options.what}.pt", {"model": model}, optimizer, options.steps or _STEPS[options.what], step)


if __name__ == "__main__":
    main()
