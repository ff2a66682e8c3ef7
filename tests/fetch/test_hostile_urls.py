"""Links made to break out, crash or deceive: each pull ends well or in an error of ours, and writes to ckpts/ only."""

import json
import os
import socket
import ssl
from pathlib import Path
from urllib.parse import quote

import pytest

from conftest import safetensors_bytes
from reeltune import load_catalog, pull
from reeltune.errors import ReeltuneError
from reeltune.library.places import check_name
from reeltune.machine import Machine

GOOD = safetensors_bytes({"head.modulation": ("BF16", [1, 2, 4]), "patch_embedding.weight": ("BF16", [4, 16, 1, 2, 2])})
MACHINE = Machine(2**34, 2**33)
PLAIN = "x_bf16.safetensors"
NAMES = [
    "", ".", "..", "...", "../", "../../", f"../{PLAIN}", f"../../{PLAIN}", f"../../../../../../../tmp/{PLAIN}", "..\\..\\x",
    f"..\\{PLAIN}", f"\\{PLAIN}", f"C:\\{PLAIN}", f"C:{PLAIN}", f"\\\\host\\share\\{PLAIN}", f"//host/share/{PLAIN}",
    f"/etc/{PLAIN}", "~", f"~/{PLAIN}", f"~root/{PLAIN}", "$HOME", "%HOME%", "${HOME}.safetensors", "`id`", "$(id).safetensors",
    "a\0b.safetensors", f"{PLAIN}\0.txt", "a\nb.safetensors", "a\r\nX-Evil: 1", "a\tb", "a\x1b[31mb", "a\x7fb", "a\x85b",
    "\u202etxt.exe", "a\u2066b.safetensors", "\u200b", "\ufeffx.safetensors", "x\u2028y.safetensors", "\ud800.safetensors",
    "\udfff", "x\ud83d.safetensors", "CON", "con.safetensors", "NUL", "nul.bin", "aux", "PRN.safetensors", "COM1", "lpt9.txt", "com0",
    "x.safetensors.", "x.safetensors ", " x.safetensors", ". ", "x" * 300, "x" * 5000 + ".safetensors", "ü" * 120 + ".safetensors",
    "日" * 90, "a:b", f"{PLAIN}:stream", "a*b", "a?b", "a<b>", 'a"b', "a|b", "-rf", "--help", ".hidden", f"{PLAIN}.partial",
    f"{PLAIN}.lock.partial", ".index.sqlite", "ｘ／ｙ.safetensors", "..／x", "x;y", "%", "%2", "%zz", "%%2e%2e%2f", "%u002e%u002e/x",
    "%c0%ae%c0%ae%c0%afx", "%ff%fe.safetensors", "a#b/../../c", "[x", "]", "{}", "x\\0y",
]  # fmt: skip
HOSTS = [
    "", ".", "..", "-", "_", "*", "h", "H", "h.", ".h", "h..h", "localhost", "127.1", "2130706433", "0x7f000001", "017700000001", "[::1]",
    "[::", "[]", "[x]", "[::1%25eth0]", "[v1.a]", "h:0", "h:-1", "h:65536", "h:99999999999", "h:x", "h:", "h:80:80", "bücher.example",
    "例え.テスト", "xn--bcher-kva.example", "xn--", "xn--a", "xn--\ud800", "ex\u200dample", "h\u202eh", "ｈ", "h。h", "h\0h", "h h", "h\nh", "h\\h",
    "h%2fh", "h%00", "%", "user@h", "user:word@h", "huggingface.co@evil", "huggingface.co%40evil", "evil\\@huggingface.co", "a@b@c", ":@h",
    "huggingface.co.", "huggingface.co:443", "a" * 64, "a" * 300, ".".join("a" * 130), "\ud800", "ß", "h#@civitai.com", "h?@civitai.com",
]  # fmt: skip
WHOLE = [
    "file:///etc/passwd", "file://h/etc/passwd", "file:etc/passwd", "FILE:///etc/passwd", "ftp://h/x.safetensors", "ftps://h/x", "sftp://h/x",
    "data:,x", "data:application/octet-stream;base64,AAAA", "javascript:alert(1)", "javascript://h/%0aalert(1)", "gopher://h:70/_x",
    "ldap://h/x", "dict://h/x", "ssh://h/x", "git+ssh://h/x", "jar:http://h/x!/y", "s3://bucket/x.safetensors", "blob:http://h/x", "about:blank",
    "mailto:a@b", "ws://h/x", "unix:///var/run/docker.sock", "http+unix://%2Fvar%2Frun/x", "HTTP://h/x.safetensors", "hTtP://h/x", "http:h/x",
    "http:/h/x", "http:///x", "http:////h/x", "http://", "http:", "http", "://", "://h/x", "//h/x", "http://h", "http://h/", "http://h?x.safetensors",
    "http://h/?file=../../x", "http://h/#x.safetensors", "http://h?#", "http://h//", "http://h/a//x.safetensors", " http://h/x", "http://h/x ",
    "\thttp://h/x", "http://h/x\n", "http ://h/x", "http\0://h/x", "\0", "\ud800", "\ud800://h/x", "\u202ehttp://h/x", "", " ", ".", "..", "/", "\\", "~",
    "~nobody_here/x", "/etc/passwd", "/dev/zero", "/dev/null", "/dev/stdin", "/proc/self/mem", "/proc/self/environ", "../../etc/passwd",
    "ckpts/../../x.safetensors", "ckpts/x\0.safetensors", "C:\\Windows\\x.safetensors", "C:x", "\\\\host\\share\\x.safetensors", "\\\\?\\C:\\x",
    "//host/share/x.safetensors", "x" * 5000, "/" * 3000, "http://h/" + "a/" * 3000 + "x.safetensors", "http://h/" + "../" * 500 + PLAIN,
    "http://h/x?" + "y" * 100_000, "http://h/" + "%2e%2e%2f" * 300 + PLAIN, "https://huggingface.co/..", "https://hf.co/blob/../../x",
    "https://huggingface.co", "https://civitai.com/models/", "https://civitai.com/api/download/models/../../x", "https://civitai.com/models/9" + "9" * 500,
]  # fmt: skip
LOCATIONS = [
    "", "/", "//", "///", "//evil/x", "..", "../../x", "?", "#", "file:///etc/passwd", "ftp://h/x", "data:,x", "javascript:alert(1)", "gopher://h/x",
    "http://", "http://[", "http://h:99999/x", "http://h:x/", "http://a@b@c/", "http://%00/", "http://xn--/x", "http:x", "\\\\host\\x", "C:\\x",
    "http://h/%2e%2e%2fx", "http://h/a b", "http://h/\x7f", "/loop", "http://\xff/", "/" + "a" * 9000,
]  # fmt: skip


class Everything(dict):
    """Files of a server that has each path, and whose CivitAI gives files any name."""

    def get(self, path, default=None):
        number = path.rpartition("/")[2]
        if path.startswith("/api/v1/model-versions/") and number.isdecimal() and int(number) < len(NAMES):
            name = NAMES[int(number)]
            name += "" if name.endswith(".safetensors") else ".safetensors"  # no other kind is taken
            return json.dumps({"id": 1, "files": [{"name": name, "downloadUrl": "http://h/file"}]}).encode()
        return GOOD


@pytest.fixture
def anywhere(server, root, tmp_path, monkeypatch):
    """Every address leads to the local server; pauses are none; the current folder is one to be looked at."""
    connect, port = socket.create_connection, int(server.url.rpartition(":")[2])
    monkeypatch.setattr(socket, "create_connection", lambda address, *a, **k: connect(("127.0.0.1", port), *a, **k))
    monkeypatch.setattr("reeltune.fetch.download.pause_after", lambda failures, asked: 0.0)
    monkeypatch.setattr("reeltune.fetch.transfer.pause_after", lambda failures, asked: 0.0)
    trust = ssl.create_default_context()  # made anew for each pull it takes most of the time
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # so does this
    monkeypatch.setattr("httpx._transports.default.create_ssl_context", lambda **k: trust)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("CIVITAI_ENDPOINT", server.url)
    server.files = Everything()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return server


def tree(folder, without):
    """Everything in a folder but one folder in it: path, size, time."""
    found = {}
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if Path(place, name) != without]
        for name in (*folders, *files):
            status = Path(place, name).lstat()
            found[Path(place, name)] = (status.st_size, status.st_mtime_ns) if name in files else None
    return found


def attempt(links, define, root):
    """Pull each link of a definition of its own; names of what came, errors, and whatever else was raised."""
    for number, link in enumerate(links):
        define(f"case{number}", {"architecture": "t2v", "URLs": [link], "components": "o/r"})
    catalog = load_catalog(root)
    before = tree(root.parent, root / "ckpts")
    came, refused, raised = set(), [], []
    for number, link in enumerate(links):
        try:
            pull(catalog[f"case{number}"], weights_only=True, machine=MACHINE)
        except ReeltuneError as error:
            refused.append(link)
            str(error).encode()  # a message that can be shown
        except Exception as error:
            raised.append((link[:120], repr(error)[:200]))
        for path in (root / "ckpts").rglob("*"):
            assert path.is_file(), link
            if not path.name.startswith(".index.sqlite"):
                came |= {path.name} if not path.name.endswith(".partial") else set()
                path.unlink()
    assert raised == []
    assert tree(root.parent, root / "ckpts") == before
    for name in came:
        check_name(name)
    return came, refused


def encodings(name):
    """Plain, encoded, and where a server that decodes twice would be led astray encoded twice."""
    once = quote(name.encode("utf-8", "surrogatepass"), safe="")
    return {name, once, quote(once) if any(sign in name for sign in "/\\\0") else name}


def test_names(anywhere, define, root):
    links = [f"http://h/m/{text}" for name in NAMES for text in encodings(name)]
    assert len(links) > 160
    came, refused = attempt(links, define, root)
    assert came
    assert refused


def test_hosts(anywhere, define, root):
    came, refused = attempt([f"http://{host}/{PLAIN}" for host in HOSTS], define, root)
    assert came == {PLAIN}
    assert refused


def test_other_schemes_and_invalid_urls_are_refused(anywhere, define, root):
    came, refused = attempt(WHOLE, define, root)
    assert not came & {"passwd", "zero", "null", "environ"}
    assert len(refused) > len(WHOLE) / 2


def test_redirects(anywhere, define, root):
    anywhere.redirects = {f"/{number}/{PLAIN}": target for number, target in enumerate(LOCATIONS)}
    anywhere.redirects["/loop"] = "/loop"
    came, _ = attempt([f"http://h/{number}/{PLAIN}" for number in range(len(LOCATIONS))], define, root)
    assert came == {PLAIN}


def test_file_names_from_the_server(anywhere, define, root):
    """CivitAI's API names the file; Content-Disposition does too, and isn't obeyed where the URL has a file's name."""
    links = [f"https://civitai.com/api/download/models/{number}" for number in range(len(NAMES))]
    came, refused = attempt(links, define, root)
    assert refused
    named = [name for name in NAMES if name.isascii() and name.isprintable() and len(name) < 300][::3]
    for number, name in enumerate(named):
        anywhere.headers[f"/{number}/{PLAIN}"] = {"Content-Disposition": f'attachment; filename="{name}"'}
    came, refused = attempt([f"http://h/{number}/{PLAIN}" for number in range(len(named))], define, root)
    assert came == {PLAIN}
    assert not refused
