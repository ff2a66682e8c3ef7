"""A server that does everything wrong: each case ends in the right file or a clear error, and never in half a file."""

import hashlib
import random
import threading
import time

import pytest

from conftest import safetensors_bytes
from reeltune import CancelToken, Notice, Progress
from reeltune.errors import BadDownload, Cancelled, FetchError, Unreachable
from reeltune.fetch import transfer
from reeltune.fetch.download import Downloader
from reeltune.fetch.task import DownloadTask
from reeltune.library.journal import BLOCK
from reeltune.preferences import Preferences

PATH, NAME = "/m/x_bf16.safetensors", "x_bf16.safetensors"
SIZE = 11 * BLOCK // 2 * 2


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Small pieces, short pauses."""
    monkeypatch.setattr(transfer, "_MIN_PIECE_BYTES", 2 * BLOCK)
    monkeypatch.setattr(transfer, "_MAX_PIECE_BYTES", 2 * BLOCK)
    monkeypatch.setattr(transfer, "pause_after", lambda failures, asked: 0.01)
    monkeypatch.setattr("reeltune.fetch.download.pause_after", lambda failures, asked: 0.01)


@pytest.fixture
def content():
    """A checkpoint of odd size whose data differ everywhere."""
    count = SIZE // 2 + 13
    return safetensors_bytes({"w": ("BF16", [count])}, data=random.Random(0).randbytes(2 * count))


@pytest.fixture
def served(server, content):
    server.files[PATH] = content
    return server


def fetch(server, folder, events=None, cancel=None, sha256=None, **wishes):
    heard = events.append if events is not None else (lambda event: None)
    with Downloader(Preferences(**({"stall_seconds": 1} | wishes)), heard, cancel) as downloader:
        downloader.fetch(DownloadTask(server.url + PATH, folder / NAME, True, sha256))
        return downloader.sha256_by_path[folder / NAME]


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock.partial"))


def send(handler, code, body, headers=(), announced=None):
    handler.send_response(code)
    for name, value in headers:
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body) if announced is None else announced))
    handler.end_headers()
    handler.wfile.write(body)


def asked(handler, body):
    """The range a request asks for."""
    first, _, last = handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
    return int(first), min(int(last or len(body) - 1), len(body) - 1)


def part(handler, body, data=None, etag=None, announced=None):
    """An honest answer to a range, but for what is passed."""
    first, last = asked(handler, body)
    etag = f'"{hashlib.sha1(body).hexdigest()}"' if etag is None else etag
    data = body[first : last + 1] if data is None else data
    headers = [("Content-Range", f"bytes {first}-{last}/{len(body)}"), ("ETag", etag)]
    send(handler, 206, data, headers, last + 1 - first if announced is None else announced)


def test_parallel_pieces_make_the_file(served, content, tmp_path):
    events = []
    assert fetch(served, tmp_path, events) == hashlib.sha256(content).hexdigest()
    assert (tmp_path / NAME).read_bytes() == content
    assert names(tmp_path) == [NAME]
    done = [event.done for event in events if isinstance(event, Progress)]
    assert done == sorted(done)
    assert done[-1] == len(content)
    ranges = [request[1].get("Range") for request in served.requests]
    assert len(set(ranges)) == 1 + -(-len(content) // (2 * BLOCK))


@pytest.mark.parametrize("after", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1])
def test_dropped_connections_are_resumed(served, content, tmp_path, after):
    dropped = set()

    def drop(handler, body):
        first, last = asked(handler, body)
        if last in dropped or last == 4095:
            return False
        dropped.add(last)
        part(handler, body, body[first : first + after])
        handler.close_connection = True
        return True

    served.faults[PATH] = drop
    fetch(served, tmp_path)
    assert (tmp_path / NAME).read_bytes() == content


@pytest.mark.parametrize("code", [500, 502, 503, 429, 408])
def test_temporary_server_errors_are_retried(served, content, tmp_path, code):
    counts = {"n": 0}

    def burst(handler, body):
        counts["n"] += 1
        if counts["n"] % 3:
            send(handler, code, b"later", [("Retry-After", "1")])
            return True
        return False

    served.faults[PATH] = burst
    fetch(served, tmp_path)
    assert (tmp_path / NAME).read_bytes() == content


def test_permanent_server_errors_are_raised_and_received_bytes_are_kept(served, content, tmp_path):
    def broken(handler, body):
        if asked(handler, body)[0] < 2 * BLOCK:
            return False
        send(handler, 503, b"")
        return True

    served.faults[PATH] = broken
    events = []
    with pytest.raises(Unreachable, match="503"):
        fetch(served, tmp_path, events)
    assert not (tmp_path / NAME).exists()
    assert any("are kept" in getattr(event, "message", "") for event in events)
    del served.faults[PATH]
    served.sent = 0
    fetch(served, tmp_path)
    assert (tmp_path / NAME).read_bytes() == content
    assert served.sent <= len(content) - 2 * BLOCK + 4096


def test_a_permanent_refusal_is_not_retried(served, tmp_path):
    served.faults[PATH] = lambda handler, body: send(handler, 403, b"") or True
    with pytest.raises(FetchError, match="access denied"):
        fetch(served, tmp_path)
    assert len(served.requests) == 1


def test_stalled_connections_are_replaced(served, content, tmp_path):
    stalled = set()

    def stall(handler, body):
        first, last = asked(handler, body)
        if last in stalled or last == 4095:
            return False
        stalled.add(last)
        part(handler, body, body[first : first + 1000])
        time.sleep(1.5)
        handler.close_connection = True
        return True

    served.faults[PATH] = stall
    fetch(served, tmp_path, connections=8)
    assert (tmp_path / NAME).read_bytes() == content


@pytest.mark.parametrize("off", [-1000, 1000])
def test_a_wrong_content_length_is_refused(served, content, tmp_path, off):
    """More announced than sent is a broken connection; less announced is a short answer. Both are asked again."""
    ends = set()

    def lie(handler, body):
        first, last = asked(handler, body)
        if last in ends or last == 4095:
            return False
        ends.add(last)
        data = body[first : last + 1] if off > 0 else body[first : last + 1 + off]
        part(handler, body, data, announced=len(data) + max(off, 0))
        handler.close_connection = True
        return True

    served.faults[PATH] = lie
    fetch(served, tmp_path)
    assert (tmp_path / NAME).read_bytes() == content


def test_a_server_without_ranges_is_supported(served, content, tmp_path):
    served.rangeless.add(PATH)
    assert fetch(served, tmp_path) == hashlib.sha256(content).hexdigest()
    assert (tmp_path / NAME).read_bytes() == content
    (tmp_path / NAME).unlink()
    served.truncated.add(PATH)
    with pytest.raises(FetchError):
        fetch(served, tmp_path)
    assert names(tmp_path) == []


def test_a_download_restarts_when_the_server_ignores_ranges(served, content, tmp_path):
    def ignore(handler, body):
        if asked(handler, body)[0] == 4 * BLOCK:
            served.rangeless.add(PATH)
        return False

    served.faults[PATH] = ignore
    fetch(served, tmp_path)
    assert (tmp_path / NAME).read_bytes() == content


def test_a_wrong_range_is_refused(served, content, tmp_path):
    def shifted(handler, body):
        first, last = asked(handler, body)
        if last == 4095:
            return False
        headers = [("Content-Range", f"bytes {first + 1}-{last}/{len(body)}"), ("ETag", "")]
        send(handler, 206, body[first + 1 : last + 1], headers)
        return True

    served.faults[PATH] = shifted
    with pytest.raises(BadDownload, match="other bytes"):
        fetch(served, tmp_path)
    assert names(tmp_path) == []


def test_a_file_that_changes_during_the_download_is_downloaded_again(served, content, tmp_path):
    newer = content[:-4] + b"new!"
    events = []

    def change(handler, body):
        if asked(handler, body)[0] >= 4 * BLOCK:
            served.files[PATH] = newer
        return False

    served.faults[PATH] = change
    fetch(served, tmp_path, events)
    assert (tmp_path / NAME).read_bytes() == newer
    assert any("changed on the server" in getattr(event, "message", "") for event in events)


def test_a_file_that_changed_after_an_interruption_is_downloaded_again(served, content, tmp_path):
    stop_after(served, tmp_path, 3 * BLOCK)
    newer = content[:-4] + b"new!"
    served.files[PATH] = newer
    fetch(served, tmp_path)
    assert (tmp_path / NAME).read_bytes() == newer


def stop_after(served, folder, count):
    cancel = CancelToken()
    served.faults[PATH] = lambda handler, body: cancel.cancel() if asked(handler, body)[0] >= count else None
    with pytest.raises(Cancelled):
        fetch(served, folder, cancel=cancel, connections=1, rate_limit=20)
    del served.faults[PATH]
    assert not (folder / NAME).exists()


def test_a_cancelled_download_is_resumed(served, content, tmp_path):
    stop_after(served, tmp_path, 6 * BLOCK)
    served.sent = 0
    assert fetch(served, tmp_path) == hashlib.sha256(content).hexdigest()
    assert (tmp_path / NAME).read_bytes() == content
    assert served.sent <= len(content) - 5 * BLOCK
    assert names(tmp_path) == [NAME]


def test_after_a_restart_of_the_machine_only_synced_blocks_count(served, content, tmp_path, monkeypatch):
    stop_after(served, tmp_path, 6 * BLOCK)  # a clean stop syncs
    partial = tmp_path / f"{NAME}.partial"
    journal = tmp_path / f"{NAME}.journal.partial"
    marks = bytearray(journal.read_bytes())
    marks[1024 + 2] = 1  # written, never synced, and lost
    journal.write_bytes(marks)
    with partial.open("r+b") as file:
        file.seek(2 * BLOCK)
        file.write(bytes(BLOCK))
    monkeypatch.setattr("psutil.boot_time", lambda: time.time())
    served.sent = 0
    fetch(served, tmp_path)
    assert (tmp_path / NAME).read_bytes() == content
    assert served.sent <= len(content) - 4 * BLOCK


def test_received_bytes_are_synced_during_the_download(served, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "_SYNC_SECONDS", 0.05)
    monkeypatch.setattr(transfer, "_TICK_SECONDS", 0.02)
    synced = []
    sync = transfer.Journal.sync
    monkeypatch.setattr(
        transfer.Journal, "sync", lambda self, file: (sync(self, file), synced.append(self.bytes_present))
    )
    fetch(served, tmp_path, rate_limit=2)
    assert len([count for count in synced if count < served.sent - BLOCK]) > 1


@pytest.mark.parametrize("loss", ["journal cut", "journal garbage", "journal gone", "data gone", "data cut"])
def test_damaged_partial_files_are_downloaded_again(served, content, tmp_path, loss):
    stop_after(served, tmp_path, 6 * BLOCK)
    journal, partial = tmp_path / f"{NAME}.journal.partial", tmp_path / f"{NAME}.partial"
    if loss == "journal cut":
        journal.write_bytes(journal.read_bytes()[:-1])
    if loss == "journal garbage":
        journal.write_bytes(b"\xff" * 2000)
    if loss == "journal gone":
        journal.unlink()
    if loss == "data gone":
        partial.unlink()
    if loss == "data cut":
        partial.write_bytes(partial.read_bytes()[:BLOCK])
    fetch(served, tmp_path)
    assert (tmp_path / NAME).read_bytes() == content


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_validator_a_file_is_downloaded_in_one_stream(served, content, tmp_path, etag):
    served.etags[PATH] = etag
    newer = content[:4000] + b"!" + content[4001:-9] + b"another 9"

    def change(handler, body):
        served.files[PATH] = newer
        return False

    served.faults[PATH] = change
    fetch(served, tmp_path)
    assert (tmp_path / NAME).read_bytes() in (content, newer)
    ranges = [headers.get("Range") for _, headers in served.requests]
    assert ranges == ["bytes=0-4095", None]


def test_ranges_without_a_validator_are_used_if_the_sha256_is_known(served, content, tmp_path):
    served.etags[PATH] = ""
    fetch(served, tmp_path, sha256=hashlib.sha256(content).hexdigest())
    assert len(served.requests) > 3
    (tmp_path / NAME).unlink()
    served.faults[PATH] = lambda handler, body: asked(handler, body)[0] >= 4 * BLOCK and mixed(served, content)
    with pytest.raises(BadDownload, match="sha256"):
        fetch(served, tmp_path, sha256=hashlib.sha256(content).hexdigest())
    assert names(tmp_path) == []


def mixed(server, content):
    """From now on the server has another state of the file."""
    server.files[PATH] = content[:-9] + b"another 9"
    return False


def test_a_server_that_omits_the_etag_of_ranges_must_send_the_whole_file(served, content, tmp_path):
    def forget(handler, body):
        if asked(handler, body)[1] == 4095 or "Range" not in handler.headers:
            return False
        part(handler, body, etag="")
        return True

    served.faults[PATH] = forget
    fetch(served, tmp_path)
    assert (tmp_path / NAME).read_bytes() == content
    assert "Range" not in served.requests[-1][1]


@pytest.mark.parametrize("known", ["definition", "hub"])
def test_every_flipped_bit_is_found_if_the_sha256_is_known(served, content, tmp_path, known):
    rng = random.Random(1)
    right = hashlib.sha256(content).hexdigest()
    if known == "hub":
        served.headers[PATH] = {"X-Linked-Etag": f'"{right}"'}
    for _ in range(10):
        bit = rng.randrange(8 * len(content))
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        served.files[PATH] = bytes(flipped)
        with pytest.raises(BadDownload):
            fetch(served, tmp_path, sha256=right if known == "definition" else None)
        assert names(tmp_path) == []
    served.files[PATH] = content
    fetch(served, tmp_path, sha256=right)
    assert names(tmp_path) == [NAME]


def test_a_sha256_that_contradicts_the_hub_is_refused_before_the_first_byte(served, tmp_path):
    served.headers[PATH] = {"X-Linked-Etag": f'"{"0" * 64}"'}
    with pytest.raises(BadDownload, match="was expected"):
        fetch(served, tmp_path, sha256="1" * 64)
    assert len(served.requests) == 1


@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream", "application/json"])
def test_pages_with_status_200_are_refused(served, tmp_path, kind):
    served.files[PATH] = b"  <!DOCTYPE html><html><body>Log in</body></html>" if "json" not in kind else b'{"error": 1}'
    served.types[PATH] = kind
    with pytest.raises(BadDownload, match=r"page|JSON") as caught:
        fetch(served, tmp_path)
    assert "HF_TOKEN" in str(caught.value)
    assert names(tmp_path) == []


def test_redirects_to_another_host_keep_the_range_and_drop_the_token(served, content, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    served.files["/store"] = content
    served.redirects[PATH] = served.url.replace("127.0.0.1", "localhost") + "/store"
    served.headers[PATH] = {"X-Linked-Etag": hashlib.sha256(content).hexdigest()}
    fetch(served, tmp_path)
    assert (tmp_path / NAME).read_bytes() == content
    for path, headers in served.requests:
        assert ("Authorization" in headers) == (path == PATH)
        assert "Range" in headers


def test_a_stale_token_does_not_prevent_downloads_of_public_files(served, content, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setenv("HF_TOKEN", "hf_stale")

    def picky(handler, body):
        if "Authorization" in handler.headers:
            send(handler, 401, b"")
            return True
        return False

    served.faults[PATH] = picky
    events = []
    fetch(served, tmp_path, events)
    assert (tmp_path / NAME).read_bytes() == content
    notices = [event.message for event in events if isinstance(event, Notice)]
    assert sum("refused your token" in line for line in notices) == 1
    assert "hf_stale" not in " ".join(notices)
    assert sum("Authorization" in headers for _, headers in served.requests) == 1


def test_a_stalled_download_is_cancelled_at_once(served, tmp_path):
    cancel, released = CancelToken(), threading.Event()

    def stall(handler, body):
        first, last = asked(handler, body)
        if last == 4095:
            return False
        part(handler, body, body[first : first + 1000])
        cancel.cancel()
        released.wait(600)
        handler.close_connection = True
        return True

    served.faults[PATH] = stall
    began = time.monotonic()
    with pytest.raises(Cancelled):
        fetch(served, tmp_path, cancel=cancel, stall_seconds=600)
    released.set()
    assert time.monotonic() - began < 60  # long before the stalled connections would be replaced


def test_the_rate_limit_applies_to_all_connections_together(served, content, tmp_path):
    began = time.monotonic()
    fetch(served, tmp_path, rate_limit=len(content) / 1e6 / 0.6)
    assert time.monotonic() - began > 0.4


def test_a_full_disk_while_writing_is_an_error(served, tmp_path, monkeypatch):
    def full(self, *args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transfer.Transfer, "_download_range", full)
    with pytest.raises(FetchError, match="No space left"):
        fetch(served, tmp_path)
    assert not (tmp_path / NAME).exists()


def test_an_existing_file_is_renamed_and_never_overwritten(served, content, tmp_path):
    (tmp_path / NAME).write_bytes(b"mine")
    events = []
    fetch(served, tmp_path, events)
    assert (tmp_path / NAME).read_bytes() == content
    assert (tmp_path / f"{NAME}.unusable1").read_bytes() == b"mine"
    assert any("can't be used" in getattr(event, "message", "") for event in events)


@pytest.mark.parametrize(("age", "strong"), [(0, False), (30, False), (61, True), (10_000, True)])
def test_last_modified_is_a_strong_validator_after_a_minute(served, content, tmp_path, age, strong):
    from email.utils import formatdate

    served.etags[PATH] = ""
    served.headers[PATH] = {"Last-Modified": formatdate(time.time() - age, usegmt=True)}
    fetch(served, tmp_path)
    assert (tmp_path / NAME).read_bytes() == content
    assert (len(served.requests) > 2) == strong
