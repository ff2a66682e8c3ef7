"""Rates and remaining times from progress events."""

from reeltune.events import Progress
from reeltune.jobs.speed import advance


def run(*marks, stage="denoise", subject=""):
    speed = None
    for now, done in marks:
        speed = advance(speed, Progress(stage, done, 10, subject=subject), now)
    return speed


def test_a_stage_that_has_just_begun_has_no_rate():
    assert run((5.0, 0)).rate is None
    assert run((5.0, 0), (9.0, 0)).seconds_left(10, 9.0) is None


def test_the_remaining_time_shrinks_between_steps_and_never_below_zero():
    speed = run((0.0, 0), (2.0, 1), (4.0, 2))
    assert speed.rate == 0.5
    assert speed.seconds_left(10, 4.0) == 16
    assert speed.seconds_left(10, 5.0) == 15
    assert speed.seconds_left(10, 500.0) == 0
    assert speed.seconds_left(None, 4.0) is None


def test_another_file_and_a_stage_that_starts_over_are_measured_anew():
    speed = run((0.0, 0), (1.0, 5))
    assert advance(speed, Progress("denoise", 6, 10, subject="other"), 2.0).rate is None
    assert advance(speed, Progress("denoise", 0, 10), 2.0).marks == ((2.0, 0),)


def test_a_resumed_download_is_not_credited_with_what_was_there_before():
    assert run((0.0, 1_000_000), (1.0, 1_000_100), stage="download").rate == 100


def test_the_rate_follows_the_last_half_minute_and_marks_stay_few():
    speed = run(
        *((second, 100 * second) for second in range(60)), *((60 + second, 5900 + second) for second in range(60))
    )
    assert 0.9 < speed.rate < 1.1
    assert len(speed.marks) < 40
    crowded = run(*((number / 100, number) for number in range(1000)))
    assert len(crowded.marks) < 30
    assert 95 < crowded.rate < 105


def test_steps_longer_than_the_window_are_measured_too():
    assert run((0.0, 0), (100.0, 1), (200.0, 2)).rate == 0.01
