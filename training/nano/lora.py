"""Make nano's LoRAs from the files in the package, where they are written to: a look, and a way to few steps.

python lora.py --work DIR neon      the look of nano_neon, as small matrices
python lora.py --work DIR turbo     4 steps without guidance that do what 20 with guidance do
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from loop import arguments
from lowrank import PACKAGE, Pair, write_lora
from neon import extract
from turbo import distill

_COMMON = {
    "modelspec.sai_model_spec": "1.0.1",
    "modelspec.architecture": "wan2.1/lora",
    "modelspec.license": "Apache-2.0",
    "ss_base_model_version": "wan2.1",
}


@dataclass(frozen=True)
class Recipe:
    """How a LoRA is made, and what its file says of it. `make`: from the options to trained pairs and differences."""

    make: Callable[[argparse.Namespace], tuple[dict[str, Pair], dict[str, torch.Tensor]]]
    rank: int
    steps: int
    clips: int
    rate: float
    metadata: Mapping[str, str]


RECIPES = {
    "neon": Recipe(extract, 32, 240, 600, 1e-3, {
        "modelspec.title": "Nano Neon",
        "modelspec.trigger_phrase": "neon",
        "reeltune": "The neon look for nano_t2v: bright outlines. Weight 1; less of it at 0.5.",
    }),
    "turbo": Recipe(distill, 32, 650, 1600, 1e-3, {
        "modelspec.title": "Nano Turbo",
        "modelspec.trigger_phrase": "",
        "reeltune": "nano_t2v in 4 steps: num_inference_steps 4, guidance_scale 1, flow_shift 3 (unipc or euler).",
    }),
}  # fmt: skip


def main() -> None:
    parser = arguments(__doc__, 0, 24)
    parser.add_argument("what", choices=RECIPES)
    parser.add_argument("--rank", type=int)
    parser.add_argument("--clips", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--held", type=int, default=100, help="teacher's clips kept from turbo, to measure on")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    recipe = RECIPES[options.what]
    for name in ("rank", "steps", "clips", "rate"):
        setattr(options, name, getattr(options, name) or getattr(recipe, name))
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    pairs, differences = recipe.make(options)
    path = PACKAGE / f"nano_{options.what}_lora_r{options.rank}_bf16.safetensors"
    write_lora(path, {name: (row.up, row.down) for name, row in pairs.items()}, differences,
               _COMMON | recipe.metadata)  # fmt: skip
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
