"""`/metrics`: the state of the server as Prometheus reads it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from reeltune.service.workspace import Workspace

CONTENT_TYPE = CONTENT_TYPE_LATEST


class _ServerCollector(Collector):
    """Reads the numbers at the moment at which they are asked for."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def describe(self) -> Iterator[Metric]:
        """Nothing is read when the collector is registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Jobs, stages, downloads, and memory."""
        runner, totals = self._workspace.runner, self._workspace.runner.totals
        jobs = GaugeMetricFamily("reeltune_jobs", "Jobs in the queue, by state.", labels=["state"])
        for state, number in self._workspace.queue.counts().items():
            jobs.add_metric([state.value], number)
        yield jobs
        ended = CounterMetricFamily("reeltune_attempts_ended", "Attempts that ended, by state.", labels=["state"])
        for state, number in totals.ended.items():
            ended.add_metric([state.value], number)
        yield ended
        stages = CounterMetricFamily("reeltune_stage_seconds", "Seconds spent in each stage.", labels=["stage"])
        for stage, seconds in totals.seconds.items():
            stages.add_metric([stage], seconds)
        yield stages
        yield CounterMetricFamily(
            "reeltune_downloaded_bytes", "Bytes that jobs have downloaded.", value=totals.bytes_downloaded
        )
        yield from _workers(self._workspace)
        yield GaugeMetricFamily("reeltune_paused", "1 while the queue is paused.", value=int(runner.paused))
        yield _memory()


def _workers(workspace: Workspace) -> Iterator[Metric]:
    """The numbers of each worker."""
    labels = ["worker"]
    busy = GaugeMetricFamily("reeltune_worker_busy", "1 while a worker runs a job.", labels=labels)
    memory = GaugeMetricFamily("reeltune_worker_memory_bytes", "Memory of the process of a worker.", labels=labels)
    for row in workspace.runner.workers():
        busy.add_metric([row.name], int(row.job is not None))
        if row.used_bytes is not None:
            memory.add_metric([row.name], row.used_bytes)
    ended = CounterMetricFamily("reeltune_worker_jobs", "Attempts that ended on a worker.", labels=labels)
    loads = CounterMetricFamily(
        "reeltune_worker_loads", "Attempts for which a worker loaded another model or other LoRAs.", labels=labels
    )
    for member in workspace.runner.crew.members():
        ended.add_metric([member.name], member.ended)
        loads.add_metric([member.name], member.loads)
    yield from (busy, memory, ended, loads)


def _memory() -> Metric:
    memory = GaugeMetricFamily("reeltune_memory_bytes", "Resident memory, by process.", labels=["process"])
    process = psutil.Process(os.getpid())
    memory.add_metric(["server"], process.memory_info().rss)
    workers = 0
    for child in process.children(recursive=True):
        try:
            workers += child.memory_info().rss
        except psutil.Error:  # it has just ended
            continue
    memory.add_metric(["workers"], workers)
    return memory


def metrics_registry(workspace: Workspace) -> CollectorRegistry:
    """A registry with the numbers of one workspace."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_ServerCollector(workspace))
    return registry


def metrics_text(registry: CollectorRegistry) -> bytes:
    """The numbers in Prometheus' text format."""
    return generate_latest(registry)
