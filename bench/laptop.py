"""Videos of nano on a CPU: reeltune, diffusers' own pipeline and, if given, an earlier checkout of reeltune.

    python bench/laptop.py [--before FOLDER] [--rounds 3] [--videos 3] [--busy]
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python bench/laptop.py    # imitates a laptop without AVX-512

Each row is a process of its own, in turns; it makes one video to warm up, then `videos` that are timed. The prompt is
encoded before. diffusers' pipeline gets the same loaded models and embeddings, with one thread and with two. `--busy`
times reeltune's rows once more while two other processes keep both cores busy. The last table is a whole `generate`
command, imports included.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

OWN = Path(__file__).parent.parent / "src"
CALL = {"num_inference_steps": 20, "seed": 3}
ENGINE = """
engine = Engine(load_catalog(tempfile.mkdtemp())["nano_t2v"], preferences=Preferences(quantization=sys.argv[1]))
def make():
    engine.generate(**CALL)
"""
PIPELINE = """
import torch
from reeltune.engine.inputs import InputImages
from reeltune.engine.stages import assemble, pipeline_class, scheduler
from reeltune.request.parse import parse
torch.set_num_threads(int(sys.argv[3]))
engine = Engine(load_catalog(tempfile.mkdtemp())["nano_t2v"], preferences=Preferences(quantization=sys.argv[1]))
engine.generate(**CALL)
warm, request = engine._warm, parse(engine.definition, CALL).requests[0]
text = next(iter(warm.embeddings._entries.values())).tensors
parts = {"transformer": warm.models._loaded["transformer"][1], "vae": warm.vae._loaded[1].vae}
torch.set_num_threads(int(sys.argv[3]))
def make():
    pipeline = assemble(
        pipeline_class(engine.definition.architecture, InputImages()), {**parts, "scheduler": scheduler(request)}
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline(
        **text, height=request.height, width=request.width, num_frames=request.frames,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance.scale, generator=torch.Generator().manual_seed(3), output_type="np",
    )
"""
FRAME = """
import json, logging, sys, tempfile, time, warnings
logging.disable(logging.WARNING); warnings.simplefilter("ignore")
from reeltune import Engine, Preferences, load_catalog
CALL = json.loads(sys.argv[4])
{body}
make()
times = []
for _ in range(int(sys.argv[2])):
    start = time.perf_counter()
    make()
    times.append(time.perf_counter() - start)
print(json.dumps(times))
"""


def environment(source: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(source)}


def times(body: str, quantization: str, videos: int, source: Path = OWN, threads: int = 0) -> list[float]:
    """Seconds of single videos, made in one fresh process."""
    words = [quantization, str(videos), str(threads), json.dumps(CALL)]
    command = [sys.executable, "-c", FRAME.format(body=body), *words]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment(source))
    return json.loads(answer.stdout.splitlines()[-1])


def command_seconds(source: Path) -> float:
    """Seconds of a whole `generate` command in a new root."""
    program = "import sys, time; start = time.perf_counter(); from reeltune.cli import main\n"
    program += "try:\n    main(['generate', 'nano_t2v', '--root', sys.argv[1]])\nfinally:\n"
    program += "    print(time.perf_counter() - start, file=sys.stderr)"
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, "-c", program, root]
        answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment(source))
    return float(answer.stderr.splitlines()[-1])


def keep_busy(stack: ExitStack) -> None:
    """Two processes that compute until the stack is left."""
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", "while True: sum(range(10**6))"])
        stack.callback(process.wait)
        stack.callback(process.kill)


def measure(options: argparse.Namespace) -> None:
    rows: dict[tuple[str, str], list[float]] = {}

    def add(name: str, quantization: str, seconds: list[float]) -> None:
        rows.setdefault((name, quantization), []).extend(seconds)

    for _ in range(options.rounds):
        for quantization in ("bf16", "int8"):
            add("reeltune", quantization, times(ENGINE, quantization, options.videos))
            if options.before:
                seconds = times(ENGINE, quantization, options.videos, options.before / "src")
                add("reeltune before", quantization, seconds)
            for threads in (1, 2):
                seconds = times(PIPELINE, quantization, options.videos, threads=threads)
                add(f"diffusers, {threads} threads", quantization, seconds)
            if options.busy:
                with ExitStack() as stack:
                    keep_busy(stack)
                    add("reeltune, both cores busy", quantization, times(ENGINE, quantization, options.videos))
    print("| one video of nano | weights | s, median | reeltune is |\n|---|---|---|---|")
    for (name, quantization), seconds in sorted(rows.items(), key=lambda item: (item[0][1], item[0][0])):
        median = statistics.median(seconds)
        ratio = median / statistics.median(rows["reeltune", quantization])
        print(f"| {name} | {quantization} | {median:.2f} | {ratio:.2f} times as fast |")


def commands(options: argparse.Namespace) -> None:
    sources = {"reeltune": OWN} | ({"reeltune before": options.before / "src"} if options.before else {})
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    for _ in range(options.rounds):
        for name, source in sources.items():
            seconds[name].append(command_seconds(source))
    print("\n| `reeltune generate nano_t2v` | s, median |\n|---|---|")
    for name, values in seconds.items():
        print(f"| {name} | {statistics.median(values):.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="an earlier checkout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--videos", type=int, default=3)
    parser.add_argument("--busy", action="store_true")
    options = parser.parse_args()
    measure(options)
    commands(options)


if __name__ == "__main__":
    main()
