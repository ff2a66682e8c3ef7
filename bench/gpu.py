"""Wan 14B on a card: loading, steps with guidance, in bf16, int8 and fp8; memory profiles on a card made smaller;
diffusers beside it.

    python bench/gpu.py [--budget 450] [--only resident] [--only 12]
    python bench/gpu.py --tiny --device cpu         the same on tiny shapes, to see that it runs

Random weights at the true names and shapes, made and quantized where the files are missing, and read from the page
cache. Every row is a process of its own: load, one pass to warm up, then a step (a pass with and one without the
prompt) at each size. What is measured is kept in `--results`, so that a further call goes on where the budget, in
seconds, ended the one before; the table is made of all there is, and says what isn't.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from make_checkpoint import SIZES, write
from reeltune.engine.stages import torch_device
from reeltune.errors import DeviceError
from reeltune.events import Listener

GIB = 1024**3
LENGTHS = {"480p": (832, 480, 81), "720p": (1280, 720, 81)}  # width, height, frames
TINY = {"480p": (64, 48, 5), "720p": (96, 64, 5)}
EMPTY = "not measured"


@dataclass(frozen=True)
class Row:
    """One process. `profile`: of memory, for diffusers "resident" or its own group offload, "streamed"; `cap`: GiB."""

    by: str
    weights: str
    profile: str
    cap: int | None = None
    sizes: tuple[str, ...] = ("480p",)

    @property
    def name(self) -> str:
        return f"{self.by}, {self.weights}, {self.profile}, {f'{self.cap} GiB' if self.cap else 'whole card'}"

    def is_of(self, word: str) -> bool:
        """Whether a word of `--only` means it."""
        return word in (self.by, self.weights, self.profile, str(self.cap))


BOTH = ("480p", "720p")
ROWS = (
    Row("diffusers", "bf16", "resident", sizes=BOTH),
    Row("reeltune", "bf16", "resident", sizes=BOTH),
    Row("reeltune", "int8", "resident", sizes=BOTH),
    Row("reeltune", "int8 dynamic", "resident", sizes=BOTH),
    Row("reeltune", "fp8", "resident", sizes=BOTH),
    Row("reeltune", "fp8 weights", "resident", sizes=BOTH),
    Row("reeltune", "int8", "resident", 24),
    Row("reeltune", "int8", "stages", 24),
    Row("reeltune", "int8", "streamed", 24),
    Row("reeltune", "fp8", "streamed", 24),
    Row("reeltune", "bf16", "streamed", 24),
    Row("diffusers", "bf16", "streamed", 24),
    Row("reeltune", "int8", "streamed", 12),
    Row("reeltune", "bf16", "streamed", 12),
    Row("reeltune", "int8", "minimum", 12),
    Row("reeltune", "int8", "streamed", 8),
    Row("reeltune", "bf16", "streamed", 8),
    Row("reeltune", "int8", "minimum", 8),
)


# --- one row, in its own process ---------------------------------------------------------------------------------


def measure(row: Row, files: dict[str, Path], device_name: str, attention: str, tiny: bool) -> dict[str, Any]:
    """Load, warm up and time. Seconds of `load` and of a step at each size; bytes of `vram` and `ram` at the peak."""
    import torch

    from reeltune._quiet import quiet

    device = torch_device(device_name)
    if device.type == "cuda":
        torch.cuda.init()
        if row.cap:
            whole = torch.cuda.get_device_properties(device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, row.cap * GIB / whole), device)
        torch.cuda.synchronize(device)

    def done() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    told: list[str] = []
    path = files[row.weights.split()[0]]
    with quiet():
        load = _by_diffusers if row.by == "diffusers" else _by_reeltune
        prepared = partial(load, row, path, device, attention, told.append)
        import diffusers  # lazy: its classes count as imports, not as loading

        _ = diffusers.WanTransformer3DModel
        start = done()
        forward, profile = prepared()
        found: dict[str, Any] = {"load": done() - start}
        for number, size in enumerate(row.sizes):
            given = inputs(*(TINY if tiny else LENGTHS)[size], device)
            passes = [{**given, "encoder_hidden_states": text} for text in given["encoder_hidden_states"]]
            if number == 0:
                forward(passes[0])
            start = done()
            for one in passes:
                forward(one)
            found[size] = done() - start
    vram = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {**found, "vram": vram, "ram": peak_rss(), "profile": profile(), "told": told}


def inputs(width: int, height: int, frames: int, device: Any) -> dict[str, Any]:
    """Arguments of a pass, with the embeddings of both prompts, [2, 1, 512, 4096]."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator).to(device, torch.bfloat16)

    return {
        "hidden_states": noise(1, 16, (frames - 1) // 4 + 1, height // 8, width // 8),
        "encoder_hidden_states": noise(2, 1, 512, 4096),
        "timestep": torch.tensor([500.0], device=device),
        "return_dict": False,
    }


Forward = Callable[[dict[str, Any]], Any]


def _by_reeltune(
    row: Row, path: Path, device: Any, attention: str, listener: Listener
) -> tuple[Forward, Callable[[], str]]:
    import torch

    from reeltune import Preferences
    from reeltune.engine.placing import Placement
    from reeltune.engine.reporting import Reporter
    from reeltune.engine.speed import speed_up
    from reeltune.planning.memory import ChosenProfile, MemoryProfile
    from reeltune.weights.load import load_transformer

    model = load_transformer(path, "bf16", keep=True)
    int8 = "dynamic" if row.weights.endswith("dynamic") else "weights"
    fp8 = "weights" if row.weights.endswith("weights") else "dynamic"
    reporter = Reporter(listener)
    speed_up(model, Preferences(attention=attention, int8=int8, fp8=fp8), device, reporter)
    placement = Placement(ChosenProfile(MemoryProfile(row.profile), "asked for", pinned=True), device, reporter)
    placement.place(model)

    def forward(options: dict[str, Any]) -> Any:
        with torch.no_grad():
            return placement.run([model], lambda: model(**options))

    return forward, lambda: str(placement.profile)


def _by_diffusers(
    row: Row, path: Path, device: Any, attention: str, listener: Listener
) -> tuple[Forward, Callable[[], str]]:
    import torch
    from diffusers import WanTransformer3DModel
    from diffusers.hooks import apply_group_offloading

    from reeltune.checkpoints.header import read_header

    shapes = {name: tensor.shape for name, tensor in read_header(path).tensors.items()}
    config = {
        "_class_name": "WanTransformer3DModel", "attention_head_dim": 128,
        "num_attention_heads": shapes["patch_embedding.bias"][0] // 128, "ffn_dim": shapes["blocks.0.ffn.0.bias"][0],
        "num_layers": len({name.split(".")[1] for name in shapes if name.startswith("blocks.")}),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
        model = WanTransformer3DModel.from_single_file(str(path), config=folder, torch_dtype=torch.bfloat16)
    if attention not in ("auto", "sdpa"):
        model.set_attention_backend(attention)
    if row.profile == "resident":
        model.to(device)
    else:
        streams = device.type == "cuda"
        apply_group_offloading(
            model, onload_device=device, offload_device=torch.device("cpu"), offload_type="block_level",
            num_blocks_per_group=1, non_blocking=streams, use_stream=streams, record_stream=streams,
        )  # fmt: skip

    def forward(options: dict[str, Any]) -> Any:
        with torch.no_grad():
            return model(**options)

    return forward, lambda: row.profile


def peak_rss() -> int | None:
    """Bytes of memory this process has had at most; mapped files count where they are resident."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))


# --- the whole bench -----------------------------------------------------------------------------------------------


def make_files(folder: Path, size: str) -> dict[str, Path]:
    """The bf16 checkpoint and its int8 and fp8 versions, made where they are missing; both in the page cache."""
    from reeltune.weights.quantize import quantize

    folder.mkdir(parents=True, exist_ok=True)
    files = {"bf16": folder / f"wan_{size}_bf16.safetensors"}
    files["int8"] = files["bf16"].with_name(f"wan_{size}_quanto_bf16_int8.safetensors")
    if not files["bf16"].exists():
        write(files["bf16"], SIZES[size])
    files["fp8"] = files["bf16"].with_name(f"wan_{size}_fp8_e4m3fn_scaled.safetensors")
    if not files["int8"].exists():
        quantize(files["bf16"], files["int8"])
    if not files["fp8"].exists():
        quantize(files["bf16"], files["fp8"], to="fp8")
    for path in files.values():
        with path.open("rb") as file:
            while file.read(1 << 26):
                pass
    return files


def run(row: Row, options: argparse.Namespace, files: dict[str, Path], limit: float) -> dict[str, Any]:
    """One row in a process of its own; what went wrong where it did."""
    command = [sys.executable, __file__, "--row", json.dumps(asdict(row)), "--device", options.device]
    command += [
        "--attention",
        options.attention,
        "--files",
        json.dumps({key: str(path) for key, path in files.items()}),
    ]
    try:
        answer = subprocess.run(
            command + ["--tiny"] * options.tiny, capture_output=True, text=True, check=False, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"took longer than {limit:.0f} s"}
    if answer.returncode:
        return {"failed": (answer.stderr.strip().splitlines() or [f"code {answer.returncode}"])[-1]}
    return dict(json.loads(answer.stdout.splitlines()[-1]))


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: of every row what is known of it."""
    lines = ["| by | weights | profile | card | load, s | step 480p, s | step 720p, s | VRAM, GB | RAM, GB |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for row in ROWS:
        found = results.get(row.name, {})
        cells = [EMPTY if key not in found else f"{found[key]:.2f}" for key in ("load", "480p", "720p")]
        if "720p" not in row.sizes:
            cells[2] = "–"
        cells += [f"{found[key] / 1e9:.1f}" if found.get(key) else EMPTY for key in ("vram", "ram")]
        profile = row.profile
        if found.get("profile", profile) != profile:
            profile += f", ran out, ended as {found['profile']}"
        if "failed" in found:
            profile += f": {found['failed']}"
        card = f"{row.cap} GiB" if row.cap else "whole"
        lines.append(f"| {' | '.join([row.by, row.weights, profile, card, *cells])} |")
    return "\n".join(lines)


def ratios(results: dict[str, dict[str, Any]]) -> str:
    """What the numbers were asked to be, and are."""

    def quotient(over: Row, under: Row, size: str) -> str:
        pair = [results.get(row.name, {}).get(size) for row in (over, under)]
        return EMPTY if None in pair else f"{pair[0] / pair[1]:.3f}"

    theirs, ours, int8, _, fp8, fp8_weights, *_ = ROWS
    streamed = Row("reeltune", "int8", "streamed", 12)
    load = results.get(int8.name, {}).get("load")
    return "\n".join([
        f"- A bf16 step against plain diffusers': {quotient(ours, theirs, '480p')} at 480p,"
        f" {quotient(ours, theirs, '720p')} at 720p (at most 1.0 is wanted).",
        f"- An fp8 step with products in fp8 against bf16: {quotient(fp8, ours, '480p')} at 480p,"
        f" {quotient(fp8, ours, '720p')} at 720p; against int8: {quotient(fp8, int8, '480p')} at 480p;"
        f" with products in 16 bits against bf16: {quotient(fp8_weights, ours, '480p')} at 480p.",
        f"- An int8 step, blocks streamed on a card of 12 GiB, against resident: {quotient(streamed, int8, '480p')}"
        " (at most 1.15).",
        f"- Loading the int8 file onto the card: {EMPTY if load is None else f'{load:.2f} s'} (at most 2 s).",
    ])  # fmt: skip


def describe(device: str) -> str:
    """The hardware and the versions, in a line."""
    import diffusers
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{platform.machine()} CPU"
    return f"{name}, torch {torch.__version__}, diffusers {diffusers.__version__}, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--attention", default="auto", help="auto, sdpa, flash, ...: for diffusers too")
    parser.add_argument("--tiny", action="store_true", help="two narrow blocks and small videos")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "reeltune_bench")
    parser.add_argument("--results", type=Path, help="JSON (default: in the folder)")
    parser.add_argument("--budget", type=float, default=450, help="seconds after which no row begins")
    parser.add_argument("--only", action="append", default=[], help="a word of the row: int8, streamed, 12, diffusers")
    parser.add_argument("--again", action="store_true", help="measure what is in the results, too")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--files", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        row = Row(**{key: tuple(value) if key == "sizes" else value for key, value in json.loads(options.row).items()})
        files = {key: Path(path) for key, path in json.loads(options.files).items()}
        print(json.dumps(measure(row, files, options.device, options.attention, options.tiny)))
        return
    try:
        torch_device(options.device)
    except DeviceError as error:
        parser.error(f"{error} --tiny --device cpu shows that the script runs.")
    begin = time.monotonic()
    size = "tiny" if options.tiny else "14B"
    path = options.results or options.folder / f"gpu_{size}.json"
    files = make_files(options.folder, size)
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    print(f"{describe(options.device)}; files ready after {time.monotonic() - begin:.0f} s", flush=True)
    for row in ROWS:
        left = options.budget - (time.monotonic() - begin)
        wanted = all(row.is_of(word) for word in options.only)
        if left <= 0 or not wanted or (row.name in results and not options.again):
            continue
        results[row.name] = run(row, options, files, left + 60)
        print(f"  {row.name}: {results[row.name]}", file=sys.stderr, flush=True)
        path.write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(table(results))
    print()
    print(ratios(results))


if __name__ == "__main__":
    main()
