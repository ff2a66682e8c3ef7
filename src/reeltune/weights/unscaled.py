"""fp8 weights that lack the scale they were divided by, recognized by their values.

A writer of scaled fp8 divides each weight by its largest magnitude over the data type's largest number, so that the
values reach it. Weights that were merely cast stay far below: of the models here none is larger than a few dozens.
"""

from __future__ import annotations

import torch

from reeltune.errors import CheckpointError

_REACH = 0.5  # of the data type's largest number


def check_plain(values: torch.Tensor, stored: str, file: str) -> None:
    """Raise CheckpointError where fp8 `values`, of any shape, use the whole range of their data type."""
    if not values.numel():
        return
    largest = float(values.to(torch.float32).abs().amax())
    if largest > _REACH * torch.finfo(values.dtype).max:
        raise CheckpointError(
            f"{file}: {stored} reaches {largest:g}, which no weight does: it was scaled, and its scale is missing.",
            hint="Download the file again, or use a bf16 version.",
        )
