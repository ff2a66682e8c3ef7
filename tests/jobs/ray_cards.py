"""Clusters of `test_ray_cluster` that need no real work: two cards that don't exist, tokens, this machine alone."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

import psutil
from fake_worker import until
from ray.cluster_utils import Cluster
from ray_story import SHORT, ended_once
from ray_troubles import processes

from reeltune.jobs import Runner, State
from reeltune.jobs.job import Attempt
from reeltune.jobs.messages import Failed, RunTask
from reeltune.jobs.ray_cluster import ClusterAddress, ray_workers
from reeltune.jobs.ray_driver import is_open


def cards(folder: Path) -> None:
    root = folder / "root"
    root.mkdir()
    head = {"num_cpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=4, num_gpus=2)
    assert is_open(cluster.address)
    ray = ray_workers(ClusterAddress(cluster.address, folder=str(folder / "node")), root)
    try:
        until(lambda: len(ray.workers) == 2)
        assert [worker.name for worker in ray.workers] == ["ray-127.0.0.1-gpu0", "ray-127.0.0.1-gpu1"]
        for number, worker in enumerate(ray.workers):
            events = list(worker.run(RunTask(Attempt(number, 1), "nano_t2v", SHORT)))
            assert isinstance(events[-1], Failed), events
            assert "no NVIDIA GPU" in events[-1].error
            assert events[-1].shared
        started = [psutil.Process(process.pid).environ() for process in processes("reeltune.jobs.worker")]
        assert sorted(variables["CUDA_VISIBLE_DEVICES"] for variables in started) == ["0", "1"]
        assert all(worker.release() for worker in ray.workers)
        until(lambda: not processes("ray::RayActor"))
        assert not any(worker.release() for worker in ray.workers)
    finally:
        ray.close()
        cluster.shutdown()
    print("cards seen")
    tokens(root)


def tokens(root: Path) -> None:
    """A cluster with tokens is used with its token, and not open to others."""
    os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
    from ray._raylet import Config

    Config.initialize("")  # Ray has read the variables when it was imported
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    assert not is_open(cluster.address)
    ray = ray_workers(ClusterAddress(cluster.address, folder=str(root), cpu=True), root)
    try:
        until(lambda: ray.workers)
    finally:
        ray.close()
        cluster.shutdown()
    print("token used")


def local(folder: Path) -> None:
    """A cluster of this machine alone: it has a token of its own, and ends with the program."""
    root = folder / "root"
    root.mkdir()
    begun = time.monotonic()
    with Runner(root, workers=[], cluster=ClusterAddress("local", cpu=True)) as runner:
        id = runner.queue.add("nano_t2v", SHORT | {"seed": 1}).id
        until(lambda: runner.queue.get(id).state not in (State.QUEUED, State.RUNNING))
        ended_once(runner, [id])
        print(time.monotonic() - begun, runner.queue.get(id).worker)
        raylets = processes("raylet")
        assert raylets
        assert all("RAY_AUTH_TOKEN" in process.environ() for process in raylets if process.is_running())
    until(lambda: not processes("raylet"))
    print("local done")
