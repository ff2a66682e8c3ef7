"""Two real processes that pull the same definition at once: one transfer; where the first dies, the other goes on."""

import random
import subprocess
import sys
import threading
import time

import pytest

from conftest import safetensors_bytes

NAME = "x_bf16.safetensors"
PATH = f"/{NAME}"
SIZE = 12_000_000
FIRST_BYTES = 1_300_000  # what is looked at before: the header, once in each process


@pytest.fixture
def start(server, define, root):
    """Start `reeltune pull` of a definition whose weights the local server has; what runs at the end is killed."""
    shapes = {"head.modulation": ("BF16", [1, 2, 4]), "patch_embedding.weight": ("BF16", [SIZE // 2])}
    server.files[PATH] = safetensors_bytes(shapes, data=random.Random(0).randbytes(2 * (SIZE // 2) + 16))
    define("mine", {"architecture": "t2v", "URLs": [server.url + PATH], "components": "o/r"})
    running = []

    def one(rate):
        (root / "reeltune.json").write_text(f'{{"rate_limit": {rate}, "connections": 2}}')
        words = ["pull", "mine", "--weights-only", "--root", str(root)]
        process = subprocess.Popen(
            [sys.executable, "-m", "reeltune", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        running.append(process)
        return process

    yield one
    for process in running:
        process.kill()
        process.communicate()


def until(condition, process=None, seconds=300):
    """Wait for a condition while a process, if any, still runs."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing came of it"
        assert process is None or process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if ".lock." not in path.name and path.name != ".index.sqlite")


def test_two_processes_pull_and_one_downloads(start, server, root):
    processes = [start(6), start(6)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert (root / "ckpts" / NAME).read_bytes() == server.files[PATH]
    assert leftovers(root / "ckpts") == [NAME]
    assert server.sent < len(server.files[PATH]) + FIRST_BYTES


def test_a_second_process_resumes_the_download_of_a_killed_one(start, server, root):
    content, released = server.files[PATH], threading.Event()

    def hold(handler, body):
        """Send half of what is asked for, and the rest only once the first process is gone."""
        if "If-Range" not in handler.headers or released.is_set():
            return False
        first, last = (int(end) for end in handler.headers["Range"].removeprefix("bytes=").split("-"))
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
        handler.send_header("Content-Length", str(last + 1 - first))
        handler.send_header("ETag", handler.headers["If-Range"])
        handler.end_headers()
        handler.wfile.write(body[first : (first + last) // 2])
        handler.wfile.flush()
        released.wait(600)
        handler.close_connection = True
        return True

    server.faults[PATH] = hold
    journal = root / "ckpts" / f"{NAME}.journal.partial"
    first = start(0)
    until(lambda: journal.exists() and journal.read_bytes()[1024:].count(1) + journal.read_bytes()[1024:].count(2) > 8)
    second, asked = start(0), len(server.requests)
    until(lambda: len(server.requests) > asked, second)  # it looked, and now waits
    time.sleep(1)
    assert second.poll() is None
    assert first.poll() is None
    before = len(server.requests)
    first.kill()
    released.set()
    output = second.communicate(timeout=300)[0]
    assert second.returncode == 0, output
    assert (root / "ckpts" / NAME).read_bytes() == content
    assert leftovers(root / "ckpts") == [NAME]
    begins = [headers["Range"] for _, headers in server.requests[before:] if "If-Range" in headers]
    assert begins
    assert not any(begin.startswith("bytes=0-") for begin in begins), "the start was there"
