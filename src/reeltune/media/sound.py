"""The sound of a video: its samples and their rate."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from reeltune.errors import MediaError


@dataclass(frozen=True)
class Sound:
    """The sound of a video. It starts with the first frame.

    `samples`: float32 [channels, samples], from -1 to 1; one channel or two (left, right). `rate`: samples per second.
    Raises MediaError for any other shape or data type, for NaN and infinity, and for a rate below 1.
    """

    samples: npt.NDArray[np.float32] = field(repr=False)
    rate: int

    def __post_init__(self) -> None:
        shape, dtype = list(self.samples.shape), self.samples.dtype
        if len(shape) != 2 or shape[0] not in (1, 2) or shape[1] < 1 or dtype != np.float32:
            message = f"Sound must be float32 [channels, samples] with one or two channels, not {dtype} {shape}."
            raise MediaError(message)
        if not np.isfinite(self.samples).all():
            raise MediaError("Sound must not contain NaN or infinity.")
        if self.rate < 1:
            raise MediaError(f"Sound must have a rate of at least one sample per second, not {self.rate}.")

    @property
    def seconds(self) -> float:
        """How long it is."""
        return float(self.samples.shape[1] / self.rate)
