"""What the stages of a video report: notices, once each, and progress."""

from __future__ import annotations

from reeltune.events import Event, Listener, Notice, Progress


class Reporter:
    """Passes events on to a listener; a notice that was reported before is left out, until `start_over`."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self._reported: set[str] = set()

    def notice(self, message: str) -> None:
        """Report something that the user should know."""
        if message not in self._reported:
            self._reported.add(message)
            self.listener(Notice(message))

    def progress(self, stage: str, done: int, total: int) -> None:
        """Report how far a stage is."""
        self.listener(Progress(stage, done, total))

    def event(self, event: Event) -> None:
        """Pass on what other parts report: of notices, those that are new."""
        if isinstance(event, Notice):
            self.notice(event.message)
        else:
            self.listener(event)

    def start_over(self) -> None:
        """Report each notice again from here on: other videos are asked for."""
        self._reported.clear()
