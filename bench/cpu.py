"""What the engine adds to diffusers' own pipeline, what switching finetunes takes, what int8 costs: without a GPU.

    python bench/cpu.py [--repeats 15] [--steps 20] [--forwards 5]

Medians, as Markdown tables. Both ways of making a video share the loaded transformer, the embeddings and the VAE, and
take turns in going first. The passes of the 1.3B model (random weights at the true shapes, 1,024 tokens) are made in a
process each, interleaved; the files are written where they are missing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from load import run
from make_checkpoint import write
from reeltune import Engine, Preferences, load_catalog
from reeltune.definitions.slots import TRANSFORMER
from reeltune.engine.stages import assemble, pipeline_class, scheduler
from reeltune.weights.quantize import quantize

FORWARD = """
import torch
from pathlib import Path
from reeltune.engine.speed import dynamic_int8
from reeltune.weights.load import load_transformer
model = load_transformer(Path(sys.argv[1]), "bf16")
{set_up}
torch.manual_seed(0)
given = {{
    "hidden_states": torch.randn(1, 16, 4, 32, 32).bfloat16(),
    "encoder_hidden_states": torch.randn(1, 512, 4096).bfloat16(),
    "timestep": torch.tensor([500.0]), "return_dict": False,
}}
def forward():
    with torch.no_grad():
        model(**given)
forward()  # which also brings the weights in from the page cache
start = ready()
forward()
"""


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bare(engine: Engine, steps: int) -> Callable[[], object]:
    """The same denoising and decoding by the pipeline alone, of the engine's own parts."""
    from reeltune.engine.inputs import InputImages
    from reeltune.request.parse import parse

    architecture = engine.definition.architecture
    request = parse(engine.definition, {"num_inference_steps": steps, "seed": 3}).requests[0]
    warm = engine._warm
    text = next(iter(warm.embeddings._entries.values())).tensors
    model, vae = warm.models._loaded[TRANSFORMER][1], warm.vae._loaded[1].vae

    def make() -> None:
        parts = {"transformer": model, "vae": vae, "scheduler": scheduler(request)}
        pipeline = assemble(pipeline_class(architecture, InputImages()), parts)
        pipeline.set_progress_bar_config(disable=True)
        pipeline(
            **text, height=request.height, width=request.width, num_frames=request.frames, num_inference_steps=steps,
            guidance_scale=request.guidance.scale, generator=torch.Generator().manual_seed(3), output_type="np",
        )  # fmt: skip

    return make


def forwards(repeats: int) -> None:
    """One pass of the synthetic 1.3B model, in bf16 and from the int8 file made of it."""
    folder = Path(tempfile.gettempdir())
    bf16, int8 = folder / "wan_1.3B_bf16.safetensors", folder / "wan_1.3B_quanto_bf16_int8.safetensors"
    if not bf16.exists():
        write(bf16)
    if not int8.exists():
        quantize(bf16, int8)
    rows = {
        "bf16": (bf16, ""), "int8, weights only": (int8, ""), "int8, dynamic": (int8, "dynamic_int8(model)"),
    }  # fmt: skip
    results: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
    for _ in range(repeats):
        for name, (path, set_up) in rows.items():
            results[name].append(run(FORWARD.format(set_up=set_up), path))
    found = {
        name: {key: statistics.median(row[key] for row in made) for key in ("seconds", "peak")}
        for name, made in results.items()
    }
    print("\n| a pass of 1,024 tokens | s | of bf16 | peak RSS, GB | of bf16 |\n|---|---|---|---|---|")
    for name, row in found.items():
        seconds, peak = (row[key] / found["bf16"][key] for key in ("seconds", "peak"))
        print(f"| {name} | {row['seconds']:.2f} | {seconds:.3f} | {row['peak'] / 1e9:.2f} | {peak:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--forwards", type=int, default=5)
    options = parser.parse_args()
    catalog, wish = load_catalog(tempfile.mkdtemp()), Preferences(quantization="bf16")
    call = {"num_inference_steps": options.steps, "seed": 3}
    rows: dict[str, list[float]] = {name: [] for name in ("engine", "pipeline", "cold", "switch")}
    with Engine(catalog["nano_t2v"], preferences=wish) as engine:
        engine.generate(**call)
        alone = bare(engine, options.steps)
        alone()
        ways = [("engine", lambda: engine.generate(**call)), ("pipeline", alone)]
        for _ in range(options.repeats):
            for name, way in ways:
                rows[name].append(timed(way))
            ways.reverse()
    one = {"num_inference_steps": 1, "seed": 3, "video_length": 1, "resolution": "16x16", "guidance_scale": 1.0}
    for _ in range(options.repeats):
        engine = Engine(catalog["nano_t2v"], preferences=wish)
        rows["cold"].append(timed(lambda: engine.generate(**one)))  # noqa: B023
        engine.switch(catalog["nano_neon"])
        rows["switch"].append(timed(lambda: engine.generate(**one)))  # noqa: B023
        engine.close()
    found = {name: statistics.median(row) for name, row in rows.items()}
    print("| what | s | of |\n|---|---|---|")
    print(
        f"| a video by the engine, prompt known | {found['engine']:.3f} | {found['engine'] / found['pipeline']:.3f} |"
    )
    print(f"| the same by diffusers' pipeline alone | {found['pipeline']:.3f} | 1 |")
    print(f"| first frame of a cold engine | {found['cold']:.3f} | 1 |")
    print(f"| first frame after switching finetunes | {found['switch']:.3f} | {found['switch'] / found['cold']:.3f} |")
    if options.forwards:
        forwards(options.forwards)


if __name__ == "__main__":
    main()
