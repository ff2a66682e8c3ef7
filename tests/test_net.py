import gzip
import os

import pytest

from conftest import safetensors_bytes
from reeltune import inspect
from reeltune.errors import FetchError, HeaderError, Offline, UnsupportedFormat
from reeltune.net import Session, UrlSource, file_key, normalise, shown, without_secrets
from reeltune.net.tokens import token_for

SMALL = safetensors_bytes({"head.modulation": ("BF16", [1, 2, 4])})
LARGE = safetensors_bytes({f"t{index}": ("F32", [1]) for index in range(12_000)})


@pytest.mark.parametrize("content", [SMALL, LARGE, SMALL + bytes(3_000_000)])
def test_headers_by_range_take_at_most_three_requests(server, content):
    server.files["/x.safetensors"] = content
    inspection = inspect(server.url + "/x.safetensors")
    assert inspection.identity.bytes == len(content)
    assert len(server.requests) <= 3


def test_no_body_is_downloaded(server):
    server.files["/x.safetensors"] = SMALL + bytes(30_000_000)
    inspect(server.url + "/x.safetensors")
    assert server.sent < 1_000_000


def test_a_server_that_ignores_range_is_read_no_further_than_needed(server):
    server.files["/x.safetensors"] = SMALL + bytes(30_000_000)
    server.rangeless.add("/x.safetensors")
    assert inspect(server.url + "/x.safetensors").header.file_bytes == len(SMALL) + 30_000_000
    assert server.sent < 20_000_000


def test_redirects_are_followed_and_the_token_stays_home(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.files["/x.safetensors"] = SMALL
    server.redirects["/repo/resolve/main/x.safetensors"] = (
        server.url.replace("127.0.0.1", "localhost") + "/x.safetensors"
    )
    inspect("https://huggingface.co/repo/blob/main/x.safetensors")
    first, second = server.requests
    assert first[1]["Authorization"] == "Bearer hf_secret"
    assert "Authorization" not in second[1]


def test_the_token_goes_to_the_hub_only(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.files["/x.safetensors"] = SMALL
    inspect(server.url + "/x.safetensors")
    assert "Authorization" not in server.requests[0][1]


def test_errors_in_words(server, monkeypatch):
    with pytest.raises(FetchError, match="file not found") as caught:
        inspect(server.url + "/none.safetensors?token=secret")
    assert "secret" not in str(caught.value)
    server.files["/page"] = b"<html>" + bytes(500)
    with pytest.raises(UnsupportedFormat, match="web page"):
        inspect(server.url + "/page")
    server.files["/cut"] = SMALL[:-1]
    with pytest.raises(HeaderError, match="truncated"):
        inspect(server.url + "/cut")
    with pytest.raises(FetchError, match="can't be reached"):
        inspect("http://127.0.0.1:1/x.safetensors")
    with pytest.raises(FetchError):
        inspect("http://[bad/x")
    monkeypatch.setenv("REELTUNE_OFFLINE", "1")
    with Session() as session, pytest.raises(Offline), session.get(server.url):
        pass


def test_urls_as_shown_and_as_fetched(monkeypatch):
    assert shown("https://u:p@h:8/a/b?token=x#y") == "https://h:8/a/b"
    assert normalise("https://huggingface.co/a/b/blob/main/x") == "https://huggingface.co/a/b/resolve/main/x"
    assert (
        normalise("https://hf.co/a/b/raw/main/x.safetensors") == "https://huggingface.co/a/b/resolve/main/x.safetensors"
    )
    assert normalise("https://huggingface.co/gpt2/raw/main/x") == "https://huggingface.co/gpt2/resolve/main/x"
    assert normalise("https://huggingface.co/datasets/a/b/raw/main/x").endswith("/datasets/a/b/resolve/main/x")
    for kept in ("a/b/resolve/main/blob/x", "a/b/resolve/main/raw/x"):
        assert normalise(f"https://huggingface.co/{kept}") == f"https://huggingface.co/{kept}"
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hf/")
    assert normalise("https://hf.co/a/resolve/x?y=1") == "https://mirror.example/hf/a/resolve/x?y=1"
    assert normalise("https://elsewhere/blob/x") == "https://elsewhere/blob/x"


def test_a_source_reads_anywhere(server):
    server.files["/f"] = bytes(range(256)) * 4000
    with UrlSource(server.url + "/f") as source:
        assert source.size() == 1_024_000
        assert source.read_at(600_000, 4) == server.files["/f"][600_000:600_004]


# --- offline, tokens, words -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["REELTUNE_OFFLINE", "HF_HUB_OFFLINE"])
def test_the_offline_variable_that_is_set_is_named(monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with Session() as session, pytest.raises(Offline) as caught, session.get("http://h/x"):
        pass
    assert f"Unset {variable}" in caught.value.hint
    assert ("REELTUNE" in str(caught.value)) == (variable == "REELTUNE_OFFLINE")


def test_tokens_are_given_and_a_forgotten_one_is_not_sent(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.files["/x"] = b"1"
    for tokens, expected in (({"hub": "hf_given"}, "Bearer hf_given"), ({}, None)):
        with Session(tokens=tokens) as session:
            assert session.read(server.url + "/x", 9) == b"1"
        assert server.requests[-1][1].get("Authorization") == expected
    assert "HF_TOKEN" not in os.environ


def test_preferences_tokens_stay_out_of_the_environment(server, root, define, monkeypatch):
    from reeltune import Preferences, load_catalog, pull

    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.files["/o/r/resolve/main/x.safetensors"] = SMALL
    define("mine", {"architecture": "t2v", "URLs": ["https://huggingface.co/o/r/resolve/main/x.safetensors"]})
    pull(load_catalog(root)["mine"], Preferences(tokens={"hub": "hf_given"}), weights_only=True)
    assert {headers.get("Authorization") for _, headers in server.requests} == {"Bearer hf_given"}
    assert "HF_TOKEN" not in os.environ


def test_a_token_is_never_sent_without_tls_or_to_another_port(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("CIVITAI_TOKEN", "civ_secret")
    assert token_for("https://huggingface.co/x", {}) == "hf_secret"
    assert token_for("https://civitai.red/x", {}) == "civ_secret"
    for url in ("http://civitai.com/x", "https://civitai.com:444/x", "http://huggingface.co/x", "https://huggingface.co.evil/x",
                "https://hf.co@evil/x"):  # fmt: skip
        assert token_for(url, {}) is None
    assert normalise("http://HuggingFace.co/a/b/raw/main/x") == "https://huggingface.co/a/b/resolve/main/x"
    assert normalise("http://CivitAI.com/models/1?x=2") == "https://civitai.com/models/1?x=2"


def test_a_token_no_request_can_carry_is_an_error_without_it(monkeypatch):
    for token in ("hf é", "hf\nx", "a b"):
        with pytest.raises(FetchError) as caught:
            token_for("https://huggingface.co/x", {"hub": token})
        assert token not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1/x", "the connection was refused"),
        ("http://no-such-host.invalid/x", "the host name can.t be resolved"),
        ("http://[x]/y", "is not a valid URL"),
        ("ftp://h/x", "only http and https"),
    ],
)
def test_what_goes_wrong_is_said_in_words(url, words):
    with Session(stall=2) as session, pytest.raises(FetchError, match=words) as caught, session.get(url):
        pass
    assert "Error" not in str(caught.value)


def test_urls_that_are_none_can_be_shown_and_stored():
    for url in ("http://[x]/y?token=secret", "http://[::1/x#secret", "http://u:secret@[x]/y"):
        for text in (shown(url), without_secrets(url), file_key(url)):
            assert "secret" not in text or text == url
    assert "secret" not in shown("http://u:secret@[x]/y")


def test_the_same_file_has_one_key():
    same = [
        "https://huggingface.co/o/r/resolve/main/a%20b.safetensors", "http://HF.co/o/r/blob/main/a b.safetensors?download=true",
        "https://www.huggingface.co:443/o/r/raw/main/a%20b.safetensors#x", "https://huggingface.co/o/r/resolve/main/a%20b.safetensors?token=t",
    ]  # fmt: skip
    assert len({file_key(url) for url in same}) == 1
    assert file_key("https://civitai.red/models/1?b=2&a=1") == file_key("https://civitai.com/models/1?a=1&b=2")
    differ = [
        "https://h/dl?id=7",
        "https://h/dl?id=8",
        "https://h/a/x",
        "https://h/b/x",
        "https://h:8/a/x",
        "http://h/a/x",
    ]
    assert len({file_key(url) for url in differ}) == len(differ)


def compressed(server, path, body, encoding="gzip", packed=None):
    """Serve a file compressed whatever is asked for."""
    server.files[path] = gzip.compress(body) if packed is None else packed
    server.headers[path] = {"Content-Encoding": encoding}


def test_a_compressed_answer_is_decoded_or_refused(server):
    compressed(server, "/a", b"{}" * 500)
    with Session() as session:
        server.rangeless.add("/a")
        assert session.read(server.url + "/a", 5000) == b"{}" * 500
        compressed(server, "/b", b"x", "br", packed=b"\x0b\x00x")
        with pytest.raises(FetchError, match="compressed"):
            session.read(server.url + "/b", 5000)
        compressed(server, "/c", b"x", packed=b"no gzip")
        with pytest.raises(FetchError, match="damaged"):
            session.read(server.url + "/c", 5000)
        with pytest.raises(FetchError, match="more than 10 bytes"):
            session.read(server.url + "/a", 10)
