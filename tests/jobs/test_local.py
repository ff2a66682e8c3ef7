"""A worker that is a process, spoken to by pipes: small programs stand in for the one that loads torch."""

import os
import signal
import sys
import threading
import time

import pytest
from fake_worker import until

from reeltune.errors import WorkerDied
from reeltune.events import FilesUsed, Notice, Progress, UsedFile
from reeltune.jobs import Runner, State
from reeltune.jobs.codec import pack_event
from reeltune.jobs.job import Attempt
from reeltune.jobs.local import LocalProcess, worker_command
from reeltune.jobs.messages import CancelTask, Done, Failed, Ready, RunTask, Stopped
from reeltune.jobs.process import WorkerProcess

WAIT = 120
FIRST, SECOND = Attempt(1, 1), Attempt(1, 2)
TASK = RunTask(FIRST, "m", {"prompt": "a boat"})
ENDLESS = "import sys\nfor line in sys.stdin: pass\n"


def program(*answers):
    """A program that prints one answer, of any lines, for each line that it reads."""
    return (
        "import sys\n"
        f"answers = {[b''.join(answer) for answer in answers]!r}\n"
        "for line, answer in zip(sys.stdin.buffer, answers):\n"
        "    sys.stdout.buffer.write(answer)\n"
        "    sys.stdout.buffer.flush()\n"
        "sys.stdin.buffer.read()\n"
    )


@pytest.fixture
def local():
    """A worker whose process runs the text of a program."""
    workers = []

    def start(text):
        workers.append(LocalProcess("local-1", [sys.executable, "-c", text]))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


def test_the_process_is_started_for_the_first_task_and_stays_for_the_next(local):
    used = FilesUsed((UsedFile("x.safetensors", 5),))
    worker = local(
        program(
            [pack_event(None, Ready("0.1")), pack_event(FIRST, used), pack_event(FIRST, Done())],
            [pack_event(SECOND, Failed("No.", "Else."))],
        )
    )
    assert (worker.name, worker.pid, worker.warm_files) == ("local-1", None, frozenset())
    assert list(worker.run(TASK)) == [used, Done()]
    pid = worker.pid
    assert worker.warm_files == {"x.safetensors"}
    assert list(worker.run(RunTask(SECOND, "m", {}))) == [Failed("No.", "Else.")]
    assert worker.pid == pid
    worker.close()
    assert (worker.pid, worker.warm_files) == (None, frozenset())


def test_events_of_an_earlier_try_are_left_out(local):
    late = [pack_event(FIRST, Progress("denoise", 1, 2)), pack_event(FIRST, Done()), pack_event(None, Stopped())]
    worker = local(program([*late, pack_event(SECOND, Notice("x")), pack_event(SECOND, Done())]))
    assert list(worker.run(RunTask(SECOND, "m", {}))) == [Notice("x"), Done()]


def test_messages_that_are_unknown_or_invalid_are_logged_once_and_end_nothing(local, caplog):
    odd = [
        b'{"schema_version": 1, "type": "mood", "attempt": {"job": 1, "number": 1}}\n',
        pack_event(FIRST, Notice("x")).replace(b'"x"', b"5"),
        pack_event(FIRST, Progress("load", 0, 1)).replace(b'"done"', b'"more": 1, "done"'),
        b"{}\n",
    ]
    worker = local(program([*odd, *odd, pack_event(FIRST, Done())]))
    assert list(worker.run(TASK)) == [Progress("load", 0, 1), Progress("load", 0, 1), Done()]
    assert caplog.text.count("Unknown message 'mood'") == 1
    assert caplog.text.count("Invalid value for 'message' of Notice") == 1
    assert caplog.text.count("Unknown field 'more' of Progress") == 1


def test_a_broken_line_ends_the_process_and_the_next_task_gets_another(local):
    worker = local(program([b"Segmentation fault\n"]))
    for _ in range(2):
        with pytest.raises(WorkerDied, match="can't be read"):
            list(worker.run(TASK))
        assert worker.pid is None


@pytest.mark.parametrize(("text", "reason"), [("", "ended by itself .code 0"), ("import sys; sys.exit(3)", "code 3")])
def test_a_process_that_ends_is_a_death_with_a_reason(local, text, reason):
    with pytest.raises(WorkerDied, match=reason):
        list(local(text).run(TASK))


def test_a_cancel_before_the_task_is_sent_counts_and_one_of_another_try_does_not(local):
    answer_cancels = (
        "import sys\n"
        "for line in sys.stdin.buffer:\n"
        f"    if b'cancel' in line: sys.stdout.buffer.write({pack_event(FIRST, Stopped())!r})\n"
        f"    if b'quick' in line: sys.stdout.buffer.write({pack_event(SECOND, Done())!r})\n"
        "    sys.stdout.buffer.flush()\n"
    )
    worker = local(answer_cancels)
    worker.cancel(FIRST)
    assert list(worker.run(TASK)) == [Stopped()]
    worker.cancel(FIRST)  # too late: the answer to it is left out
    assert list(worker.run(RunTask(SECOND, "quick", {}))) == [Done()]


def in_thread(worker):
    """Run a task in a thread; returns the thread and the errors it ends with."""
    errors = []

    def run():
        try:
            list(worker.run(TASK))
        except WorkerDied as death:
            errors.append(death)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: worker.pid is not None)
    return thread, errors


def test_a_kill_ends_the_run_and_the_next_task_starts_another_process(local):
    worker = local(ENDLESS)
    thread, errors = in_thread(worker)
    pid = worker.pid
    worker.kill()
    thread.join(WAIT)
    assert "killed" in errors[0].message
    thread, errors = in_thread(worker)
    assert worker.pid != pid
    worker.close()
    thread.join(WAIT)
    assert len(errors) == 1


def test_a_run_that_was_given_up_takes_nothing_from_the_next(local):
    worker = local(program([pack_event(FIRST, Notice("x")), pack_event(FIRST, Done())]))
    given_up = worker.run(TASK)
    assert next(given_up) == Notice("x")
    worker.kill()
    run = worker.run(TASK)
    assert next(run) == Notice("x")
    pid = worker.pid
    given_up.close()
    assert worker.pid == pid
    assert list(run) == [Done()]
    assert worker.pid == pid


def test_a_worker_that_was_closed_starts_no_process(local):
    worker = local(ENDLESS)
    worker.close()
    with pytest.raises(WorkerDied, match="ends"):
        list(worker.run(TASK))
    assert worker.pid is None


def test_an_error_of_the_system_at_the_start_of_the_process_is_a_death_with_a_reason(local, monkeypatch, root):
    def refuse(*_, **__):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("subprocess.Popen", refuse)
    with pytest.raises(WorkerDied, match="Resource temporarily unavailable"):
        list(local(ENDLESS).run(TASK))
    with Runner(root) as runner:
        id = runner.queue.add("m", {}).id
        runner.wake()
        until(lambda: runner.queue.get(id).state is State.FAILED)
        assert "can't be started" in runner.queue.get(id).error


@pytest.mark.skipif(os.name != "posix", reason="signals that stop a process")
def test_a_frozen_process_blocks_neither_cancel_nor_the_end(root):
    frozen = WorkerProcess(worker_command(root))
    os.kill(frozen.pid, signal.SIGSTOP)
    begun = time.monotonic()
    for _ in range(20):
        frozen.send(RunTask(FIRST, "m", {"prompt": "x" * 100_000}))
    frozen.send(CancelTask(FIRST))
    frozen.kill()
    assert list(frozen.events()) == []
    frozen.close()
    assert time.monotonic() - begun < WAIT
    assert not frozen.alive


@pytest.mark.skipif(not hasattr(signal, "SIGBUS"), reason="a signal of POSIX")
def test_the_signal_of_a_crash_is_known():
    worker = WorkerProcess([sys.executable, "-c", ENDLESS])
    os.kill(worker.pid, signal.SIGBUS)
    assert worker.death().signal == "SIGBUS"
    worker.close()


def test_the_command_of_a_worker(root):
    assert worker_command(root)[-2:] == ["--root", str(root)]
    assert worker_command(root, save_quantized=True)[-1] == "--save-quantized"
