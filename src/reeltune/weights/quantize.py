"""From a checkpoint that isn't quanto int8 to a quanto int8, fp8 or 16-bit file, LoRAs merged on the way, in one pass.

The file is streamed into a partial one beside its name, read again and held against the source, synced, and only then
renamed: whatever stops it, source and earlier output stay as they were.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import filelock
import torch

from reeltune._text import size
from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.identify import identify
from reeltune.checkpoints.names import converted_name, fp8_name, quantized_name
from reeltune.dtypes import DType
from reeltune.errors import CheckpointError, NotEnoughDisk
from reeltune.events import CancelToken, Listener, Notice, ignore
from reeltune.files import sync
from reeltune.library.inventory import PARTIAL
from reeltune.machine import free_disk
from reeltune.weights.buffers import Checksums, Magnitudes
from reeltune.weights.draft import Draft, prepare
from reeltune.weights.lora import Applied
from reeltune.weights.parts import name_of_all, read_parts
from reeltune.weights.recipe import FP8, INT8, Recipe
from reeltune.weights.stream import UNFINISHED, measure_piece, verify_piece, work_through, write_piece
from reeltune.weights.tensors import TORCH_DTYPES

_CHUNK = 8 * 1024 * 1024


@dataclass(frozen=True)
class Quantized:
    """A file that was written and verified. `modules`: how many linears became int8 or fp8; `seconds`: spent on "read",
    "compute" and "write", summed over the threads, and "verify", of the whole check.
    """

    path: Path
    bytes: int
    sha256: str
    modules: int
    applied: tuple[Applied, ...]
    seconds: Mapping[str, float]


def quantize(
    source: str | Path,
    output: str | Path | None = None,
    *,
    to: str = "int8",
    dtype: str = "auto",
    scales: str = "tensor",
    loras: Sequence[tuple[str | Path, float]] = (),
    overwrite: bool = False,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
) -> Quantized:
    """Write the quanto int8 (or fp8, or 16-bit) version of a checkpoint, or of the set of files it is one of.

    `to`: "int8", "fp8", "bf16" or "fp16"; `dtype`: what an int8 version computes in, and of what isn't quantized
    ("auto": the source's); `scales`: of fp8, one for each "tensor" (ComfyUI), one for each "row" (LightX2V), or "none"
    (diffusers); `loras`: files and weights, merged in fp32. Without `output` it lands beside the source, named by the
    convention. Raises CheckpointError and its kinds, NotEnoughDisk, Cancelled; nothing is left behind then.
    """
    source, cancel = Path(source), cancel or CancelToken()
    draft = prepare(source, to=to, dtype=dtype, scales=scales, loras=loras)
    for applied in draft.applied:
        listener(Notice(str(applied)))
    output = Path(output) if output else source.with_name(default_name(source, to, draft.dtype, bool(loras), scales))
    return write_draft(draft, [source], output, overwrite=overwrite, listener=listener, cancel=cancel)


def write_draft(
    draft: Draft,
    sources: Sequence[Path],
    output: Path,
    *,
    overwrite: bool = False,
    listener: Listener = ignore,
    cancel: CancelToken,
) -> Quantized:
    """Write and verify a new file. `sources`: the files that are read, which are never replaced.

    Raises as `quantize`; nothing is left behind then.
    """
    refuse_taken(sources, output, overwrite)
    if draft.left_out:
        listener(
            Notice(
                f"{output.name} contains only the transformer: {size(draft.left_out)} of other components, such as the "
                f"VAE, stay in {sources[0].name}, which is still needed."
            )
        )
    with claimed(output) as partial:
        checksums: Checksums = {}
        seconds = write(draft.recipe, partial, checksums, listener, cancel)
        digest, checked = verify(draft.recipe, partial, checksums, listener, cancel)
        refuse_taken(sources, output, overwrite)  # once more: hours may have gone by
        partial.replace(output)
        with contextlib.suppress(OSError):  # the file is there and whole; some file systems sync no folders
            sync(output.parent)
    modules = len(draft.recipe.modules)
    return Quantized(output, draft.recipe.bytes, digest, modules, draft.applied, {**seconds, "verify": checked})


def refuse_taken(sources: Sequence[Path], output: Path, overwrite: bool) -> None:
    """Raise CheckpointError for an output that is no .safetensors file, exists already, or is read itself."""
    if output.suffix.lower() != ".safetensors":
        raise CheckpointError(f"{output} doesn't end in .safetensors.", hint="Name a .safetensors file.")
    replaceable = overwrite and output.is_file() and not any(_same(output, source) for source in sources)
    if not output.exists() or replaceable:
        return
    kept = "is the file that is read, or not a file" if overwrite else "exists already"
    raise CheckpointError(f"{output} {kept}.", hint="Name another file (-o), or replace this one (--force).")


def _same(output: Path, source: Path) -> bool:
    return any(output.samefile(file) for file in read_parts(source).files)


def check(
    source: Path,
    output: Path,
    *,
    to: str = INT8,
    dtype: str,
    listener: Listener = ignore,
    cancel: CancelToken | None = None,
) -> None:
    """Hold a file that is there against its source, value by value. Raises CheckpointError where it isn't that."""
    recipe = prepare(source, to=to, dtype=dtype).recipe
    tensors = read_header(output).tensors
    wanted = {tensor.name: (tensor.dtype, tensor.shape) for tensor in recipe.written}
    there = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    try:
        if there != wanted:
            raise CheckpointError("It holds other tensors.")
        tasks = []
        for task in recipe.tasks:
            outputs = tuple(tensors[tensor.name] for tensor in task.outputs)
            tasks.append(replace(task, outputs=outputs))
        as_it_lies = replace(recipe, tasks=tuple(tasks))
        work_through(as_it_lies, output, verify_piece, "verify", listener, cancel or CancelToken(), {}, {})
    except (CheckpointError, OSError) as error:
        reason = error.message if isinstance(error, CheckpointError) else error.strerror
        raise CheckpointError(
            f"{output} exists already and is not what quantizing {source.name} makes: {reason}",
            hint="Move it away, or list it in the definition yourself.",
        ) from error


def default_name(source: Path, to: str, dtype: str, merged: bool, scales: str = "tensor") -> str:
    """Name of the file made from a source, by the convention, with `_merged` where LoRAs are merged into it."""
    name = name_of_all(source)
    if merged:
        name = f"{Path(name).stem}_merged{Path(name).suffix}"
    if to == INT8:
        return quantized_name(name, DType(dtype))
    if to == FP8:
        return fp8_name(name, scaled=scales != "none")
    return converted_name(name, DType(to))


# --- doing it -------------------------------------------------------------------------------------------------


@contextmanager
def claimed(output: Path) -> Iterator[Path]:
    """The partial file beside `output`, ours alone; removed again unless it was renamed.

    What an attempt that was killed left there is removed first. Raises CheckpointError, NotEnoughDisk.
    """
    partial = output.with_name(output.name + UNFINISHED)
    lock = filelock.FileLock(output.with_name(f"{output.name}.quantizing.lock{PARTIAL}"))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise CheckpointError(f"Another process is writing {output}.", hint="Wait for it.") from None
    except OSError as error:
        raise CheckpointError(f"{output.parent} can't be written: {error.strerror or error}.") from error
    try:
        partial.unlink(missing_ok=True)
        yield partial
    except BrokenPipeError:  # of whoever listens
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(output) from error
        message = f"{output} can't be written: {error.strerror or error}."
        raise CheckpointError(message, hint="Check the folder and its permissions.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if os.name == "posix":  # first, so that nobody else's is removed
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):
            if os.name != "posix":
                Path(lock.lock_file).unlink(missing_ok=True)


def _disk_full(output: Path) -> NotEnoughDisk:
    return NotEnoughDisk(
        f"The disk of {output.parent} is full; {output.name} was not written.", hint="Make room, and start again."
    )


def write(
    recipe: Recipe, partial: Path, checksums: Checksums, listener: Listener, cancel: CancelToken
) -> dict[str, float]:
    """Write the new file, not yet synced; returns the seconds spent. Raises CheckpointError, OSError, Cancelled."""
    if free_disk(partial.parent) < recipe.bytes:
        raise NotEnoughDisk(
            f"{partial.parent} has {free_disk(partial.parent):,} bytes free, the file takes {recipe.bytes:,}.",
            hint="Make room, or write it elsewhere.",
        )
    with partial.open("xb") as file:
        file.truncate(recipe.bytes)
        file.write(recipe.start)
        for tensor in recipe.ones:
            file.seek(tensor.begin)
            file.write(_one(tensor.dtype))
    largest: Magnitudes = {}
    if any(task.whole_scale for task in recipe.tasks):
        work_through(recipe, partial, measure_piece, "measure", listener, cancel, checksums, largest)
    return work_through(recipe, partial, write_piece, "quantize", listener, cancel, checksums, largest)


def _one(dtype: str) -> bytes:
    return torch.ones(1, dtype=TORCH_DTYPES[dtype]).view(torch.uint8).numpy().tobytes()


def verify(
    recipe: Recipe, partial: Path, checksums: Checksums, listener: Listener, cancel: CancelToken
) -> tuple[str, float]:
    """Sync the new file, read all of it again, and hold it against the source.

    Returns its sha256 and the seconds it took. Raises CheckpointError, OSError, Cancelled.
    """
    start = time.perf_counter()
    with ThreadPoolExecutor(2, "verify") as aside:
        synced = aside.submit(sync, partial)
        sha256 = aside.submit(sha256_of, partial, cancel)
        header = read_header(partial)
        written = {tensor.name: tensor for tensor in recipe.written}
        same = dict(header.tensors) == written and header.file_bytes == recipe.bytes
        if not same or identify(header).quantization is not recipe.quantization:
            raise CheckpointError(f"{partial.name} does not read as it was written.", hint="Check the disk.")
        work_through(recipe, partial, verify_piece, "verify", listener, cancel, checksums, {})
        synced.result()
        return sha256.result(), time.perf_counter() - start


def sha256_of(path: Path, cancel: CancelToken) -> str:
    """The sha256 of a file. Raises OSError, Cancelled."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            cancel.check()
            digest.update(chunk)
    return digest.hexdigest()
