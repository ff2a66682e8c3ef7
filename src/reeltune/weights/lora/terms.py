"""What LoRAs add to the output of a linear layer: pairs of matrices, whole matrices, LoKr, LoHa and DoRA.

Each term computes its part of the output from the layer's input; the layer's own weight stays as it is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from reeltune.weights.edits import Delta, Hadamard, Kronecker, LowRank, Whole


@dataclass(frozen=True)
class LayerPass:
    """One computation of a linear layer: its input x [..., in], its output W x + b [..., out], W and b."""

    x: torch.Tensor
    output: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None

    @property
    def plain(self) -> torch.Tensor:
        """W x, without the bias, [..., out]."""
        return self.output if self.bias is None else self.output - self.bias


@dataclass(frozen=True)
class Pair:
    """A product of two matrices of a LoRA: factor * up @ down, with `up` [out, rank] and `down` [rank, in].

    `lora`: the number of the LoRA.
    """

    lora: int
    up: torch.Tensor
    down: torch.Tensor
    factor: float


class Term(nn.Module):
    """A part of a layer's output that LoRAs add."""

    def forward(self, run: LayerPass, weights: torch.Tensor) -> torch.Tensor:
        """The addition [..., out]. `weights`: the weight of each LoRA in this step, [LoRAs]."""
        raise AssertionError("every kind of term computes its own")


class PairsTerm(Term):
    """The pairs of all LoRAs, side by side: up (s * (down x)), with the weight of each LoRA repeated for its rank."""

    def __init__(self, pairs: Sequence[Pair], dtype: torch.dtype) -> None:
        super().__init__()
        ranks = torch.tensor([len(pair.down) for pair in pairs])
        loras = torch.tensor([pair.lora for pair in pairs])
        factors = torch.tensor([pair.factor for pair in pairs])
        self.down = _kept(self, "down", torch.cat([pair.down.to(dtype) for pair in pairs]))
        self.up = _kept(self, "up", torch.cat([pair.up.to(dtype) for pair in pairs], dim=1))
        self.loras = _kept(self, "loras", loras.repeat_interleave(ranks))
        self.factors = _kept(self, "factors", factors.repeat_interleave(ranks))

    def forward(self, run: LayerPass, weights: torch.Tensor) -> torch.Tensor:
        """up (s * (down x))."""
        scale = (weights[self.loras] * self.factors).to(run.x.dtype)
        return functional.linear(functional.linear(run.x, self.down) * scale, self.up)


class MatrixTerm(Term):
    """A matrix D of one LoRA that is added to W, or takes its place. It is computed from its factors in each pass."""

    def __init__(self, lora: int, matrix: Matrix, factor: float, *, replaces: bool) -> None:
        super().__init__()
        self.lora, self.factor, self.replaces = lora, factor, replaces
        self.matrix = matrix

    def forward(self, run: LayerPass, weights: torch.Tensor) -> torch.Tensor:
        """s D x; for a matrix that takes the place of W, s (D x - W x)."""
        added = functional.linear(run.x, self.matrix(run.x.dtype)) * self.factor
        if self.replaces:
            added = added - run.plain
        return added * weights[self.lora].to(run.x.dtype)


class DoraTerm(Term):
    """DoRA by rows (arXiv 2402.09353): W becomes r (W + D), where r brings each row to its learned length."""

    def __init__(self, lora: int, matrix: Matrix, factor: float, ratio: torch.Tensor) -> None:
        """`ratio`: r, fp32 [out]."""
        super().__init__()
        self.lora, self.factor = lora, factor
        self.matrix = matrix
        self.ratio = _kept(self, "ratio", ratio)

    def forward(self, run: LayerPass, weights: torch.Tensor) -> torch.Tensor:
        """s (r (W x + D x) - W x)."""
        dtype, plain = run.x.dtype, run.plain
        whole = plain + functional.linear(run.x, self.matrix(dtype)) * self.factor
        return (whole * self.ratio.to(dtype) - plain) * weights[self.lora].to(dtype)


class ColumnDoraTerm(Term):
    """DoRA by columns, as kohya's trainers write it: W becomes (W + D) r, where r brings each column to its length."""

    def __init__(self, lora: int, matrix: Matrix, factor: float, ratio: torch.Tensor) -> None:
        """`ratio`: r, fp32 [in]."""
        super().__init__()
        self.lora, self.factor = lora, factor
        self.matrix = matrix
        self.ratio = _kept(self, "ratio", ratio)

    def forward(self, run: LayerPass, weights: torch.Tensor) -> torch.Tensor:
        """s (W (r x) - W x + D (r x))."""
        dtype = run.x.dtype
        scaled = run.x * self.ratio.to(dtype)
        changed = functional.linear(scaled, run.weight) - run.plain
        changed = changed + functional.linear(scaled, self.matrix(dtype)) * self.factor
        return changed * weights[self.lora].to(dtype)


class Matrix(nn.Module):
    """A matrix [out, in] that is computed from its factors, so that only these take memory."""

    def __init__(self, delta: Delta, rows: torch.Tensor, dtype: torch.dtype) -> None:
        """`rows`: the row of `delta` that each row of the layer's weight is, [out]."""
        super().__init__()
        self.product = type(delta)
        self.rows = _kept(self, "rows", rows)
        self.in_order = bool(torch.equal(rows, torch.arange(delta.shape[0])))
        for name, tensor in _factors(delta).items():
            _kept(self, name, tensor.to(dtype))

    def forward(self, dtype: torch.dtype) -> torch.Tensor:
        """The matrix in a data type."""
        whole = self._whole({name: tensor.to(dtype) for name, tensor in self.named_parameters() if name != "rows"})
        return whole if self.in_order else whole[self.rows]

    def _whole(self, factors: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.product is Kronecker:
            return torch.kron(factors["left"], factors["right"])
        if self.product is Hadamard:
            return (factors["left_up"] @ factors["left_down"]) * (factors["right_up"] @ factors["right_down"])
        if self.product is LowRank:
            return factors["up"] @ factors["down"]
        return factors["values"]


def _factors(delta: Delta) -> dict[str, torch.Tensor]:
    """The tensors that a matrix is computed from."""
    if isinstance(delta, Kronecker):
        return {"left": delta.left, "right": delta.right}
    if isinstance(delta, Hadamard):
        left, right = delta.left, delta.right
        return {"left_up": left.up, "left_down": left.down, "right_up": right.up, "right_down": right.down}
    if isinstance(delta, LowRank):
        return {"up": delta.up, "down": delta.down}
    assert isinstance(delta, Whole)
    return {"values": delta.values}


def _kept(module: nn.Module, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Register a tensor as a parameter: what sends layers to a device in parts doesn't send buffers back."""
    parameter = nn.Parameter(tensor, requires_grad=False)
    module.register_parameter(name, parameter)
    return parameter
