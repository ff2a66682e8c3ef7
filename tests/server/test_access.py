"""Who may use the page and the API: keys, logins, the files they are in, and what is closed without them."""

import hmac
import http.client
import json
import os
import re
import subprocess
import sys
import urllib.parse

import pytest

from reeltune.errors import ServeError
from reeltune.server import keys as keys_module
from reeltune.server.access import Access
from reeltune.server.keys import Keys, read_keys
from reeltune.server.login import Login
from reeltune.server.serving import Serving, check
from servers import ApiServer, Server

KEY, SECOND = "k" * 20 + "-first", "s" * 20 + "-second"
CLOSED = [
    "/metrics", "/docs", "/openapi.json", "/mcp", "/v1/videos", "/v1/models", "/v1/files/x", "/api/queue", "/api/events",
    "/api/jobs/1", "/api/definitions", "/v1", "/api", "/v1/nothing", "/docs/x", "/v1/videos/", "/v1/%2e%2e/healthz",
]  # fmt: skip
SPELLINGS = [  # that don't lead around the check
    "//v1/videos", "/./v1/videos", "/healthz/../v1/videos", "/healthz/v1/videos", "/V1/videos", "/%76%31/videos", "/v1%2fvideos",
    "/v1;x/videos", "/healthz%00/v1/videos", "/healthz?/v1/videos", "/v1\\videos", "/healthz#/v1/videos", "/%2fv1/videos",
]  # fmt: skip
WRONG = [  # headers that are no valid key
    {}, {"authorization": ""}, {"authorization": "Bearer"}, {"authorization": "Bearer "}, {"authorization": KEY},
    {"authorization": f"Basic {KEY}"}, {"authorization": f"Token {KEY}"}, {"authorization": f"Bearer{KEY}"},
    {"authorization": f"Bearer {KEY}x"}, {"authorization": f"Bearer {KEY[:-1]}"}, {"authorization": f"Bearer {KEY.upper()}"},
    {"authorization": f"Bearer {KEY} {KEY}"}, {"authorization": f"Bearer {KEY},{SECOND}"}, {"authorization": "Bearer None"},
    {"authorization": f"Bearer Bearer {KEY}"}, {"authorization": "Bearer # a note"}, {"authorization": "Bearer é"},
    {"cookie": KEY}, {"cookie": f"authorization=Bearer {KEY}"}, {"cookie": f"reeltune={KEY}"}, {"x-api-key": KEY},
    {"api-key": KEY}, {"proxy-authorization": f"Bearer {KEY}"}, {"x-forwarded-for": "127.0.0.1"}, {"x-real-ip": "127.0.0.1"},
]  # fmt: skip


def key_file(folder, text=f"# keys\n\n{KEY}\n  {SECOND}  \n", mode=0o600):
    path = folder / "keys"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def ask(server, method, path, headers=None, body=None):
    """Status, headers in lower case, body. The path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value.encode("utf-8"))
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server of the API with two keys."""
    folder = tmp_path_factory.mktemp("guarded")
    running = ApiServer(folder / "root", "--api-key-file", str(key_file(folder)))
    yield running.start()
    running.stop()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A server with a page that only has a file of keys."""
    folder = tmp_path_factory.mktemp("page")
    running = Server(folder / "root", "--api-key-file", str(key_file(folder)))
    yield running.start()
    running.stop()


# --- files of keys ----------------------------------------------------------------------------------------------------


def test_a_file_of_keys_is_read(tmp_path):
    keys, warnings = read_keys(key_file(tmp_path))
    assert keys.needed
    assert [keys.contain(key) for key in (KEY, SECOND)] == [True, True]
    assert not any(
        keys.contain(key) for key in ("", "# keys", KEY[:-1], f" {KEY}", f"{KEY}\n{SECOND}", "\ud800", "é" * 20)
    )
    assert warnings == []
    assert KEY not in repr(vars(keys))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o622])
def test_a_file_that_others_can_read_is_reported(tmp_path, mode):
    _, [warning] = read_keys(key_file(tmp_path, mode=mode))
    assert "chmod 600" in warning
    assert KEY not in warning


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no key"),
        ("\n# only a note\n  \n", "has no key"),
        ("short", "is not a key"),
        ("fifteen-letters", "is not a key"),
        (f"{KEY}\nshort\n", "line 2"),
        ("a key with spaces in it", "is not a key"),
        ("ключ-ключ-ключ-ключ", "is not a key"),
        (f"{KEY}\n\ud800".encode("utf-8", "surrogatepass"), "not UTF-8"),
        (b"\xff\xfe" + KEY.encode("utf-16-le"), "not UTF-8"),
        (b"x" * 1_000_001, "more than"),
    ],
    ids=range(10),
)
def test_a_file_without_usable_keys_is_refused(tmp_path, text, problem):
    path = tmp_path / "keys"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    with pytest.raises(ServeError, match=problem) as error:
        read_keys(path)
    assert KEY not in str(error.value)
    assert "fifteen" not in str(error.value)


def test_files_that_are_none_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "nothing", tmp_path, tmp_path / "pipe"):
        with pytest.raises(ServeError, match="--api-key-file"):
            read_keys(path)


def test_every_key_is_compared_in_constant_time(monkeypatch):
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(keys_module.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    keys = Keys([KEY, SECOND, "t" * 30])
    for key, found in ((KEY, True), ("t" * 30, True), ("", False), ("x" * 100_000, False)):
        compared.clear()
        assert keys.contain(key) is found
        assert len(compared) == 3
        assert {len(side) for pair in compared for side in pair} == {32}  # hashes, whose length tells nothing


# --- who may what -----------------------------------------------------------------------------------------------------


def access(*, passwords=None, keys=()):
    held = Keys(keys)
    return Access(Login(passwords or {}, held), held)


def test_without_passwords_and_keys_everybody_may_everything():
    open_access = access()
    assert not open_access.needed
    assert open_access.allows_visitor({})
    assert open_access.allows_program({})


def test_with_keys_programs_need_one():
    closed = access(keys=[KEY])
    assert closed.needed
    assert not closed.allows_visitor({"authorization": f"Bearer {KEY}"})  # the page needs a login
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert closed.allows_program({"authorization": f"{scheme} {KEY}"})
    for headers in WRONG:
        assert not closed.allows_program(headers), headers


def test_with_passwords_alone_no_key_is_valid():
    closed = access(passwords={"ann": "secret"})
    assert closed.needed
    for key in ("", "secret", "ann:secret"):
        assert not closed.allows_program({"authorization": f"Bearer {key}"})
    assert "no API keys" in closed.refusal


@pytest.mark.parametrize(
    "serving", [Serving(host="0.0.0.0"), Serving(host="::"), Serving(host="10.1.2.3"), Serving(share=True)]
)
def test_other_machines_need_a_password_or_a_key(serving, tmp_path):
    with pytest.raises(ServeError, match="nothing protects it"):
        check(serving)
    protected = Serving(serving.host, share=serving.share, api_key_file=key_file(tmp_path))
    found, warnings = check(protected)
    assert found.needed
    assert warnings == []
    assert not protected.trusted
    assert not check(Serving(serving.host, share=serving.share, insecure=True))[0].needed


def test_a_local_server_with_keys_confines_its_jobs(tmp_path):
    assert Serving().trusted
    assert not Serving(api_key_file=key_file(tmp_path)).trusted


@pytest.mark.parametrize("words", [["serve"], ["serve", "--no-page"], ["ui"]], ids=str)
def test_the_commands_refuse_to_serve_others_without_protection(words, tmp_path):
    def run(*more):
        command = [
            sys.executable,
            "-m",
            "reeltune",
            *words,
            "--root",
            str(tmp_path / "root"),
            "--host",
            "0.0.0.0",
            *more,
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    answer = run()
    assert answer.returncode == 1
    assert "nothing protects it" in answer.stderr
    answer = run("--api-key-file", str(key_file(tmp_path, "short-key\n")))
    assert answer.returncode == 1
    assert "is not a key" in answer.stderr
    assert "short-key" not in answer.stdout + answer.stderr


# --- a server with keys -----------------------------------------------------------------------------------------------


def test_only_the_health_is_told_without_a_key(guarded):
    status, _, body = ask(guarded, "GET", "/healthz")
    assert status == 200
    assert str(guarded.root) not in body.decode("utf-8")
    for method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT"):
        for path in CLOSED:
            status, headers, body = ask(guarded, method, path)
            assert status == 401, (method, path)
            assert headers["content-type"] == "application/json"
            if method != "HEAD":
                error = json.loads(body)["error"]
                assert error["type"] == "authentication_error"
                assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("path", SPELLINGS)
def test_no_spelling_of_an_address_leads_around_the_key(guarded, path):
    status, _, body = ask(guarded, "GET", path)
    assert status in (400, 401, 404) or (status, json.loads(body).get("status")) == (200, "ok"), (status, body)
    assert b'"data"' not in body


@pytest.mark.parametrize("headers", WRONG, ids=str)
def test_what_is_no_key_opens_nothing(guarded, headers):
    for path in ("/v1/models", f"/v1/models?key={KEY}&api_key={KEY}&access_token={KEY}&authorization=Bearer%20{KEY}"):
        status, _, body = ask(guarded, "GET", path, headers)
        assert status == 401
        assert KEY not in body.decode("utf-8")


def test_two_keys_in_one_request_are_no_trick(guarded):
    lines = (
        f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nAuthorization: Bearer x\r\n\r\n"
    )
    connection = http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=120)
    connection.connect()
    connection.sock.sendall(lines.encode("ascii"))
    status = int(connection.sock.recv(100).split()[1])
    connection.close()
    assert status in (400, 401)


@pytest.mark.parametrize("key", [KEY, SECOND])
def test_each_key_opens_the_api(guarded, key):
    for scheme in ("Bearer", "bearer"):
        assert ask(guarded, "GET", "/v1/models", {"authorization": f"{scheme} {key}"})[0] == 200
    assert ask(guarded, "GET", "/metrics", {"authorization": f"Bearer {key}"})[0] == 200
    foreign = {"authorization": f"Bearer {key}", "origin": "https://evil.example"}
    assert ask(guarded, "GET", "/v1/models", foreign)[0] == 403


def test_keys_are_neither_logged_nor_answered(guarded):
    headers = {"authorization": f"Bearer {KEY}"}
    for method, path, body in (
        ("GET", "/v1/nothing", None),
        ("POST", "/v1/videos", b"{"),
        ("POST", "/v1/videos", b'{"prompt": 5}'),
        ("GET", "/api/queue", None),
        ("POST", "/mcp", b"{}"),
    ):
        _, answered, content = ask(guarded, method, path, headers, body)
        assert KEY not in json.dumps(answered)
        assert KEY.encode() not in content
    assert KEY not in guarded.log()
    assert SECOND not in guarded.log()


def test_jobs_of_others_name_no_files_outside(guarded, tmp_path):
    secret = tmp_path / "secret.safetensors"
    secret.write_bytes(b"secret")
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    body = {"model": "nano_t2v", "prompt": "x", "activated_loras": [str(secret)]}
    status, _, content = ask(guarded, "POST", "/v1/videos", headers, json.dumps(body).encode())
    assert status == 400
    assert json.loads(content)["error"]["param"] == "activated_loras"


# --- the page of a server that only has keys --------------------------------------------------------------------------


def log_in(server, password, name="anybody"):
    form = urllib.parse.urlencode({"username": name, "password": password}).encode("ascii")
    status, headers, _ = ask(server, "POST", "/login", {"content-type": "application/x-www-form-urlencoded"}, form)
    return status, headers.get("set-cookie", "").partition(";")[0]


def test_a_key_is_the_password_of_the_page(page):
    status, _, body = ask(page, "GET", "/")
    assert status == 401
    assert b"<form" in body
    for wrong in ("", KEY[:-1], f"Bearer {KEY}", "# keys", "é"):
        assert log_in(page, wrong) == (400, "")
    for name in ("anybody", ""):
        status, cookie = log_in(page, KEY, name)
        assert status == 303
        assert KEY not in cookie
    assert ask(page, "GET", "/", {"cookie": cookie})[0] == 200
    assert ask(page, "GET", "/api/queue", {"cookie": cookie})[0] == 200
    foreign = {"cookie": cookie, "origin": "https://evil.example"}
    assert ask(page, "POST", "/api/queue/pause", foreign)[0] == 403
    assert ask(page, "GET", "/api/queue", {"cookie": cookie.partition("=")[0] + "=x"})[0] == 401
    assert ask(page, "GET", "/", {"authorization": f"Bearer {KEY}"})[0] == 401
    assert ask(page, "POST", "/logout", {"cookie": cookie})[0] == 303
    assert ask(page, "GET", "/api/queue", {"cookie": cookie})[0] == 401


def test_the_cookie_is_kept_from_scripts_and_other_sites(page):
    form = urllib.parse.urlencode({"username": "", "password": KEY}).encode("ascii")
    _, headers, _ = ask(page, "POST", "/login", {"content-type": "application/x-www-form-urlencoded"}, form)
    assert re.search(r"; HttpOnly; SameSite=(Lax|Strict)", headers["set-cookie"])


def test_a_page_elsewhere_logs_nobody_in(page):
    form = urllib.parse.urlencode({"username": "", "password": KEY}).encode("ascii")
    status, headers, _ = ask(page, "POST", "/login", {"origin": "https://evil.example"}, form)
    assert status == 403
    assert "set-cookie" not in headers


def test_nothing_of_a_login_is_logged(page):
    log_in(page, f"{KEY}-mistyped")
    assert KEY not in page.log()


def test_passwords_with_keys_leave_the_key_to_programs():
    login = Login({"ann": "secret"}, Keys([KEY]))
    assert login.needed
    assert not login._is_correct(urllib.parse.urlencode({"username": "ann", "password": KEY}).encode())
    assert login._is_correct(b"username=ann&password=secret")
