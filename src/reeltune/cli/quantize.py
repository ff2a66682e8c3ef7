"""`quantize`: write the quantized, converted or merged version of a weight file or of a definition."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reeltune._text import counted
from reeltune.cli.options import Root, effective_preferences, open_catalog
from reeltune.cli.output import interruptible, print_line, progress_display, size
from reeltune.files import is_file

if TYPE_CHECKING:
    from reeltune.definitions import Definition
    from reeltune.events import CancelToken, Listener
    from reeltune.preferences import Preferences


def quantize(
    source: Annotated[
        str, typer.Argument(metavar="ID|FILE", help="Id of a definition, or path of a .safetensors or .gguf file.")
    ],
    to: Annotated[str, typer.Option("--to", help="Format to write: int8, fp8, bf16 or fp16.")] = "int8",
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", show_default=False, help="Data type that the int8 version computes in: bf16 or fp16."),
    ] = None,
    scales: Annotated[
        str,
        typer.Option(
            "--scales",
            help="Scales of fp8: one for each tensor (ComfyUI) or row (LightX2V), or none (diffusers).",
        ),
    ] = "tensor",
    lora: Annotated[
        list[str] | None,
        typer.Option(
            "--lora", metavar="FILE[:STRENGTH]", help="LoRA to merge, with an optional strength; may be repeated."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write (default: named after the source).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
    root: Root = None,
) -> None:
    """Quantize a checkpoint to quanto int8 or fp8, or convert it to bf16 or fp16. LoRAs can be merged into it.

    With an ID, a missing 16-bit file is downloaded, and the int8 or fp8 version is added to the definition.
    """
    from reeltune import quantize as quantize_file

    refuse_urls([source], output)
    loras = [split_weight(text) for text in lora or ()]
    file = Path(source)
    with interruptible() as cancel, progress_display() as listener:
        if not (source.lower().endswith((".safetensors", ".gguf")) or is_file(file)):
            catalog = open_catalog(root)
            saved = output is None and to in ("int8", "fp8") and not loras and scales == "tensor"
            preferences = effective_preferences(catalog.root, to if saved else "bf16", dtype, None)
            if saved:
                _save(catalog[source], preferences, listener, cancel)
                return
            file, plan_dtype = download_weights(catalog[source], preferences, listener, cancel)
            output = output or catalog.root / "ckpts" / _default_name(file, to, plan_dtype, scales, merged=bool(loras))
            dtype = plan_dtype if to in ("int8", "fp8") else None
        quantized = quantize_file(
            file,
            output,
            to=to,
            dtype=dtype or "auto",
            scales=scales,
            loras=loras,
            overwrite=force,
            listener=listener,
            cancel=cancel,
        )
    layers = f", {counted(quantized.modules, 'layer')} in {to}" if quantized.modules else ""
    print_line(f"{quantized.path}  {size(quantized.bytes)}{layers}, sha256 {quantized.sha256}")


def refuse_urls(sources: Sequence[str], output: Path | None) -> None:
    """Raise CheckpointError if one of the sources, or the output, is a URL."""
    from reeltune.errors import CheckpointError

    for source in sources:
        if re.match(r"https?://", source, re.IGNORECASE):
            hint = f"Create a definition with `reeltune add {source}`, then use its id."
            raise CheckpointError("The file of a URL can't be used before it is downloaded.", hint=hint)
    if output is not None and re.match(r"https?:/", str(output), re.IGNORECASE):
        raise CheckpointError(f"-o {output} is a URL.", hint="Give the path of a file on this machine.")


def split_weight(text: str) -> tuple[str, float]:
    """The parts of `FILE:WEIGHT`. The weight is 1 if it is left out; the path may contain colons."""
    file, colon, weight = text.rpartition(":")
    if not colon or not file:
        return text, 1.0
    try:
        return file, float(weight)
    except ValueError:  # C:\loras\style.safetensors
        return text, 1.0


def _save(definition: Definition, preferences: Preferences, listener: Listener, cancel: CancelToken) -> None:
    """Write the int8 or fp8 versions of a definition's files, and print their paths."""
    from reeltune.weights.saving import save_quantized

    paths = save_quantized(definition, preferences, listener=listener, cancel=cancel)
    for path in paths:
        print_line(f"{path}  {size(path.stat().st_size)}")
    if not paths:
        print_line(f"Nothing to do: {definition.id} has no 16-bit file to quantize.")


def download_weights(
    definition: Definition, preferences: Preferences, listener: Listener, cancel: CancelToken
) -> tuple[Path, str]:
    """The 16-bit file of a definition, downloaded if it is missing, and the data type that it computes in."""
    from reeltune.errors import ChoiceError
    from reeltune.fetch import pull

    plan = pull(definition, preferences, weights_only=True, listener=listener, cancel=cancel)
    paths = [item.path for item in plan.items if item.subject in plan.selection.choices]
    if len(paths) > 1:
        names = ", ".join(str(path) for path in paths)
        message = f"{definition.id} has {len(paths)} weight files, and this command takes one at a time."
        raise ChoiceError(message, hint=f"Give one of them: {names}.")
    return paths[0], plan.dtype


def _default_name(file: Path, to: str, dtype: str, scales: str, *, merged: bool) -> str:
    from reeltune.weights.quantize import default_name

    return default_name(file, to, dtype, merged, scales)
