"""What `test_ray_cluster` lets go wrong in a cluster of one machine: processes that end, a head that starts anew."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from importlib import resources
from pathlib import Path

import numpy as np
import psutil
from fake_worker import until
from PIL import Image
from ray.cluster_utils import Cluster
from ray_story import LONG, SHORT, ended_once, steps

from reeltune.errors import ClusterError
from reeltune.events import LatentsStored
from reeltune.jobs import Runner, State
from reeltune.jobs.ray_cluster import ClusterAddress
from reeltune.jobs.roster import WorkerRequest
from reeltune.media.tags import read_metadata

NANO = Path(str(resources.files("reeltune"))) / "nano"
PORT = 26379


def processes(words):
    """The processes below this one whose command contains some text."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if words in " ".join(process.cmdline()):
                found.append(process)
    return found


def kill(words):
    killed = processes(words)
    assert killed, words
    for process in killed:
        process.send_signal(signal.SIGKILL)


def start_cluster():
    head = {"num_cpus": 0, "include_dashboard": False, "gcs_server_port": PORT}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1)
    return cluster


class Troubles:
    """One worker of one cluster, and a runner."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.root.mkdir()
        self.events: dict[int, list] = {}
        self.at_event = lambda event: None
        self.begun = time.monotonic()
        self.cluster = start_cluster()
        address = ClusterAddress(self.cluster.address, folder=str(self.folder / "node"), cpu=True)
        self.runner = Runner(self.root, workers=[], cluster=address, listener=self.hear)

    def say(self, *words):
        print(f"{time.monotonic() - self.begun:6.1f}", *words, flush=True)

    def hear(self, id, event):
        self.events.setdefault(id, []).append(event)
        self.at_event(event)

    def add(self, definition="nano_t2v", **settings):
        id = self.runner.queue.add(definition, SHORT | {"seed": 3} | settings).id
        self.runner.wake()
        return id

    def end_of(self, id, seconds=120):
        until(lambda: self.runner.queue.get(id).state not in (State.QUEUED, State.RUNNING), seconds)
        job = self.runner.queue.get(id)
        self.say(job.id, job.state, job.worker, job.error)
        return job

    def run(self):
        try:
            with self.runner:
                until(self.runner.workers)
                self.inputs_travel()
                self.latents_survive()
                self.processes_end()
                self.idle_actors_end()
                self.the_head_starts_anew()
        finally:
            self.cluster.shutdown()
        self.say("end")

    def second_try(self, id):
        """Wait until a job is tried once more; returns why."""
        until(lambda: self.runner.queue.get(id).attempts == 2)
        until(lambda: self.runner.live(id) is not None)
        (notice,) = [notice for notice in self.runner.live(id).notices if "tried" in notice]
        self.say(id, notice)
        return notice

    def inputs_travel(self):
        image = self.folder / "elsewhere" / "start.png"
        image.parent.mkdir()
        Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(image)
        lora = self.root / "uploads" / "abc" / "own lora.safetensors"
        lora.parent.mkdir(parents=True)
        shutil.copyfile(NANO / "nano_neon_lora_r32_bf16.safetensors", lora)
        first = self.add("nano_i2v", image_start=str(image))
        second = self.add(activated_loras=[str(lora)])
        for id in (first, second):
            assert self.end_of(id).state is State.DONE
        ended_once(self.runner, [first, second])
        settings = [read_metadata(Path(self.runner.queue.get(id).outputs[0]))["settings"] for id in (first, second)]
        assert (self.root / settings[0]["image_start"]).read_bytes() == image.read_bytes()
        assert settings[0]["image_start"].startswith("uploads/")
        assert settings[1]["activated_loras"] == ["uploads/abc/own lora.safetensors"]

    def latents_survive(self):
        stored = []

        def die(event):
            if isinstance(event, LatentsStored):
                self.at_event = lambda event: None
                stored.append(event.path)
                kill("reeltune.jobs.worker")

        self.at_event = die
        id = self.add(video_length=33, resolution="256x256")
        job = self.end_of(id)
        assert (job.state, job.attempts) == (State.DONE, 2)
        assert any("signal 9" in notice for notice in job.notices)
        assert not steps(self.events[id][-5:])  # it was decoded only
        assert stored[0].startswith(str(self.root))
        assert not Path(stored[0]).exists()
        ended_once(self.runner, [id])

    def processes_end(self):
        id = self.add(**LONG)
        until(lambda: steps(self.events.get(id, [])) >= 1)
        self.runner.cancel(id)
        self.runner.cancel(id)
        assert self.end_of(id).state is State.CANCELLED
        id = self.add(**LONG)
        until(lambda: steps(self.events.get(id, [])) >= 1)
        before = processes("reeltune.jobs.worker")
        kill("ray::RayActor")
        assert "ended unexpectedly" in self.second_try(id)
        until(lambda: not any(process.is_running() for process in before))
        self.runner.cancel(id)
        assert self.end_of(id).state is State.CANCELLED
        assert self.end_of(self.add()).state is State.DONE

    def idle_actors_end(self):
        (worker,) = self.runner.workers()
        assert worker.holds
        self.runner.ask(worker.name, WorkerRequest.END)
        until(lambda: not processes("reeltune.jobs.worker") and not processes("ray::RayActor"))
        until(lambda: not self.runner.workers()[0].holds)
        self.runner.ask(worker.name, WorkerRequest.RESUME)
        assert not list((self.folder / f"reeltune-ray-{os.getuid()}").glob("*/finetunes"))
        assert self.end_of(self.add()).state is State.DONE

    def the_head_starts_anew(self):
        id = self.add(**LONG)
        until(lambda: steps(self.events.get(id, [])) >= 1)
        (first,) = processes("reeltune.jobs.ray_driver")
        self.cluster.head_node.kill_gcs_server()
        until(lambda: self.runner.queue.get(id).state is State.QUEUED)
        job = self.runner.queue.get(id)
        assert any("connection to the Ray cluster was lost" in notice for notice in job.notices), job.notices
        until(lambda: not self.runner.workers())
        assert isinstance(self.runner.trouble, ClusterError)
        self.runner.queue.cancel(id)
        waiting = self.add()
        self.cluster.shutdown()
        until(lambda: not processes("reeltune.jobs.worker"))
        self.cluster = start_cluster()
        assert self.end_of(waiting).state is State.DONE
        assert processes("reeltune.jobs.ray_driver") != [first]
        assert self.runner.queue.get(id).attempts == 1
        assert self.runner.trouble is None


def troubles(folder: Path) -> None:
    Troubles(folder).run()
