"""Shared fakes: an isolated root, a local HTTP server, tiny checkpoints in the original layout."""

from __future__ import annotations

import gc
import hashlib
import http.server
import json
import os
import re
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# One thread for each of the processes that run side by side; read when torch is first imported, here and in the
# programs that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # huggingface_hub asks the Hub about programs that call it

SLOW_FILES = (
    "web/test_browser",
    "web/test_nine",
    "cli/test_story",
    "cli/test_nine",
    "cli/test_run_command",
    "jobs/test_runner",
    "jobs/test_ray_cluster",
    "api/test_kill",
    "api/test_hostile_api",
    "engine/test_lora_videos",
    "sharing/test_install",
    "sharing/test_publish",
    "sharing/test_sharing_story",
    "tests/test_bench",
)  # minutes


def pytest_collection_modifyitems(items):
    """The slowest files first, so that no process still runs one of them alone when the others have finished."""
    items.sort(key=lambda item: not any(name in item.path.as_posix() for name in SLOW_FILES))


_MANY_MODULES = 100
_modules = 0  # that were imported when objects were last excluded from garbage collection


def pytest_collection_finish():
    """Exclude what was imported from garbage collection: engines collect after each stage of a video."""
    _freeze_imported()


def pytest_runtest_logfinish():
    """The same for what a test has imported, as the first video does."""
    if len(sys.modules) > _modules + _MANY_MODULES:
        _freeze_imported()


def _freeze_imported():
    global _modules
    gc.collect()  # what isn't needed any more isn't kept
    gc.freeze()
    _modules = len(sys.modules)


DATA = Path(__file__).parent / "data"


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's tokens, mirrors, roots or home."""
    for name in (
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "HF_ENDPOINT",
        "HF_HUB_OFFLINE",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "REELTUNE_ROOT",
        "REELTUNE_OFFLINE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty working folder."""
    folder = tmp_path / "root"
    (folder / "finetunes").mkdir(parents=True)
    return folder


@pytest.fixture
def define(root: Path) -> Callable[..., Path]:
    """Write a definition: `define("id", model={...}, seed=1)`."""

    def write(id: str, model: dict[str, Any], **settings: Any) -> Path:
        path = root / "finetunes" / f"{id}.json"
        path.write_text(json.dumps({"model": model, **settings}, indent=4), encoding="utf-8")
        return path

    return write


# what writers of checkpoints keep a model in
CONTAINERS = ("", "model.diffusion_model.", "net.", "_orig_mod.", "module.module.", "pipe.dit.")


def safetensors_bytes(
    tensors: dict[str, tuple[str, list[int]]], metadata: dict[str, str] | None = None, data: bytes | None = None
) -> bytes:
    """A safetensors file of zeros, header by hand: {name: (dtype, shape)}."""
    from reeltune.checkpoints.header import DTYPE_BITS

    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        length = DTYPE_BITS[dtype] // 8
        for side in shape:
            length *= side
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + length]}
        offset += length
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + (bytes(offset) if data is None else data)


def head_of(shapes: dict[str, list[int]], dtype: str = "BF16") -> tuple[bytes, int]:
    """The start of a true checkpoint, without its data; returns it and the whole file's size."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        length = 2
        for side in shape:
            length *= side
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + length]}
        offset += length
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw, 8 + len(raw) + offset


def expand(entry: dict[str, Any]) -> dict[str, list[int]]:
    """Names and shapes of an entry of headers.json, with `#` spelled out."""
    shapes: dict[str, list[int]] = {}
    for name, shape in entry["tensors"].items():
        if "#" not in name:
            shapes[name] = shape
            continue
        for index in range(entry["n"][name.split(".")[0]]):
            shapes[name.replace("#", str(index))] = shape
    return shapes | entry.get("irregular", {})


@pytest.fixture(scope="session")
def headers() -> dict[str, dict[str, list[int]]]:
    """Real checkpoints' names and shapes, by label."""
    facts = json.loads((DATA / "headers.json").read_text(encoding="utf-8"))
    return {label: expand(entry) for label, entry in facts.items() if label != "note"}


class Server:
    """A local file server with Range, redirects and misbehaviour by path; counts requests."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.types: dict[str, str] = {}
        self.redirects: dict[str, str] = {}
        self.truncated: set[str] = set()  # announces everything, sends half
        self.rangeless: set[str] = set()
        self.etags: dict[str, str] = {}  # by default each content has its own
        self.headers: dict[str, dict[str, str]] = {}  # sent along, with redirects too
        self.faults: dict[str, Callable[[http.server.BaseHTTPRequestHandler, bytes], bool]] = {}  # True: answered
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sent = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each answer waits for an acknowledgement

            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        self.requests.append((handler.path, dict(handler.headers)))
        if path in self.redirects:
            handler.send_response(302)
            for name, value in self.headers.get(path, {}).items():
                handler.send_header(name, value)
            handler.send_header("Location", self.redirects[path])
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        body = self.files.get(path)
        if body is None:
            handler.send_response(404)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        if path in self.faults and self.faults[path](handler, body):
            return
        etag = self.etags.get(path, f'"{hashlib.sha1(body).hexdigest()}"')
        wanted = re.match(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
        same = handler.headers.get("If-Range", etag) == etag
        if wanted and same and path not in self.rangeless:
            first, last = int(wanted[1]), min(int(wanted[2] or len(body) - 1), len(body) - 1)
            part = body[first : last + 1]
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
        else:
            part = body
            handler.send_response(200)
        handler.send_header("Content-Length", str(len(part)))
        if etag:
            handler.send_header("ETag", etag)
        for name, value in self.headers.get(path, {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Type", self.types.get(path, "application/octet-stream"))
        handler.end_headers()
        part = part[: len(part) // 2] if path in self.truncated else part
        try:
            handler.wfile.write(part)
            self.sent += len(part)
        except OSError:  # the client had enough
            pass
        if path in self.truncated:
            handler.close_connection = True

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    """A running local server."""
    running = Server()
    yield running
    running.close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A running local server that stands in for the Hub, and the token of an account that may write."""
    from hub import TOKEN, Hub

    running = Hub()
    monkeypatch.setenv("HF_ENDPOINT", running.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield running
    running.close()


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny random components (tests/engine/tiny_parts.py), each made once."""
    folders: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        import tiny_parts

        if kind not in folders:
            folders[kind] = tiny_parts.write_parts(kind, tmp_path_factory.mktemp("parts") / kind)
        return folders[kind]

    return folder


@pytest.fixture
def big(root: Path, define: Callable[..., Path], headers: dict[str, dict[str, list[int]]]) -> Any:
    """The true 14B header over a hole of its size."""
    from reeltune import load_catalog

    start, size = head_of(headers["wan_t2v_14B"])
    (root / "ckpts").mkdir()
    with (root / "ckpts" / "x_bf16.safetensors").open("wb") as file:
        file.write(start)
        file.truncate(size)
    define("big", {"architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors"], "auto_quantize": True})
    return load_catalog(root)["big"]


def workspace_of(root: Path, *, local: bool = True) -> Any:
    """What the page uses of a root, with a runner that runs nothing: its queue is the real one."""
    from types import SimpleNamespace

    from reeltune.jobs import Queue
    from reeltune.service.workspace import Workspace

    for folder in ("uploads", "outputs"):
        (root / folder).mkdir(exist_ok=True)
    idle = {"running": list, "workers": list, "waits": dict}
    runner = SimpleNamespace(queue=Queue(root), trouble=None, paused=False, wake=lambda: None, **idle)
    return Workspace(root, runner, local=local)


@pytest.fixture
def workspace(root: Path) -> Any:
    """The workspace of the root, for the owner of the machine."""
    return workspace_of(root)


def saved_queue(path: Path, tasks: list[dict[str, Any]], files: dict[str, bytes] | None = None) -> Path:
    """A queue as WanGP saves it: a zip archive with `queue.json`, and beside it the images and videos of the tasks."""
    import zipfile

    manifest = [
        {"id": number, "params": {"base_model_type": task.get("model_type"), "settings_version": 2.55, **task}}
        for number, task in enumerate(tasks, start=1)
    ]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("queue.json", json.dumps(manifest, indent=4))
        for name, content in (files or {}).items():
            archive.writestr(name, content)
    return path


def png_bytes(color: str = "red", side: int = 64) -> bytes:
    """A PNG image of one color."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (side, side), color).save(buffer, "PNG")
    return buffer.getvalue()
