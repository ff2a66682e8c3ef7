"""Every Python process that finds this file makes videos with a tone, which begins with frame `FIRST`."""

import numpy as np

from reeltune.media.sound import Sound
from reeltune.media.video import Video

FIRST = 2
HERTZ = 440
RATE = 24_000  # as the models that make sound have it

_finish = Video.__post_init__


def _with_sound(video):
    time = np.arange(10 * RATE) / RATE
    tone = 0.5 * np.sin(2 * np.pi * HERTZ * time) * (time >= FIRST / video.fps)
    object.__setattr__(video, "sound", Sound(np.stack([tone, tone]).astype(np.float32), RATE))
    _finish(video)


Video.__post_init__ = _with_sound
