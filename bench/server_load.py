"""A server under load: many clients add jobs at once while others poll their videos, and one worker makes them.

    python bench/server_load.py [--jobs 200] [--adders 20] [--pollers 50] [--minutes 0]

Starts `reeltune serve --no-page` on an empty root. The clients are threads of this process, each with one connection
that stays open. `--minutes` repeats the polling for so long after the last job, to see whether the memory grows. The
machine should be idle: rows of the table tell how busy other programs kept it, and how long a bare server that always
gives the same answer took at the same time. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from reeltune.media.origin import read_origin

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers import ApiServer

QUICK = {"model": "nano_t2v", "num_inference_steps": 1, "size": "32x32", "num_frames": 5, "seed": 7}
POLL_SECONDS = 1.0
WAIT_SECONDS = 1800  # for all jobs
MB = 1_000_000
BARE = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 4096
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
    def log_message(self, *words):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


class Client:
    """One connection that stays open; the server closes it when it has been idle for some seconds."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def ask(self, method: str, path: str, values: dict[str, Any] | None = None) -> tuple[float, dict[str, Any]]:
        """Seconds that the answer took, and its content."""
        body = json.dumps(values) if values is not None else None
        headers = {"content-type": "application/json"} if body else {}
        begun = time.perf_counter()
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        content = answer.read()
        seconds = time.perf_counter() - begun
        if answer.status != 200:
            raise RuntimeError(f"{method} {path} was answered with {answer.status}: {content[:500]!r}")
        return seconds, json.loads(content)


@dataclass
class Measured:
    """What the clients saw: seconds of each request, and the ids of the videos that were added."""

    create: list[float] = field(default_factory=list)
    retrieve: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)


def add_jobs(server: ApiServer, measured: Measured, numbers: range) -> None:
    """One client that adds a job after the other."""
    client = Client(server.port)
    for number in numbers:
        try:
            seconds, video = client.ask("POST", "/v1/videos", {**QUICK, "prompt": f"a red circle, number {number}"})
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            measured.errors.append(f"create: {error!r}")
            return
        measured.create.append(seconds)
        measured.ids.append(video["id"])


def poll(server: ApiServer, measured: Measured, number: int, delay: float) -> None:
    """One client that asks for the state of one video once a second."""
    client = Client(server.port)
    moment = time.monotonic() + delay
    while not measured.stop.wait(max(0.0, moment - time.monotonic())):
        moment = max(moment + POLL_SECONDS, time.monotonic())
        if number >= len(measured.ids):
            continue
        try:
            seconds, _ = client.ask("GET", f"/v1/videos/{measured.ids[number]}")
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            measured.errors.append(f"retrieve: {error!r}")
            return
        measured.retrieve.append(seconds)


def poll_bare(port: int, measured: Measured, delay: float) -> None:
    """One client that asks the bare server once a second."""
    client = Client(port)
    while not measured.stop.wait(delay):
        measured.bare.append(client.ask("GET", "/")[0])
        delay = POLL_SECONDS


def wait_for_all(client: Client, jobs: int) -> None:
    """Wait until no job waits or runs."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        _, page = client.ask("GET", "/v1/videos?order=desc&limit=1")
        if page["data"] and page["data"][0]["status"] in ("completed", "failed"):
            states = Counter(video["status"] for video in all_videos(client))
            if states["queued"] + states["in_progress"] == 0:
                return
        time.sleep(0.5)
    raise RuntimeError(f"{jobs} jobs have not ended in {WAIT_SECONDS} s")


def all_videos(client: Client) -> list[dict[str, Any]]:
    """All videos, page by page."""
    videos: list[dict[str, Any]] = []
    more, after = True, ""
    while more:
        _, page = client.ask("GET", f"/v1/videos?order=asc&limit=100{after}")
        videos += page["data"]
        more, after = page["has_more"], f"&after={page['last_id']}"
    return videos


def lost_and_doubled(root: Path, client: Client, measured: Measured, jobs: int) -> tuple[int, int, int]:
    """How many jobs have no video, how many videos are not the only one of their job, and how many jobs failed."""
    videos = all_videos(client)
    failed = sum(video["status"] != "completed" for video in videos)
    listed = Counter(video["id"] for video in videos)
    prompts: Counter[str] = Counter()
    for path in (root / "outputs").glob("*.mp4"):
        origin = read_origin(path)
        prompts[str(origin.settings.get("prompt")) if origin is not None else path.name] += 1
    lost = len(set(measured.ids) - set(listed)) + jobs - len(prompts)
    doubled = sum(listed.values()) - len(set(measured.ids)) + sum(prompts.values()) - len(prompts)
    return lost, doubled, failed


class Processor:
    """Processor time since it was made: of the server with its worker, of this process, and of all others."""

    def __init__(self, server: psutil.Process) -> None:
        self._server = server
        self._begun = time.monotonic()
        self._first = self._now()

    def _now(self) -> tuple[float, float, float]:
        whole = psutil.cpu_times()
        busy = sum(whole) - whole.idle - whole.iowait - whole.guest - whole.guest_nice  # guest is in user already
        server = 0.0
        for process in (self._server, *self._server.children(recursive=True)):
            times = process.cpu_times()
            server += times.user + times.system
        own = sum(os.times()[:2])
        return server, own, busy - server - own

    def cores(self) -> tuple[float, float, float]:
        """The same as numbers of cores that were busy all the time."""
        seconds = time.monotonic() - self._begun
        server, own, others = (now - first for now, first in zip(self._now(), self._first, strict=True))
        return server / seconds, own / seconds, max(0.0, others / seconds)


@contextmanager
def bare_server() -> Iterator[int]:
    """The port of a server that does nothing."""
    with subprocess.Popen([sys.executable, "-c", BARE], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def milliseconds(seconds: list[float]) -> str:
    """Median, 99th percentile and maximum."""
    if not seconds:
        return "–"
    ordered = sorted(seconds)
    picked = (ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], ordered[-1])
    return " / ".join(f"{1000 * value:.1f}" for value in picked)


def run(root: Path, bare: int, wish: argparse.Namespace) -> list[tuple[str, str]]:
    """The rows of the table. `bare`: the port of the bare server."""
    server = ApiServer(root)
    server.start()
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    rng = random.Random(1)
    try:
        client, measured = Client(server.port), Measured()
        memory = [process.memory_info().rss]
        processor = Processor(process)
        begun = time.monotonic()
        share = range(wish.jobs)
        adders = [
            threading.Thread(target=add_jobs, args=(server, measured, share[number :: wish.adders]))
            for number in range(wish.adders)
        ]
        pollers = [
            threading.Thread(target=poll, args=(server, measured, number, rng.random() * POLL_SECONDS))
            for number in range(min(wish.pollers, wish.jobs))
        ]
        pollers += [
            threading.Thread(target=poll_bare, args=(bare, measured, rng.random() * POLL_SECONDS))
            for _ in range(wish.pollers)
        ]
        for thread in (*pollers, *adders):
            thread.start()
        for thread in adders:
            thread.join()
        added, early = time.monotonic() - begun, len(measured.retrieve)
        memory.append(process.memory_info().rss)
        wait_for_all(client, wish.jobs)
        taken = time.monotonic() - begun
        memory.append(process.memory_info().rss)
        cores = processor.cores()
        while_added, while_made = measured.retrieve[:early], measured.retrieve[early:]
        bare_made = list(measured.bare)
        minutes: list[int] = []
        end = time.monotonic() + 60 * wish.minutes
        while time.monotonic() < end:
            time.sleep(max(0.0, min(60.0, end - time.monotonic())))
            minutes.append(process.memory_info().rss)
        measured.stop.set()
        for thread in pollers:
            thread.join()
        lost, doubled, failed = lost_and_doubled(root, Client(server.port), measured, wish.jobs)
    finally:
        server.stop()
    rows = [
        ("jobs lost / doubled / failed", f"{lost} / {doubled} / {failed}"),
        ("requests that failed", str(len(measured.errors))),
        (f"create, {wish.adders} clients at once: median / p99 / maximum, ms", milliseconds(measured.create)),
        (f"retrieve, {wish.pollers} clients, while jobs are added, ms", milliseconds(while_added)),
        ("retrieve, all others, ms", milliseconds(while_made)),
        ("a bare server beside it, as often, ms", milliseconds(bare_made)),
        ("retrieves", f"{len(while_added):,} + {len(while_made):,} in {taken:.0f} s"),
        ("jobs added in, s", f"{added:.1f}"),
        ("jobs per minute", f"{60 * wish.jobs / taken:.0f}"),
        ("server RSS at the start / after adding / at the end, MB", " / ".join(f"{rss / MB:.0f}" for rss in memory)),
    ]
    if minutes:
        retrieves = len(measured.retrieve) - early - len(while_made)
        label = f"server RSS in {wish.minutes:g} more minutes of polling ({retrieves:,} retrieves), MB"
        rows.append((label, f"{minutes[0] / MB:.0f} to {minutes[-1] / MB:.0f}, at most {max(minutes) / MB:.0f}"))
    busy = " / ".join(f"{value:.2f}" for value in cores)
    rows.append((f"busy cores of {os.cpu_count()}: server and worker / clients / other programs", busy))
    for error in measured.errors[:10]:
        print(error, file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--adders", type=int, default=20, help="clients that add jobs at once")
    parser.add_argument("--pollers", type=int, default=50, help="clients that poll one video each")
    parser.add_argument("--minutes", type=float, default=0.0, help="go on with the polling for so long")
    wish = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, bare_server() as bare:
        rows = run(Path(folder) / "root", bare, wish)
    print(f"| {wish.jobs} jobs | |\n|---|---|")
    for label, value in rows:
        print(f"| {label} | {value} |")


if __name__ == "__main__":
    main()
