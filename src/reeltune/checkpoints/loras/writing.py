"""The keys of LoRA files that are written here: those that ComfyUI, WanGP, diffusers and this program read.

diffusion_model.<module>.lora_A.weight   [rank, columns]
diffusion_model.<module>.lora_B.weight   [rows, rank]
diffusion_model.<module>.diff            the difference of a weight that is no matrix, such as a norm's
diffusion_model.<module>.diff_b          the difference of a bias
diffusion_model.<parameter>.diff         the difference of a parameter that belongs to no layer, such as a modulation

The modules have their original names, or those of ComfyUI where these differ. Without an alpha, the product of the two
matrices counts as it is.
"""

from __future__ import annotations

from functools import lru_cache

from reeltune.families import Family

_PREFIX = "diffusion_model."
WEIGHT, BIAS = ".weight", ".bias"


def pair_keys(name: str, family: Family) -> tuple[str, str]:
    """The keys of the two matrices, `down` [rank, columns] and `up` [rows, rank], of a weight by its original name."""
    module = _module(name.removesuffix(WEIGHT), family)
    return f"{module}.lora_A.weight", f"{module}.lora_B.weight"


def difference_key(name: str, family: Family) -> str:
    """The key of the whole difference of a parameter, by its original name."""
    if name.endswith(BIAS):
        return _module(name.removesuffix(BIAS), family) + ".diff_b"
    return _module(name.removesuffix(WEIGHT), family) + ".diff"


def kind_of(name: str, family: Family) -> str:
    """The name of a parameter with `*` for the number of its block: `blocks.*.ffn.0.weight`."""
    ending = next((ending for ending in (WEIGHT, BIAS) if name.endswith(ending)), "")
    template, _ = _template(name.removesuffix(ending), family)
    return template.replace("{}", "*") + ending


def _module(name: str, family: Family) -> str:
    """The name of a module in the file."""
    template, block = _template(name, family)
    return _PREFIX + _aliases(family).get(template, template).replace("{}", block)


def _template(name: str, family: Family) -> tuple[str, str]:
    """A module's name with `{}` for the number of its block, and that number; empty for a module outside of blocks."""
    segments = name.split(".")
    number = next((index for index, segment in enumerate(segments) if segment.isdigit()), None)
    if number is None or name in _originals(family):
        return name, ""
    block, segments[number] = segments[number], "{}"
    return ".".join(segments), block


@lru_cache(maxsize=8)
def _originals(family: Family) -> frozenset[str]:
    """The original names of a family's modules."""
    return frozenset(rename.original for rename in family.renames)


@lru_cache(maxsize=8)
def _aliases(family: Family) -> dict[str, str]:
    """ComfyUI's names of modules, by their original ones."""
    return {original: alias for alias, original in reversed(list(family.aliases.items()))}
