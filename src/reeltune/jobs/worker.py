"""The process that makes the videos: `python -m reeltune.jobs.worker --root FOLDER`.

Requests come as JSON lines on stdin, events go as JSON lines to what was stdout at the start; whatever libraries print
goes to stderr. The engine stays warm from job to job, and only other preferences make a new one. Where stdin ends, the
process that asked is gone, and this one ends too, whatever it was doing.
"""

from __future__ import annotations

import argparse
import os
import queue
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from reeltune._quiet import keep_imported
from reeltune.definitions import Definition, load_catalog
from reeltune.errors import Cancelled, MediaError, ReeltuneError
from reeltune.events import CancelToken, Event, Notice, Progress
from reeltune.jobs.wire import line, pack, parse
from reeltune.preferences import Preferences, load_preferences

if TYPE_CHECKING:
    from reeltune.engine.engine import Engine
    from reeltune.media.video import Video

_PROGRESS_SECONDS = 0.1  # nobody sees more than ten a second


class Worker:
    """Does one request after the other; a second thread reads, so that a cancel is heard meanwhile."""

    def __init__(self, root: Path, requests: BinaryIO, answers: BinaryIO) -> None:
        self._root, self._requests, self._answers = root, requests, answers
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue()
        self._cancels: dict[int, CancelToken] = {}
        self._lock = threading.Lock()
        self._warm: tuple[tuple[Definition, Preferences], Engine] | None = None
        self._job = 0
        self._told: tuple[str, str, float] = ("", "", 0.0)

    def run(self) -> None:
        """Work until the process that asks is gone; never returns."""
        threading.Thread(target=self._read, daemon=True).start()
        while True:
            self._do(self._waiting.get())

    def _read(self) -> None:
        for raw in self._requests:
            message = parse(raw)
            if message["do"] == "cancel":
                self._token(message["job"]).cancel()
            else:
                self._token(message["job"])
                self._waiting.put(message)
        os._exit(0)  # nobody listens any more; a clean end could take as long as a step does

    def _token(self, job: int) -> CancelToken:
        with self._lock:
            return self._cancels.setdefault(job, CancelToken())

    def _tell(self, **message: Any) -> None:
        with self._lock:
            self._answers.write(line({**message, "job": self._job}))
            self._answers.flush()

    def _listen(self, event: Event) -> None:
        if isinstance(event, Progress):
            stage, subject, since = self._told
            same = (stage, subject) == (event.stage, event.subject)
            if same and event.done != event.total and time.monotonic() - since < _PROGRESS_SECONDS:
                return
            self._told = (event.stage, event.subject, time.monotonic())
        self._tell(**pack(event))

    def _do(self, request: dict[str, Any]) -> None:
        self._job = int(request["job"])
        try:
            self._generate(request, self._token(self._job))
        except Cancelled:
            self._tell(event="cancelled")
        except ReeltuneError as error:
            self._tell(event="failed", error=error.message, hint=error.hint)
        except MemoryError:
            self._let_go()
            self._tell(event="failed", error="There was not enough memory.", hint=_SMALLER)
        except Exception as error:  # the boundary of a job: whatever it was, the next one must run
            self._let_go()  # who knows in which state it is
            self._tell(event="failed", error=_words(error), hint=_SMALLER if "out of memory" in str(error) else "")
        else:
            self._tell(event="done")
        finally:
            self._cancels.pop(self._job, None)

    def _generate(self, request: Mapping[str, Any], cancel: CancelToken) -> None:
        definition = load_catalog(self._root)[request["definition"]]
        preferences, _ = load_preferences(self._root)
        preferences.use_tokens()
        self._listen(Progress("prepare", 0, None, subject=definition.id))
        cancel.check()
        engine = self._engine(definition, preferences)
        made = int(request.get("made", 0))
        if latents := self._left(request):
            self._tell(event="saved", path=str(self._save(engine, engine.decode(latents, cancel=cancel))))
            made += 1
        for video in engine.generate_each(cancel=cancel, skip=made, **request["settings"]):
            self._tell(event="saved", path=str(self._save(engine, video)))

    def _left(self, request: Mapping[str, Any]) -> Path | None:
        """The latents an earlier try has left; None, said, where they are gone or damaged."""
        path = Path(request.get("latents") or "")
        if path == Path():
            return None
        from reeltune.engine.latents import read

        try:
            read(path)
        except MediaError as error:
            self._listen(Notice(f"{error.message} The video is made from the beginning."))
            return None
        return path

    def _engine(self, definition: Definition, preferences: Preferences) -> Engine:
        """The warm engine, switched to the definition; for other preferences a new one, after the old one let go."""
        if self._warm is not None and self._warm[0] == (definition, preferences):
            return self._warm[1]
        if self._warm is not None and self._warm[0][1] == preferences:
            engine = self._warm[1]
            engine.switch(definition)
        else:
            self._let_go()
            from reeltune import Engine  # heavy, and only in this process

            keep_imported()
            saving = preferences.save_quantized
            engine = Engine(
                definition, preferences=preferences, listener=self._listen, save_quantized=saving, previews=True
            )
        self._warm = ((definition, preferences), engine)
        return engine

    def _save(self, engine: Engine, video: Video) -> Path:
        return video.save(engine.output_path(video), listener=self._listen)

    def _let_go(self) -> None:
        if self._warm is not None:
            warm, self._warm = self._warm[1], None
            warm.close()


_SMALLER = "Try a smaller resolution, fewer frames, or an int8 version of the model."


def _words(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:500]}" if text else type(error).__name__


def private_stdout() -> BinaryIO:
    """What was stdout, for us alone: from now on everything else that is printed goes to stderr."""
    own = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return own


def main() -> None:
    """Run as a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m reeltune.jobs.worker", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="working folder")
    root = parser.parse_args().root
    Worker(root, sys.stdin.buffer, private_stdout()).run()


if __name__ == "__main__":
    main()
