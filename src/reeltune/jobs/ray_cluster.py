"""The workers of a Ray cluster: they join and leave while the program runs.

with Runner(root, workers=[], cluster=ClusterAddress("10.0.0.1:6379")) as runner:
    ...
"""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import os
import secrets
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from reeltune.errors import ClusterError, WorkerDied
from reeltune.files import expand
from reeltune.jobs.job_log import log
from reeltune.jobs.process import WorkerProcess
from reeltune.jobs.ray_lines import LOCAL, NOBODY, RayLine, RayNode, join, nodes_of, split
from reeltune.jobs.ray_worker import RayWorker
from reeltune.machine import probe

_DELAYS = (2.0, 5.0, 15.0, 60.0)  # seconds before the connection is tried again
_DEMAND_SECONDS = 5.0
_TOKEN_FILE = "~/.ray/auth_token"


@dataclass(frozen=True)
class ClusterAddress:
    """A cluster, and which of its nodes are used.

    `address`: `host:port` of its head, or "local" to start one on this machine. `folder`: the root of every node, with
    its weights; by default `$REELTUNE_ROOT` of the node, else `~/reeltune`. With "local" it is the program's root by
    default. `cpu`: whether nodes without a card have a worker too; by default only with "local", where there is no
    card.
    """

    address: str
    folder: str = ""
    cpu: bool | None = None


WorkerListener = Callable[[RayWorker], None]


def _nobody(worker: RayWorker) -> None:
    """Ignore a worker."""


def ray_workers(
    cluster: ClusterAddress,
    root: Path,
    *,
    joined: WorkerListener = _nobody,
    left: WorkerListener = _nobody,
    outputs: Path | None = None,
    demand: Callable[[], int] | None = None,
) -> RayCluster:
    """Connect to a cluster, or start one on this machine with "local", and keep the connection.

    Args:
        cluster: Its address, and which nodes are used.
        root: The working folder of this program.
        joined: Called with each worker that can be used, from a thread of the cluster.
        left: Called with each worker that is gone. It may still raise WorkerDied for the task that it ran.
        outputs: The folder of videos, in place of the preference's.
        demand: The number of workers that could be used now: an autoscaler is asked for that many.

    Raises ClusterError where Ray isn't installed, or the cluster isn't protected by a token.
    """
    check_address(cluster.address, os.environ)
    local = cluster.address == LOCAL
    cpu = cluster.cpu if cluster.cpu is not None else local and not probe().gpus
    options = ["--address", cluster.address, "--root", str(root.absolute())]
    options += ["--folder", cluster.folder or (str(root.absolute()) if local else "")]
    options += ["--cpu"] if cpu else []
    options += [] if is_own(cluster.address) else ["--needs-token"]
    options += ["--outputs", str(outputs.absolute())] if outputs is not None else []
    command = [sys.executable, "-m", "reeltune.jobs.ray_driver", *options]
    return RayCluster(command, joined, left, demand, environment=_environment(local, os.environ))


def check_address(address: str, environment: Mapping[str, str]) -> None:
    """Raise ClusterError where Ray isn't installed, or a cluster can't be connected to safely.

    Whoever reaches the ports of a cluster without tokens runs any code on all of its machines.
    """
    if importlib.util.find_spec("ray") is None:
        raise ClusterError("Ray is not installed.", hint='Install it: pip install "reeltune[ray]".')
    if "://" in address:
        message = f"{address!r} can't be used: Ray's client protocol doesn't deliver events while a video is made."
        hint = "Join this machine to the cluster (`ray start --address=HOST:6379 --num-cpus=0`), and use HOST:6379."
        raise ClusterError(message, hint=hint)
    if is_own(address):
        return
    if environment.get("RAY_AUTH_MODE", "").lower() != "token" or not _has_token(environment):
        message = f"The Ray cluster {address!r} is not used: whoever reaches a cluster without a token runs code on it."
        hint = "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the same values on all machines; see docs/cluster.md."
        raise ClusterError(message, hint=hint)


def _has_token(environment: Mapping[str, str]) -> bool:
    if environment.get("RAY_AUTH_TOKEN", "").strip():
        return True
    path = expand(environment.get("RAY_AUTH_TOKEN_PATH") or _TOKEN_FILE)
    try:
        return path.stat().st_size > 0
    except (OSError, ValueError):
        return False


def is_own(address: str) -> bool:
    """Whether a cluster is one of this machine alone."""
    if address == LOCAL:
        return True
    host = address.rpartition(":")[0].strip("[]") or address
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _environment(local: bool, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables for the process that is connected. A cluster of this machine alone has a token of its own."""
    variables = {"RAY_USAGE_STATS_ENABLED": "0"}
    if local and environment.get("RAY_AUTH_MODE", "").lower() != "token":
        variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return variables


def _tell(listener: WorkerListener, worker: RayWorker) -> None:
    """Call a listener, whose errors must not end the connection."""
    try:
        listener(worker)
    except Exception:
        log.exception("The worker %s could not be announced", worker.name)


class RayCluster:
    """A connection that is kept: `command` starts the process that holds it, again after each end.

    While there is none, there are no workers, and `trouble` says why.
    """

    def __init__(
        self,
        command: list[str],
        joined: WorkerListener,
        left: WorkerListener,
        demand: Callable[[], int] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = command
        self._environment = environment
        self._joined, self._left = joined, left
        self._demand = demand
        self._guard = threading.Lock()
        self._process: WorkerProcess | None = None
        self._workers: dict[str, RayWorker] = {}  # also those that have left and still have a task to end
        self._present: frozenset[str] = frozenset()
        self._trouble: ClusterError | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="reeltune-ray", daemon=True)
        self._thread.start()
        if demand is not None:
            threading.Thread(target=self._want, name="reeltune-ray-demand", daemon=True).start()

    @property
    def workers(self) -> tuple[RayWorker, ...]:
        """The workers that can be used now."""
        with self._guard:
            return tuple(self._workers[name] for name in sorted(self._present))

    @property
    def trouble(self) -> ClusterError | None:
        """Why there is no connection; None while there is one."""
        return self._trouble

    @property
    def pid(self) -> int | None:
        """Number of the process that is connected, while there is one."""
        process = self._process
        return process.pid if process is not None else None

    def close(self) -> None:
        """End the connection, and with it all actors: what runs raises WorkerDied."""
        with self._guard:
            self._closed.set()
            process = self._process
        if process is not None:
            process.close()
        self._thread.join()

    # --- the connection ---------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Connect, and connect again, until it is closed."""
        failures = 0
        while not self._closed.is_set():
            connected = self._connect()
            if self._closed.is_set():
                break
            failures = 0 if connected else failures + 1
            delay = _DELAYS[min(failures, len(_DELAYS) - 1)]
            log.warning("%s It is tried again in %.0f seconds.", self._trouble, delay)
            self._closed.wait(delay)

    def _connect(self) -> bool:
        """Hold one connection until it ends; returns whether there was one."""
        connected = False
        reason = "The connection to the Ray cluster was lost."
        try:
            process = WorkerProcess(self._command, self._environment)
        except WorkerDied as error:
            self._trouble = ClusterError(error.message, hint=error.hint)
            return False
        with self._guard:
            self._process = process
            closed = self._closed.is_set()
        if closed:  # just before: nobody else ends this process
            process.kill()
        for raw in process.lines():
            try:
                line = split(raw)
                if line.kind == "trouble":
                    reason = f"The Ray cluster can't be used: {line.values.get('message')}"
                if line.kind == "workers":
                    connected, self._trouble = True, None
                self._receive(line)
            except (ValueError, KeyError) as error:
                log.warning("A message of the Ray cluster can't be read: %s", error)
        self._trouble = ClusterError(reason, hint="Check the cluster with `ray status`.")
        process.kill()
        process.close()
        with self._guard:
            self._process = None
            workers = tuple(self._workers.values())
        for worker in workers:
            worker.lose("The program ends." if self._closed.is_set() else reason)
        self._update([])
        return connected

    def _receive(self, line: RayLine) -> None:
        if line.kind == "workers":
            self._update(nodes_of(line))
        elif line.kind == "note":
            log.warning("%s", line.values.get("message"))
        elif line.worker != NOBODY:
            with self._guard:
                worker = self._workers.get(line.worker)
            if worker is not None:
                worker.receive(line)

    def _update(self, nodes: list[RayNode]) -> None:
        """Announce who joined and who left."""
        with self._guard:
            present = frozenset(node.name for node in nodes)
            gone = [self._workers[name] for name in sorted(self._present - present)]
            new = [RayWorker(node, self._send) for node in nodes if node.name not in self._present]
            kept = {name: worker for name, worker in self._workers.items() if name in present or worker.running}
            self._workers = kept | {worker.name: worker for worker in new}
            self._present = present
        for worker in gone:
            log.info("The worker %s has left.", worker.name)
            _tell(self._left, worker)
        for worker in new:
            log.info("The worker %s has joined.", worker.name)
            _tell(self._joined, worker)

    def _send(self, kind: str, worker: str, content: bytes) -> None:
        """Send a line. Raises WorkerDied while there is no connection."""
        with self._guard:
            process = self._process
        if process is None or not process.alive:
            raise WorkerDied("There is no connection to the Ray cluster.", hint="Check it with `ray status`.")
        process.send_line(join(kind, worker, content))

    def _want(self) -> None:
        """Tell the autoscaler how many workers could be used, whenever that changes."""
        told: tuple[int | None, int] = (None, 0)
        while not self._closed.wait(_DEMAND_SECONDS):
            try:
                count = self._demand() if self._demand is not None else 0
                if (self.pid, count) != told:
                    told_now = (self.pid, count)
                    self._send("want", NOBODY, json.dumps({"count": count}).encode())
                    told = told_now
            except Exception as error:  # the queue can't be read, or there is no connection: tried again
                log.debug("%s", error)
