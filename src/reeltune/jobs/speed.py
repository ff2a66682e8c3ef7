"""How fast the running stage advances, worked out from its progress events."""

from __future__ import annotations

from dataclasses import dataclass

from reeltune.events import Progress

_WINDOW_SECONDS = 30.0  # older marks don't count, so that the rate follows a connection that slows down
_MARK_SECONDS = 0.5  # marks that lie closer together are merged


@dataclass(frozen=True)
class StageSpeed:
    """Marks (seconds of a monotonic clock, work done) of one stage of one file, oldest first."""

    stage: str
    subject: str
    marks: tuple[tuple[float, int], ...]

    @property
    def rate(self) -> float | None:
        """Units of work a second over the window; None until there is something to measure."""
        (first, begun), (last, done) = self.marks[0], self.marks[-1]
        if last <= first or done <= begun:
            return None
        return (done - begun) / (last - first)

    def seconds_left(self, total: int | None, now: float) -> float | None:
        """Seconds until `total` is reached at this rate; None where nothing can be measured yet."""
        if total is None or self.rate is None:
            return None
        last, done = self.marks[-1]
        return max(0.0, (total - done) / self.rate - (now - last))


def advance(speed: StageSpeed | None, progress: Progress, now: float) -> StageSpeed:
    """The speed after one more event; a new one where the event is of another stage or file, or starts over."""
    mark = (now, progress.done)
    same = speed is not None and (speed.stage, speed.subject) == (progress.stage, progress.subject)
    if speed is None or not same or progress.done < speed.marks[-1][1]:
        return StageSpeed(progress.stage, progress.subject, (mark,))
    marks = speed.marks
    if len(marks) > 1 and marks[-1][0] - marks[-2][0] < _MARK_SECONDS:
        marks = marks[:-1]
    while len(marks) > 1 and marks[1][0] < now - _WINDOW_SECONDS:
        marks = marks[1:]  # the newest of those before the window stays: slow steps need a start to measure from
    return StageSpeed(speed.stage, speed.subject, (*marks, mark))
