"""What a file tells about its sound, without decoding it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reeltune.media.container import open_container
from reeltune.media.kinds import kind_of

_LAYOUTS = {1: "mono", 2: "stereo"}


@dataclass(frozen=True)
class SoundTrack:
    """The sound of a file; `str()` gives a line such as "AAC, 48 kHz, stereo, 5.0 s".

    `codec`: its name; empty if it is unknown. `rate`: samples per second. `channels`: their number. `seconds`: the
    length. Numbers that the file doesn't tell are 0.
    """

    codec: str
    rate: int
    channels: int
    seconds: float

    def __str__(self) -> str:
        parts = [self.codec or "unknown codec"]
        if self.rate:
            parts.append(f"{self.rate / 1000:g} kHz")
        if self.channels:
            parts.append(_LAYOUTS.get(self.channels, f"{self.channels} channels"))
        if self.seconds:
            parts.append(f"{self.seconds:.1f} s")
        return ", ".join(parts)


def sound_track(path: Path) -> SoundTrack | None:
    """The first sound of a video; None for a silent video, and for an image.

    Raises MediaError for a file that is neither a video nor an image, or can't be read.
    """
    if kind_of(path).image:
        return None
    with open_container(path) as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        context = getattr(stream, "codec_context", None)
        if context is None:  # FFmpeg doesn't know the codec
            return SoundTrack("", 0, 0, max(0.0, seconds))
        return SoundTrack(context.name.upper(), context.sample_rate or 0, context.channels or 0, max(0.0, seconds))
