"""Sound as AAC, beside the video of an MP4 file."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream

from reeltune.media.sound import Sound

_RATE = 48_000  # samples per second, where AAC doesn't know the rate of a sound
_BLOCK = 1024  # samples of a frame of AAC
_BIT_RATE = 96_000  # bits per second and channel
_MAX_BITS = 4  # per sample, at low rates; the format allows 6


def aac_rate(rate: int) -> int:
    """The rate that a sound is written with: its own, or 48 kHz where AAC doesn't have it."""
    return rate if rate in (av.Codec("aac", "w").audio_rates or ()) else _RATE


def set_up(stream: AudioStream, sound: Sound) -> None:
    """Set the layout and the bit rate of a stream for a sound."""
    context: AudioCodecContext = stream.codec_context
    channels = len(sound.samples)
    context.layout = _layout(sound)
    context.bit_rate = channels * min(_BIT_RATE, _MAX_BITS * aac_rate(sound.rate))


def audio_frames(sound: Sound, seconds: Fraction) -> Iterator[av.AudioFrame]:
    """The frames to encode for exactly so many seconds: longer sound is cut, and silence follows shorter sound."""
    rate = aac_rate(sound.rate)
    count = round(seconds * rate)
    samples = _resampled(sound, rate)[:, :count]
    samples = np.pad(np.clip(samples, -1, 1), ((0, 0), (0, count - samples.shape[1])))
    for start in range(0, count, _BLOCK):
        frame = _frame(samples[:, start : start + _BLOCK], rate, _layout(sound))
        frame.pts = start
        yield frame


def _resampled(sound: Sound, rate: int) -> npt.NDArray[np.float32]:
    if rate == sound.rate:
        return sound.samples
    resampler = av.AudioResampler(format="fltp", layout=_layout(sound), rate=rate)
    frame = _frame(sound.samples, sound.rate, _layout(sound))
    frames = [*resampler.resample(frame), *resampler.resample(None)]  # none, for a few samples
    return np.concatenate([sound.samples[:, :0], *(frame.to_ndarray() for frame in frames)], axis=1)


def _frame(samples: npt.NDArray[np.float32], rate: int, layout: str) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
    frame.sample_rate = rate
    frame.time_base = Fraction(1, rate)
    return frame


def _layout(sound: Sound) -> str:
    return "stereo" if len(sound.samples) == 2 else "mono"
