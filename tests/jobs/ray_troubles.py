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

from reeltune.events import LatentsStored
from reeltune.jobs import Runner, State
from reeltune.jobs.ray_cluster import ray_workers
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
        self.runner = Runner(self.root, workers=[], listener=self.hear)

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
        with self.runner:
            self.ray = ray_workers(
                self.cluster.address,
                self.root,
                joined=self.runner.add_worker,
                left=self.runner.remove_worker,
                folder=str(self.folder / "node"),
                cpu=True,
            )
            try:
                until(lambda: self.ray.workers, 60)
                self.inputs_travel()
                self.latents_survive()
                self.processes_end()
                self.idle_actors_end()
                self.the_head_starts_anew()
            finally:
                self.ray.close()
                self.cluster.shutdown()
        self.say("end")

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
        def die(event):
            if isinstance(event, LatentsStored):
                kill("reeltune.jobs.worker")

        self.at_event = die
        id = self.add(video_length=33, resolution="256x256")
        job = self.end_of(id)
        assert job.state is State.FAILED
        assert "signal 9" in job.error
        assert job.latents.startswith(str(self.root))
        self.at_event = lambda event: None
        self.runner.queue.retry(id)
        self.runner.resume()
        assert self.end_of(id).state is State.DONE
        assert not steps(self.events[id][-5:])  # it was decoded only
        assert not Path(job.latents).exists()
        ended_once(self.runner, [id])

    def processes_end(self):
        id = self.add(**LONG)
        until(lambda: steps(self.events.get(id, [])) >= 1)
        self.runner.cancel(id)
        self.runner.cancel(id)
        assert self.end_of(id).state is State.CANCELLED
        id = self.add(**LONG)
        until(lambda: steps(self.events.get(id, [])) >= 1)
        kill("ray::RayActor")
        job = self.end_of(id)
        assert job.state is State.FAILED
        assert "ended unexpectedly" in job.error
        until(lambda: not processes("reeltune.jobs.worker"), 20)
        assert self.end_of(self.add()).state is State.DONE

    def idle_actors_end(self):
        (worker,) = self.ray.workers
        assert worker.warm_files
        assert worker.release()
        until(lambda: not processes("reeltune.jobs.worker") and not processes("ray::RayActor"), 20)
        assert not worker.warm_files
        assert not list((self.folder / f"reeltune-ray-{os.getuid()}").glob("*/finetunes"))
        assert self.end_of(self.add()).state is State.DONE

    def the_head_starts_anew(self):
        id = self.add(**LONG)
        until(lambda: steps(self.events.get(id, [])) >= 1)
        first = self.ray.pid
        self.cluster.head_node.kill_gcs_server()
        job = self.end_of(id)
        assert job.state is State.FAILED
        assert "connection to the Ray cluster was lost" in job.error, job.error
        until(lambda: not self.ray.workers)
        assert self.ray.trouble is not None
        waiting = self.add()
        self.cluster.shutdown()
        until(lambda: not processes("reeltune.jobs.worker"), 20)
        self.cluster = start_cluster()
        self.runner.resume()
        assert self.end_of(waiting).state is State.DONE
        assert self.ray.pid != first
        assert self.runner.queue.get(id).attempts == 1


def troubles(folder: Path) -> None:
    Troubles(folder).run()
