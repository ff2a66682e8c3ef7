"""The runner's side of a cluster. A small program stands in for the process that is connected to it: no Ray here."""

import ast
import importlib.machinery
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_worker import until

import reeltune
from reeltune.errors import ClusterError, WorkerDied
from reeltune.events import FilesUsed, Progress, UsedFile
from reeltune.jobs import Runner, State
from reeltune.jobs.codec import pack_event, pack_task
from reeltune.jobs.handle import WorkerPlace
from reeltune.jobs.job import Attempt
from reeltune.jobs.messages import CancelTask, Done, RunTask, Stopped
from reeltune.jobs.ray_cluster import ClusterAddress, RayCluster, check_address, ray_workers
from reeltune.jobs.ray_lines import RayLine, RayNode, told_death
from reeltune.jobs.ray_worker import RayWorker

FIRST, SECOND = Attempt(1, 1), Attempt(1, 2)
TASK = RunTask(FIRST, "m", {})
NODE = RayNode("ray-a-gpu0", "ray-a", "cuda", 24 * 2**30)
DRIVER = """
import os, sys
from reeltune.jobs.codec import pack_event, unpack_task
from reeltune.jobs.messages import *
from reeltune.events import *
from reeltune.jobs.ray_lines import *
def answer(*parts, **content):
    sys.stdout.buffer.write(join(*parts, **content)); sys.stdout.buffer.flush()
def workers(*names):
    answer("workers", content={"workers": [{"name": n, "node": "a", "device": "cpu", "memory": 1} for n in names]})
"""
WORKS = (
    DRIVER
    + """
workers("a", "b")
for raw in sys.stdin.buffer:
    line = split(raw)
    if line.kind == "run":
        attempt = unpack_task(line.content).task.attempt
        answer("event", line.worker, pack_event(attempt, Progress("denoise", 1, 2)))
        answer("event", line.worker, pack_event(attempt, Done()))
"""
)


class Wire:
    """Notes what a worker sends, and answers with lines."""

    def __init__(self):
        self.sent = []
        self.connected = True
        self.answers = []
        self.worker = RayWorker(NODE, self.send)

    def send(self, kind, worker, content):
        if not self.connected:
            raise WorkerDied("There is no connection.")
        self.sent.append((kind, worker, content))
        if kind == "run":
            for kind, content in self.answers:
                self.worker.receive(RayLine(kind, NODE.name, content))


@pytest.fixture
def wire():
    return Wire()


def test_a_task_is_sent_and_its_events_come_back_without_those_of_others(wire):
    used = FilesUsed((UsedFile("/root/ckpts/x", 5),))
    events = [(SECOND, Progress("denoise", 9, 9)), (FIRST, used), (SECOND, Done()), (FIRST, Done())]
    wire.answers = [("event", pack_event(*event)) for event in events]
    assert wire.worker.used_bytes == 0
    assert wire.worker.place == WorkerPlace("cuda", "ray-a", 24 * 2**30)
    assert list(wire.worker.run(TASK)) == [used, Done()]
    assert wire.sent == [("run", NODE.name, pack_task(TASK))]
    assert wire.worker.warm_files == {"/root/ckpts/x"}
    assert not wire.worker.running
    wire.worker.receive(RayLine("ended", NODE.name, b""))
    assert (wire.worker.warm_files, wire.worker.used_bytes) == (frozenset(), 0)


def died(attempt, message):
    import json

    return ("died", json.dumps(told_death(attempt, message, "Again.")).encode())


def test_a_death_is_one_of_this_attempt_with_its_reason(wire):
    wire.answers = [died(SECOND, "Another."), died(FIRST, "The node was lost.")]
    with pytest.raises(WorkerDied, match="The node was lost") as caught:
        list(wire.worker.run(TASK))
    assert caught.value.hint == "Again."
    assert not wire.worker.running


def test_what_was_lost_before_a_task_does_not_end_the_next_one(wire):
    wire.worker.lose("The connection was lost.")
    wire.answers = [("event", pack_event(FIRST, Done()))]
    assert list(wire.worker.run(TASK)) == [Done()]


def test_without_a_connection_a_task_dies_and_nothing_else_is_an_error(wire):
    wire.connected = False
    with pytest.raises(WorkerDied, match="no connection"):
        list(wire.worker.run(TASK))
    wire.worker.cancel(FIRST)
    wire.worker.kill()
    wire.worker.close()


def test_a_worker_is_cancelled_killed_released_and_closed_by_lines(wire):
    wire.answers = [("event", pack_event(FIRST, Stopped()))]
    wire.worker.cancel(FIRST)
    assert not wire.worker.release()
    assert list(wire.worker.run(TASK)) == [Stopped()]
    wire.worker.kill()
    assert wire.worker.release()
    assert not wire.worker.release()
    assert wire.worker.check() is None
    wire.worker.close()
    assert [kind for kind, _, _ in wire.sent] == ["cancel", "run", "kill", "end", "kill", "end"]
    assert wire.sent[0][2] == pack_task(CancelTask(FIRST))
    with pytest.raises(WorkerDied):
        next(wire.worker.run(TASK))


def test_a_line_that_can_not_be_understood_is_logged_and_ends_nothing(wire, caplog):
    mood = pack_event(FIRST, Done()).replace(b'"done"', b'"mood"')
    wire.answers = [("event", mood), ("event", pack_event(FIRST, Done()))]
    assert list(wire.worker.run(TASK)) == [Done()]
    assert "Unknown message 'mood'" in caplog.text


# --- the cluster ------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setattr("reeltune.jobs.ray_cluster._DELAYS", (0.05,))
    monkeypatch.setattr("reeltune.jobs.ray_cluster._DEMAND_SECONDS", 0.02)
    made = []

    def start(program, joined=lambda worker: None, left=lambda worker: None, **options):
        made.append(RayCluster([sys.executable, "-c", program], joined, left, **options))
        return made[-1]

    yield start
    for cluster in made:
        cluster.close()


def test_jobs_run_on_workers_that_join_a_runner(cluster, root):
    with Runner(root, workers=[]) as runner:
        ids = [runner.queue.add("m", {"seed": number}).id for number in range(20)]
        made = cluster(WORKS, runner.add_worker, runner.remove_worker)
        until(lambda: all(runner.queue.get(id).state is State.DONE for id in ids))
        assert {runner.queue.get(id).worker.rpartition("/")[2] for id in ids} <= {"a", "b"}
        assert {runner.queue.get(id).attempts for id in ids} == {1}
        assert [worker.name for worker in made.workers] == ["a", "b"]


def test_a_worker_that_leaves_takes_no_more_jobs_and_its_job_ends_with_the_reason(cluster, root):
    program = (
        DRIVER
        + """
workers("a")
line = split(sys.stdin.buffer.readline())
attempt = unpack_task(line.content).task.attempt
answer("event", "a", pack_event(attempt, Progress("denoise", 1, 2)))
workers()
sys.stdin.buffer.readline()  # a cancel
answer("died", "a", content=told_death(attempt, "The node was lost.", "Again."))
sys.stdin.buffer.read()
"""
    )
    with Runner(root, workers=[]) as runner:
        made = cluster(program, runner.add_worker, runner.remove_worker)
        first, second = (runner.queue.add("m", {"seed": number}).id for number in range(2))
        until(lambda: runner.live(first) is not None and runner.live(first).progress and not made.workers)
        assert [live.job for live in runner.running()] == [first]
        runner.cancel(first)  # still possible
        until(lambda: runner.queue.get(first).state is State.CANCELLED)
        until(lambda: not runner.running())
        assert runner.queue.get(second).state is State.QUEUED
        assert runner.alive


def test_a_lost_connection_ends_what_runs_and_is_made_again(cluster, root, tmp_path):
    program = (
        DRIVER
        + f"""
import pathlib
mark = pathlib.Path({str(tmp_path)!r}) / "mark"
workers("a")
line = split(sys.stdin.buffer.readline())
if not mark.exists():
    mark.touch(); os._exit(1)  # as Ray does where the head is gone
attempt = unpack_task(line.content).task.attempt
answer("event", "a", pack_event(attempt, Done()))
sys.stdin.buffer.read()
"""
    )
    with Runner(root, workers=[]) as runner:
        made = cluster(program, runner.add_worker, runner.remove_worker)
        first = runner.queue.add("m", {}).id
        until(lambda: runner.queue.get(first).state is State.DONE)
        job = runner.queue.get(first)
        assert job.attempts == 2
        assert any("connection to the Ray cluster was lost" in notice for notice in job.notices)
        until(lambda: made.trouble is None and made.workers)


def test_a_killed_process_is_started_again_and_trouble_is_told_meanwhile(cluster):
    seen = []
    made = cluster(WORKS, left=lambda worker: seen.append(made.trouble))
    until(lambda: len(made.workers) == 2)
    first = made.pid
    os.kill(first, signal.SIGKILL)
    until(lambda: len(seen) == 2 and len(made.workers) == 2)
    assert all(isinstance(trouble, ClusterError) for trouble in seen)
    assert made.pid != first
    assert made.trouble is None


def test_why_a_cluster_can_not_be_used_is_told(cluster, caplog):
    program = DRIVER + 'answer("note", content={"message": "A note."}); answer("trouble", content={"message": "No."})'
    made = cluster(program)
    until(lambda: made.trouble is not None)
    assert made.trouble.message == "The Ray cluster can't be used: No."
    assert not made.workers
    assert "A note." in caplog.text


def test_broken_lines_are_logged_and_end_nothing(cluster, caplog):
    made = cluster(DRIVER + "sys.stdout.buffer.write(b'x\\nworkers - {}\\nevent nobody {}\\n')\n" + WORKS)
    until(lambda: len(made.workers) == 2)
    assert caplog.text.count("can't be read") == 2


def test_the_autoscaler_hears_how_many_workers_could_be_used(cluster, tmp_path):
    path = tmp_path / "wanted"
    program = (
        DRIVER
        + f"""
workers()
with open({str(path)!r}, "ab", buffering=0) as file:
    for raw in sys.stdin.buffer: file.write(raw)
"""
    )
    wanted = [0]
    cluster(program, demand=lambda: wanted[0])
    until(lambda: path.exists() and path.read_bytes() == b'want - {"count": 0}\n')
    wanted[0] = 3
    until(lambda: path.read_bytes() == b'want - {"count": 0}\nwant - {"count": 3}\n')


def test_closing_ends_what_runs(cluster):
    made = cluster(DRIVER + 'workers("a")\nsys.stdin.buffer.read()')
    until(lambda: made.workers)
    run = made.workers[0].run(TASK)
    made.close()
    with pytest.raises(WorkerDied):
        next(run)
    assert (made.pid, made.workers) == (None, ())


# --- which cluster ----------------------------------------------------------------------------------------------------


@pytest.fixture
def with_ray(monkeypatch):
    spec = importlib.machinery.ModuleSpec("ray", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec if name == "ray" else None)
    monkeypatch.setenv("HOME", "/nowhere")


def test_without_ray_the_error_says_how_to_install_it(root, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ClusterError, match="not installed") as caught:
        ray_workers(ClusterAddress("10.0.0.1:6379"), root)
    assert "reeltune[ray]" in caught.value.hint


@pytest.mark.usefixtures("with_ray")
@pytest.mark.parametrize("address", ["10.0.0.1:6379", "head:6379", "auto", "[fd00::1]:6379", "127.0.0.1.example.org:1"])
@pytest.mark.parametrize(
    "environment",
    [{}, {"RAY_AUTH_TOKEN": "x"}, {"RAY_AUTH_MODE": "token"}, {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "x"}],
)
def test_a_cluster_on_other_machines_without_a_token_is_refused(address, environment):
    with pytest.raises(ClusterError, match="runs code on it") as caught:
        check_address(address, environment)
    assert "RAY_AUTH_TOKEN" in caught.value.hint


@pytest.mark.usefixtures("with_ray")
def test_a_token_or_this_machine_alone_is_accepted(tmp_path):
    file = tmp_path / "token"
    file.write_text("x")
    check_address("10.0.0.1:6379", {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x"})
    check_address("10.0.0.1:6379", {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)})
    for address in ("local", "127.0.0.1:6379", "localhost:6379", "[::1]:6379"):
        check_address(address, {})


@pytest.mark.usefixtures("with_ray")
def test_the_client_protocol_is_refused():
    with pytest.raises(ClusterError, match="client protocol"):
        check_address("ray://10.0.0.1:10001", {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x"})


def test_only_the_process_that_is_connected_imports_ray():
    for path in sorted(Path(reeltune.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            name.partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [node.module or ""] if isinstance(node, ast.ImportFrom) else [item.name for item in node.names]
            )
        }
        assert "ray" not in names or path.name in ("ray_driver.py", "ray_slot.py"), path
    code = "import sys, reeltune.jobs.ray_cluster, reeltune.jobs.ray_driver; print('ray' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
