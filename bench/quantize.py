"""Quantizing a 2.84 GB checkpoint: ours beside mmgp, optimum-quanto and torchao; memory, LoRAs, the disk's own speed.

    python bench/quantize.py [--checkpoint FILE] [--repeats 5] [--skip-large]

Each run is a process of its own, interleaved; medians are printed as Markdown tables. The file is made by
`make_checkpoint.py` where it is missing, and read once before, so that all read from the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from make_checkpoint import SIZES, write

STREAM = """
from reeltune.events import CancelToken, ignore
from reeltune.weights.draft import prepare
from reeltune.weights.quantize import write
import diffusers; diffusers.WanTransformer3DModel
start = ready()
recipe = prepare(path, loras=loras).recipe
seconds = write(recipe, out, {}, ignore, CancelToken())
"""
WHOLE = """
from reeltune.weights.quantize import quantize
import diffusers; diffusers.WanTransformer3DModel
start = ready()
seconds = dict(quantize(path, out, loras=loras).seconds)
"""
MMGP = """
import torch
from accelerate import init_empty_weights
from diffusers import WanTransformer3DModel
from mmgp import offload
from reeltune.checkpoints.keys import translate
from reeltune.families.wan import WAN
from optimum.quanto import qint8
with init_empty_weights():
    model = WanTransformer3DModel(num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, num_layers=30)
rename = lambda state: {translate(name, WAN, "original"): row for name, row in state.items()}
start = ready()
offload.load_model_data(model, str(path), do_quantize=True, quantizationType=qint8, preprocess_sd=rename)
offload.save_model(model, str(out))
seconds = {}
"""
FRAME = """
import json, logging, os, sys, time, warnings
from pathlib import Path
logging.disable(logging.WARNING); warnings.simplefilter("ignore")
path, out, loras = Path(sys.argv[1]), Path(sys.argv[2]), [(name, 1.0) for name in sys.argv[3:]]
def peak():
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmHWM"))
def ready():
    return time.perf_counter()
{body}
took = time.perf_counter() - start
print("\\n" + json.dumps({{"seconds": took, "peak": peak(), "size": out.stat().st_size, "split": dict(seconds)}}))
"""
KERNELS = """
import time, torch
from concurrent.futures import ThreadPoolExecutor
from optimum.quanto import AbsmaxOptimizer, qint8, quantize_weight
from torchao.quantization import Int8Tensor, PerRow
from reeltune.weights.formats.quanto_int8 import quantize_rows
torch.manual_seed(0)
weights = [(torch.randn(shape) * 0.02).bfloat16() for shape in [(1536, 1536)] * 8 + [(8960, 1536), (1536, 8960)]] * 3
pool = ThreadPoolExecutor(torch.get_num_threads(), initializer=lambda: torch.set_num_threads(1))
rooms = {row.shape: (torch.empty(row.shape, dtype=torch.int8), torch.empty(len(row), 1).bfloat16()) for row in weights}
def ours():  # as the stream does it: into memory that is used again
    list(pool.map(lambda row: quantize_rows(row, *rooms[row.shape], "x"), weights))
def quanto():
    for row in weights:
        quantize_weight(row, qint8, 0, scale=AbsmaxOptimizer()(row, qint8, axis=0), activation_qtype=None)
def torchao():
    for row in weights:
        Int8Tensor.from_hp(row, PerRow())
found = {}
for name, work in (("ours", ours), ("optimum-quanto", quanto), ("torchao", torchao)) * 4:
    start = time.perf_counter(); work(); took = time.perf_counter() - start
    found.setdefault(name, []).append(took)
values = sum(row.numel() for row in weights)
seconds = {name: sorted(rows[1:])[1] for name, rows in found.items()} | {"values": values}
start = time.perf_counter(); out.write_bytes(b"")
"""


def run(body: str, *arguments: str | Path) -> dict:
    """One fresh process."""
    command = [sys.executable, "-c", FRAME.format(body=body), *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        sys.exit(answer.stderr)
    return json.loads(answer.stdout.splitlines()[-1])


def disk_speed(folder: Path, size: int) -> float:
    """GB a second of plain sequential writing with one sync at the end."""
    chunk, path = os.urandom(8 << 20), folder / "disk.bin"
    start = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(size // len(chunk)):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    took = time.perf_counter() - start
    path.unlink()
    return size / took / 1e9


def write_lora(path: Path, rank: int = 64) -> None:
    """A LoRA of every block linear, seeded."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    state = {}
    size = SIZES["1.3B"]
    dim, ffn = size.dim, size.ffn
    for index in range(size.layers):
        sizes = {f"{kind}_attn.{name}": (dim, dim) for kind in ("self", "cross") for name in "qkvo"}
        for name, (rows, columns) in {**sizes, "ffn.0": (ffn, dim), "ffn.2": (dim, ffn)}.items():
            module = f"diffusion_model.blocks.{index}.{name}"
            state[f"{module}.lora_A.weight"] = torch.randn(rank, columns).bfloat16() * 0.01
            state[f"{module}.lora_B.weight"] = torch.randn(rows, rank).bfloat16() * 0.01
    save_file(state, path)


def warm(path: Path) -> None:
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass


def median(rows: list[dict], key: str) -> float:
    return statistics.median(row[key] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path(tempfile.gettempdir()) / "wan_1.3B_bf16.safetensors")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="only rows whose name holds this")
    parser.add_argument("--skip-large", action="store_true", help="leave out the file four times as large")
    options = parser.parse_args()
    if not options.checkpoint.exists():
        write(options.checkpoint)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lora, out = folder / "lora.safetensors", folder / "out.safetensors"
        write_lora(lora)
        rows = {
            "reeltune, written only (as mmgp)": (STREAM, []),
            "reeltune, synced, hashed, verified": (WHOLE, []),
            "reeltune, with a LoRA of rank 64": (WHOLE, [lora]),
            "mmgp load + quantize + save": (MMGP, []),
        }
        rows = {label: row for label, row in rows.items() if options.only in label}
        results: dict[str, list[dict]] = {row: [] for row in rows}
        speeds = []
        for number in range(options.repeats + 1):  # the first round only warms the page cache
            for label, (body, more) in rows.items():
                warm(options.checkpoint)
                found = run(body, options.checkpoint, out, *more)
                out.unlink()
                if number:
                    results[label].append(found)
            if number:
                speeds.append(disk_speed(folder, 1_400_000_000))
        _print(results, speeds)
        _print_kernels(run(KERNELS, options.checkpoint, out)["split"])
        if not options.skip_large:
            large = folder / "large_bf16.safetensors"
            write(large, replace(SIZES["1.3B"], layers=120))
            out.unlink()
            found = run(WHOLE, large, out)
            size, peak = large.stat().st_size / 1e9, found["peak"] / 1e9
            print(f"\nA file of {size:.1f} GB: {found['seconds']:.1f} s, peak {peak:.2f} GB.")


def _print(results: dict[str, list[dict]], speeds: list[float]) -> None:
    peers = results.get("mmgp load + quantize + save")
    peer = median(peers, "seconds") if peers else float("nan")
    print("| | seconds | times mmgp's speed | peak RSS, GB | read | compute | write | verify |")
    print("|---|" + "---|" * 7)
    for label, found in results.items():
        split = [
            f"{statistics.median(row['split'][kind] for row in found):.2f}" if kind in found[0]["split"] else "–"
            for kind in ("read", "compute", "write", "verify")
        ]
        seconds = median(found, "seconds")
        cells = [f"{seconds:.2f}", f"{peer / seconds:.1f}", f"{median(found, 'peak') / 1e9:.2f}", *split]
        print(f"| {label} | {' | '.join(cells)} |")
    middle, slowest, fastest = statistics.median(speeds), min(speeds), max(speeds)
    print("\nRead, compute and write are summed over the workers. The disk writes and syncs "
          f"{middle:.2f} GB/s ({slowest:.2f} to {fastest:.2f}).")  # fmt: skip


def _print_kernels(found: dict[str, float]) -> None:
    values = found.pop("values")
    print("\n| quantizing alone, in memory | Gvalues/s | ours is |\n|---|---|---|")
    for name, seconds in found.items():
        print(f"| {name} | {values / seconds / 1e9:.2f} | {seconds / found['ours']:.1f} times as fast |")


if __name__ == "__main__":
    main()
