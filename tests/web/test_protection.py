"""What strangers try on the page: other sites, files of all kinds, odd calls, floods. All over real HTTP."""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import gradio
import numpy as np
import psutil
import pytest
from starlette.applications import Starlette

from reeltune.jobs import Runner
from reeltune.server.connections import WebServer, listen
from reeltune.service.labels import label_of
from reeltune.service.uploads import discard_json_upload
from reeltune.service.workspace import Workspace
from reeltune.web.upload_route import upload_routes
from serving import Server, Window, chromium, module_root, server

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc000000301010018dd8db00000000049454e44ae426082"
)
FILM = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2a film"
SCRIPT = b"<!doctype html><script>fetch('/config')</script>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>fetch("/config")</script></svg>'


def request(server, method, path, headers=None, body=None):
    """Status, headers in lower case, body; whatever they are."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def stream(server, path, pieces, headers, chunked):
    """The status of a body sent in pieces; None where the server has closed the connection before all was sent."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", path, pieces, headers, encode_chunked=chunked)
        return connection.getresponse().status
    except (ConnectionError, http.client.BadStatusLine):
        return None
    finally:
        connection.close()


def form(*files):
    """A multipart body of (name, content) and its headers."""
    boundary = "x" * 20
    body = b""
    for name, content in files:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def upload(server, name, content, headers=None, path="/gradio_api/upload"):
    body, own = form((name, content))
    return request(server, "POST", path, {**own, **(headers or {})}, body)


def call(server, number, data, event=None, session="tests", **more):
    body = {"fn_index": number, "data": data, "event_data": event, "session_hash": session, **more}
    answer = request(
        server, "POST", "/gradio_api/run/predict", {"Content-Type": "application/json"}, json.dumps(body).encode()
    )
    return answer[0], answer[2]


def stored(root):
    return sorted(path for path in (root / "uploads").rglob("*") if path.is_file())


# --- which page asks --------------------------------------------------------------------------------------------


def foreign(port):
    return [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://127.0.0.1:{port + 1}"},  # another page of the same machine
        {"Origin": f"http://localhost:{port}"},  # another name of it, asked by this one
        {"Origin": f"http://127.0.0.1:{port}.evil.example"},
        {"Origin": f"http://127.0.0.1:{port}@evil.example"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:x"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "Cross-Site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        {"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
    ]


def test_no_other_page_changes_anything(server):
    before = stored(server.root)
    for headers in foreign(server.port):
        assert upload(server, "a.png", PNG, headers)[0] == 403, headers
        for path in ("queue/join", "run/predict", "cancel", "reset"):
            answer = request(server, "POST", f"/gradio_api/{path}", {**headers, "Content-Type": "text/plain"}, b"{}")
            assert answer[0] == 403, (path, headers)
        assert request(server, "POST", "/login", headers, b"username=a&password=b")[0] == 403
    assert stored(server.root) == before


def test_the_page_itself_programs_and_people_are_let_in(server):
    own = f"127.0.0.1:{server.port}"
    for headers in (
        {"Origin": f"http://{own}"},
        {"Origin": f"http://{own}", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {},
    ):
        assert upload(server, "a.png", PNG, headers)[0] == 200, headers
    assert (
        upload(server, "a.png", PNG, {"Host": f"[::1]:{server.port}", "Origin": f"http://[::1]:{server.port}"})[0]
        == 200
    )
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert request(server, "GET", "/", link)[0] == 200
    assert request(server, "GET", "/config", link)[0] == 403


def test_no_other_page_reads_anything(server):
    for headers in foreign(server.port)[:10]:
        status, answer, _ = request(server, "GET", "/config", headers)
        assert status == 403, headers
        assert not [name for name in answer if name.startswith("access-control-")]
    preflight = {"Origin": f"http://127.0.0.1:{server.port + 1}", "Access-Control-Request-Method": "POST"}
    status, answer, _ = request(server, "OPTIONS", "/gradio_api/upload", preflight)
    assert status == 403
    assert not [name for name in answer if name.startswith("access-control-")]
    _, answer, _ = request(server, "GET", "/config", {"Origin": f"http://127.0.0.1:{server.port}"})
    assert not [name for name in answer if name.startswith("access-control-")]
    assert answer["cross-origin-resource-policy"] == "same-origin"


ATTACK = """<!doctype html><title>waiting</title><body><script>
const page = %r, steps = [];
const file = () => {
  const form = new FormData();
  form.append('files', new File(['<script>document.title="taken over"<' + '/script>'], 'evil.html', {type: 'text/html'}));
  return form;
};
(async () => {
  for (const options of [{mode: 'no-cors'}, {mode: 'cors'}, {mode: 'no-cors', credentials: 'include'}]) {
    try {
      const answer = await fetch(page + '/gradio_api/upload', {method: 'POST', body: file(), ...options});
      steps.push(answer.type === 'opaque' ? 'opaque' : String(answer.status));
    } catch (error) { steps.push('refused'); }
  }
  try { steps.push(String((await fetch(page + '/config')).status)); } catch (error) { steps.push('refused'); }
  const form = document.createElement('form');
  form.method = 'post'; form.enctype = 'multipart/form-data'; form.action = page + '/gradio_api/upload'; form.target = 'sink';
  const input = document.createElement('input');
  input.type = 'file'; input.name = 'files';
  const files = new DataTransfer();
  files.items.add(new File(['<b>evil</b>'], 'evil.html', {type: 'text/html'}));
  input.files = files.files;
  form.append(input);
  const frame = document.createElement('iframe');
  frame.name = 'sink';
  document.body.append(frame, form);
  frame.onload = () => { if (steps.length === 4) { steps.push('form'); document.title = steps.join(' '); } };
  form.submit();
})();
</script>"""


def test_a_page_on_another_port_fails_at_its_first_step_in_a_browser(chromium, server):
    before = stored(server.root)

    async def hostile(scope, receive, send):
        if scope["type"] == "http":
            body = (ATTACK % server.url).encode()
            headers = [(b"content-type", b"text/html"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    listening = listen("127.0.0.1", 0)
    attacker = WebServer(hostile, listening)
    attacker.start()
    context = chromium.new_context()
    try:
        page = context.new_page()
        asked, answers = [], []
        page.on("request", lambda row: asked.append(row.url))
        page.on("response", lambda answer: answers.append((answer.url, answer.status)))
        page.goto(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        page.wait_for_function("() => document.title.endsWith('form')")
        assert page.title() == "refused refused refused refused form"
        assert len([url for url in asked if url.startswith(server.url)]) >= 5  # it was tried
        assert {status for url, status in answers if url.startswith(server.url)} == {403}
    finally:
        context.close()
        attacker.stop()
    assert stored(server.root) == before


# --- what is open -----------------------------------------------------------------------------------------------

KEPT = {
    ("GET", "/"), ("HEAD", "/"), ("GET", "/config"), ("GET", "/theme.css"), ("GET", "/favicon.ico"), ("GET", "/manifest.json"),
    ("GET", "/robots.txt"), ("GET", "/static/x"), ("GET", "/assets/x"), ("GET", "/svelte/x"), ("GET", "/gradio_api/theme.css"),
    ("GET", "/gradio_api/app_id"), ("GET", "/gradio_api/startup-events"), ("GET", "/gradio_api/heartbeat/x"),
    ("GET", "/gradio_api/queue/data"), ("GET", "/gradio_api/upload_progress"), ("GET", "/gradio_api/file=x"),
    ("HEAD", "/gradio_api/file=x"), ("POST", "/gradio_api/upload"), ("POST", "/gradio_api/queue/join"),
    ("POST", "/gradio_api/cancel"), ("POST", "/gradio_api/reset"), ("POST", "/login"),
}  # fmt: skip


def routes_of_gradio():
    """Every method and path that Gradio answers, its parameters filled in."""
    with gradio.Blocks() as page:
        gradio.Textbox()
    found, routes = set(), list(page.app.routes)
    for route in routes:
        routes += getattr(getattr(route, "original_router", None), "routes", [])  # as newer FastAPI keeps them
        path = re.sub(r"\{[^}]*\}", "x", getattr(route, "path", ""))
        found |= {(method, path) for method in getattr(route, "methods", None) or ()}
    return sorted(found)


def test_of_all_that_gradio_opens_only_what_the_page_needs_is_answered(server):
    routes = routes_of_gradio()
    assert len(routes) > 80
    answered_by_the_api = ("/docs", "/openapi.json")
    closed = [row for row in routes if row not in KEPT and not row[1].startswith(answered_by_the_api)]
    assert {"/gradio_api/process_recording", "/gradio_api/runs", "/gradio_api/openapi.json", "/gradio_api/info"} <= {
        path for _, path in closed
    }
    for method, path in closed:
        status, _, body = request(
            server, method, path, {"Content-Type": "application/json"}, b"{}" if method == "POST" else None
        )
        assert status in (404, 405), (method, path, status, body)
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "CONNECT", "QUATSCH"):
        assert request(server, method, "/config")[0] in (400, 405), method
    for path in (
        "/gradio_api/RUNS",
        "//gradio_api/runs",
        "/gradio_api/%72uns",
        "/gradio_api/runs/",
        "/x/../gradio_api/runs",
        "/redoc",
        "/docs/oauth2-redirect",
    ):
        assert request(server, "GET", path)[0] == 404, path


@pytest.fixture(scope="module")
def protected(tmp_path_factory):
    """A page behind a password, and the cookie of someone logged in."""
    folder = tmp_path_factory.mktemp("protected")
    passwords = folder / "auth"
    passwords.write_text("ann:secret\nbob:päss:wörd\n", encoding="utf-8")
    passwords.chmod(0o600)
    running = Server(folder / "root", "--auth-file", str(passwords)).start()
    yield running
    running.stop()


def log_in(server, name=b"ann", password=b"secret"):
    head = {"Content-Type": "application/x-www-form-urlencoded"}
    return request(server, "POST", "/login", head, b"username=" + name + b"&password=" + password)


def test_without_logging_in_nothing_is_answered(protected):
    assert "chmod" not in protected.log()
    for method, path in routes_of_gradio():
        if path in ("/login", "/login/"):
            continue
        status, _, body = request(protected, method, path, {}, b"{}" if method == "POST" else None)
        assert status in (401, 404, 405), (method, path, status)
        assert b"components" not in body
    assert upload(protected, "a.png", PNG)[0] == 401
    assert stored(protected.root) == []


def test_the_right_password_opens_the_page_until_logging_out(protected):
    for name, password in ((b"ann", b"secret"), (b"bob", "päss:wörd".encode())):
        status, headers, _ = log_in(protected, name, password)
        assert status == 303
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(headers["set-cookie"].split("; "))
        cookie = {"Cookie": headers["set-cookie"].partition(";")[0]}
        assert request(protected, "GET", "/config", cookie)[0] == 200
        assert request(protected, "POST", "/logout", {**cookie, "Sec-Fetch-Site": "cross-site"})[0] == 403
        assert request(protected, "GET", "/config", cookie)[0] == 200
        assert request(protected, "POST", "/logout", cookie)[0] == 303
        assert request(protected, "GET", "/config", cookie)[0] == 401
    for cookie in ("", "x", "=;;=", 'a="\\', "reeltune-00000000=x", "é=é"):
        assert request(protected, "GET", "/config", {"Cookie": cookie.encode("latin-1")})[0] == 401


@pytest.mark.parametrize(
    "body", [b"", b"username=ann", b"username=ann&password=", b"password=secret", b"\xff=\xff", b"username=ann&password=%ff%00",
             b"a" * 20_000, b"username=ann&password=wrong&" + b"x=1&" * 100, b"{}"], ids=lambda body: str(body[:30])
)  # fmt: skip
def test_odd_logins_are_wrong_ones(protected, body):
    assert log_in(protected)[0] == 303  # what was wrong before is forgotten
    assert request(protected, "POST", "/login", {"Content-Type": "text/plain"}, body)[0] == 400


def test_many_wrong_passwords_at_once_are_not_even_looked_at(protected):
    with ThreadPoolExecutor(30) as pool:
        found = list(pool.map(lambda number: log_in(protected, password=b"wrong%d" % number)[0], range(30)))
    assert set(found) == {400, 429}
    assert found.count(429) >= 20
    assert log_in(protected)[0] == 303


def test_people_log_in_with_a_form(chromium, protected):
    context = chromium.new_context()
    try:
        page = context.new_page()
        page.goto(protected.url)
        page.get_by_label("Name").fill("ann")
        page.get_by_label("Password").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("alert").wait_for()
        page.get_by_label("Name").fill("ann")
        page.get_by_label("Password").fill("secret")
        page.get_by_role("button", name="Log in").click()
        page.locator("#generate").wait_for()
        page.locator("#models [data-pick]").first.wait_for()
    finally:
        context.close()


# --- files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.html", SCRIPT), ("x.svg", SVG), ("x.png", SCRIPT), ("x.mp4", SVG), ("x.png", b""), ("x", b"\x7fELF\2\1\1"),
     ("x.js", b"alert(1)"), ("x.xhtml", b"<?xml version='1.0'?>" + SCRIPT), ("x.pdf", b"%PDF-1.4"), ("x.png", PNG[:42])],
    ids=str,
)  # fmt: skip
def test_what_is_no_image_video_or_settings_is_not_taken(server, name, content):
    before = stored(server.root)
    status, headers, body = upload(server, name, content)
    assert status == 415, body
    assert headers["content-type"].startswith("text/plain")
    assert f"{name} " in body.decode()
    assert str(server.root) not in body.decode()
    assert stored(server.root) == before


@pytest.mark.parametrize(
    "name", ["a.html", "a.svg", "a.js", "a", "a.png.html", "CON.png", "x" * 300 + ".png", "<b>.png", "a\u202egnp.html"]
)
def test_files_are_named_by_what_they_hold(server, name):
    status, _, body = upload(server, name, PNG)
    assert status == 200
    (path,) = map(Path, json.loads(body))
    assert path.suffix == ".png"
    assert path.read_bytes() == PNG
    assert path.stem.lower() != "con"
    assert len(path.name.encode()) <= 255
    status, headers, content = request(server, "GET", f"/gradio_api/file={path}".encode().decode("latin-1"))
    assert (status, headers["content-type"], content) == (200, "image/png", PNG)


def test_files_are_served_by_what_they_hold(server):
    outputs, uploads = server.root / "outputs", server.root / "uploads" / "old"
    outputs.mkdir(exist_ok=True)
    uploads.mkdir(parents=True, exist_ok=True)
    for folder in (outputs, uploads):
        (folder / "page.html").write_bytes(SCRIPT)
        (folder / "page.svg").write_bytes(SVG)
        (folder / "page.mp4").write_bytes(SCRIPT)
        (folder / "text.mp4").write_bytes(b"textfree of boxes")
        (folder / "film.html").write_bytes(FILM)
        (folder / "picture.svg").write_bytes(PNG)
    for name in ("page.html", "page.svg", "page.mp4", "text.mp4"):
        assert request(server, "GET", f"/gradio_api/file={outputs / name}")[0] == 403
        status, headers, _ = request(server, "GET", f"/gradio_api/file={uploads / name}")
        assert (status, headers["content-type"]) == (200, "application/octet-stream")
        assert headers["content-disposition"].startswith("attachment")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("sandbox")
    for folder in (outputs, uploads):
        for name, kind in (("film.html", "video/mp4"), ("picture.svg", "image/png")):
            status, headers, _ = request(server, "GET", f"/gradio_api/file={folder / name}")
            assert (status, headers["content-type"], headers["x-content-type-options"]) == (200, kind, "nosniff")
            assert headers["content-security-policy"].startswith("sandbox")


def test_parts_of_videos_are_served_and_odd_names_too(server):
    folder = server.root / "outputs"
    folder.mkdir(exist_ok=True)
    for name in (b"a b#?%41.mp4", "fuchs\u00fc \U0001f98a.mp4".encode(), b"not utf-8 \xff.mp4"):
        path = os.fsencode(folder) + b"/" + name
        Path(os.fsdecode(path)).write_bytes(FILM)
        target = "/gradio_api/file=" + "".join(f"%{byte:02x}" for byte in path)
        assert request(server, "GET", target)[::2] == (200, FILM)
        status, headers, body = request(server, "GET", target, {"Range": "bytes=4-7"})
        assert (status, body, headers["content-range"]) == (206, b"ftyp", f"bytes 4-7/{len(FILM)}")
        assert request(server, "GET", target, {"Range": "bytes=900-"})[0] == 416
        assert request(server, "GET", target, {"Range": "bytes=x"})[0] in (200, 400)
        assert request(server, "HEAD", target)[::2] == (200, b"")


def test_other_kinds_of_files_are_not_waited_for(server):
    folder = server.root / "outputs"
    folder.mkdir(exist_ok=True)
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.mp4").mkdir()
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    (folder / "zero.mp4").symlink_to("/dev/zero")
    for name in ("pipe.mp4", "folder.mp4", "loop.mp4", "zero.mp4", "nothing.mp4", "x" * 5000, "%00.mp4", "~nobody/x"):
        assert request(server, "GET", f"/gradio_api/file={folder / name}")[0] == 404, name


def test_files_follow_the_folder_of_videos_while_the_page_runs(server, tmp_path):
    first, second = server.root / "outputs", tmp_path / "elsewhere"
    first.mkdir(exist_ok=True)
    second.mkdir()
    for folder in (first, second):
        (folder / "moved.mp4").write_bytes(FILM)
    preferences = server.root / "reeltune.json"
    before = preferences.read_bytes() if preferences.exists() else None
    try:
        assert request(server, "GET", f"/gradio_api/file={second / 'moved.mp4'}")[0] == 404
        preferences.write_text(json.dumps({"outputs": str(second)}))
        assert request(server, "GET", f"/gradio_api/file={second / 'moved.mp4'}")[0] == 200
        assert request(server, "GET", f"/gradio_api/file={first / 'moved.mp4'}")[0] == 404
        preferences.write_text(json.dumps({"outputs": "/etc"}))
        for name in ("passwd", "hostname", "hosts", "ssl/openssl.cnf"):
            assert request(server, "GET", f"/gradio_api/file=/etc/{name}")[0] in (403, 404)
    finally:
        preferences.unlink()
        if before is not None:
            preferences.write_bytes(before)


# --- uploads ----------------------------------------------------------------------------------------------------


@pytest.fixture
def workspace(tmp_path):
    root = tmp_path / "root"
    for name in ("uploads", "outputs", "settings", "finetunes"):
        (root / name).mkdir(parents=True)
    return Workspace(root, Runner(root))


class Bounded:
    """A server of the upload routes only, which take a million bytes."""

    def __init__(self, workspace):
        self.root = workspace.root
        listening = listen("127.0.0.1", 0)
        self.port = listening.getsockname()[1]
        self.server = WebServer(Starlette(routes=upload_routes(workspace, 1_000_000)), listening)
        self.server.start()


@pytest.fixture
def bounded(workspace):
    running = Bounded(workspace)
    yield running
    running.server.stop()


def test_equal_content_is_one_file_which_refusing_never_deletes(bounded, workspace):
    first, second = (json.loads(upload(bounded, "a.png", PNG)[2]) for _ in range(2))
    assert first == second
    discard_json_upload(workspace, first[0])
    assert Path(first[0]).read_bytes() == PNG
    settings = json.loads(upload(bounded, "a.json", b'{"prompt": "x"}')[2])
    discard_json_upload(workspace, settings[0])
    assert not Path(settings[0]).exists()
    for path in (workspace.root / "settings" / "x.json", "/etc/passwd", "\0"):
        discard_json_upload(workspace, path)


@pytest.mark.parametrize("chunked", [True, False])
def test_bodies_are_counted_however_they_come(bounded, chunked):
    body, headers = form(("a.png", PNG + bytes(3_000_000)))
    pieces = iter([body[start : start + 50_000] for start in range(0, len(body), 50_000)])
    more = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(body))}
    assert stream(bounded, "/gradio_api/upload", pieces, {**headers, **more}, chunked) in (413, None)
    assert stored(bounded.root) == []


@pytest.mark.parametrize("sent", [50, 200, 100_000, 899_000])
def test_an_upload_that_breaks_off_leaves_nothing(bounded, sent):
    body, headers = form(("a.mp4", FILM + bytes(900_000)))
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", bounded.port), 10) as connection:
        start = f"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n\r\n"
        connection.sendall(start.encode() + body[:sent])
        for _ in range(10_000):
            if sent == 50 or stored(bounded.root):  # the file begins after the header of its part
                break
            request(bounded, "GET", "/")
    bounded.server.stop()  # after it has ended what it does
    assert stored(bounded.root) == []


@pytest.mark.parametrize(
    ("headers", "body"),
    [({}, b""), ({"Content-Type": "text/plain"}, b"x"), ({"Content-Type": "multipart/form-data"}, b"x"),
     ({"Content-Type": "multipart/form-data; boundary="}, b"x"), ({"Content-Type": "multipart/form-data; boundary=" + "y" * 500}, b"x"),
     ({"Content-Type": "multipart/form-data; boundary=y"}, b"garbage"), ({"Content-Type": "multipart/form-data; boundary=y"}, b"--y\r\n" * 50),
     ({"Content-Type": "multipart/form-data; boundary=y"}, b'--y\r\nContent-Disposition: form-data; filename="a.png"\r\n\r\nabc'),
     ({"Content-Type": "multipart/form-data; boundary=y"}, b"--y\r\n" + b"a: b\r\n" * 5000),
     ({"Content-Type": "multipart/form-data; boundary=y"}, b"--y\r\n" + b"a" * 100_000)],
    ids=str,
)  # fmt: skip
def test_odd_uploads_are_refused_in_words(bounded, headers, body):
    status, _, words = request(bounded, "POST", "/gradio_api/upload", headers, body)
    assert 400 <= status < 500, words
    assert words
    assert stored(bounded.root) == []


def test_more_files_than_a_form_has_are_refused(bounded):
    body, headers = form(*[(f"{number}.png", PNG) for number in range(101)])
    assert request(bounded, "POST", "/gradio_api/upload", headers, body)[0] == 413


def test_the_progress_of_an_upload_is_followed_to_its_end(bounded):
    with ThreadPoolExecutor(1) as pool:
        followed = pool.submit(request, bounded, "GET", "/gradio_api/upload_progress?upload_id=abc")
        assert upload(bounded, "a.png", PNG, path="/gradio_api/upload?upload_id=abc")[0] == 200
        status, headers, body = followed.result()
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in body.decode().split("\n\n") if line]
    assert events[-1] == {"msg": "done"}


def big_png(side):
    """A true PNG of gray pixels, small on the disk."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    packer, rows = zlib.compressobj(1), []
    row = bytes(1 + 3 * side)
    for _ in range(side):
        rows.append(packer.compress(row))
    rows.append(packer.flush())
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"".join(rows)) + chunk(b"IEND", b"")


def test_an_image_of_89_megapixels_is_refused_before_it_is_decoded(server):
    content = big_png(9_434)
    process = psutil.Process(server.process.pid)
    upload(server, "a.png", PNG)
    before, peak, stop = process.memory_info().rss, [0], threading.Event()

    def watch():
        while not stop.wait(0.002):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    status, _, words = upload(server, "huge.png", content)
    stop.set()
    watcher.join()
    assert status == 415
    assert b"9434x9434 pixels" in words.replace(b",", b"")
    assert peak[0] - before < 100_000_000


# --- odd calls --------------------------------------------------------------------------------------------------

ODD = [
    None, "", -1, 1e308, True, [], {"a": 1}, "../../etc/passwd\0", "\ud800", 2**70,
    {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}],
    {"path": "http://127.0.0.1:1/x", "meta": {"_type": "gradio.FileData"}}, {"video": {"path": "/etc/passwd", "url": []}}, {"id": [], "settings": 3},
]  # fmt: skip
EVENTS = [
    {}, [], "x", {"do": [], "job": "abc"}, {"do": "page", "page": "1e99"}, {"do": "cancel", "job": 2**70}, {"do": "edit", "job": -1},
    {"do": "open", "name": "../x.mp4"}, {"do": "use", "name": "\0.mp4"}, {"pick": "\ud800"}, {"pick": "nothing"}, {"do": "x" * 9999}, {"job": "12345678901"},
    {"do": "remove", "job": "7"}, {"do": "export"}, {"do": "delete", "name": "x.mp4"}, {"do": "use", "name": ""},
]  # fmt: skip


def page_events(server):
    """The events that the page always has; `buttons`: whether a piece of HTML says which of its buttons was pressed."""
    config = json.loads(request(server, "GET", "/config")[2])
    pieces = {row["id"] for row in config["components"] if row["type"] == "html"}
    events = config["dependencies"]
    return [{**row, "buttons": any(target[0] in pieces for target in row["targets"])} for row in events]


def form_events(server, session):
    """The events of the form that is drawn for a session: opening the page makes a draft, whose change draws the form."""
    opening, changing = [], []
    for event in page_events(server):
        kinds = {target[1] for target in event["targets"]}
        opening += [event] if "load" in kinds else []
        changing += [event] if "change" in kinds else []
    drawn = []
    for event in (*opening, *changing):
        status, body = call(server, event["id"], [None] * len(event["inputs"]), session=session)
        config = json.loads(body).get("render_config") if status == 200 else None
        drawn += config["dependencies"] if config else []
    return drawn


def try_odd_calls(server, event, session):
    count = len(event["inputs"])
    calls = [([odd] * count, None) for odd in ODD]
    calls += [([None] * count, said) for said in (EVENTS if event.get("buttons") else EVENTS[:1])]
    calls += [([None] * length, None) for length in (0, count + 1)]
    for data, said in calls:
        status, body = call(server, event["id"], data, said, session=session)
        assert status in (200, 400, 404), (event["targets"], data, said, body)
        assert b"root:" not in body
        if status == 404:  # the call before has drawn another form
            assert form_events(server, session)


def test_odd_calls_of_every_event_get_words(server):
    events = page_events(server)
    assert len(events) > 10
    for event in events:
        try_odd_calls(server, event, "odd")
    count = len(form_events(server, "first"))
    assert count > 3
    for number in range(count):
        session = f"odd{number}"
        try_odd_calls(server, form_events(server, session)[number], session)
    server.assert_no_faults()


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{", b"\xff", b'{"fn_index": 0}', b'{"fn_index": 99999, "data": [], "session_hash": "s"}',
     b'{"fn_index": "0", "data": [], "session_hash": "s"}', b'{"fn_index": true, "data": [], "session_hash": "s"}',
     b'{"fn_index": 0, "data": {}, "session_hash": "s"}', b'{"fn_index": 0, "data": [], "session_hash": ["s"]}',
     b'{"fn_index": 0, "data": [], "session_hash": ""}', b'{"fn_index": 0, "data": [], "session_hash": "s", "trigger_id": []}',
     b'{"fn_index": 0, "data": [], "session_hash": "s", "batched": "yes", "event_id": 7}', b'{"a":' * 5000, b'{"data": ' + b"9" * 400 + b"}",
     b'{"fn_index": ' + b"9" * 400 + b', "data": [], "session_hash": "s"}', b'{"fn_index": 0, "data": [], "session_hash": "\\ud800"}'],
    ids=lambda body: str(body[:40]),
)  # fmt: skip
def test_odd_bodies_get_words(server, body):
    for path in ("queue/join", "run/predict", "cancel", "reset"):
        status, _, words = request(server, "POST", f"/gradio_api/{path}", {"Content-Type": "application/json"}, body)
        assert status < 500, (path, words)
    server.assert_no_faults()


def test_bodies_of_calls_are_bounded_and_an_event_without_a_session_is_not_waited_for(server):
    pieces = (b"x" * 100_000 for _ in range(100))
    assert stream(server, "/gradio_api/queue/join", pieces, {"Transfer-Encoding": "chunked"}, True) in (413, None)
    status, _, body = request(server, "GET", "/gradio_api/queue/data?session_hash=nobody")
    assert status == 200
    assert b"unexpected_error" in body


# --- paths in what is imported, behind a password ---------------------------------------------------------------


def press(server, cookie, element, event, data):
    """Call the event of a component; returns what it shows."""
    config = json.loads(request(server, "GET", "/config", cookie)[2])
    ids = {row["id"] for row in config["components"] if row["props"].get("elem_id") == element}
    (number,) = [
        row["id"] for row in config["dependencies"] if any(t[0] in ids and t[1] == event for t in row["targets"])
    ]
    body = {"fn_index": number, "data": data, "session_hash": "paths"}
    headers = {**cookie, "Content-Type": "application/json"}
    status, _, shown = request(server, "POST", "/gradio_api/run/predict", headers, json.dumps(body).encode())
    return status, shown.decode()


def bring_in(server, cookie, element, name, value):
    """Upload a JSON file and import it."""
    (path,) = json.loads(upload(server, name, json.dumps(value).encode(), cookie)[2])
    file = {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
    return press(server, cookie, element, "upload", [file])


OUTSIDE = ["/etc/passwd", "../../etc/passwd", "ckpts/../../x.safetensors", "~root/x.safetensors", "/etc/../etc/passwd"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_behind_a_password_nothing_that_is_imported_names_files_outside(protected, path):
    cookie = {"Cookie": log_in(protected)[1]["set-cookie"].partition(";")[0]}
    folder = protected.root / "finetunes"
    for key, value in (
        ("URLs", [path]), ("URLs2", [path]), ("modules", [[path]]), ("modules", [path]), ("preload_URLs", [path]),
        ("loras", [path]), ("components", path), ("VAE_URLs", [path]), ("text_encoder_URLs", path),
    ):  # fmt: skip
        model = {"name": "X", "architecture": "t2v", "URLs": ["https://example.org/x.safetensors"], key: value}
        status, shown = bring_in(protected, cookie, "own-import", "outside.json", {"model": model})
        assert status == 200
        assert f"model.{key}: " in shown, shown
        assert "outside" in shown
    for key in ("image_start", "image_refs", "video_guide", "activated_loras"):
        value = {"model": {"name": "X", "architecture": "t2v", "URLs": "t2v"}, key: [path] if "s" in key[-1] else path}
        label = f"“{label_of(key)}”: "  # the page's word for a key
        assert label in bring_in(protected, cookie, "own-import", "outside.json", value)[1]
        jobs = {"jobs": [{"definition": "i2v", "settings": {"prompt": "x", key: path}}]}
        shown = bring_in(protected, cookie, "import-queue", "queue.json", jobs)[1]
        assert label in shown
        assert "outside" in shown
    assert not list(folder.glob("*.json"))
    assert b"root:" not in shown.encode()


def test_behind_a_password_what_names_own_files_and_urls_is_imported(protected):
    cookie = {"Cookie": log_in(protected)[1]["set-cookie"].partition(";")[0]}
    model = {"name": "Own", "architecture": "t2v", "URLs": ["https://example.org/x.safetensors", "ckpts/x.safetensors"]}
    status, shown = bring_in(
        protected, cookie, "own-import", "own.json", {"model": model, "image_start": "uploads/a.png"}
    )
    assert status == 200
    assert "outside" not in shown
    assert (protected.root / "finetunes" / "own.json").is_file()
    model["URLs"] = ["/etc/passwd"]
    changed = json.dumps({"model": model})
    assert "model.URLs: " in press(protected, cookie, "own-save", "click", ["own", "Own", "", changed])[1]
    assert "/etc/passwd" not in (protected.root / "finetunes" / "own.json").read_text()
    (protected.root / "finetunes" / "own.json").unlink()


# --- floods -----------------------------------------------------------------------------------------------------


class Poor(Server):
    """A server that may open 256 files and connections."""

    def command(self):
        return ["sh", "-c", 'ulimit -n 256 && exec "$@"', "sh", *super().command()]


def test_a_flood_of_connections_neither_fills_the_log_nor_keeps_anybody_out(tmp_path):
    server = Poor(tmp_path / "root").start()
    before = len(server.log().splitlines())
    try:
        with ExitStack() as opened:
            for number in range(600):
                connection = opened.enter_context(socket.socket())
                connection.settimeout(10)
                connection.connect(("127.0.0.1", server.port))
                if number % 2:
                    connection.sendall(
                        b"GET / HTTP/1.1\r\nHost: x\r\n" if number % 3 else b"\x16\x03\x01 garbage\r\n\r\n"
                    )
                if number % 100 == 99:
                    assert request(server, "GET", "/")[0] == 200
                    assert upload(server, "a.png", PNG)[0] == 200
        assert request(server, "GET", "/config")[0] == 200
        assert len(server.log().splitlines()) - before < 20, server.log()[:2000]
    finally:
        server.stop()


def test_a_flood_of_bad_requests_writes_few_lines(server):
    before = len(server.log().splitlines())
    for number in range(300):
        with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
            connection.sendall(b"\0\1garbage %d\r\n\r\n" % number)
            connection.recv(100)
    assert len(server.log().splitlines()) - before < 10


# --- starting ---------------------------------------------------------------------------------------------------


def start(*words, **more):
    command = [sys.executable, "-m", "reeltune", "ui", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **more)


def test_odd_password_files_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bytes").write_bytes(b"ann:\xff\xfe\n")
    (tmp_path / "long").write_bytes(b"ann:secret\n" * 100_000)
    for path in (
        "/dev/zero",
        str(tmp_path / "pipe"),
        str(tmp_path),
        str(tmp_path / "bytes"),
        str(tmp_path / "long"),
        "\x01nothing",
    ):
        answer = start("--auth-file", path, "--root", str(tmp_path / "root"))
        assert answer.returncode == 1
        assert "--auth-file" in answer.stderr
        assert "Traceback" not in answer.stderr


def test_an_address_of_another_machine_is_refused_in_words(tmp_path):
    answer = start("--host", "192.0.2.1", "--insecure", "--root", str(tmp_path / "root"))
    assert answer.returncode == 1
    assert "192.0.2.1 is not an address of this machine" in answer.stderr
