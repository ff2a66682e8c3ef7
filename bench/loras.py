"""What LoRAs cost: time and memory of a pass with LoRAs beside the layers, and of switching them between two videos.

    python bench/loras.py [--frames 81] [--blocks 1] [--rank 64] [--loras 3] [--runs 3]

The shape is that of Wan 2.1 1.3B at 832x480, with random weights and fewer blocks: each block costs the same. The
passes with and without LoRAs alternate. Switching is measured on nano, whose model is really loaded.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file
from torch import nn

from reeltune import Engine, Preferences, load_catalog
from reeltune.families.wan import WAN
from reeltune.machine import probe
from reeltune.weights.lora.branches import attach_loras
from reeltune.weights.wide import products_in_fp32

_SHAPE = {
    "num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "text_dim": 4096, "freq_dim": 256,
    "in_channels": 16, "out_channels": 16, "cross_attn_norm": True,
}  # fmt: skip
_CPU = torch.device("cpu")


def model_of(blocks: int) -> nn.Module:
    """The 1.3B shape with so many blocks, in bf16."""
    torch.manual_seed(0)
    model: nn.Module = WanTransformer3DModel(**_SHAPE, num_layers=blocks).to(torch.bfloat16)
    return model.eval().requires_grad_(False)


def lora_file(path: Path, model: nn.Module, rank: int) -> Path:
    """A random LoRA for every linear layer inside the blocks."""
    state = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name.startswith("blocks."):
            state[f"{name}.lora_A.weight"] = torch.randn(rank, layer.in_features).to(torch.bfloat16)
            state[f"{name}.lora_B.weight"] = torch.randn(layer.out_features, rank).to(torch.bfloat16) / 100
    save_file(state, path)
    return path


def inputs(frames: int) -> dict[str, torch.Tensor]:
    """Latents of a video at 832x480, a timestep, and the embedding of a prompt."""
    torch.manual_seed(1)
    latent_frames = (frames - 1) // 4 + 1
    return {
        "hidden_states": torch.randn(1, 16, latent_frames, 60, 104).to(torch.bfloat16),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, 512, 4096).to(torch.bfloat16),
    }


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def passes(frames: int, blocks: int, rank: int, loras: int, runs: int) -> tuple[float, float, float]:
    """Median seconds of a pass without and with LoRAs, and the bytes that they take in percent of their files'."""
    plain, styled = model_of(blocks), model_of(blocks)
    with tempfile.TemporaryDirectory() as folder:
        files = [lora_file(Path(folder) / f"{number}.safetensors", styled, rank) for number in range(loras)]
        stored = sum(file.stat().st_size for file in files)
        attached = attach_loras(styled, WAN, files)
    attached.set_weights([0.5] * loras, _CPU)
    held = sum(row.numel() * row.element_size() for layer in attached.layers() for row in layer.terms.parameters())
    values = inputs(frames)
    times: dict[str, list[float]] = {"plain": [], "styled": []}
    slow = probe().products_in_fp32("cpu", "bf16")
    with torch.no_grad(), products_in_fp32(slow):
        for _ in range(runs):
            times["plain"].append(seconds(lambda: plain(**values)))
            times["styled"].append(seconds(lambda: styled(**values)))
    return statistics.median(times["plain"]), statistics.median(times["styled"]), 100 * held / stored


def switching(runs: int) -> tuple[float, float]:
    """Median seconds of a cold load of nano with a LoRA, and of switching to another LoRA on the loaded model."""
    cold, warm = [], []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        definition = load_catalog(root)["nano_t2v"]
        loras = root / "loras" / definition.architecture.loras
        loras.mkdir(parents=True)
        settings = {"num_inference_steps": 1, "video_length": 5, "resolution": "32x32", "guidance_scale": 1.0}
        preferences = Preferences(quantization="bf16")
        with Engine(definition, preferences=preferences) as engine:
            engine.generate("x", **settings)
            loaded = engine._warm.models._loaded
            (first,) = loaded.values()
            for name in ("a", "b"):
                lora_file(loras / f"{name}.safetensors", first.model, 16)
        for _ in range(runs):
            with Engine(definition, preferences=preferences) as engine:
                cold.append(seconds(lambda: engine.generate("x", **settings, activated_loras=["a.safetensors"])))
                again = seconds(lambda: engine.generate("x", **settings, activated_loras=["a.safetensors"]))
                switched = seconds(lambda: engine.generate("x", **settings, activated_loras=["b.safetensors"]))
                warm.append(max(0.0, switched - again))
    return statistics.median(cold), statistics.median(warm)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("frames", 81), ("blocks", 1), ("rank", 64), ("loras", 3), ("runs", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    plain, styled, memory = passes(options.frames, options.blocks, options.rank, options.loras, options.runs)
    cold, warm = switching(options.runs)
    print(f"{options.frames} frames at 832x480, {options.blocks} block(s), {options.loras} LoRAs\n")
    print("| what | without | with LoRAs | ratio |")
    print("|---|---|---|---|")
    print(f"| a pass | {plain:.2f} s | {styled:.2f} s | {styled / plain:.3f} |")
    print(f"| memory of the LoRAs, of their files | | {memory:.1f} % | |")
    print(f"| switching LoRAs (nano), of a cold start | {cold:.2f} s | {warm:.3f} s | {warm / cold:.3f} |")


if __name__ == "__main__":
    main()
