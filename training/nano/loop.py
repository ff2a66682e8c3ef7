"""What the training scripts share: a seeded loop that resumes where it stopped, and the optimizer.

Each step draws from generators seeded by its number alone, and the learning rate is constant until the last third:
a run that was cut off, or whose `--steps` was changed before that third, ends in the same weights as one in one go.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

WARM_UP, DECAY = 100, 0.35  # steps; share of the run over which the rate falls to nothing
_SAVE_SECONDS = 60
Step = Callable[[int, random.Random], torch.Tensor]  # number of the step, its generator -> loss


def arguments(description: str | None, steps: int, batch: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints and latents")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


class Optimizer:
    """Muon for the weight matrices (kernels flattened to [out, rest]), AdamW for everything else."""

    def __init__(self, matrices: Iterable[nn.Parameter], others: Iterable[nn.Parameter], muon: float, adam: float):
        self._matrices = list(matrices)
        self._flat = [nn.Parameter(row.detach().flatten(1)) for row in self._matrices]  # shares the memory
        self._muon = torch.optim.Muon(self._flat, lr=muon, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        self._others = list(others)
        group = {"params": self._others}  # as a group it may be empty
        self._adam = torch.optim.AdamW([group], lr=adam, weight_decay=0.0, betas=(0.9, 0.98))
        self._rates = muon, adam

    def step(self, share: float) -> None:
        """One step at `share` of the full learning rates."""
        torch.nn.utils.clip_grad_norm_([*self._matrices, *self._others], 1.0)
        for optimizer, rate in zip((self._muon, self._adam), self._rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * share
        for flat, row in zip(self._flat, self._matrices, strict=True):
            flat.grad = None if row.grad is None else row.grad.flatten(1)
        self._muon.step()
        self._adam.step()
        for row in (*self._matrices, *self._others):
            row.grad = None

    def state_dict(self) -> dict[str, object]:
        return {"muon": self._muon.state_dict(), "adam": self._adam.state_dict()}

    def load_state_dict(self, state: Mapping[str, dict[str, object]]) -> None:
        self._muon.load_state_dict(state["muon"])
        self._adam.load_state_dict(state["adam"])


def run(checkpoint: Path, parts: Mapping[str, nn.Module], optimizer: Optimizer, steps: int, step: Step) -> None:
    """Train to step `steps`, saving now and then and resuming from `checkpoint` where it exists."""
    done, smooth = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        done, smooth = state["step"], state["loss"]
        optimizer.load_state_dict(state["optimizer"])
        for name, part in parts.items():
            part.load_state_dict(state[name])
    saved = start = time.time()
    first = done
    while done < steps:
        torch.manual_seed(done)
        loss = step(done, random.Random(done))
        loss.backward()
        left = (steps - done) / (DECAY * steps)
        optimizer.step(min(1.0, (done + 1) / WARM_UP, left))
        done += 1
        smooth = loss.item() if done == 1 else 0.98 * smooth + 0.02 * loss.item()
        if done == steps or time.time() - saved > _SAVE_SECONDS:
            saved = time.time()
            pace = (saved - start) / (done - first)
            print(f"step {done}/{steps} loss {smooth:.4f}, {pace:.2f} s a step", flush=True)
            state = {name: part.state_dict() for name, part in parts.items()}
            aside = checkpoint.with_suffix(".partial")
            torch.save(state | {"optimizer": optimizer.state_dict(), "step": done, "loss": smooth}, aside)
            aside.replace(checkpoint)
