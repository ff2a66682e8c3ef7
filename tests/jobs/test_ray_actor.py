"""The actor on a node without Ray around it: its folder, and what it sends. Small programs stand in for the worker."""

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from reeltune.errors import FileError
from reeltune.events import LatentsStored, Notice, Progress
from reeltune.jobs.codec import pack_event, pack_task, unpack_event
from reeltune.jobs.job import Attempt
from reeltune.jobs.messages import Done, Failed, RunTask, Saved, Stopped
from reeltune.jobs.ray_actor import RayActor, describe_node
from reeltune.jobs.ray_folder import NodeFolder
from reeltune.preferences import Preferences, load_preferences, save_preferences

FIRST = Attempt(1, 1)
TASK = RunTask(FIRST, "m", {"prompt": "x"})
ECHO = """
import os, pathlib, sys
from reeltune.jobs.codec import pack_event, unpack_task
from reeltune.jobs.messages import *
from reeltune.events import *
root = pathlib.Path(sys.argv[1])
out = sys.stdout.buffer
for line in sys.stdin.buffer:
    task = unpack_task(line).task
    def tell(event):
        out.write(pack_event(task.attempt, event)); out.flush()
"""


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def node(tmp_path):
    folder = NodeFolder(tmp_path / "node", "cpu")
    yield folder
    folder.close()


@pytest.fixture
def actor(tmp_path, monkeypatch):
    started = []

    def start(program):
        code = ECHO + "".join(f"    {line}\n" for line in program.strip().splitlines())
        monkeypatch.setattr(
            "reeltune.jobs.ray_actor.worker_command", lambda root: [sys.executable, "-c", code, str(root)]
        )
        started.append(RayActor("ray-a-cpu", str(tmp_path / "node"), "cpu", 1))
        return started[-1]

    yield start
    for actor in started:
        actor.close()


def run(actor, task=TASK, texts=None, preferences=None, files=None, used=()):
    return list(actor.run(pack_task(task), texts or {}, preferences or {}, files or {}, list(used)))


def events(sent):
    return [(unpack_event(line).event, content) for line, content in sent]


# --- the folder -------------------------------------------------------------------------------------------------------


def test_the_weights_are_those_of_the_node_and_stay_when_the_folder_goes(node, tmp_path):
    (tmp_path / "node" / "ckpts" / "x.safetensors").write_bytes(b"weights")
    assert (node.path / "ckpts" / "x.safetensors").read_bytes() == b"weights"
    (node.path / "loras" / "own.safetensors").write_bytes(b"downloaded")
    node.close()
    assert not node.path.exists()
    assert (tmp_path / "node" / "ckpts" / "x.safetensors").exists()
    assert (tmp_path / "node" / "loras" / "own.safetensors").exists()


def test_the_folders_of_killed_actors_are_removed_and_those_in_use_stay(node, tmp_path):
    base = node.path.parent
    assert base.stat().st_mode & 0o077 == 0
    (base / "dead.lock").touch()
    (base / "dead" / "uploads").mkdir(parents=True)
    other = NodeFolder(tmp_path / "node", "cpu")
    assert not (base / "dead").exists()
    assert node.path.exists()
    other.close()


def test_definitions_are_replaced_and_unchanged_files_keep_their_time(node):
    node.update({"finetunes/a.json": b"{}", "settings/a_settings.json": b"{}"}, {})
    kept = node.path / "finetunes" / "a.json"
    os.utime(kept, (1, 1))
    node.update({"finetunes/a.json": b"{}", "finetunes/b.json": b"{ }"}, {})
    assert kept.stat().st_mtime == 1
    assert [path.name for path in sorted(node.path.glob("*/*.json"))] == ["a.json", "b.json"]


def test_preferences_of_both_sides_meet(node, tmp_path):
    own = Preferences(model_folders=("models",), device="cuda:3", tokens={"hub": "hf_own"}, outputs="/videos")
    save_preferences(tmp_path / "node", own)
    node.update({}, {"quantization": "bf16", "attention": "of a newer version", "outputs": "/elsewhere"})
    preferences, _ = load_preferences(node.path)
    assert (preferences.quantization, preferences.attention, preferences.device) == ("bf16", "auto", "cpu")
    assert preferences.model_folders == (str(tmp_path / "node" / "models"),)
    assert (preferences.outputs, preferences.tokens) == ("outputs", {"hub": "hf_own"})
    assert (node.path / "reeltune.json").stat().st_mode & 0o077 == 0


def test_inputs_are_sent_once_and_the_oldest_are_forgotten_first(node, monkeypatch):
    def sha(content):
        return hashlib.sha256(content).hexdigest()

    monkeypatch.setattr("reeltune.jobs.ray_folder._MOST_INPUT_BYTES", 10)
    assert node.missing([("uploads/a", sha(b"aaaa"))]) == ["uploads/a"]
    node.receive({"uploads/a": b"aaaa", "uploads/b": b"bbbb"}, ["uploads/a", "uploads/b"])
    assert node.missing([("uploads/a", sha(b"aaaa")), ("uploads/b", sha(b"other"))]) == ["uploads/b"]
    node.receive({}, ["uploads/a"])
    node.receive({"uploads/c": b"cccc"}, ["uploads/c"])
    assert node.missing([(f"uploads/{name}", sha(name.encode() * 4)) for name in "abc"]) == ["uploads/b"]


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x", "ckpts/x", "loras/x", "a\0b"])
def test_no_name_leads_out_of_the_folder_or_into_the_weights(node, name):
    with pytest.raises(FileError, match="can't be stored"):
        node.place(name)


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.getuid", lambda: 12345)
    with pytest.raises(FileError, match="another user"):
        NodeFolder(tmp_path / "node", "cpu")


# --- the actor --------------------------------------------------------------------------------------------------------


def test_a_video_is_sent_with_its_event_and_leaves_nothing_behind(actor, tmp_path):
    node = actor(
        """
video = root / "outputs" / "a.mp4"; video.parent.mkdir(parents=True); video.write_bytes(b"video")
latents = root / "outputs" / "l.safetensors"; latents.write_bytes(b"latents")
tell(Progress("denoise", 1, 2)); tell(LatentsStored(str(latents))); tell(Saved(str(video)))
tell(Notice(f"{root}/ckpts/x and {root}/uploads/y")); tell(Done())
"""
    )
    root = Path(node.places()["root"])
    sent = events(run(node))
    assert sent[0] == (Progress("denoise", 1, 2), b"")
    assert sent[1] == (LatentsStored(f"{root}/outputs/l.safetensors"), b"latents")
    assert sent[2] == (Saved(f"{root}/outputs/a.mp4"), b"video")
    assert sent[3] == (Notice(f"{tmp_path}/node/ckpts/x and uploads/y"), b"")
    assert sent[4] == (Done(), b"")
    assert not (root / "outputs" / "a.mp4").exists()
    node.close()
    assert not root.exists()


def test_latents_that_are_too_large_stay_with_a_notice(actor, monkeypatch):
    monkeypatch.setattr("reeltune.jobs.ray_actor.MOST_BYTES", 3)
    node = actor(
        'path = root / "l"; path.write_bytes(b"latents"); tell(LatentsStored(str(path))); tell(Failed(f"{root}/x", ""))'
    )
    (notice, _), (failed, _) = events(run(node))
    assert "stay on the node" in notice.message
    assert failed == Failed("x", "")


def test_a_worker_that_is_killed_is_a_reason_and_the_next_task_gets_another_one(actor):
    node = actor(
        """
if task.attempt.number == 1:
    tell(Progress("encode", 0, 1)); os.kill(os.getpid(), 9)
tell(Done())
"""
    )
    (first, (line, content)) = run(node)
    assert unpack_event(first[0]).event == Progress("encode", 0, 1)
    assert line == b""
    assert "signal 9" in json.loads(content)["message"]
    assert events(run(node, RunTask(Attempt(1, 2), "m", {}))) == [(Done(), b"")]


def test_a_cancel_before_the_task_is_not_lost_and_a_kill_ends_the_process(actor):
    node = actor(
        """
if isinstance(task, CancelTask):
    tell(Stopped())
elif task.attempt.number == 2:
    tell(Progress("denoise", 0, 9))
"""
    )
    node.cancel(1, 1)
    assert events(run(node)) == [(Stopped(), b"")]
    stream = node.run(pack_task(RunTask(Attempt(1, 2), "m", {})), {}, {}, {}, [])
    assert unpack_event(next(stream)[0]).event == Progress("denoise", 0, 9)
    node.kill()
    line, content = next(stream)
    assert line == b""
    assert "killed" in json.loads(content)["message"]


def test_what_the_node_can_not_take_fails_the_job_and_not_the_worker(actor):
    node = actor("tell(Done())")
    ((failed, _),) = events(run(node, files={"../x": b"x"}))
    assert isinstance(failed, Failed)
    assert "can't be stored" in failed.error
    line, content = next(node.run(b"{}", {}, {}, {}, []))
    assert line == b""
    assert "can't read the task" in json.loads(content)["message"]
    assert events(run(node)) == [(Done(), b"")]


def test_kept_latents_are_named_by_their_place_on_the_node(actor):
    node = actor("tell(Notice(task.latents + open(task.latents).read())); tell(Done())")
    task = RunTask(FIRST, "m", {}, latents="outputs/latents/a")
    sent = events(run(node, task, files={"outputs/latents/a": b"!"}, used=["outputs/latents/a"]))
    assert sent[0][0] == Notice("outputs/latents/a!")


def test_a_node_describes_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("REELTUNE_ROOT", str(tmp_path))
    facts = describe_node("")
    assert facts["folder"] == str(tmp_path)
    assert facts["ram"] > 2**20
    assert isinstance(facts["gpus"], list)
    assert json.dumps(facts)


def test_the_last_events_are_events_of_this_attempt_only(actor):
    node = actor(
        """
from reeltune.jobs.job import Attempt
out.write(pack_event(Attempt(9, 9), Done())); tell(Done())
"""
    )
    assert [line for line, _ in run(node)] == [pack_event(FIRST, Done())]
