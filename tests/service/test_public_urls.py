"""What requests name by URL: only public addresses are asked, whatever a host name leads to, and nothing by default."""

import socket
import time
import urllib.parse

import httpx
import pytest

from reeltune.errors import FetchError, MediaError, Offline, SettingsError, Unreachable
from reeltune.preferences import FILE_NAME
from reeltune.service import public_urls
from reeltune.service.input_files import stored_input
from reeltune.service.public_urls import download_public

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc000000301010018dd8db00000000049454e44ae426082"
)
PUBLIC = ["93.184.216.34", "2606:4700::1111", "::ffff:93.184.216.34"]
PRIVATE = [
    "127.0.0.1", "127.255.0.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1",
    "fe80::1%eth0", "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1", "100::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe",  # IPv4 in IPv6
    "::127.0.0.1", "::a00:1",  # the same in its oldest form
    "2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::1",  # 6to4
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1",  # NAT64
    "2001::7f00:1", "2001:0:a9fe:a9fe::1",  # Teredo
]  # fmt: skip
LITERALS = [  # of this machine, as URLs write them
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "localhost",
    "[::ffff:7f00:1]", "[2002:7f00:1::]", "[64:ff9b::7f00:1]", "169.254.169.254",
]  # fmt: skip
INVALID = [
    "ftp://example.org/x.png", "file:///etc/passwd", "gopher://example.org/", "data:,x", "//example.org/x", "example.org", "",
    "https://", "http:///x.png", "http://[::", "http://[x]/", "http://example.org:99999/", "http://example.org:x/",
    "http://user@example.org/", "http://user:hunter2@example.org/", "http://:hunter2@example.org/", "http://user:@example.org/",
]  # fmt: skip


@pytest.fixture
def names(monkeypatch):
    """What host names lead to, by name; addresses lead to themselves."""
    known = {}

    def look_up(host, port, *arguments, **options):
        addresses = known.get(host, [host])
        if not all(address.replace(".", "").isdigit() or ":" in address for address in addresses):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(public_urls.socket, "getaddrinfo", look_up)
    return known


@pytest.fixture
def asked(monkeypatch):
    """The requests that reach the network, and how they are answered: a status, headers, and the pieces of a body."""
    requests = []
    answers = [(200, {}, [PNG])]

    def answer(request):
        requests.append(request)
        status, headers, pieces = answers[0]
        return httpx.Response(status, headers=headers, content=iter(pieces))

    real = httpx.Client

    def client(**options):
        assert (options["follow_redirects"], options["trust_env"]) == (False, False)
        return real(transport=httpx.MockTransport(answer), **options)

    monkeypatch.setattr(public_urls.httpx, "Client", client)
    return requests, answers


def content(url, max_bytes=1_000_000):
    return b"".join(download_public(url, max_bytes))


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_asked_by_its_number_with_the_name_of_the_host(names, asked, address):
    names["media.example"] = [address]
    assert content("https://media.example:8443/a.png?b=c#d") == PNG
    request = asked[0][0]
    assert request.url.host == address
    assert (request.url.port, request.url.path, request.url.query) == (8443, "/a.png", b"b=c")
    assert request.headers["host"] == "media.example:8443"
    assert request.extensions["sni_hostname"] == "media.example"
    assert request.headers["accept-encoding"] == "identity"
    assert not {"authorization", "cookie"} & set(request.headers)


def test_a_written_ipv6_address_keeps_its_brackets(names, asked):
    assert content("http://[2606:4700::1111]/a.png") == PNG
    assert asked[0][0].headers["host"] == "[2606:4700::1111]"


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_that_leads_to_a_private_address_is_not_asked(names, asked, address):
    for addresses in ([address], [PUBLIC[0], address], [address, PUBLIC[0]]):
        names["rebound.example"] = addresses
        with pytest.raises(FetchError, match="private address"):
            content("http://rebound.example/x.png")
    assert asked[0] == []


@pytest.mark.parametrize("host", LITERALS)
def test_this_machine_is_not_asked_however_it_is_written(server, host):
    port = urllib.parse.urlsplit(server.url).port
    server.files["/x.png"] = PNG
    with pytest.raises(FetchError):
        content(f"http://{host}:{port}/x.png")
    assert server.requests == []


def test_the_name_is_looked_up_once(names, asked, monkeypatch):
    answers = [["93.184.216.34"], ["127.0.0.1"]]
    real = public_urls.socket.getaddrinfo

    def changing(host, port, *arguments, **options):
        return real(answers.pop(0)[0], port)

    monkeypatch.setattr(public_urls.socket, "getaddrinfo", changing)
    assert content("http://changing.example/x.png") == PNG
    assert asked[0][0].url.host == "93.184.216.34"
    assert len(answers) == 1


@pytest.mark.parametrize("url", INVALID)
def test_other_schemes_and_urls_with_a_password_are_refused(names, asked, url):
    names["example.org"] = [PUBLIC[0]]
    with pytest.raises(FetchError) as error:
        content(url)
    assert "hunter2" not in str(error.value)
    assert asked[0] == []


@pytest.mark.parametrize("host", ["a\0b", "a" * 64, "a" * 300, "\ud800", "nothing.invalid", "%00", "a b", "..", "."])
def test_hosts_that_cannot_be_looked_up_are_refused(host):
    with pytest.raises(FetchError):
        content(f"http://{host}/x.png")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 304, 401, 404, 500, 206])
def test_redirects_are_not_followed_and_other_answers_are_refused(names, asked, status):
    names["example.org"] = [PUBLIC[0]]
    asked[1][0] = (status, {"location": "http://127.0.0.1/"}, [PNG])
    with pytest.raises(FetchError, match=str(status)):
        content("http://example.org/x.png")
    assert len(asked[0]) == 1


def test_no_more_is_read_than_is_allowed(names, asked):
    names["example.org"] = [PUBLIC[0]]
    sent = []

    def pieces():
        for _ in range(10_000):
            sent.append(1)
            yield bytes(1000)

    asked[1][0] = (200, {}, pieces())
    with pytest.raises(FetchError, match="more than 50,000 bytes"):
        content("http://example.org/x.png", 50_000)
    assert len(sent) <= 52


def test_a_compressed_answer_is_not_expanded(names, asked):
    names["example.org"] = [PUBLIC[0]]
    asked[1][0] = (200, {"content-encoding": "gzip"}, [b"\x1f\x8b", b"x"])
    assert content("http://example.org/x.png") == b"\x1f\x8bx"


def test_a_server_that_sends_little_at_a_time_is_left(names, asked, monkeypatch):
    names["example.org"] = [PUBLIC[0]]
    monkeypatch.setattr(public_urls, "_MOST_SECONDS", 0.2)

    def pieces():
        while True:
            time.sleep(0.01)
            yield b"x"

    asked[1][0] = (200, {}, pieces())
    with pytest.raises(Unreachable, match="too slowly"):
        content("http://example.org/x.png")


def test_nothing_is_asked_offline(names, asked, monkeypatch):
    monkeypatch.setenv("REELTUNE_OFFLINE", "1")
    with pytest.raises(Offline):
        content("http://93.184.216.34/x.png")
    assert asked[0] == []


# --- URLs as inputs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["http://93.184.216.34/x.png", "HTTPS://93.184.216.34/x.png"])
def test_urls_are_not_downloaded_unless_the_owner_allows_it(workspace, names, asked, url):
    with pytest.raises(SettingsError, match="downloads nothing that requests name by URL"):
        stored_input(workspace, "image_start", url)
    assert asked[0] == []
    (workspace.root / FILE_NAME).write_text('{"input_urls": true}', encoding="utf-8")
    path = stored_input(workspace, "image_start", url)
    assert path.startswith(str(workspace.uploads))
    assert path.endswith("/x.png")


@pytest.mark.parametrize("path", ["/", "", "/..%2f..%2fx", "/../../x", "/a\\..\\..\\x", "/" + "x" * 3000, "/CON"])
def test_the_name_in_a_url_stays_in_the_uploads(workspace, names, asked, path):
    (workspace.root / FILE_NAME).write_text('{"input_urls": true}', encoding="utf-8")
    stored = stored_input(workspace, "image_start", f"http://93.184.216.34{path}")
    assert workspace.confined(stored) is not None


@pytest.mark.parametrize("answer", [b"<html>a secret</html>", b"", b'{"secret": 1}', PNG[:40]])
def test_what_is_no_image_is_not_stored(workspace, names, asked, answer):
    (workspace.root / FILE_NAME).write_text('{"input_urls": true}', encoding="utf-8")
    asked[1][0] = (200, {}, [answer])
    with pytest.raises((MediaError, SettingsError)) as error:
        stored_input(workspace, "image_start", "http://93.184.216.34/x")
    assert "secret" not in str(error.value)
    assert [path for path in workspace.uploads.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("host", LITERALS)
def test_an_allowed_url_still_never_leads_here(workspace, server, host):
    (workspace.root / FILE_NAME).write_text('{"input_urls": true}', encoding="utf-8")
    port = urllib.parse.urlsplit(server.url).port
    with pytest.raises(FetchError):
        stored_input(workspace, "image_start", f"http://{host}:{port}/x.png")
    assert server.requests == []
