"""The process that makes the videos: `python -m reeltune.jobs.worker --root FOLDER`.

Tasks come as JSON lines on stdin, events go as JSON lines to what was stdout at the start (`reeltune.jobs.codec`);
whatever libraries print goes to stderr. The engine stays warm from job to job, and only other preferences make a new
one. Where stdin ends, the process that asked is gone, and this one ends too, whatever it was doing.
"""

from __future__ import annotations

import argparse
import errno
import os
import queue
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from reeltune._quiet import freeze_imported
from reeltune._version import __version__
from reeltune.definitions import Definition, load_catalog
from reeltune.errors import (
    Cancelled,
    DeviceMissing,
    MediaError,
    NotEnoughDisk,
    Offline,
    PreferencesError,
    ReeltuneError,
    Unreachable,
)
from reeltune.events import CancelToken, Event, Notice, Progress
from reeltune.jobs.codec import pack_event, unpack_task
from reeltune.jobs.confine import Confinement
from reeltune.jobs.job import Attempt
from reeltune.jobs.messages import CancelTask, Done, Failed, Ready, RunTask, Saved, Stopped, Task, WorkerEvent
from reeltune.jobs.written import mark_of
from reeltune.preferences import Preferences, load_preferences
from reeltune.request.parse import complete_settings, selected_variant
from reeltune.settings import read_settings

if TYPE_CHECKING:
    from reeltune.engine.engine import Engine
    from reeltune.media.video import Video

_PROGRESS_SECONDS = 0.1  # nobody sees more than ten a second
# Errors that every other job would meet too: not of the job, but of the network, the machine or its disk.
_SHARED = (Offline, Unreachable, NotEnoughDisk, DeviceMissing, PreferencesError, ImportError)
_SHARED_NUMBERS = frozenset({errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)})


class Worker:
    """Does one task after the other; a second thread reads, so that a cancel is heard meanwhile.

    `save_quantized`: keep what is quantized while loading, whatever the preference. `outputs`: the folder of videos;
    by default the preference's. `device`: what it computes on; by default the preference's.
    """

    def __init__(
        self,
        root: Path,
        tasks: BinaryIO,
        answers: BinaryIO,
        *,
        save_quantized: bool = False,
        outputs: str = "",
        device: str = "",
    ) -> None:
        self._root, self._tasks, self._answers = root, tasks, answers
        self._save_quantized = save_quantized
        self._outputs = outputs
        self._device = device
        self._waiting: queue.Queue[RunTask] = queue.Queue()
        self._cancels: dict[Attempt, CancelToken] = {}
        self._lock = threading.Lock()
        self._warm: tuple[Preferences, Engine] | None = None
        self._attempt: Attempt | None = None
        self._reported: tuple[str, str, float] = ("", "", 0.0)

    def run(self) -> None:
        """Work until the process that asks is gone; never returns."""
        self._send(Ready(__version__))
        threading.Thread(target=self._read, daemon=True).start()
        while True:
            self._do(self._waiting.get())

    def _read(self) -> None:
        for line in self._tasks:
            self._receive(line)
        os._exit(0)  # nobody listens any more; a clean end could take as long as a step does

    def _receive(self, line: bytes) -> None:
        """What can't be understood is printed; a job that can't be understood fails, as its runner waits for an end."""
        try:
            received = unpack_task(line)
        except ValueError as error:
            print(f"A task can't be read: {error}", file=sys.stderr)
            return
        for problem in received.problems:
            print(problem, file=sys.stderr)
        if received.task is not None:
            self._take(received.task)
        elif received.type == "run" and received.attempt is not None:
            words = " ".join(received.problems)
            self._answer(received.attempt, Failed(f"The worker can't understand the job. {words}", _OTHER_VERSION))

    def _take(self, task: Task) -> None:
        """A job waits for its turn; a cancel counts for the attempt it names, and for none that has ended."""
        with self._lock:
            if isinstance(task, CancelTask):
                if task.attempt in self._cancels:
                    self._cancels[task.attempt].cancel()
                return
            self._cancels[task.attempt] = CancelToken()
        self._waiting.put(task)

    def _answer(self, attempt: Attempt | None, event: WorkerEvent) -> None:
        with self._lock:
            self._answers.write(pack_event(attempt, event))
            self._answers.flush()

    def _send(self, event: WorkerEvent) -> None:
        """Send an event of the current attempt."""
        self._answer(self._attempt, event)

    def _report(self, event: Event) -> None:
        if isinstance(event, Progress):
            stage, subject, since = self._reported
            same = (stage, subject) == (event.stage, event.subject)
            if same and event.done != event.total and time.monotonic() - since < _PROGRESS_SECONDS:
                return
            self._reported = (event.stage, event.subject, time.monotonic())
        self._send(event)

    def _do(self, task: RunTask) -> None:
        self._attempt = task.attempt
        with self._lock:
            cancel = self._cancels.setdefault(task.attempt, CancelToken())
        try:
            self._generate(task, cancel)
        except Cancelled:
            self._send(Stopped())
        except ReeltuneError as error:
            self._send(Failed(error.message, error.hint, is_shared(error)))
        except MemoryError:
            self._release_engine()
            self._send(Failed("There was not enough memory.", _SMALLER))
        except Exception as error:  # the boundary of a job: whatever it was, the next one must run
            traceback.print_exc()
            self._release_engine()  # who knows in which state it is
            words = type(error).__name__ if task.confined else _words(error)  # its text may quote a file
            hint = _SMALLER if "out of memory" in str(error) else ""
            self._send(Failed(words, hint, is_shared(error)))
        else:
            self._send(Done())
        finally:
            with self._lock:
                self._cancels.pop(task.attempt, None)

    def _generate(self, task: RunTask, cancel: CancelToken) -> None:
        definition = load_catalog(self._root)[task.definition]
        preferences, notices = load_preferences(self._root)
        if self._outputs:
            preferences = replace(preferences, outputs=self._outputs)
        if self._device:
            preferences = replace(preferences, device=self._device)
        stored = read_settings(task.settings)  # a job may have been queued by another version
        for notice in (*notices, *stored.notices()):
            self._report(Notice(notice))
        self._report(Progress("prepare", 0, None, subject=definition.id))
        definition, _ = selected_variant(definition, stored.settings)
        if task.confined:
            confinement = Confinement.of(self._root, preferences)
            confinement.check_definition(definition)
            confinement.check_settings(complete_settings(definition, stored.settings)[0])
        cancel.check()
        engine = self._engine(definition, preferences)
        made = task.made
        if latents := self._kept_latents(task.latents):
            self._save(engine, engine.decode(latents, cancel=cancel), task.attempt)
            made += 1
        for video in engine.generate_each(cancel=cancel, skip=made, **stored.settings):
            self._save(engine, video, task.attempt)

    def _kept_latents(self, name: str) -> Path | None:
        """The latents an earlier attempt has left; None, with a notice, where they are gone or damaged."""
        if not name:
            return None
        path = Path(name)
        from reeltune.engine.latents import read

        try:
            read(path)
        except MediaError as error:
            self._report(Notice(f"{error.message} The video is made from the beginning."))
            return None
        return path

    def _engine(self, definition: Definition, preferences: Preferences) -> Engine:
        """The warm engine, switched to the definition as it is now; for other preferences a new one, after the old one
        has released its memory. What both have in common stays loaded.
        """
        if self._warm is not None and self._warm[0] == preferences:
            engine = self._warm[1]
            engine.switch(definition)
            return engine
        self._release_engine()
        from reeltune import Engine  # heavy, and only in this process

        freeze_imported()
        engine = Engine(
            definition,
            preferences=preferences,
            listener=self._report,
            save_quantized=self._save_quantized,  # beside the preference, which the engine reads itself
            previews=True,
        )
        self._warm = (preferences, engine)
        return engine

    def _save(self, engine: Engine, video: Video, attempt: Attempt) -> None:
        """Write a video, which tells the attempt that it comes from, and report it."""
        path = video.save(engine.output_path(video), listener=self._report, metadata=mark_of(attempt))
        self._send(Saved(str(path)))

    def _release_engine(self) -> None:
        if self._warm is not None:
            warm, self._warm = self._warm[1], None
            warm.close()


def is_shared(error: BaseException) -> bool:
    """Whether every other job would fail in the same way."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, _SHARED) or (isinstance(cause, OSError) and cause.errno in _SHARED_NUMBERS):
            return True
        cause = cause.__cause__
    return False


_OTHER_VERSION = "Restart the program: it may have been updated while it ran."
_SMALLER = "Try a smaller resolution, fewer frames, or an int8 version of the model."


def _words(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:500]}" if text else type(error).__name__


def private_stdout() -> BinaryIO:
    """What was stdout, for us alone: from now on everything else that is printed goes to stderr."""
    own = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return own


def limit_threads(count: int) -> None:
    """Let torch and numba use so many CPU threads at most; they read these variables when they are first imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        fewer = os.environ.get(name, "")
        if not (fewer.isdigit() and 0 < int(fewer) <= count):
            os.environ[name] = str(count)


def main() -> None:
    """Run as a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m reeltune.jobs.worker", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="working folder")
    parser.add_argument("--save-quantized", action="store_true", help="write what is quantized while loading")
    parser.add_argument("--outputs", default="", help="folder of videos, in place of the preference's")
    parser.add_argument("--device", default="", help="device to compute on, in place of the preference's")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads at most; 0 for all")
    options = parser.parse_args()
    if options.threads > 0:
        limit_threads(options.threads)
    answers = private_stdout()
    Worker(
        options.root,
        sys.stdin.buffer,
        answers,
        save_quantized=options.save_quantized,
        outputs=options.outputs,
        device=options.device,
    ).run()


if __name__ == "__main__":
    main()
