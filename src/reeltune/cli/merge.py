"""`merge` and `extract-lora`: one model made of several, and a finetune as a LoRA."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reeltune._text import counted
from reeltune.cli.files import ask_architecture
from reeltune.cli.options import Root, effective_preferences, open_catalog
from reeltune.cli.output import interruptible, print_line, print_notice, print_table, progress_display, size
from reeltune.cli.quantize import download_weights, refuse_urls, split_weight
from reeltune.files import expand, is_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reeltune.definitions import Catalog, Definition
    from reeltune.events import CancelToken, Listener
    from reeltune.library.derived import Naming, PlannedDefinition
    from reeltune.weights.extracting import ExtractedLora

_ENDINGS = (".safetensors", ".sft", ".gguf")
_UNQUANTIZED = ("auto", "bf16", "fp16")

DefinitionId = Annotated[
    str | None,
    typer.Option("--id", show_default=False, help="Id of the new definition; it is prefixed with the architecture."),
]
Name = Annotated[str | None, typer.Option("--name", show_default=False, help="Name to show for the new definition.")]
Architecture = Annotated[
    str | None,
    typer.Option("--architecture", show_default=False, help="The architecture, if the header fits several."),
]
WithDefinition = Annotated[
    bool, typer.Option("--definition/--no-definition", help="Write a definition for the file to finetunes/.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")]


def merge(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="ID|FILE[:WEIGHT]",
            show_default=False,
            help="Models to merge, each with its weight (default: 1): ids of definitions, or weight files. The new "
            "file has the layout and the settings of the first one.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", show_default=False, help="File to write (.safetensors).")],
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="ID|FILE", show_default=False, help="The model that the others were made from."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="weighted: the weighted mean. add-difference: the base plus each model's difference from it, times "
            "its weight. slerp: between two models on an arc. ties: the base plus the mean of the largest differences "
            "that agree in their sign.",
        ),
    ] = "weighted",
    density: Annotated[
        float, typer.Option("--density", help="For ties: the share of the differences of each tensor to keep.")
    ] = 0.2,
    lora: Annotated[
        list[str] | None,
        typer.Option("--lora", metavar="FILE[:WEIGHT]", help="LoRA to add to the merged model; may be repeated."),
    ] = None,
    to: Annotated[
        str, typer.Option("--to", help="Format to write: auto (16 bits, as the first model), bf16, fp16 or int8.")
    ] = "auto",
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", show_default=False, help="Data type that an int8 file computes in: bf16 or fp16."),
    ] = None,
    id: DefinitionId = None,
    name: Name = None,
    architecture: Architecture = None,
    definition: WithDefinition = True,
    force: Force = False,
    root: Root = None,
) -> None:
    """Merge several finetunes into one file, with a definition for it. Missing files are downloaded first.

    For example: reeltune merge mine:0.6 theirs:0.4 -o ckpts/ours.safetensors

    The models must have the same tensors. Only a few megabytes of them are in memory at a time.

    The new file is read again and checked before it gets its name.
    """
    from reeltune.library.derived import Naming, plan_merged
    from reeltune.weights.merging import Ingredient
    from reeltune.weights.merging import merge as merge_files

    output = expand(output)
    texts = [split_weight(text) for text in models]
    refuse_urls([*(text for text, _ in texts), *([base] if base else [])], output)
    catalog = open_catalog(root)
    with interruptible() as cancel, progress_display() as listener:
        sources = [_Source(catalog, text, dtype, listener, cancel) for text, _ in texts]
        base_source = None if base is None else _Source(catalog, base, dtype, listener, cancel)
        planned = None
        if definition:
            _report_loras(sources)
            plan = partial(plan_merged, catalog, sources[0].origin, output, quantized=to not in _UNQUANTIZED)
            planned = _planned(plan, Naming(id, name, architecture))
        ingredients = []
        for source, (_, weight) in zip(sources, texts, strict=True):
            ingredients.append(Ingredient(source.path, weight, source.license))
        merged = merge_files(
            ingredients,
            output,
            method=method,
            base=None if base_source is None else base_source.path,
            density=density,
            loras=[split_weight(text) for text in lora or ()],
            to=to,
            dtype=dtype or "auto",
            overwrite=force,
            listener=listener,
            cancel=cancel,
        )
    layers = f", {counted(merged.modules, 'layer')} in int8" if merged.modules else ""
    print_line(f"{merged.path}  {size(merged.bytes)}{layers}, sha256 {merged.sha256}")
    parts = [f"{model.path.name} × {model.weight:g}" for model in ingredients]
    _write_definition(planned, f"Merged ({method}): {', '.join(parts)}.", {output.name: merged.sha256})


def extract_lora(
    tuned: Annotated[str, typer.Argument(metavar="TUNED", help="The finetune: id of a definition, or a weight file.")],
    base: Annotated[str, typer.Argument(metavar="BASE", help="The model that it was made from: an id, or a file.")],
    output: Annotated[Path, typer.Option("-o", "--output", show_default=False, help="File to write (.safetensors).")],
    rank: Annotated[
        int, typer.Option("--rank", help="Rank of the LoRA: a larger one keeps more, and takes more space.")
    ] = 32,
    dtype: Annotated[str, typer.Option("--dtype", help="Data type of the LoRA: bf16 or fp16.")] = "bf16",
    differences: Annotated[
        bool,
        typer.Option(
            "--differences/--no-differences",
            help="Also store how biases, norms and modulations differ. diffusers ignores these.",
        ),
    ] = True,
    id: DefinitionId = None,
    name: Name = None,
    architecture: Architecture = None,
    definition: WithDefinition = True,
    force: Force = False,
    root: Root = None,
) -> None:
    """Extract the difference between a finetune and its base model as a LoRA, with a definition that applies it.

    The LoRA can be used by reeltune, WanGP, ComfyUI and diffusers.

    The table shows the share of the squared difference that it keeps, for each kind of layer.
    """
    from reeltune.library.derived import Naming, plan_with_lora
    from reeltune.weights.extracting import extract_lora as extract

    output = expand(output)
    refuse_urls([tuned, base], output)
    catalog = open_catalog(root)
    with interruptible() as cancel, progress_display() as listener:
        tuned_source = _Source(catalog, tuned, None, listener, cancel)
        base_source = _Source(catalog, base, None, listener, cancel)
        planned = None
        if definition:
            plan = partial(plan_with_lora, catalog, base_source.origin, output)
            planned = _planned(plan, Naming(id, name, architecture))
        extracted = extract(
            tuned_source.path,
            base_source.path,
            output,
            rank=rank,
            dtype=dtype,
            whole_differences=differences,
            overwrite=force,
            listener=listener,
            cancel=cancel,
        )
    _print_energy(extracted)
    print_line(f"{extracted.path}  {size(extracted.bytes)}, sha256 {extracted.sha256}")
    description = f"{base_source.path.name} with the LoRA of {tuned_source.path.name}, rank {rank}."
    _write_definition(planned, description, {output.name: extracted.sha256})


def _print_energy(extracted: ExtractedLora) -> None:
    """Print which share of the difference is kept, for each kind of parameter."""
    rows = []
    for kind, energy in sorted(extracted.kinds.items()):
        rows.append((kind, str(energy.parameters), f"{energy.total:.4g}", f"{100 * energy.kept:.2f} %"))
    total = extracted.energy
    rows.append(("total", str(total.parameters), f"{total.total:.4g}", f"{100 * total.kept:.2f} %"))
    print_table(("PARAMETERS", "COUNT", "ENERGY", "KEPT"), rows)
    left_out = f", {extracted.left_out} left out" if extracted.left_out else ""
    print_notice(
        f"{counted(extracted.modules, 'layer')} in low rank, {counted(extracted.differences, 'difference')} of other "
        f"parameters stored whole{left_out}; {extracted.unchanged} don't differ."
    )


class _Source:
    """A model on the command line: its file, and its definition where an id was given."""

    def __init__(self, catalog: Catalog, text: str, dtype: str | None, listener: Listener, cancel: CancelToken) -> None:
        self.definition: Definition | None = None
        self.license = ""
        file = expand(Path(text))
        if text.lower().endswith(_ENDINGS) or is_file(file):
            self.path = file
            return
        self.definition = catalog[text]
        license = catalog.section(text).model_dump().get("license")
        self.license = license if isinstance(license, str) else ""
        preferences = effective_preferences(catalog.root, "bf16", dtype, None)
        self.path, _ = download_weights(self.definition, preferences, listener, cancel)

    @property
    def origin(self) -> Definition | Path:
        """What the new definition is made from."""
        return self.definition or self.path


def _report_loras(sources: Sequence[_Source]) -> None:
    """Report the LoRAs that definitions apply: those of the first one stay in the definition, and none is merged."""
    for number, source in enumerate(sources):
        if source.definition is None or not source.definition.loras:
            continue
        names = ", ".join(version.file_name for version in source.definition.loras)
        effect = "are not merged; the new definition applies them, too" if number == 0 else "are not merged"
        print_notice(f"The LoRAs of {source.definition.id} {effect}: {names}.")


def _planned(plan: Callable[[Naming], PlannedDefinition], naming: Naming) -> PlannedDefinition:
    """The definition to write. Asks for the architecture where the header fits several."""
    from reeltune.errors import AmbiguousArchitecture

    try:
        return plan(naming)
    except AmbiguousArchitecture as error:
        return plan(replace(naming, architecture=ask_architecture(error)))


def _write_definition(planned: PlannedDefinition | None, description: str, sha256: dict[str, str]) -> None:
    if planned is None:
        return
    path = planned.write(description, sha256)
    print_line(str(path))
    print_notice(f"To make a video: `reeltune generate {path.stem}`.")
