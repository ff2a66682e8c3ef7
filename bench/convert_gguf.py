"""GGUF: speed of decoding beside gguf's numpy and diffusers' torch; loading a 1.3B file; errors of videos.

    python bench/convert_gguf.py                 # all three parts
    python bench/convert_gguf.py --part decoding --repeats 7
    python bench/convert_gguf.py --part loading --checkpoint /tmp/wan_1.3B-Q4_K.gguf
    python bench/convert_gguf.py --part errors

Decoding: the linear layers of one block at the shapes of Wan 1.3B, random blocks, one thread, all programs in turns;
medians. Loading: each run is a process of its own; the file has random blocks at the true names and shapes, and is made
where it is missing. Errors: videos of nano and of tiny random models against the same in 16 bits.

The package `gguf` is needed. (This file isn't called gguf.py, because it would then be imported in place of it.)
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
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "engine"))

import gguf
import numpy as np
import torch

import gguf_files
from load import FRAME
from make_checkpoint import SIZES, shapes
from reeltune.checkpoints.gguf_types import BLOCK_TYPES, DECODED
from reeltune.weights.formats.gguf import BlockWeight, fill
from reeltune.weights.formats.quanto_int8 import quantize_weight

DIM, FFN = SIZES["1.3B"].dim, SIZES["1.3B"].ffn
LAYERS = [*[(DIM, DIM)] * 8, (FFN, DIM), (DIM, FFN)]  # linear layers of one block
MILLION = 1e6
LOADING = """
from reeltune.weights.load import load_transformer
from pathlib import Path
from diffusers import WanTransformer3DModel  # diffusers imports its classes lazily: count it as an import in all rows
path = Path(sys.argv[1])
start = ready()
model = load_transformer(path, "bf16", quantize={quantize})
"""
WRITING = """
from reeltune.weights.quantize import quantize
from pathlib import Path
from diffusers import WanTransformer3DModel
path = Path(sys.argv[1])
start = ready()
quantize(path, path.with_name("bench_int8.safetensors"), overwrite=True)
"""


# --- decoding -------------------------------------------------------------------------------------------------


def layers(type_name: str) -> list[tuple[tuple[int, int], np.ndarray]]:
    """The shape of each layer, and its rows as they are stored: uint8 [rows, bytes of a row]."""
    block = BLOCK_TYPES[type_name]
    found = []
    for seed, (rows, columns) in enumerate(LAYERS):
        blocks = gguf_files.random_blocks(type_name, rows * columns // block.values, seed)
        found.append(((rows, columns), blocks.reshape(rows, -1)))
    return found


def decoders(type_name: str) -> dict[str, Callable[[], None]]:
    """What is measured, by its name. Each decodes every layer once."""
    from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_functions, dequantize_gguf_tensor

    kind, block = gguf.GGMLQuantizationType[type_name], BLOCK_TYPES[type_name]
    stored = layers(type_name)
    tensors = [torch.from_numpy(rows) for _, rows in stored]
    room = {shape: torch.empty(shape) for shape, _ in stored}
    weights = [BlockWeight(rows, type_name, shape, "x") for (shape, _), rows in zip(stored, tensors, strict=True)]
    parameters = [GGUFParameter(rows, quant_type=kind) for rows in tensors]

    def numpy_fp32() -> None:
        for _, rows in stored:
            gguf.quants.dequantize(rows, kind)

    def diffusers_fp32() -> None:
        for rows in tensors:
            dequantize_functions[kind](rows.view(-1, block.bytes), block.values, block.bytes, dtype=torch.float32)

    def diffusers_bf16() -> None:  # as its layers do it
        for parameter in parameters:
            dequantize_gguf_tensor(parameter).to(torch.bfloat16)

    def ours_fp32() -> None:
        for (shape, _), rows in zip(stored, tensors, strict=True):
            fill(rows, type_name, room[shape], "x")

    def ours_bf16() -> None:
        for weight in weights:
            weight.in_memory(torch.bfloat16)

    def ours_int8() -> None:
        for weight in weights:
            quantize_weight(weight, weight.shape, torch.bfloat16, "x")

    return {
        "gguf, fp32": numpy_fp32, "diffusers, fp32": diffusers_fp32, "diffusers, bf16": diffusers_bf16,
        "reeltune, fp32": ours_fp32, "reeltune, bf16": ours_bf16, "reeltune, int8": ours_int8,
    }  # fmt: skip


def print_decoding(repeats: int) -> None:
    torch.set_num_threads(1)
    values = sum(rows * columns for rows, columns in LAYERS) / MILLION
    names: list[str] = []
    for type_name in DECODED:
        works = decoders(type_name)
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for number in range(repeats + 1):  # the first round warms caches and compiles
            for name, work in works.items():
                start = time.thread_time()  # of this thread alone: other programs may run beside it
                work()
                if number:
                    seconds[name].append(time.thread_time() - start)
        speed = {name: values / statistics.median(taken) for name, taken in seconds.items()}
        if not names:
            names = list(speed)
            print(f"| million values/s | {' | '.join(names)} | fp32 / faster peer | int8 / faster peer |")
            print("|---" * (len(names) + 3) + "|")
        peer = max(speed[name] for name in names if not name.startswith("reeltune"))
        ratios = [f"{speed[name] / peer:.1f}" for name in ("reeltune, fp32", "reeltune, int8")]
        print(
            f"| {type_name} | {' | '.join(f'{speed[name]:,.0f}' for name in names)} | {' | '.join(ratios)} |",
            flush=True,
        )


# --- loading --------------------------------------------------------------------------------------------------


def write_checkpoint(path: Path, type_name: str = "Q4_K") -> None:
    """A file of Wan 1.3B with random blocks, a tensor at a time; fp32 where published files have it."""
    tensors = {}
    for name, shape in shapes(SIZES["1.3B"]).items():
        in_blocks = len(shape) == 2 and shape[-1] % BLOCK_TYPES[type_name].values == 0
        tensors[name] = gguf_files.Entry(type_name if in_blocks else "F32", tuple(shape), b"")
    file = gguf_files.File(tensors, [("general.architecture", gguf_files.TEXT, "wan")])
    with path.open("wb") as out:
        out.write(file.head())
        for seed, entry in enumerate(tensors.values()):
            if entry.type == "F32":
                rng = np.random.default_rng(seed)
                data = (rng.standard_normal(int(np.prod(entry.shape)), np.float32) * 0.02).tobytes()
            else:
                count = entry.length // BLOCK_TYPES[type_name].bytes
                data = gguf_files.random_blocks(type_name, count, seed, 0.0005).tobytes()
            out.write(data + bytes(gguf_files.padded(len(data), 32) - len(data)))


def run(body: str, checkpoint: Path) -> dict[str, float]:
    command = [sys.executable, "-c", FRAME.format(body=body), str(checkpoint)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])


def print_loading(path: Path, repeats: int) -> None:
    if not path.exists():
        write_checkpoint(path)
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass
    rows = {
        "into int8": LOADING.format(quantize=True),
        "into bf16": LOADING.format(quantize=False),
        "`quantize` to a file, verified": WRITING,
    }
    results: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
    for _ in range(repeats):
        for name, body in rows.items():
            results[name].append(run(body, path))
    path.with_name("bench_int8.safetensors").unlink(missing_ok=True)
    values = sum(int(np.prod(shape)) for shape in shapes(SIZES["1.3B"]).values())
    print(f"\n{path.name}: {path.stat().st_size / 1e9:.2f} GB, {values / 1e9:.3f} billion values.\n")
    print("| | seconds after imports | peak RSS, GB | RSS of the imports, GB | difference, GB |")
    print("|---|---|---|---|---|")
    for name, found in results.items():
        seconds, peak, imports = (
            statistics.median(row[key] for row in found) for key in ("seconds", "peak", "imports")
        )
        print(f"| {name} | {seconds:.2f} | {peak / 1e9:.2f} | {imports / 1e9:.2f} | {(peak - imports) / 1e9:.2f} |")


# --- errors ---------------------------------------------------------------------------------------------------


def cases(folder: Path) -> Iterator[tuple[str, object, dict[str, object]]]:
    """Definitions in 16 bits with their settings, by name: nano, and a tiny model of every family."""
    import tiny_parts
    from cases import write_case

    from reeltune import load_catalog

    prompt = {"prompt": "a red circle moves right on a black background", "seed": 7}
    yield "nano", load_catalog(folder)["nano_t2v"], prompt
    tiny_parts.WAN_CONFIG["attention_head_dim"] = 16  # so that rows are whole blocks
    gguf_files.SMALL = 64
    for name in ("t2v", "vace_14B", "t2v_2_2", "hunyuan", "ltxv_13B"):
        root = folder / name
        (root / "finetunes").mkdir(parents=True)

        def define(id: str, model: dict[str, object], root: Path = root, **settings: object) -> None:
            (root / "finetunes" / f"{id}.json").write_text(json.dumps({"model": model, **settings}))

        parts = {kind: tiny_parts.write_parts(kind, folder / "parts" / kind) for kind in ("wan", "hunyuan", "ltx")}
        definition, settings = write_case(name, root, define, parts.__getitem__)
        yield f"tiny {name}", definition, settings


def in_gguf(definition, type_name: str, folder: Path):
    """A definition whose weights are GGUF files of the same numbers."""
    from dataclasses import replace

    from reeltune.library.inventory import PACKAGE_FILES

    slots = {}
    for slot, versions in definition.slots.items():
        url = versions[0].url
        source = Path(url) if Path(url).is_file() else PACKAGE_FILES / Path(url).name
        target = folder / f"{definition.id}-{slot.key}-{source.stem}-{type_name}.gguf"
        slots[slot] = [replace(versions[0], url=str(gguf_files.convert(source, target, type_name)))]
    return replace(definition, slots=slots)


def frames(definition, quantization: str, settings: dict[str, object]) -> np.ndarray:
    from reeltune import Engine, Preferences

    with Engine(definition, preferences=Preferences(quantization=quantization)) as engine:
        return engine.generate(**settings).frames.astype(np.float64)


def print_errors() -> None:
    print("\n| model | type | in 16 bits: mean difference, PSNR | in int8 | the same model's int8 from 16 bits |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label, definition, settings in cases(folder):
            wanted = frames(definition, "bf16", settings)
            plain = _difference(frames(_auto_quantized(definition), "int8", settings), wanted)
            for type_name in ("Q8_0", "Q4_0"):
                packed = in_gguf(definition, type_name, folder)
                cells = [_difference(frames(packed, kind, settings), wanted) for kind in ("bf16", "int8")]
                print(f"| {label} | {type_name} | {' | '.join(cells)} | {plain} |", flush=True)


def _auto_quantized(definition):
    from dataclasses import replace

    return replace(definition, auto_quantize=True)


def _difference(frames_of: np.ndarray, wanted: np.ndarray) -> str:
    """Mean difference of two videos in levels of 255, and their PSNR."""
    difference = np.abs(frames_of - wanted).mean()
    square = np.square(frames_of - wanted).mean()
    psnr = 10 * np.log10(255**2 / square) if square else float("inf")
    return f"{difference:.2f}, {psnr:.1f} dB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("decoding", "loading", "errors"), action="append")
    parser.add_argument("--checkpoint", type=Path, default=Path(tempfile.gettempdir()) / "wan_1.3B-Q4_K.gguf")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    parts = options.part or ("decoding", "loading", "errors")
    if "decoding" in parts:
        print_decoding(options.repeats)
    if "loading" in parts:
        print_loading(options.checkpoint, options.repeats)
    if "errors" in parts:
        print_errors()


if __name__ == "__main__":
    main()
