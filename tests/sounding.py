"""Programs whose models make a tone with every video, as models with sound do: see `data/sounding`."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

_PATCH = Path(__file__).parent / "data" / "sounding"
FIRST, HERTZ, RATE = 2, 440, 24_000  # the frame that the tone begins with, its pitch, and samples per second


def sounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes that are started from now on make videos with a tone."""
    paths = [str(_PATCH), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))


def decoded(path: Path) -> tuple[npt.NDArray[np.float32], int]:
    """The sound of a file, float32 [channels, samples], and its rate."""
    with av.open(str(path)) as container:
        parts = list(container.decode(audio=0))
        return np.concatenate([part.to_ndarray() for part in parts], 1), parts[0].sample_rate


def assert_tone(path: Path, fps: int, frames: int) -> None:
    """The tone begins with its frame, within one frame, and ends with the video."""
    samples, rate = decoded(path)
    assert (len(samples), rate) == (2, RATE)
    start = np.argmax(np.abs(samples[0]) > 0.1) / rate
    assert abs(start - FIRST / fps) < 1 / fps
    assert abs(samples.shape[1] / rate - frames / fps) < 1 / fps
    tone = samples[0, round((FIRST + 1) / fps * rate) : round(frames / fps * rate)]
    pitch = np.argmax(np.abs(np.fft.rfft(tone, 8 * tone.size))) * rate / (8 * tone.size)
    assert abs(pitch - HERTZ) < 10
