"""Who may reach the page, and which files: tried over real HTTP, with real tricks."""

import http.client
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from reeltune.errors import ServeError
from reeltune.server.serving import Serving, check
from servers import run_alone
from serving import Server, module_root, server

FILM = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2a film"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc000000301010018dd8db00000000049454e44ae426082"
)


@pytest.mark.parametrize(
    "serving", [Serving(host="0.0.0.0"), Serving(host="192.168.1.5"), Serving(host="::"), Serving(share=True)]
)
def test_others_are_let_in_with_a_password_or_not_at_all(serving, tmp_path):
    with pytest.raises(ServeError, match="nothing protects it"):
        check(serving)
    path = tmp_path / "auth"
    path.write_text("ann:secret\n# a note\nbob:with:colons\n", encoding="utf-8")
    access, _ = check(Serving(serving.host, None, serving.share, path))
    assert access.needed
    for name, password in (("ann", "secret"), ("bob", "with:colons"), ("ann", "with:colons")):
        body = f"username={name}&password={quote(password)}".encode()
        token = run_alone(access.login.attempt(body, "127.0.0.1"))
        assert bool(token) == (name == "bob" or password == "secret")
    access, warnings = check(Serving(serving.host, None, serving.share, None, True))
    assert (access.needed, warnings) == (False, [])
    assert not serving.local


@pytest.mark.parametrize("text", ["", "ann", "ann:", ":secret", "# only a note"])
def test_an_auth_file_that_protects_nothing_is_refused(text, tmp_path):
    path = tmp_path / "auth"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ServeError, match="name:password"):
        check(Serving(auth_file=path))
    with pytest.raises(ServeError, match="doesn't exist"):
        check(Serving(auth_file=tmp_path / "nothing"))


@pytest.mark.parametrize("words", [["ui", "--host", "0.0.0.0"], ["ui", "--share"]], ids=str)
def test_the_command_refuses_at_start(words, tmp_path):
    answer = subprocess.run(
        [sys.executable, "-m", "reeltune", *words, "--root", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert answer.returncode == 1
    assert "nothing protects it" in answer.stderr
    assert list(tmp_path.iterdir()) == []


def raw(server, target, host=None):
    """A request whose path is sent as it stands."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        connection.putrequest("GET", target, skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{server.port}")
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_files_outside_of_outputs_and_uploads_are_never_served(server):
    root = server.root
    for folder in ("outputs", "uploads", "finetunes"):
        (root / folder).mkdir(exist_ok=True)
    secret = b"nobody should read this"
    (root / "secret.txt").write_bytes(secret)
    (root / "reeltune.json").write_bytes(b'{"note": "' + secret + b'"}')
    (root / "finetunes" / "x.txt").write_bytes(secret)
    (root.parent / "outside.txt").write_bytes(secret)
    (root / "outputs-of-others").mkdir(exist_ok=True)
    (root / "outputs-of-others" / "x.txt").write_bytes(secret)
    (root / "outputs" / "link.mp4").symlink_to(root / "secret.txt")
    (root / "outputs" / "film.mp4").write_bytes(FILM)
    assert server.ask(f"/gradio_api/file={root}/outputs/film.mp4") == (200, FILM)
    outputs = f"{root}/outputs"
    tricks = [
        f"{root}/secret.txt", f"{root}/reeltune.json", f"{root}/finetunes/x.txt", f"{root}/reeltune.sqlite",
        f"{outputs}/../secret.txt", f"{outputs}/%2e%2e/secret.txt", f"{outputs}/..%2fsecret.txt", f"{outputs}/%252e%252e/secret.txt",
        f"{outputs}/....//secret.txt", f"{outputs}//../secret.txt", f"{outputs}/./../secret.txt", f"{outputs}/x/../../secret.txt",
        f"{outputs}/..\\secret.txt", f"{outputs}%2f..%2fsecret.txt", f"{outputs}-of-others/x.txt", f"{outputs}/link.mp4",
        f"{outputs}/film.mp4/../../secret.txt", f"{outputs}/film.mp4%00.txt", f"{outputs}/%00/../secret.txt",
        f"{root.parent}/outside.txt", "/etc/passwd", "etc/passwd", "../../../../etc/passwd", "file:///etc/passwd", "/proc/self/environ",
        "/proc/self/cwd/secret.txt", "~/.bashrc", "secret.txt", "./secret.txt", "outputs/../secret.txt", "//etc/passwd", "\\\\host\\share",
        f"http://127.0.0.1:{server.port}/config", "https://example.org/", "HTTP://example.org", "%68ttp://example.org/",
    ]  # fmt: skip
    for trick in tricks:
        for prefix in (
            "/gradio_api/file=",
            "/file=",
            "/gradio_api/file/",
            "/gradio_api/proxy=",
            "/static/",
            "/assets/",
            "/gradio_api/stream/",
        ):
            status, body = raw(server, prefix + trick)
            assert secret not in body, trick
            assert b"root:" not in body, trick
            assert FILM not in body, trick
            assert status in (400, 403, 404), (prefix, trick, status)


def test_other_names_and_other_sites_are_refused_on_a_local_page(server):
    assert raw(server, "/", "evil.example")[0] == 421
    assert raw(server, "/", f"localhost:{server.port}")[0] == 200
    assert raw(server, "/", "127.0.0.1.evil.example")[0] == 421
    assert raw(server, "/gradio_api/proxy=https://example.org/")[0] == 404
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request("GET", "/")
    answer = connection.getresponse()
    policy = answer.headers["content-security-policy"]
    page = answer.read().decode()
    connection.close()
    assert "default-src 'self'" in policy
    assert "https://" not in policy
    for wording in ("fonts.googleapis", "cdnjs", "unpkg", "jsdelivr", "gradio.s3"):
        assert wording not in page


def upload(server, name, content, length=None):
    boundary = "x" * 20
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(length or len(body))}
    return server.ask("/gradio_api/upload", headers, body)


@pytest.mark.parametrize(
    "name", ["a.png", "../../escape.png", "..%2f..%2fescape.png", "/etc/escape.png", "..\\escape.png", ".hidden"]
)
def test_uploads_stay_inside_whatever_they_are_called(server, name):
    status, body = upload(server, name, PNG)
    assert status == 200
    for path in json.loads(body):
        assert Path(path).resolve().is_relative_to(server.root / "uploads")
    assert not list(server.root.parent.glob("escape*"))
    assert not Path("/etc/escape.png").exists()


def test_uploads_are_limited(server):
    assert upload(server, "huge.mp4", PNG, length=10**11)[0] == 413


def test_a_password_is_asked_of_everybody(tmp_path):
    path = tmp_path / "auth"
    path.write_text("ann:secret\n", encoding="utf-8")
    server = Server(tmp_path / "root", "--auth-file", str(path)).start()
    try:
        (server.root / "outputs").mkdir(exist_ok=True)
        (server.root / "outputs" / "film.mp4").write_bytes(FILM)
        film = f"/gradio_api/file={server.root}/outputs/film.mp4"
        assert server.ask(film)[0] == 401
        assert server.ask("/config")[0] == 401
        assert upload(server, "a.png", PNG)[0] == 401
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert server.ask("/login", form, b"username=ann&password=wrong")[0] == 400
        assert server.ask("/login", form, b"username=&password=")[0] in (400, 422)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        connection.request("POST", "/login", b"username=ann&password=secret", form)
        answer = connection.getresponse()
        answer.read()
        cookies = "; ".join(row.partition(";")[0] for row in answer.headers.get_all("set-cookie"))
        connection.close()
        assert server.ask(film, {"Cookie": cookies}) == (200, FILM)
    finally:
        server.stop()


def test_the_page_never_loads_torch_and_ends_when_asked(tmp_path):
    code = (
        "import sys, pathlib\nfrom reeltune.jobs import Runner\nfrom reeltune.web.page import build_page\nfrom reeltune.service.workspace import Workspace\n"
        "root = pathlib.Path(sys.argv[1])\nwith Runner(root) as runner:\n    build_page(Workspace(root, runner))\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'accelerate', 'torchao', 'safetensors'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert answer.returncode == 0, answer.stderr
    server = Server(tmp_path / "root").start()
    server.process.terminate()
    assert server.process.wait(120) == 0, server.log()


def test_a_form_is_drawn_while_other_events_add_components_to_the_session(tmp_path):
    code = """
import sys, pathlib
from gradio.state_holder import SessionState
from reeltune.jobs import Runner
from reeltune.service.workspace import Workspace
from reeltune.web.page import build_page
root = pathlib.Path(sys.argv[1])
with Runner(root) as runner:
    page = build_page(Workspace(root, runner))
    components = SessionState(page).blocks_config.blocks
    assert components == page.default_config.blocks
    assert components is not page.default_config.blocks
    count = len(components)
    for component in components.values():
        components[10**6 + len(components)] = component
    assert len(components) == 2 * count > 0
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert answer.returncode == 0, answer.stderr


def test_a_second_page_of_the_same_root_is_refused(server):
    answer = subprocess.run(
        [sys.executable, "-m", "reeltune", "ui", "--root", str(server.root)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert answer.returncode == 1
    assert "already makes the videos" in answer.stderr


def test_a_port_that_is_in_use_is_reported(server, tmp_path):
    answer = subprocess.run(
        [sys.executable, "-m", "reeltune", "ui", "--root", str(tmp_path / "other"), "--port", str(server.port)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert answer.returncode == 1
    assert f"Port {server.port} of 127.0.0.1 is already in use" in answer.stderr
    assert "--port" in answer.stderr
    assert "GRADIO" not in answer.stderr.upper()
