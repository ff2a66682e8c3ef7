"""Distill 20 guided steps into 4 without guidance, into pairs of small matrices.

The teacher is the model itself, with UniPC and guidance 3: its latents are kept at each noise level that the student
visits. The student walks by itself, from the same noise, in Euler's steps: in each it learns the velocity that leads
from where it is to where the teacher was at the next level. So it learns to come back when it went astray.
"""

from __future__ import annotations

import argparse
import itertools
import random
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from torch import nn

from denoiser import SHIFT, optimizer_of
from loop import run
from lowrank import Pair, add_pairs, shipped, shipped_text
from text import embed
from world import prompt, sample_scene

STEPS, GUIDANCE, TEACHER_STEPS = 4, 3.0, 20
SEED = 30_000  # of the teacher's noise and prompts; no other script's numbers
_SIZE = (16, 5, 8, 8)
_CHUNK = 50
_NEARLY_NOTHING = 0.02


def grids() -> tuple[tuple[float, ...], ...]:
    """Noise levels visited in 4 steps, and 0: by diffusers' Euler, whose last step is nearly nothing; by UniPC's."""
    euler = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    euler.set_timesteps(STEPS)
    even = [1 - index / STEPS for index in range(STEPS)]
    return tuple(euler.sigmas.tolist()), (*(SHIFT * level / (1 + (SHIFT - 1) * level) for level in even), 0.0)


LEVELS = sorted({level for grid in grids() for level in grid}, reverse=True)


@torch.inference_mode()
def teach(model: nn.Module, text: torch.Tensor, empty: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The teacher's latents at each of LEVELS, [clips, levels, 16, 5, 8, 8]; `text`: embeddings of the prompts."""
    solver = UniPCMultistepScheduler(flow_shift=SHIFT, prediction_type="flow_prediction", use_flow_sigmas=True)
    solver.set_timesteps(TEACHER_STEPS)
    both = torch.cat([text, empty.expand_as(text)])
    path = [noise]
    for time in solver.timesteps:
        told, free = model(path[-1].repeat(2, 1, 1, 1, 1), time.expand(len(both)), both, return_dict=False)[0].chunk(2)
        path.append(solver.step(free + GUIDANCE * (told - free), time, path[-1], return_dict=False)[0])
    visited = solver.sigmas.tolist()
    states = []
    for level in LEVELS:
        after = next(index for index in range(1, len(visited)) if visited[index] <= level + 1e-6)
        share = (visited[after - 1] - level) / (visited[after - 1] - visited[after])
        states.append(torch.lerp(path[after - 1], path[after], max(0.0, share)))
    return torch.stack(states, 1)


def sentence(index: int) -> str:
    """The prompt of the teacher's clip of that number; never a combination that is held out."""
    rng = random.Random(SEED + index)
    return prompt(sample_scene(rng), rng)


def lessons(work: Path, clips: int) -> torch.Tensor:
    """The teacher's latents of so many clips, fp16 [clips, levels, 16, 5, 8, 8], kept in `work` and added to."""
    stored = work / "turbo_lessons.pt"
    known = torch.load(stored, weights_only=True) if stored.exists() else torch.empty(0, len(LEVELS), *_SIZE).half()
    model, (tokenizer, encoder) = shipped(), shipped_text()
    empty = embed(tokenizer, encoder, [""])
    parts = [known]
    for first in range(len(known), clips, _CHUNK):
        text = embed(tokenizer, encoder, [sentence(index) for index in range(first, first + _CHUNK)])
        noise = torch.randn(_CHUNK, *_SIZE, generator=torch.Generator().manual_seed(SEED + first))
        parts.append(teach(model, text, empty, noise).half())
        print(f"lessons {first + _CHUNK}/{clips}", flush=True)
    found = torch.cat(parts)
    if len(found) > len(known):
        torch.save(found, stored)
    return found[:clips]


def walk(
    model: nn.Module, text: torch.Tensor, states: torch.Tensor, grid: tuple[float, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The student's own walk from the teacher's noise: its loss, and the mean square distance at the end."""
    here, loss = states[:, LEVELS.index(grid[0])], torch.zeros(())
    for level, after in itertools.pairwise(grid):
        if level < _NEARLY_NOTHING:
            break  # hardly any noise is left: any velocity does
        goal, span = states[:, LEVELS.index(after)], level - after
        velocity = model(here, torch.full((len(here),), level * 1000), text, return_dict=False)[0]
        loss = loss + span * nn.functional.huber_loss(velocity, (here - goal) / span)
        here = (here - span * velocity).detach()
    return loss, (here - goal).square().mean()


def distill(options: argparse.Namespace) -> tuple[dict[str, Pair], dict[str, torch.Tensor]]:
    """Train the pairs, and return them and no differences; resumes from `work`, as the other scripts do."""
    states = lessons(options.work, options.clips)
    torch.manual_seed(0)
    model, (tokenizer, encoder) = shipped(), shipped_text()
    pairs = add_pairs(model, options.rank)
    chosen_grids = grids()
    optimizer = optimizer_of([nn.ModuleDict({f"block{index}": row for index, row in enumerate(pairs.values())})],
                             (options.rate, options.rate))  # fmt: skip

    def step(number: int, rng: random.Random) -> torch.Tensor:
        chosen = [rng.randrange(options.held, len(states)) for _ in range(options.batch)]
        text = embed(tokenizer, encoder, [sentence(index) for index in chosen])
        return walk(model, text, states[chosen].float(), chosen_grids[number % len(chosen_grids)])[0]

    checkpoint = options.work / f"turbo_r{options.rank}.pt"
    run(checkpoint, {"pairs": nn.ModuleList(pairs.values())}, optimizer, options.steps, step)
    with torch.inference_mode():
        held = list(range(options.held))
        text = embed(tokenizer, encoder, [sentence(index) for index in held])
        for grid in chosen_grids:
            distance = walk(model, text, states[held].float(), grid)[1]
            print(f"distance on {len(held)} clips that were not trained on: {distance:.4f} (levels {grid})")
    return pairs, {}
