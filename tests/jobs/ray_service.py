"""What a server goes through in `test_ray_cluster`: 60 jobs from the API on three nodes, of which one is lost and one
joins, while the server itself is killed and started again.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

from fake_worker import until
from ray.cluster_utils import Cluster

from reeltune.media.origin import read_origin
from servers import ApiServer

JOBS = 60
DEFINITIONS = ("nano_t2v", "nano_neon", "first", "second", "third")
SMALL = {"num_inference_steps": 3, "size": "64x64", "num_frames": 9, "seed": 7}
LONG = {"num_inference_steps": 1000, "size": "256x256", "num_frames": 33, "seed": 7}  # minutes
ENDED_EARLY = {"failed", "cancelled", "interrupted"}


class Service:
    """A cluster of three nodes, and `reeltune serve --ray` with its address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = {f"ray-{name}-cpu": self.add_node(name) for name in ("one", "two", "three")}
        root = folder / "root"
        (root / "finetunes").mkdir(parents=True)
        for name in DEFINITIONS[2:]:
            model = {"name": name, "architecture": "t2v_1.3B", "components": "reeltune/nano", "URLs": "nano_neon"}
            (root / "finetunes" / f"{name}.json").write_text(json.dumps({"model": model}), encoding="utf-8")
        self.server = ApiServer(root, "--ray", self.cluster.address, "--workers", "cpu")
        self.begun = time.monotonic()

    def add_node(self, name: str):
        environment = {"REELTUNE_ROOT": str(self.folder / "node"), "REELTUNE_OFFLINE": "1"}
        return self.cluster.add_node(num_cpus=1, node_name=name, env_vars=environment)

    def say(self, *words: object) -> None:
        print(f"{time.monotonic() - self.begun:6.1f}", *words, flush=True)

    def get(self, path: str):
        status, content = self.server.ask(path)
        assert status == 200, content
        return json.loads(content)

    def post(self, path: str, values: object = None):
        status, content = self.server.ask(path, data=json.dumps(values).encode() if values else None, method="POST")
        assert status == 200, (path, content)
        return json.loads(content)

    def jobs(self):
        return self.get("/api/queue")["jobs"]

    def workers(self):
        return self.get("/api/workers")["workers"]

    def done(self) -> int:
        return Counter(job["state"] for job in self.jobs())["done"]

    def run(self) -> None:
        self.server.start()
        try:
            until(lambda: len(self.workers()) == 3)
            self.say("workers", [worker["name"] for worker in self.workers()])
            self.cancel_one()
            for number in range(JOBS):
                values = {**SMALL, "model": DEFINITIONS[number % len(DEFINITIONS)], "prompt": f"circle {number}"}
                self.post("/v1/videos", values)
            until(lambda: self.done() >= JOBS // 4)
            self.lose_a_node()
            self.nodes["ray-four-cpu"] = self.add_node("four")
            until(lambda: self.done() >= JOBS // 2)
            assert "ray-four-cpu" in {worker["name"] for worker in self.workers()}
            self.kill_the_server()
            self.finish()
            self.each_once()
        finally:
            self.server.stop()
            self.cluster.shutdown()
        self.say("end")

    def cancel_one(self) -> None:
        """Its progress arrives, and it is cancelled within a step."""
        id = self.run_long()
        self.post(f"/api/jobs/{id}/cancel")
        begun = time.monotonic()
        until(lambda: self.get(f"/api/jobs/{id}")["state"] == "cancelled")
        self.say("cancelled after", round(time.monotonic() - begun, 2), "s")

    def run_long(self) -> int:
        """Run a job before all others that ends only where the test ends it; returns its id once it makes steps."""
        video = self.post("/v1/videos", {**LONG, "model": "nano_t2v", "prompt": "long"})
        id = int(video["id"].removeprefix("video_"))
        self.server.ask(f"/api/jobs/{id}/move", data=b'{"place": 0}', method="POST")  # refused if it runs already
        until(lambda: (job := self.get(f"/api/jobs/{id}"))["stage"] == "denoise" and job["done"] >= 2)
        return id

    def lose_a_node(self) -> None:
        """A node that runs a job is lost; its job runs again on another one."""
        busy: list[dict[str, object]] = []
        until(lambda: busy.extend(worker for worker in self.workers() if worker["job"]) or busy)
        worker = busy[0]
        self.cluster.remove_node(self.nodes[worker["name"]], allow_graceful=False)
        until(lambda: worker["name"] not in {other["name"] for other in self.workers()})
        self.say("lost", worker["name"], "with job", worker["job"], "after", self.done(), "jobs")

    def kill_the_server(self) -> None:
        """What ran becomes interrupted at once, and is run again by the user."""
        self.run_long()
        self.server.kill()
        self.server.start()
        states = Counter(job["state"] for job in self.jobs())
        self.say("killed and started again", dict(states))
        assert states.total() == JOBS + 2
        assert states["interrupted"] >= 1

    def finish(self) -> None:
        def finished() -> bool:
            for job in self.jobs():
                if job["state"] in ENDED_EARLY and job["prompt"] != "long":
                    assert job["error"], job
                    self.post(f"/api/jobs/{job['id']}/retry")
            return self.done() == JOBS

        until(finished, 400)

    def each_once(self) -> None:
        jobs = [job for job in self.jobs() if job["state"] == "done"]
        made = {path: read_origin(path) for path in (self.server.root / "outputs").glob("*.mp4") if path.stat().st_size}
        prompts = Counter(origin.settings["prompt"] for origin in made.values())
        assert prompts == Counter(f"circle {number}" for number in range(JOBS))
        assert all(len(job["outputs"]) == 1 for job in jobs)
        assert Counter(job["model"] for job in jobs) == dict.fromkeys(DEFINITIONS, JOBS // len(DEFINITIONS))
        self.say("jobs by worker", dict(Counter(job["worker"] for job in jobs)))
        self.server.assert_no_faults()


def service(folder: Path) -> None:
    Service(folder).run()
