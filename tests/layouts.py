"""A model's weights as original releases lay them out, made from diffusers' own."""

from __future__ import annotations

import torch

from reeltune.checkpoints.keys import matches, places
from reeltune.families import Family


def original_layout(state: dict[str, torch.Tensor], family: Family) -> dict[str, torch.Tensor]:
    """A diffusers model's weights under their original names: layers stacked, halves swapped."""
    stacks: dict[str, list[tuple[int, torch.Tensor]]] = {}
    for name, tensor in state.items():
        found = places(name, family, "diffusers")
        assert found is not None, name
        row, index = _row(family, name)
        swapped = torch.cat(tensor.chunk(2)[::-1]) if row.swapped else tensor
        stacks.setdefault(found.names[0], []).append((index, swapped))
    return {
        name: torch.cat([part for _, part in sorted(parts, key=lambda pair: pair[0])])
        if len(parts) > 1
        else parts[0][1]
        for name, parts in stacks.items()
    }


def _row(family, name):
    for row in family.renames:
        for index, target in enumerate((row.diffusers, *row.more)):
            if any(matches(module, target) for module in (name, name.rpartition(".")[0])):
                return row, index
    raise AssertionError(name)
