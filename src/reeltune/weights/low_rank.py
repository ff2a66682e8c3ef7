"""The best approximation of a matrix by two small ones: a truncated singular value decomposition."""

from __future__ import annotations

import torch

_EXACT_SIDE = 256  # a smaller side up to which the exact decomposition is fast
_EXTRA = 24  # columns that are computed besides those that are kept
_PASSES = 4  # of the power iteration


def low_rank(matrix: torch.Tensor, rank: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """`up` [rows, rank] and `down` [rank, columns], whose product is nearest to `matrix` fp32 [rows, columns].

    The singular values are divided evenly between both. A large matrix is projected first on a subspace that holds its
    largest singular vectors, with a power iteration (Halko, Martinsson and Tropp, "Finding structure with randomness",
    SIAM Review 53, 2011, algorithms 4.4 and 5.1). The random numbers come from `seed`. The rank is at most the smaller
    side of the matrix.
    """
    side = min(matrix.shape)
    rank = min(rank, side)
    kept = rank + _EXTRA
    if side <= _EXACT_SIDE or 3 * kept > side:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    else:
        basis = _range_of(matrix, kept, seed)
        small_left, values, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
        left = basis @ small_left
    roots = values[:rank].sqrt()
    return left[:, :rank] * roots, roots[:, None] * right[:rank]


def _range_of(matrix: torch.Tensor, columns: int, seed: int) -> torch.Tensor:
    """An orthonormal basis [rows, columns] of a space that nearly holds the matrix's largest singular vectors."""
    generator = torch.Generator().manual_seed(seed)
    basis = _orthonormal(matrix @ torch.randn(matrix.shape[1], columns, generator=generator))
    for _ in range(_PASSES):
        basis = _orthonormal(matrix @ _orthonormal(matrix.T @ basis))
    return basis


def _orthonormal(columns: torch.Tensor) -> torch.Tensor:
    basis: torch.Tensor = torch.linalg.qr(columns).Q
    return basis
