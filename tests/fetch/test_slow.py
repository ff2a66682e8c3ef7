"""Servers that never come to an end, and users who don't want to wait: each look-up has a deadline, each wait hears."""

import contextlib
import gzip
import hashlib
import json
import threading
import time

import pytest

from conftest import safetensors_bytes
from reeltune import CancelToken, Preferences, explain, load_catalog, pull
from reeltune.checkpoints.header import parse_header
from reeltune.errors import BadDownload, Cancelled, FetchError, NotEnoughDisk, Unreachable
from reeltune.fetch import Scope, plan_download, transfer
from reeltune.fetch.download import Downloader
from reeltune.fetch.task import DownloadTask
from reeltune.machine import Machine
from reeltune.net import Session, UrlSource, run_within
from reeltune.planning.headers import Headers

SHAPES = {"head.modulation": ("BF16", [1, 2, 4]), "patch_embedding.weight": ("BF16", [4, 16, 1, 2, 2])}
GOOD = safetensors_bytes(SHAPES)
MACHINE = Machine(2**34, 2**33)
NAME, PATH = "x_bf16.safetensors", "/x_bf16.safetensors"


@pytest.fixture
def dripping(server):
    """Send a file, or its headers, a byte at a time, until the client leaves or the test ends."""
    ended = threading.Event()

    def drip(path, *, headers=False):
        def answer(handler, body):
            start = b'HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-%d/%d\r\nETag: "a"\r\n' % (
                len(body) - 1,
                len(body),
            )
            start += b"Content-Length: %d\r\nX-More: " % len(body)
            handler.wfile.write(start)
            handler.wfile.write(b"" if headers else b"1\r\n\r\n")
            with contextlib.suppress(OSError):
                while not ended.wait(0.02):
                    handler.wfile.write(b"x")
                    handler.wfile.flush()
            handler.close_connection = True
            return True

        server.files[path] = GOOD
        server.faults[path] = answer

    yield drip
    ended.set()


@pytest.mark.parametrize("headers", [False, True], ids=["body", "headers"])
def test_slow_headers_have_a_deadline(server, dripping, headers):
    dripping(PATH, headers=headers)
    with UrlSource(server.url + PATH, seconds=0.4) as source, pytest.raises(Unreachable, match="no complete response"):
        parse_header(source)


def impatient(tokens=None, cancel=None):
    """Headers in less time than people have."""
    return Headers(tokens, seconds_per_file=0.3, seconds=0.6, cancel=cancel)


def test_many_slow_urls_take_no_longer_than_one(server, dripping, define, root, monkeypatch):
    monkeypatch.setattr("reeltune.planning.plan.Headers", impatient)
    monkeypatch.setattr("reeltune.planning.headers._SLOW_SECONDS", 0.2)
    urls = [f"{server.url}/{number}.safetensors" for number in range(45)]  # names that hide what they hold
    for url in urls:
        dripping(url.removeprefix(server.url))
    define("slow", {"architecture": "t2v", "URLs": urls, "components": "o/r"})
    plan = explain(load_catalog(root)["slow"], machine=MACHINE, online=True)
    assert len([line for line in plan.notices if "header" in line]) == 45
    assert len(server.requests) < 5  # nobody waited for the others


def test_a_dry_run_does_not_wait_for_slow_servers(server, dripping, define, root, monkeypatch):
    monkeypatch.setattr("reeltune.fetch.download._REQUEST_SECONDS", 0.3)
    monkeypatch.setattr("reeltune.fetch.survey._DRY_RUN_SECONDS", 0.6)
    monkeypatch.setattr("reeltune.fetch.pulling.Headers", impatient)
    for number in range(20):
        dripping(f"/{number}_bf16.safetensors", headers=True)
        define(f"d{number}", {"architecture": "t2v", "URLs": [f"{server.url}/{number}_bf16.safetensors"]})
    catalog = load_catalog(root)
    events = []
    _, plan = plan_download(
        [catalog[f"d{number}"] for number in range(20)], scope=Scope(weights_only=True), machine=MACHINE,
        listener=events.append,
    )  # fmt: skip
    assert plan.unknown_sizes == 20
    assert any("took too long" in event.message for event in events)


@pytest.mark.parametrize("where", ["look", "backoff", "header wait", "stream"])
def test_cancelling_interrupts_every_wait(server, dripping, tmp_path, where, monkeypatch):
    cancel = CancelToken()
    if where == "look":
        dripping(PATH, headers=True)
    if where == "backoff":
        server.files[PATH] = GOOD

        def busy(handler, body):
            handler.send_response(503)
            handler.send_header("Retry-After", "600")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return True

        server.faults[PATH] = busy
    if where in ("header wait", "stream"):
        dripping(PATH, headers=where == "header wait")
        slow = server.faults[PATH]
        if where == "stream":
            server.etags[PATH] = ""
            server.rangeless.add(PATH)

        def later(handler, body):
            return len(server.requests) > 1 and slow(handler, body)

        server.faults[PATH] = later
    threading.Timer(0.3, cancel.cancel).start()
    began = time.monotonic()
    with Downloader(Preferences(stall_seconds=600), cancel=cancel) as downloader, pytest.raises(Cancelled):
        downloader.fetch(DownloadTask(server.url + PATH, tmp_path / NAME, True))
    assert time.monotonic() - began < 25  # before any of these waits would end by itself
    assert not (tmp_path / NAME).exists()


def test_within_raises_what_the_work_raises_and_stops_what_takes_too_long():
    def fails():
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        run_within(5, fails, stop=lambda: None, name="it")
    stopped = threading.Event()
    with pytest.raises(Unreachable, match="it: no complete response"):
        run_within(0.1, lambda: stopped.wait(20), stop=stopped.set, name="it")
    assert stopped.is_set()
    assert run_within(5, lambda: 7, stop=lambda: None, name="it") == 7


def test_an_interrupted_session_can_be_used_again(server):
    server.files["/x"] = b"1"
    with Session() as session:
        assert session.read(server.url + "/x", 9) == b"1"
        session.interrupt()
        assert session.read(server.url + "/x", 9) == b"1"


# --- bodies without a length -----------------------------------------------------------------------------------


@pytest.fixture
def endless(server):
    """A chunked body that goes on for as long as anybody reads."""

    def answer(handler, body):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        part = b"%x\r\n%s\r\n" % (1 << 16, bytes(1 << 16))
        with contextlib.suppress(OSError):
            for _ in range(4000):
                handler.wfile.write(part)
        handler.close_connection = True
        return True

    server.files[PATH] = server.files["/c.json"] = GOOD
    server.faults[PATH] = server.faults["/c.json"] = answer
    return server


def test_a_download_of_unknown_size_is_bounded(endless, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "_DISK_CHECK_BYTES", 100_000)
    monkeypatch.setattr("reeltune.fetch.download.MAX_UNANNOUNCED_BYTES", 1_000_000)
    with Downloader() as downloader, pytest.raises(BadDownload, match="without announcing a size"):
        downloader.fetch(DownloadTask(endless.url + PATH, tmp_path / NAME, True))
    with Downloader() as downloader, pytest.raises(BadDownload, match="more than 2,000 bytes"):
        downloader.fetch(DownloadTask(endless.url + "/c.json", tmp_path / "c.json", required_size=2000))
    assert not [path for path in tmp_path.iterdir() if ".lock." not in path.name]


def test_a_download_of_unknown_size_leaves_room_on_the_disk(endless, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "_DISK_CHECK_BYTES", 100_000)
    free = iter([10**12, 10**12, 10**8])
    monkeypatch.setattr(transfer, "free_disk", lambda folder: next(free))
    with Downloader() as downloader, pytest.raises(NotEnoughDisk, match="doesn't announce a size"):
        downloader.fetch(DownloadTask(endless.url + PATH, tmp_path / NAME, True))
    assert not [path for path in tmp_path.iterdir() if ".lock." not in path.name]


# --- compressed files ------------------------------------------------------------------------------------------


@pytest.fixture
def squeezed(server, define, root, monkeypatch):
    """A repository whose server compresses `config.json`, though it is asked not to."""
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    config = json.dumps({"a": "b" * 500}).encode()
    for folder in ("tokenizer", "text_encoder", "vae"):
        listing = [{"type": "file", "path": f"{folder}/config.json", "size": len(config)}]
        server.files[f"/api/models/o/r/tree/main/{folder}"] = json.dumps(listing).encode()
        path = f"/o/r/resolve/main/{folder}/config.json"
        server.files[path] = gzip.compress(config)
        server.headers[path] = {"Content-Encoding": "gzip"}
        server.rangeless.add(path)
    server.files[PATH] = GOOD
    define("mine", {"architecture": "t2v", "URLs": [server.url + PATH], "components": "o/r"})
    return load_catalog(root)["mine"], config


def test_compressed_component_files_are_stored_decoded(squeezed, root):
    definition, config = squeezed
    assert not pull(definition, machine=MACHINE).missing
    for folder in ("tokenizer", "text_encoder", "vae"):
        assert (root / "ckpts" / "o--r" / folder / "config.json").read_bytes() == config


def test_parts_of_a_compressed_file_are_refused(squeezed, server, root):
    """It says that what it sends is a part of a compressed file: the whole is asked for, which it compresses as well."""
    definition, config = squeezed
    server.rangeless.clear()
    assert not pull(definition, machine=MACHINE).missing
    assert (root / "ckpts" / "o--r" / "vae" / "config.json").read_bytes() == config


def test_component_files_must_have_the_listed_size(squeezed, server, root):
    definition, config = squeezed
    path = "/o/r/resolve/main/vae/config.json"
    server.headers[path] = {}  # compressed, without a header that says so
    with pytest.raises(BadDownload, match=f"lists {len(config):,}"):
        pull(definition, machine=MACHINE)
    assert not (root / "ckpts" / "o--r" / "vae").exists()


def test_compressed_weights_are_decoded_and_verified(server, tmp_path):
    server.files[PATH] = gzip.compress(GOOD)
    server.headers[PATH] = {"Content-Encoding": "gzip"}
    with Downloader() as downloader:
        downloader.fetch(DownloadTask(server.url + PATH, tmp_path / NAME, True, hashlib.sha256(GOOD).hexdigest()))
    assert (tmp_path / NAME).read_bytes() == GOOD


def test_an_unknown_encoding_is_refused(server, tmp_path):
    server.files[PATH] = GOOD
    server.headers[PATH] = {"Content-Encoding": "zstd"}
    with Downloader() as downloader, pytest.raises(FetchError, match="'zstd'"):
        downloader.fetch(DownloadTask(server.url + PATH, tmp_path / NAME, True))
    assert not (tmp_path / NAME).exists()


def test_checking_slow_urls_on_the_page_ends(server, dripping, root, monkeypatch):
    from types import SimpleNamespace

    from reeltune.definitions.slots import TRANSFORMER
    from reeltune.service import file_checks

    monkeypatch.setattr(file_checks, "_TOTAL_SECONDS", 0.8)
    monkeypatch.setattr(file_checks, "_SECONDS_PER_FILE", 0.3)
    urls = [f"{server.url}/{number}.safetensors" for number in range(45)]
    for url in urls:
        dripping(url.removeprefix(server.url))
    catalog = load_catalog(root)
    workspace = SimpleNamespace(catalog=lambda: catalog, local=True, root=root)
    checks = file_checks.check_files(workspace, catalog["t2v"], "\n".join(urls), TRANSFORMER)
    assert len(checks) == 45
    assert len(server.requests) < 5  # nobody waited for the others
    assert all(check.objection for check in checks)
    assert "took too long" in checks[-1].objection
