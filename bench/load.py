"""Loading a 2.84 GB checkpoint: time after imports and peak RSS, ours beside diffusers' `from_single_file`.

    python bench/load.py [--checkpoint FILE] [--repeats 5]

Each run is a process of its own, interleaved; medians are printed as a Markdown table. The file is made by
`make_checkpoint.py` where it is missing, and read once before, so that all load from the page cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from make_checkpoint import write

OURS = """
from reeltune.weights.load import load_transformer
from pathlib import Path
from diffusers import WanTransformer3DModel  # diffusers imports its classes lazily: count it as an import in all rows
path = Path(sys.argv[1])
start = ready()
model = load_transformer(path, "bf16")
"""
OURS_INT8 = OURS.replace('"bf16")', '"bf16", quantize=True)')
DIFFUSERS = """
import torch, tempfile, json, pathlib
from diffusers import WanTransformer3DModel
folder = tempfile.mkdtemp()
config = {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30}
(pathlib.Path(folder) / "config.json").write_text(json.dumps({"_class_name": "WanTransformer3DModel", **config}))
start = ready()
model = WanTransformer3DModel.from_single_file(sys.argv[1], config=folder, torch_dtype=torch.bfloat16)
"""
FRAME = """
import json, logging, sys, time, warnings
logging.disable(logging.WARNING); warnings.simplefilter("ignore")
def peak():
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmHWM"))
def ready():
    global imported
    imported = peak()
    return time.perf_counter()
{body}
print(json.dumps({{"seconds": time.perf_counter() - start, "peak": peak(), "imports": imported}}))
"""


def run(body: str, checkpoint: Path) -> dict[str, float]:
    """One fresh process; seconds after imports, peak RSS in bytes."""
    answer = subprocess.run(
        [sys.executable, "-c", FRAME.format(body=body), str(checkpoint)], capture_output=True, text=True, check=True
    )
    return json.loads(answer.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(tempfile.gettempdir()) / "wan_1.3B_bf16.safetensors"
    parser.add_argument("--checkpoint", type=Path, default=default)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if not options.checkpoint.exists():
        write(options.checkpoint)
    with options.checkpoint.open("rb") as file:
        while file.read(1 << 24):
            pass
    rows = {"reeltune": OURS, "reeltune, int8 while loading": OURS_INT8, "diffusers from_single_file": DIFFUSERS}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
    for _ in range(options.repeats):
        for name, body in rows.items():
            results[name].append(run(body, options.checkpoint))
    print("| loader | seconds after imports | peak RSS, GB | of it imports, GB |\n|---|---|---|---|")
    for name, found in results.items():
        seconds, peak, imports = (
            statistics.median(row[key] for row in found) for key in ("seconds", "peak", "imports")
        )
        print(f"| {name} | {seconds:.2f} | {peak / 1e9:.2f} | {imports / 1e9:.2f} |")


if __name__ == "__main__":
    main()
