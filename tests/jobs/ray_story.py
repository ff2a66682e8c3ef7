"""What a cluster goes through in `test_ray_cluster`: three nodes on one machine, and a runner with their workers."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from fake_worker import until
from ray.cluster_utils import Cluster

from reeltune.events import Preview, Progress
from reeltune.jobs import Runner, State
from reeltune.jobs.ray_cluster import ClusterAddress
from reeltune.media.tags import read_metadata

SHORT = {"num_inference_steps": 2, "video_length": 5, "resolution": "64x64"}
LONG = {"num_inference_steps": 1000, "video_length": 33, "resolution": "256x256", "seed": 1}  # minutes


def states(runner, ids):
    return [runner.queue.get(id).state for id in ids]


def ended_once(runner, ids):
    """Each job ended, each made one video, and no video twice."""
    jobs = [runner.queue.get(id) for id in ids]
    assert {job.state for job in jobs} == {State.DONE}, [(job.id, job.state, job.error) for job in jobs]
    videos = [path for job in jobs for path in job.outputs]
    assert len(videos) == len(set(videos)) == len(ids)
    for job in jobs:
        assert read_metadata(Path(job.outputs[0]))["job"]["id"] == job.id


def story(folder: Path) -> None:
    begun = time.monotonic()

    def say(*words):
        print(f"{time.monotonic() - begun:6.1f}", *words, flush=True)

    root = folder / "root"
    (root / "finetunes").mkdir(parents=True)
    own = '{"model": {"name": "M", "architecture": "t2v_1.3B", "components": "reeltune/nano", "URLs": "nano_neon"}}'
    (root / "finetunes" / "mine.json").write_text(own)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = {f"ray-{name}-cpu": cluster.add_node(num_cpus=1, node_name=name) for name in ("one", "two")}
    say("cluster up")
    events: dict[int, list] = {}
    runner = Runner(
        root,
        workers=[],
        cluster=ClusterAddress(cluster.address, folder=str(folder / "node"), cpu=True),
        listener=lambda id, event: events.setdefault(id, []).append(event),
    )
    try:
        with runner:
            tell(say, runner, cluster, nodes, events, root)
    finally:
        cluster.shutdown()
    say("end")


def names(runner):
    return [row.name for row in runner.workers()]


def tell(say, runner, cluster, nodes, events, root):
    until(lambda: len(runner.workers()) == 2)
    say("workers", names(runner))

    ids = [
        runner.queue.add(name, SHORT | {"seed": number}).id
        for number in range(2)
        for name in ("nano_t2v", "nano_neon", "mine")
    ]
    runner.wake()
    until(lambda: all(state in (State.DONE, State.FAILED) for state in states(runner, ids)))
    ended_once(runner, ids)
    workers = Counter(runner.queue.get(id).worker for id in ids)
    say("jobs done", workers)
    assert len(workers) == 2
    assert all(any(isinstance(event, Progress) for event in events[id]) for id in ids)
    assert not list((root / "outputs" / "latents").glob("*"))

    cancelled = runner.queue.add("nano_t2v", LONG).id
    runner.wake()
    until(lambda: any(isinstance(event, Preview) for event in events.get(cancelled, ())))
    runner.cancel(cancelled)
    at = steps(events[cancelled])
    until(lambda: runner.queue.get(cancelled).state is State.CANCELLED)
    assert steps(events[cancelled]) < LONG["num_inference_steps"]
    say("cancelled at step", at, steps(events[cancelled]))

    lost = runner.queue.add("nano_t2v", LONG).id
    runner.wake()
    until(lambda: steps(events.get(lost, [])) >= 1)
    name = runner.live(lost).worker.rpartition("/")[2]
    cluster.remove_node(nodes[name], allow_graceful=False)
    until(lambda: runner.queue.get(lost).attempts == 2)  # the other worker tries it once more
    until(lambda: runner.live(lost) is not None and runner.live(lost).progress is not None)
    live = runner.live(lost)
    say("lost", name, live.worker, live.notices)
    assert not live.worker.endswith(name)
    (notice,) = [notice for notice in live.notices if "tried" in notice]
    assert "was lost" in notice or "can't be reached" in notice or "ended unexpectedly" in notice
    until(lambda: len(runner.workers()) == 1)
    assert name not in names(runner)
    runner.cancel(lost)
    until(lambda: runner.queue.get(lost).state is State.CANCELLED)

    cluster.add_node(num_cpus=1, node_name="three")
    until(lambda: len(runner.workers()) == 2)
    say("workers", names(runner))
    ids = [runner.queue.add("nano_t2v", SHORT | {"seed": number}).id for number in range(4)]
    runner.wake()
    until(lambda: all(state in (State.DONE, State.FAILED) for state in states(runner, ids)))
    ended_once(runner, ids)
    say("jobs done", Counter(runner.queue.get(id).worker for id in ids))


def steps(events):
    return max((event.done for event in events if isinstance(event, Progress) and event.stage == "denoise"), default=0)
