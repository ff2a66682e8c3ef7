"""The shapes of what a LoRA adds to a parameter, from the shapes of its tensors."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from reeltune.checkpoints.loras.dialects import Part
from reeltune.errors import CheckpointError

PAIR = frozenset({Part.UP, Part.DOWN})
LOKR = frozenset(part for part in Part if part.startswith("lokr_"))
LOHA = frozenset(part for part in Part if part.startswith("hada_"))
MATRICES = PAIR | LOKR | LOHA
DOWNLOAD_AGAIN = "Download it again."
_MAX_RANK = 16_384

Shape = tuple[int, int]


class DoesNotFit(Exception):
    """A part has another shape than the model's parameter; the message gives both."""


class ModuleShapes:
    """The shapes of one module's parts, and of the matrices that they stand for.

    `place`: the file and the module, for messages. Damaged or incomplete parts raise CheckpointError.
    """

    def __init__(self, shapes: Mapping[Part, tuple[int, ...]], place: str) -> None:
        self._shapes, self._place = shapes, place

    def matrix(self, part: Part) -> Shape:
        """The rows and columns of a part; all dimensions but the first count as columns."""
        sides = self._shapes[part]
        rows = sides[0] if sides else 1
        return rows, math.prod(sides) // max(1, rows)

    def check(self, shape: Shape) -> None:
        """Raise DoesNotFit unless the matrices of the module make a matrix of this shape."""
        if self._shapes.keys() & PAIR:
            self._check_product(Part.UP, Part.DOWN, shape)
        elif self._shapes.keys() & LOKR:
            left = self._factor(Part.LOKR_W1, Part.LOKR_W1_A, Part.LOKR_W1_B, None, shape)
            right = self._factor(Part.LOKR_W2, Part.LOKR_W2_A, Part.LOKR_W2_B, Part.LOKR_T2, shape)
            check_shape((left[0] * right[0], left[1] * right[1]), shape)
        else:
            self._check_loha(shape)

    def check_magnitude(self, shape: Shape) -> None:
        """Raise DoesNotFit unless DoRA's magnitude has a value for each row or for each column."""
        sides = self._shapes[Part.MAGNITUDE]
        if not self.magnitude_is_by_row(shape) and math.prod(sides) != shape[1]:
            raise DoesNotFit(f"of shape {list(sides)}, here [{shape[0]}] or [1, {shape[1]}]")

    def magnitude_is_by_row(self, shape: Shape) -> bool:
        """Whether DoRA's magnitude has a value for each row."""
        sides = self._shapes[Part.MAGNITUDE]
        return math.prod(sides) == shape[0] and (len(sides) < 2 or sides[0] == shape[0])

    def _check_product(self, up: Part, down: Part, shape: Shape) -> None:
        self.need(up, down)
        (rows, rank), (down_rank, columns) = self.matrix(up), self.matrix(down)
        if rank != down_rank:
            raise self._mismatch()
        self._check_rank(rank)
        check_shape((rows, columns), shape)

    def _check_loha(self, shape: Shape) -> None:
        self.need(Part.HADA_W1_A, Part.HADA_W1_B, Part.HADA_W2_A, Part.HADA_W2_B)
        if not self._shapes.keys() & {Part.HADA_T1, Part.HADA_T2}:
            self._check_product(Part.HADA_W1_A, Part.HADA_W1_B, shape)
            self._check_product(Part.HADA_W2_A, Part.HADA_W2_B, shape)
            return
        self.need(Part.HADA_T1, Part.HADA_T2)
        first = self._tucker(Part.HADA_T1, Part.HADA_W1_A, Part.HADA_W1_B)
        second = self._tucker(Part.HADA_T2, Part.HADA_W2_A, Part.HADA_W2_B)
        if first != second:
            raise self._mismatch()
        check_shape(first, shape)

    def _factor(self, whole: Part, up: Part, down: Part, core: Part | None, shape: Shape) -> Shape:
        """The shape of one of LoKr's two factors."""
        if whole in self._shapes:
            factor = self.matrix(whole)
        else:
            self.need(up, down)
            (rows, rank), (down_rank, columns) = self.matrix(up), self.matrix(down)
            self._check_rank(rank)
            if core is not None and core in self._shapes:
                factor = self._tucker(core, up, down)
            elif rank != down_rank:
                raise self._mismatch()
            else:
                factor = rows, columns
        _check_divides(factor, shape)
        return factor

    def _tucker(self, core: Part, up: Part, down: Part) -> Shape:
        """The shape of a convolution's core [rank, rank, …] multiplied with its two matrices."""
        sides, above, below = (self._shapes[part] for part in (core, up, down))
        if len(sides) < 2 or len(above) != 2 or len(below) != 2 or sides[:2] != (above[0], below[0]):
            raise self._mismatch()
        return above[1], below[1] * math.prod(sides[2:])

    def need(self, *parts: Part) -> None:
        """Raise CheckpointError unless all of these parts exist."""
        missing = [part for part in parts if part not in self._shapes]
        if missing and set(parts) <= PAIR:
            raise CheckpointError(f"{self._place} has only one half of its pair.", hint=DOWNLOAD_AGAIN)
        if missing:
            raise CheckpointError(f"{self._place} lacks {', '.join(missing)}.", hint=DOWNLOAD_AGAIN)

    def _check_rank(self, rank: int) -> None:
        if not 0 < rank <= _MAX_RANK:
            raise CheckpointError(f"{self._place} has rank {rank}.", hint=DOWNLOAD_AGAIN)

    def _mismatch(self) -> CheckpointError:
        return CheckpointError(f"{self._place}: its matrices don't fit each other.", hint=DOWNLOAD_AGAIN)


def has_matrices(parts: Collection[Part]) -> bool:
    """Whether parts of a module stand for a product of matrices."""
    return not MATRICES.isdisjoint(parts)


def check_shape(shape: Shape, wanted: Shape) -> None:
    """Raise DoesNotFit unless both shapes are equal."""
    if shape != wanted:
        raise DoesNotFit(f"{list(shape)}, here {list(wanted)}")


def _check_divides(shape: Shape, wanted: Shape) -> None:
    """Raise DoesNotFit for a factor that no matrix of the wanted shape can have."""
    if 0 in shape or wanted[0] % shape[0] or wanted[1] % shape[1]:
        raise DoesNotFit(f"{list(shape)} as a factor of {list(wanted)}")
