"""What the engine adds to diffusers' own pipeline, and what switching finetunes takes, on nano: no GPU, no network.

    python bench/cpu.py [--repeats 5] [--steps 20]

Medians, as a Markdown table. Both ways of making the video share the loaded transformer, the embeddings and the VAE.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable

import torch

from reeltune import Engine, Preferences, load_catalog
from reeltune.engine.stages import assemble, pipeline_class, scheduler


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bare(engine: Engine, steps: int) -> Callable[[], object]:
    """The same denoising and decoding by the pipeline alone, of the engine's own parts."""
    from reeltune.engine.inputs import Given
    from reeltune.engine.request import build_request, complete_settings

    architecture = engine.definition.architecture
    settings, _ = complete_settings(engine.definition, {"num_inference_steps": steps, "seed": 3})
    request, _ = build_request(architecture, settings, engine.definition.root)
    text = next(iter(engine._memo._rows.values()))
    model, vae = engine._models._loaded["transformer"][1], engine._vae.vae

    def make() -> None:
        parts = {"transformer": model, "vae": vae, "scheduler": scheduler(request)}
        pipeline = assemble(pipeline_class(architecture, Given()), parts)
        pipeline.set_progress_bar_config(disable=True)
        pipeline(
            **text, height=request.height, width=request.width, num_frames=request.frames, num_inference_steps=steps,
            guidance_scale=request.guidance, generator=torch.Generator().manual_seed(3), output_type="np",
        )  # fmt: skip

    return make


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    catalog, wish = load_catalog(tempfile.mkdtemp()), Preferences(quantization="bf16")
    call = {"num_inference_steps": options.steps, "seed": 3}
    rows: dict[str, list[float]] = {name: [] for name in ("engine", "pipeline", "cold", "switch")}
    with Engine(catalog["nano_t2v"], preferences=wish) as engine:
        engine.generate(**call)
        alone = bare(engine, options.steps)
        alone()
        for _ in range(options.repeats):
            rows["engine"].append(timed(lambda: engine.generate(**call)))
            rows["pipeline"].append(timed(alone))
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


if __name__ == "__main__":
    main()
