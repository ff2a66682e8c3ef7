"""Requests that take memory, time or connections, requests of foreign web pages, and MCP with anything but MCP."""

import asyncio
import gzip
import http.client
import json
import socket
import threading
import zlib
from random import Random

import psutil
import pytest
from api_serving import QUICK, api_server, error_of
from api_serving import http as client
from inside import JSON, checked_error, inside, refusal_of

from mutations import mutated_json
from reeltune.api import bodies
from reeltune.api.errors import ApiError
from reeltune.api.memory import BodyMemory

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc000000301010018dd8db00000000049454e44ae426082"
)
FORM = {"content-type": "multipart/form-data; boundary=b"}
URLENCODED = {"content-type": "application/x-www-form-urlencoded"}
MCP = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
FIELD = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
FILE = b'--b\r\nContent-Disposition: form-data; name="%s"; filename="x.png"\r\n\r\n%s\r\n'
MEMORY = 1_000_000_000  # bytes that the server may take beyond what it has at rest


# --- slow bodies ------------------------------------------------------------------------------------------------------

BEGUN = [  # a path, headers, and what is sent before the sender falls silent
    ("/v1/videos", JSON, b'{"prompt": '),
    ("/v1/videos", URLENCODED, b"prompt=x&"),
    ("/v1/videos", FORM, b"--b\r\nContent-Disposition: form-data; na"),
    ("/v1/videos", FORM, FILE[:-2] % (b"image_start", PNG)),
    ("/v1/videos/sync", JSON, b"{"),
    ("/v1/files", FORM, FILE[:-2] % (b"file", PNG)),
    ("/api/jobs/1/move", JSON, b"{"),
    ("/mcp", JSON, b'{"jsonrpc": '),
    ("/mcp", {**JSON, "mcp-protocol-version": "2099-01-01"}, b'{"jsonrpc": '),
    ("/v1/videos", JSON, b""),
]


@pytest.mark.parametrize(("path", "headers", "begun"), BEGUN)
def test_a_body_that_stops_is_not_waited_for(inside, monkeypatch, path, headers, begun):
    monkeypatch.setattr(bodies, "_STALL_SECONDS", 0.05)
    pieces = [begun]

    async def receive():
        if pieces:
            return {"type": "http.request", "body": pieces.pop(), "more_body": True}
        return await asyncio.sleep(60)

    status, body = inside.call(path, headers, receive)
    assert status == 408
    assert checked_error(body)["code"] == "too_slow"
    assert leftovers(inside) == []


@pytest.mark.parametrize(("path", "headers", "begun"), BEGUN)
def test_a_body_that_trickles_is_not_waited_for(inside, monkeypatch, path, headers, begun):
    monkeypatch.setattr(bodies, "_FIRST_SECONDS", 0.1)
    pieces = [begun]

    async def receive():
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": pieces.pop() if pieces else b" ", "more_body": True}

    status, body = inside.call(path, headers, receive)
    assert status == 408
    assert checked_error(body)["code"] == "too_slow"
    assert leftovers(inside) == []


@pytest.mark.parametrize(("path", "headers", "begun"), BEGUN)
def test_a_body_that_breaks_off_is_refused(inside, path, headers, begun):
    pieces = [{"type": "http.disconnect"}, {"type": "http.request", "body": begun, "more_body": True}]

    async def receive():
        return pieces.pop()

    status, body = inside.call(path, headers, receive)
    assert status == 400
    assert checked_error(body)["code"] == "incomplete"
    assert leftovers(inside) == []


def leftovers(inside):
    """Files that were received only in part."""
    return [path.name for path in (inside.root / "uploads").rglob("*") if path.is_file()]


# --- large bodies -----------------------------------------------------------------------------------------------------


def test_a_length_is_refused_before_anything_is_read(inside):
    async def receive():
        raise AssertionError("The body was read.")

    for path, headers in (("/v1/videos", JSON), ("/v1/videos", URLENCODED), ("/api/jobs/1/move", JSON), ("/mcp", JSON)):
        status, body = inside.call(path, {**headers, "content-length": "100000001"}, receive)
        assert status == 413
        assert checked_error(body)["code"] == "too_large"
    for path in ("/v1/videos", "/v1/files"):
        status, body = inside.call(path, {**FORM, "content-length": "9" * 12}, receive)
        assert status == 413
        checked_error(body)


@pytest.mark.parametrize("length", ["-1", "+5", "0x5", "5.0", "", "²", "9" * 5000, "1 1", "nan", "1_0"])
def test_lengths_that_are_no_numbers_are_not_believed(inside, length):
    async def receive():
        return {"type": "http.request", "body": b"{", "more_body": False}

    for path, headers in (("/v1/videos", JSON), ("/v1/videos", FORM), ("/v1/files", FORM), ("/mcp", JSON)):
        status, body = inside.call(path, {**headers, "content-length": length}, receive)
        assert status == 400
        checked_error(body)


def test_a_body_without_a_length_is_limited_too(inside, monkeypatch):
    monkeypatch.setattr(bodies, "MAX_JSON_BYTES", 5000)
    count = [0]

    async def receive():
        count[0] += 1
        return {"type": "http.request", "body": b" " * 1000, "more_body": True}

    for headers in (JSON, URLENCODED):
        count[0] = 0
        status, body = inside.call("/v1/videos", headers, receive)
        assert status == 413
        assert checked_error(body)["code"] == "too_large"
        assert count[0] == 6


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": [' + b"{}," * 300_000 + b"{}]}",
        b'{"a": [' + b"[]," * 300_000 + b"[]]}",
        b"[" * 300_000,
        b'{"a":' * 300_000,
        b'{"settings": {' + b",".join(b'"k%d": 1' % number for number in range(300_000)) + b"}}",
        b"," * 300_000,
    ],
    ids=["objects", "lists", "brackets", "levels", "keys", "commas"],
)
def test_a_body_of_many_small_values_is_refused_before_it_is_parsed(inside, text):
    for path in ("/v1/videos", "/mcp"):
        answer = inside.ask("POST", path, text, JSON)
        assert answer.status_code == 413
        assert refusal_of(answer)["code"] == "too_large"


def test_all_bodies_together_are_limited(inside, monkeypatch):
    memory = BodyMemory(10_000)
    monkeypatch.setattr(bodies, "_MEMORY", memory)
    answer = inside.ask("POST", "/v1/videos", b" " * 10_001, JSON)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert answer.json()["error"]["code"] == "too_busy"
    form = FIELD % (b"prompt", b"x" * 10_001) + b"--b--\r\n"
    assert inside.ask("POST", "/v1/videos", form, FORM).status_code == 503
    with memory.share() as share:
        share.grow_to(9000)
        share.grow_to(8000)
        assert inside.ask("POST", "/v1/videos", b" " * 1001, JSON).status_code == 503
        assert inside.ask("POST", "/v1/videos", b" " * 1000, JSON).status_code == 400
        with pytest.raises(ApiError):
            share.grow_to(10_001)
    assert memory.taken == 0
    assert inside.ask("POST", "/v1/videos", b" " * 9000, JSON).status_code == 400


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "compress", "gzip, gzip", "x", "GZIP"])
def test_compressed_bodies_are_refused(inside, encoding):
    plain = json.dumps({**QUICK, "prompt": "x"}).encode()
    for path, headers in (("/v1/videos", JSON), ("/v1/videos", FORM), ("/v1/files", FORM), ("/mcp", JSON)):
        for content in (plain, gzip.compress(plain), zlib.compress(bytes(10_000_000))):
            answer = inside.ask("POST", path, content, {**headers, "content-encoding": encoding})
            assert answer.status_code == 415
            assert refusal_of(answer)["param"] == "content-encoding"
    assert inside.queue.jobs() == []


# --- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (FORM, b"".join(FIELD % (b"f%d" % number, b"x") for number in range(5000)) + b"--b--\r\n"),
        (FORM, b"".join(FILE % (b"f%d" % number, PNG) for number in range(150)) + b"--b--\r\n"),
        (FORM, b"--b\r\n" + b"".join(b"x-%d: y\r\n" % number for number in range(5000)) + b"\r\nx\r\n--b--\r\n"),
        (FORM, b'--b\r\nContent-Disposition: form-data; name="' + b"x" * 500_000 + b'"\r\n\r\nx\r\n--b--\r\n'),
        (FORM, b"--b\r\n" + b"x" * 500_000 + b": y\r\n\r\nx\r\n--b--\r\n"),
        (FORM, FIELD % (b"prompt", b"x") + FIELD % (b"prompt", b"y") + b"--b--\r\n"),
        (FORM, FIELD % (b"prompt", b"x")),
        (FORM, FIELD % (b"prompt", b"x") + b"--b\r\n"),
        (FORM, FIELD % (b"prompt", b"x") + b"--b\r\nContent-Disp"),
        (FORM, FIELD[:-2] % (b"prompt", b"x")),
        (FORM, b""),
        (FORM, b"--b--\r\n"),
        (FORM, b"--c\r\n\r\nx\r\n--c--\r\n"),
        (FORM, b"x" * 100_000),
        (FORM, b"\r\n" * 100_000),
        (FORM, FIELD % (b"settings" + b"[a]" * 50, b"x") + b"--b--\r\n"),
        (FORM, FIELD % (b"settings[a]", b"x") + FIELD % (b"settings", b"x") + b"--b--\r\n"),
        (FORM, FIELD % (b"a[][][]", b"x") + b"--b--\r\n"),
        (FORM, FIELD % (b"", b"x") + b"--b--\r\n"),
        (FORM, FIELD % (b"__proto__[x]", b"x") + b"--b--\r\n"),
        ({"content-type": "multipart/form-data"}, b"--b--\r\n"),
        ({"content-type": "multipart/form-data; boundary="}, b"--b--\r\n"),
        ({"content-type": "multipart/form-data; boundary=" + "b" * 5000}, b"--b--\r\n"),
        ({"content-type": 'multipart/form-data; boundary="b\r'}, b"--b--\r\n"),
        ({"content-type": "multipart/form-data; boundary*=utf-8''b"}, b"--b--\r\n"),
        ({"content-type": "multipart/form-data; " + "a=b; " * 5000}, b"--b--\r\n"),
        (URLENCODED, b"&".join(b"f%d=x" % number for number in range(5000))),
        (URLENCODED, b"&" * 1_000_000),
        (URLENCODED, b"a" + b"[a]" * 100_000 + b"=x"),
        (URLENCODED, b"=" * 100_000),
        (URLENCODED, b"%" * 100_000),
        (URLENCODED, b"\xff=\xff"),
        (URLENCODED, b"prompt=x&prompt=y"),
        (URLENCODED, b"%00=%00"),
    ],
    ids=range(34),
)
def test_odd_forms_are_refused(inside, headers, body):
    for path in ("/v1/videos", "/v1/files", "/api/jobs/1/move"):
        refusal_of(inside.ask("POST", path, body, headers))
    assert inside.queue.jobs() == []
    assert [path for path in (inside.root / "uploads").iterdir() if path.name.startswith(".")] == []


def test_damaged_forms_are_refused_or_make_a_job(inside):
    random = Random(7)
    whole = FIELD % (b"prompt", b"x") + FIELD % (b"model", b"nano_i2v") + FIELD % (b"settings[seed]", b"7")
    whole += FIELD % (b"num_inference_steps", b"1") + FILE % (b"image_start", PNG) + b"--b--\r\n"
    assert inside.ask("POST", "/v1/videos", whole, FORM).status_code == 200
    for _ in range(1000):
        damaged = bytearray(whole)
        for _ in range(random.choice((1, 1, 2, 5))):
            at = random.randrange(len(damaged))
            damaged[at : at + random.choice((0, 1, 1, 4))] = random.choice(
                (b"", b"\r\n", b"--b", b"--b--", b"\0", b"\xff", b'"', b"[", b"]", b"; filename=x", random.randbytes(3))
            )
        answer = inside.ask("POST", "/v1/videos", bytes(damaged), FORM)
        if answer.status_code != 200:
            refusal_of(answer)
    assert [path for path in (inside.root / "uploads").iterdir() if path.name.startswith(".")] == []


# --- foreign pages ----------------------------------------------------------------------------------------------------

FOREIGN = [
    {"origin": "https://evil.example"}, {"origin": "null"}, {"origin": "http://localhost:1"}, {"origin": "http://localhost.evil.example"},
    {"origin": "http://evil.example", "x-forwarded-host": "localhost"}, {"origin": "file://"}, {"origin": ""},
    {"origin": "http://localhost@evil.example"}, {"origin": "http://LOCALHOST.evil"}, {"origin": "*"},
    {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"sec-fetch-site": "x"}, {"sec-fetch-site": ""},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
    {"host": "evil.example"}, {"host": "localhost.evil.example"}, {"host": "127.0.0.1.nip.io"}, {"host": ""}, {"host": "evil.example:7860"},
    {"host": "0.0.0.0"}, {"host": "[::ffff:127.0.0.1]"}, {"host": "192.168.1.1"}, {"host": "evil.example@localhost"},
]  # fmt: skip
READS = [
    "/v1/videos", "/v1/models", "/v1/videos/video_1", "/v1/videos/video_1/content", "/v1/files/x", "/api/queue", "/api/events", "/api/jobs/1",
    "/api/definitions", "/api/definitions/nano_t2v/plan", "/metrics", "/openapi.json", "/mcp", "/healthz", "/v1/nothing",
]  # fmt: skip
SENT_BY_PAGES = [  # what a page may send to another site without asking it first
    ({"content-type": "text/plain"}, json.dumps({**QUICK, "prompt": "x"}).encode()),
    (URLENCODED, b"model=nano_t2v&prompt=x"),
    (URLENCODED, json.dumps({**QUICK, "prompt": "x"}).encode()),
    (FORM, FIELD % (b"model", b"nano_t2v") + FIELD % (b"prompt", b"x") + b"--b--\r\n"),
    (JSON, json.dumps({**QUICK, "prompt": "x"}).encode()),
    ({}, json.dumps({**QUICK, "prompt": "x"}).encode()),
]
CHANGES = [
    ("POST", "/v1/videos"), ("POST", "/v1/videos/sync"), ("POST", "/v1/files"), ("POST", "/v1/videos/video_1/remix"), ("POST", "/mcp"),
    ("DELETE", "/v1/videos/video_1"), ("POST", "/api/queue/pause"), ("POST", "/api/queue/resume"), ("POST", "/api/jobs/1/cancel"),
    ("POST", "/api/jobs/1/move"), ("POST", "/api/jobs/1/retry"), ("DELETE", "/api/jobs/1"),
]  # fmt: skip


@pytest.mark.parametrize("foreign", FOREIGN, ids=str)
def test_a_foreign_page_reads_and_changes_nothing(inside, foreign):
    job = inside.queue.add("nano_t2v", {"prompt": "x"})
    for path in READS:
        answer = inside.ask("GET", path, headers=foreign)
        assert answer.status_code in (403, 421), path
        refusal_of(answer)
    for method, path in CHANGES:
        for headers, body in SENT_BY_PAGES:
            answer = inside.ask(method, path, body, {**headers, **foreign})
            assert answer.status_code in (403, 421), path
            refusal_of(answer)
    for path in ("/v1/videos", "/mcp"):
        asking = {**foreign, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
        answer = inside.ask("OPTIONS", path, headers=asking)
        assert answer.status_code in (403, 421)
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert list(inside.queue.states()) == [job.id]
    assert not inside.queue.paused


def test_answers_are_kept_from_other_sites(inside):
    for path in READS:
        if path not in ("/api/events", "/mcp"):
            answer = inside.ask("GET", path, headers={"origin": "http://localhost"})
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert not [name for name in answer.headers if name.startswith("access-control")]


# --- a real server ----------------------------------------------------------------------------------------------------


def exchange(server, *pieces, read=True):
    """What the server answers to bytes on a connection of their own."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        received = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            while read and (data := connection.recv(65536)):
                received += data
        except OSError:  # it has had enough
            pass
        return received


def status_of(received):
    return int(received.split(b" ", 2)[1]) if received.startswith(b"HTTP/1.1 ") else None


HEAD = b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = json.dumps({**QUICK, "prompt": "a smuggled job"}).encode()


@pytest.mark.parametrize(
    "request_bytes",
    [
        HEAD + b"Content-Length: 10\r\n\r\n" + BODY,  # shorter than the body: the rest would be the next request
        HEAD + b"Content-Length: %d\r\n\r\n" % (len(BODY) + 50) + BODY,  # longer
        HEAD + b"Content-Length: %d\r\nContent-Length: 5\r\n\r\n" % len(BODY) + BODY,
        HEAD + b"Content-Length: -5\r\n\r\n" + BODY,
        HEAD + b"Content-Length: 1e3\r\n\r\n" + BODY,
        HEAD + b"Content-Length: %s\r\n\r\n" % (b"9" * 5000) + BODY,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + BODY,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % (len(BODY) * 2) + BODY + b"\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n" + BODY,
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n",
        HEAD + b"".join(b"x-%d: y\r\n" % number for number in range(20_000)) + b"\r\n",
        HEAD + b"x: " + b"y" * 1_000_000 + b"\r\n\r\n",
        HEAD + b"Host: evil.example\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY,
        HEAD + b" folded\r\n\r\n",
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v1/videos HTTP/1.0\r\n\r\n" + BODY,
        b"POST /v1/videos HTTP/9.9\r\nHost: localhost\r\n\r\n" + BODY,
        b"POST http://evil.example/v1/videos HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 2\r\n\r\n{}",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0" * 1000,
        b"GET\r\n\r\n",
        b"\r\n" * 1000,
    ],
    ids=range(24),
)
def test_odd_requests_add_no_job(api_server, client, request_bytes):
    status = status_of(exchange(api_server, request_bytes))
    assert status is None or 400 <= status < 500
    assert client.get("/healthz").status_code == 200
    assert client.get("/v1/videos").json()["data"] == []


def test_the_memory_of_the_server_is_bounded(api_server):
    process = psutil.Process(api_server.process.pid)
    rest = process.memory_info().rss
    image = b'{"model": "nano_i2v", "prompt": "x", "image_start": "data:image/png;base64,' + b"A" * 96_000_000 + b'"}'
    small = b'{"model": "nano_t2v", "prompt": "x", "settings": [' + b"{}," * 30_000_000 + b"{}]}"
    text = FIELD % (b"prompt", b"x" * 45_000_000) + b"--b--\r\n"
    query = b"prompt=" + b"x" * 90_000_000
    requests = [
        ("/v1/videos", JSON, image), ("/v1/videos", JSON, small), ("/v1/videos", FORM, text), ("/v1/videos", URLENCODED, query),
        ("/mcp", MCP, small), ("/mcp", MCP, image), ("/v1/files", FORM, text), ("/v1/videos", JSON, image), ("/v1/videos", JSON, image),
    ]  # fmt: skip
    statuses, errors = [], []

    def send(path, headers, body):
        connection = http.client.HTTPConnection("127.0.0.1", api_server.port, timeout=120)
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            statuses.append(answer.status)
            errors.append(json.loads(answer.read())["error"])
        except ConnectionError:  # refused before all was sent
            statuses.append(None)
        finally:
            connection.close()

    threads = [threading.Thread(target=send, args=request) for request in requests]
    for thread in threads:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in threads):
        most = max(most, process.memory_info().rss)
        threads[0].join(0.02)
        next((thread for thread in threads if thread.is_alive()), threads[0]).join(0.02)
    assert len(statuses) == len(requests)
    assert set(statuses) <= {400, 413, 503, None}
    assert most - rest < MEMORY, f"{(most - rest) / 1e6:.0f} MB"


def test_many_events_are_followed_by_a_limited_number(api_server, client):
    connections = []
    try:
        for _ in range(130):
            connection = socket.create_connection(("127.0.0.1", api_server.port), timeout=30)
            connections.append(connection)
            connection.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        statuses = [status_of(connection.recv(1000)) for connection in connections]
        assert statuses.count(200) <= 110
        assert set(statuses) == {200, 503}
        assert client.get("/healthz").status_code == 200
    finally:
        for connection in connections:
            connection.close()


# --- MCP --------------------------------------------------------------------------------------------------------------


def call(client, tool, arguments, **headers):
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    return client.post("/mcp", content=json.dumps(message), headers={**MCP, **headers})


def test_damaged_messages_are_answered_with_errors(client):
    random = Random(7)
    arguments = {"model": "nano_t2v", "prompt": "x", "settings": {"seed": 7, "activated_loras": ["x"]}}
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "generate", "arguments": arguments},
    }
    client.post("/api/queue/pause")  # so that valid ones wait
    for _ in range(300):
        answer = client.post(
            "/mcp", content=mutated_json(random, message, ("id", "method", "params", "_meta")), headers=MCP
        )
        assert answer.status_code in (200, 202, 400, 413), answer.text
        if answer.status_code >= 400:
            assert isinstance(answer.json()["error"]["message"], str)
    for video in client.get("/v1/videos?limit=100").json()["data"]:
        client.delete(f"/v1/videos/{video['id']}")
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("generate", {"model": "nano_t2v", "prompt": "x", "settings": {"seed": 10**400}}),
        ("generate", {"model": "nano_t2v", "prompt": "x", "settings": {"activated_loras": ["/etc/passwd"]}}),
        ("generate", {"model": "nano_t2v", "prompt": "x", "settings": {"activated_loras": ["http://127.0.0.1/x"]}}),
        ("generate", {"model": "nano_i2v", "prompt": "x", "settings": {"image_start": "/etc/passwd"}}),
        ("generate", {"model": "nano_i2v", "prompt": "x", "settings": {"image_start": "http://127.0.0.1/x"}}),
        ("generate", {"model": "nano_i2v", "prompt": "x", "settings": {"input_reference": "../x"}}),
        ("generate", {"model": "../x", "prompt": "x"}),
        ("generate", {"model": 5, "prompt": None}),
        ("generate", {"model": "nano_t2v", "prompt": "x", "settings": "x"}),
        ("generate", {"model": "nano_t2v", "prompt": "x", "settings": {"prompt": "y"}}),
        ("get_job", {"id": "../../x"}),
        ("get_job", {"id": "video_" + "9" * 400}),
        ("cancel_job", {"id": "video_0"}),
        ("get_model", {"model": "../../x"}),
        ("nothing", {}),
        ("__init__", {}),
    ],
    ids=range(16),
)
def test_tools_refuse_in_words(client, tool, arguments):
    answer = call(client, tool, arguments)
    assert answer.status_code == 200
    result = json.loads(answer.text.partition("data: ")[2])["result"]
    assert result["isError"]
    assert "Traceback" not in answer.text
    assert client.get("/v1/videos").json()["data"] == []


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH", "OPTIONS", "HEAD"])
def test_mcp_opens_no_streams(client, method):
    """A stream on which nothing is sent would only take a connection."""
    answer = client.request(method, "/mcp", headers={"accept": "text/event-stream"}, timeout=10)
    assert answer.status_code == 405
    if method != "HEAD":
        error_of(answer, 405)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b", ""]
)
def test_mcp_takes_json_only(client, kind):
    answer = client.post("/mcp", content=b"{}", headers={**MCP, "content-type": kind})
    assert error_of(answer, 415)["param"] == "content-type"


def test_nothing_went_wrong_in_the_server(api_server):
    assert "Traceback" not in api_server.log()
