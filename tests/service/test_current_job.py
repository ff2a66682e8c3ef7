"""The running job: stages, progress, speed and remaining time in words."""

from types import SimpleNamespace

import pytest

from reeltune._text import counted, duration
from reeltune.events import Batch, Planned, PlannedFile, Progress
from reeltune.jobs import Job, Live, State
from reeltune.jobs.speed import advance
from reeltune.service.current_job import progress_in_words, speed_in_words
from reeltune.web.current_job_panel import current_job_panel

JOB = Job(3, "any", {"prompt": "a <b>boat</b>"}, State.RUNNING, 0, 0.0)


def shown(**live):
    runner = SimpleNamespace(running=lambda: [Live(3, 0.0, **live)], trouble=None, paused=False)
    return current_job_panel(SimpleNamespace(runner=runner), [JOB])


def test_every_stage_has_words_and_a_bar_once_its_length_is_known():
    assert progress_in_words(None) == ("Starting", None)
    assert progress_in_words(Progress("quantize", 5, 10, "tensors", "x.safetensors")) == (
        "Quantizing x.safetensors",
        0.5,
    )
    assert progress_in_words(Progress("quantize", 5_000_000, 10_000_000, "bytes", "x")) == (
        "Quantizing x: 5.0 MB of 10.0 MB",
        0.5,
    )
    assert progress_in_words(Progress("download", 5, None, "bytes", "x")) == ("Downloading x: 5 B", None)
    assert progress_in_words(Progress("denoise", 20, 20)) == ("Denoising: step 20 of 20", 1.0)
    assert progress_in_words(Progress("decode", 0, 1)) == ("Decoding the video", None)
    assert 'value="0.500"' in shown(progress=Progress("quantize", 5, 10, "tensors", "x"))
    assert "value=" not in shown(progress=Progress("load", 0, None))


def test_speed_and_remaining_time():
    speed = None
    for second in range(5):
        event = Progress("download", second * 2_000_000, 100_000_000, "bytes", "x")
        speed = advance(speed, event, float(second))
    assert speed_in_words(event, speed, 4.0) == ["2.0 MB/s", "about 45 s left"]
    assert speed_in_words(Progress("denoise", 1, 1), advance(None, Progress("denoise", 1, 1), 0.0), 1.0) == []


def test_which_video_of_several_and_what_is_downloaded_as_a_whole():
    html = shown(
        progress=Progress("denoise", 1, 9), batch=Batch(2, 3),
        planned=Planned((PlannedFile("a", 5, 0),), 5_000_000_000, 9_000_000_000),
    )  # fmt: skip
    assert "Video 2 of 3" in html
    assert "5.00 GB to download in 1 file; 9.00 GB free on this disk." in html
    assert "a &lt;b&gt;boat&lt;/b&gt;" in html
    assert "Stops after the current step." in shown(cancelling=True)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "1 s"),
        (8.4, "8 s"),
        (23, "25 s"),
        (57, "55 s"),
        (58, "1 min"),
        (200, "3 min"),
        (3600, "1 h"),
        (4900, "1 h 22 min"),
    ],
)
def test_durations_are_as_exact_as_is_useful(seconds, words):
    assert duration(seconds) == words


def test_numbers_and_their_nouns():
    assert [counted(number, "part") for number in (0, 1, 2, 1200)] == ["0 parts", "1 part", "2 parts", "1,200 parts"]
