import pytest

from conftest import safetensors_bytes
from reeltune import inspect
from reeltune.errors import FetchError, HeaderError, Offline, UnsupportedFormat
from reeltune.net import Session, UrlSource, normalise, shown

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
    with pytest.raises(FetchError, match="no such file") as caught:
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
