"""The process that is connected to a Ray cluster: `python -m reeltune.jobs.ray_driver --address A --root FOLDER`.

Ray ends the process that is connected where the head of the cluster is gone for a minute, and installs handlers of
signals. So the runner doesn't import Ray: it speaks with this process by lines (`reeltune.jobs.ray_lines`), goes on
without it, and starts it again. Where its input ends, this process ends its actors and itself.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from reeltune._version import __version__
from reeltune.errors import ClusterError
from reeltune.jobs.codec import unpack_task
from reeltune.jobs.messages import CancelTask, RunTask
from reeltune.jobs.ray_actor import describe_node
from reeltune.jobs.ray_lines import LOCAL, NOBODY, RayLine, RayNode, join, split, told_death
from reeltune.jobs.ray_slot import RaySite, RaySlot
from reeltune.jobs.worker import private_stdout

_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 60.0
_PROBE_SECONDS = 30.0
_SHUTDOWN_SECONDS = 7.0


@dataclass(frozen=True)
class _Described:
    """A node that can be used. `cards`: bytes of the memory of each."""

    id: str
    name: str
    cards: tuple[int, ...]
    ram: int
    cores: int


class RayDriver:
    """`cpu`: whether nodes without a card have a worker too."""

    def __init__(self, site: RaySite, answers: BinaryIO, *, cpu: bool) -> None:
        self._site = site
        self._answers = answers
        self._cpu = cpu
        self._lock = threading.Lock()
        self._slots: dict[str, RaySlot] = {}
        self._asked: dict[str, tuple[Any, float]] = {}  # by the id of a node: its description to come, since when
        self._nodes: dict[str, _Described] = {}
        self._told: list[RayNode] | None = None
        self._ending = threading.Event()

    def connect(self, address: str, *, needs_token: bool) -> None:
        """Connect, or start a cluster of this machine. Raises ClusterError, and whatever Ray raises."""
        import ray

        if needs_token and is_open(address):
            message = f"The cluster {address} accepts connections without a token, so others can run code on it."
            raise ClusterError(message, hint="Start all of its nodes with RAY_AUTH_MODE=token; see docs/cluster.md.")
        options: dict[str, object] = {"include_dashboard": False} if address == LOCAL else {}
        ray.init(address=address, namespace="reeltune", log_to_driver=False, logging_level="ERROR", **options)
        threading.Thread(target=self._watch, name="ray-nodes", daemon=True).start()

    def answer(self, kind: str, worker: str = NOBODY, content: bytes | dict[str, object] = b"") -> None:
        """Send a line to the runner."""
        with self._lock, contextlib.suppress(OSError):  # it is gone, which the reader notices
            self._answers.write(join(kind, worker, content))
            self._answers.flush()

    # --- from the runner --------------------------------------------------------------------------------------------

    def read(self, tasks: BinaryIO) -> None:
        """Do what the runner asks for, until it is gone."""
        for raw in tasks:
            try:
                self._do(split(raw))
            except Exception:  # the boundary of a line: one that fails ends nothing else
                traceback.print_exc()
        self._ending.set()

    def _do(self, line: RayLine) -> None:
        if line.kind == "want":
            self._want(int(line.values["count"]))
            return
        slot = self._slots.get(line.worker)
        task = unpack_task(line.content).task if line.kind in ("run", "cancel") else None
        if isinstance(task, RunTask):
            if slot is None or slot.lost:
                death = told_death(task.attempt, f"The node of {line.worker} was lost.", "Run it again.")
                self.answer("died", line.worker, death)
            else:
                slot.start(task)
        elif slot is None:
            return
        elif isinstance(task, CancelTask):
            slot.cancel(task.attempt)
        elif line.kind == "kill":
            slot.kill()
        elif line.kind == "end":
            slot.end_idle()

    def _want(self, count: int) -> None:
        """Ask the autoscaler, where there is one, for so many workers."""
        from ray.autoscaler.sdk import request_resources

        request_resources(bundles=[{"CPU": 1} if self._cpu else {"GPU": 1}] * count)

    # --- the nodes --------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            try:
                self._look()
            except Exception as error:  # the head doesn't answer: Ray ends this process where that lasts
                if self._ending.is_set():
                    return
                print(f"The nodes of the cluster can't be listed: {type(error).__name__}", file=sys.stderr)
            time.sleep(_LOOK_SECONDS)

    def _look(self) -> None:
        """Compare the nodes with what the runner knows."""
        import ray

        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        for id in set(self._asked) - set(alive):
            del self._asked[id]
            self._nodes.pop(id, None)
        for id, node in alive.items():
            if id not in self._nodes and self._usable(node):
                self._describe(id, node)
        self._forget(frozenset(alive))
        for described in self._nodes.values():
            self._make_slots(described)
        told = [slot.node for slot in self._slots.values() if not slot.lost]
        if told != self._told:
            self._told = told
            self.answer("workers", content={"workers": [asdict(node) for node in told]})

    def _usable(self, node: dict[str, Any]) -> bool:
        resources = node["Resources"]
        return resources.get("GPU", 0) >= 1 or (self._cpu and resources.get("CPU", 0) >= 1)

    def _describe(self, id: str, node: dict[str, Any]) -> None:
        """Ask a node what it has; one that can't answer is noted, and asked again later."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if id not in self._asked:
            ask = ray.remote(num_cpus=0, max_retries=0)(describe_node)
            strategy = NodeAffinitySchedulingStrategy(id, soft=False)
            self._asked[id] = (ask.options(scheduling_strategy=strategy).remote(self._site.folder), time.monotonic())
        ref, since = self._asked[id]
        if ref is None:
            if time.monotonic() - since > _RETRY_SECONDS:
                del self._asked[id]
            return
        if not ray.wait([ref], timeout=0)[0]:
            return
        name = node["NodeName"]
        try:
            facts = ray.get(ref)
        except Exception as error:  # reeltune isn't installed there, say
            self._asked[id] = (None, time.monotonic())
            cause = getattr(error, "cause", None) or error
            self._note(f"The node {name} can't be used: {type(cause).__name__}. Is reeltune installed there?")
            return
        if facts["version"] != __version__:
            self._note(f"The node {name} runs reeltune {facts['version']}, this program {__version__}.")
        cards = tuple(facts["gpus"])
        count = int(node["Resources"].get("GPU", 0))
        cards = cards[:count] if len(cards) >= count else (0,) * count
        self._nodes[id] = _Described(id, name, cards, facts["ram"], int(node["Resources"].get("CPU", 1)))

    def _make_slots(self, node: _Described) -> None:
        """The workers of a node, once: one for each card, or one for its processor."""
        if any(slot.node_id == node.id for slot in self._slots.values()):
            return
        base = self._free_name(node.name)
        if node.cards:  # Ray chooses the card: what is said of each holds for all of them
            rows = [RayNode(f"{base}-gpu{number}", base, "cuda", min(node.cards)) for number in range(len(node.cards))]
        else:
            rows = [RayNode(f"{base}-cpu", base, "cpu", node.ram)]
        limit = os.environ.get("OMP_NUM_THREADS", "")
        threads = int(limit) if limit.isdigit() else max(1, node.cores // len(rows))
        for row in rows:
            self._slots[row.name] = RaySlot(self._site, row, node.id, threads, self.answer)

    def _free_name(self, name: str) -> str:
        """The name of a node, with a number where another node has it: several may run on one machine."""
        base = f"ray-{''.join(letter if letter.isalnum() or letter in '.-' else '-' for letter in name)}"
        taken = {slot.node.node for slot in self._slots.values()}
        names = (base if number == 1 else f"{base}-{number}" for number in range(1, len(taken) + 2))
        return next(free for free in names if free not in taken)

    def _forget(self, alive: frozenset[str]) -> None:
        """Workers of lost nodes run nothing more, and are removed once their task has ended."""
        for name, slot in list(self._slots.items()):
            if slot.node_id not in alive:
                slot.lost = True
                if not slot.running:
                    del self._slots[name]

    def _note(self, text: str) -> None:
        self.answer("note", content={"message": text})


def is_open(address: str) -> bool:
    """Whether a cluster accepts connections without a token; one with tokens refuses them.

    Ray sends a token to any cluster, and doesn't say whether it was needed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"}
    environment["RAY_AUTH_MODE"] = "disabled"
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        tried = subprocess.run(command, env=environment, capture_output=True, timeout=_PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:  # it can't be reached, as connecting will say
        return False
    return tried.returncode == 0


def _ended(driver_arguments: Sequence[str] | None = None) -> int:
    """Run until the runner is gone; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m reeltune.jobs.ray_driver", description=__doc__)
    parser.add_argument("--address", required=True, help="host:port of the cluster's head, or local")
    parser.add_argument("--needs-token", action="store_true", help="refuse a cluster that accepts anybody")
    parser.add_argument("--root", type=Path, required=True, help="working folder of the runner")
    parser.add_argument("--outputs", type=Path, help="folder of videos, in place of the preference's")
    parser.add_argument("--folder", default="", help="root of each node; by default its $REELTUNE_ROOT")
    parser.add_argument("--cpu", action="store_true", help="nodes without a card have a worker too")
    options = parser.parse_args(driver_arguments)
    answers = private_stdout()
    site = RaySite(options.root, options.outputs, options.folder)
    driver = RayDriver(site, answers, cpu=options.cpu)
    try:
        driver.connect(options.address, needs_token=options.needs_token)
    except ClusterError as error:
        driver.answer("trouble", content={"message": str(error)})
        return 1
    except Exception as error:  # whatever Ray raises: the runner shows it
        lines = str(error).strip().splitlines() or [type(error).__name__]
        driver.answer("trouble", content={"message": f"{type(error).__name__}: {lines[0][:500]}"})
        return 1
    driver.read(sys.stdin.buffer)
    import ray

    end = threading.Thread(target=ray.shutdown, daemon=True)  # with it the actors end
    end.start()
    end.join(_SHUTDOWN_SECONDS)
    return 0


def main() -> None:
    """Run as a process of its own."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    code = _ended()
    sys.stderr.flush()
    os._exit(code)  # threads of tasks and of Ray would go on


if __name__ == "__main__":
    main()
