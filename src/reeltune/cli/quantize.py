"""`quantize`: a smaller or merged version of a weight file, or of what a definition lists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reeltune.cli.options import Root, open_catalog, wishes
from reeltune.cli.output import interruptible, say, showing, size
from reeltune.files import is_file

if TYPE_CHECKING:
    from reeltune.definitions import Definition
    from reeltune.events import CancelToken, Listener
    from reeltune.preferences import Preferences


def quantize(
    source: Annotated[str, typer.Argument(metavar="ID|FILE", help="Id of a definition, or a .safetensors file.")],
    to: Annotated[str, typer.Option("--to", help="int8, bf16 or fp16.")] = "int8",
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", show_default=False, help="Data type an int8 version computes in: bf16 or fp16."),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option("--lora", metavar="FILE[:WEIGHT]", help="LoRA to merge; may be given several times."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write (default: named by the convention).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output where it exists.")] = False,
    root: Root = None,
) -> None:
    """Quantize a checkpoint to quanto int8, or convert it, LoRAs merged in the same pass.

    With an ID, its 16-bit file is fetched where it is missing, the int8 version lands in ckpts/ and the definition
    lists it from then on.
    """
    from reeltune import quantize as quantize_file

    _refuse_urls(source, output)
    loras = [split_weight(text) for text in lora or ()]
    file = Path(source)
    with interruptible() as cancel, showing() as listener:
        if not (source.lower().endswith(".safetensors") or (is_file(file))):
            catalog = open_catalog(root)
            preferences = wishes(catalog.root, "bf16", dtype, None)
            if output is None and to == "int8" and not loras:
                _save(catalog[source], preferences, listener, cancel)
                return
            file, computed = _fetched(catalog[source], preferences, listener, cancel)
            output = output or catalog.root / "ckpts" / _name(file, to, computed, merged=bool(loras))
            dtype = computed if to == "int8" else None
        made = quantize_file(
            file, output, to=to, dtype=dtype or "auto", loras=loras, overwrite=force, listener=listener, cancel=cancel
        )
    layers = f", {made.modules} layers in int8" if made.modules else ""
    say(f"{made.path}  {size(made.bytes)}{layers}, sha256 {made.sha256}")


def _refuse_urls(source: str, output: Path | None) -> None:
    """Raise CheckpointError for a URL where a file is needed."""
    from reeltune.errors import CheckpointError

    if re.match(r"https?://", source, re.IGNORECASE):
        hint = (
            f"`reeltune add {source}` makes a definition of it; then `reeltune quantize ID` downloads and quantizes it."
        )
        raise CheckpointError("A URL can't be quantized.", hint=hint)
    if output is not None and re.match(r"https?:/", str(output), re.IGNORECASE):
        raise CheckpointError(f"-o {output} is a URL.", hint="Name a file on this machine.")


def split_weight(text: str) -> tuple[str, float]:
    """`FILE:WEIGHT` taken apart; a path may hold colons of its own. Without a weight it is 1."""
    file, colon, weight = text.rpartition(":")
    try:
        return (file, float(weight)) if colon and file else (text, 1.0)
    except ValueError:  # C:\loras\style.safetensors
        return text, 1.0


def _save(definition: Definition, preferences: Preferences, listener: Listener, cancel: CancelToken) -> None:
    from reeltune.weights.saving import save_quantized

    paths = save_quantized(definition, preferences, listener=listener, cancel=cancel)
    for path in paths:
        say(f"{path}  {size(path.stat().st_size)}")
    if not paths:
        say(f"Nothing to do: no file of {definition.id} was quantized.")


def _fetched(
    definition: Definition, preferences: Preferences, listener: Listener, cancel: CancelToken
) -> tuple[Path, str]:
    """A definition's one 16-bit file, fetched where it is missing, and the data type that it would run in."""
    from reeltune.errors import ChoiceError
    from reeltune.fetch import pull

    plan = pull(definition, preferences, weights_only=True, listener=listener, cancel=cancel)
    paths = [item.path for item in plan.items if item.subject in plan.selection.choices]
    if len(paths) > 1:
        names = ", ".join(str(path) for path in paths)
        raise ChoiceError(f"{definition.id} consists of {len(paths)} weight files.", hint=f"Name one of them: {names}.")
    return paths[0], plan.dtype


def _name(file: Path, to: str, dtype: str, *, merged: bool) -> str:
    from reeltune.weights.quantize import default_name

    return default_name(file, to, dtype, merged)
