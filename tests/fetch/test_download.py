import hashlib
import json
import socket

import pytest

from conftest import safetensors_bytes
from reeltune import CancelToken, Progress, explain, load_catalog, pull
from reeltune.errors import BadDownload, Cancelled, FetchError, NotEnoughDisk, Offline
from reeltune.fetch.download import download
from reeltune.library.places import check_name
from reeltune.machine import Machine

TENSORS = {"head.modulation": ("BF16", [1, 2, 4]), "patch_embedding.weight": ("BF16", [4, 16, 1, 2, 2])}
GOOD = safetensors_bytes(TENSORS)
MACHINE = Machine(2**34, 2**33)
NAME = "x_bf16.safetensors"


def everything_in(folder):
    """Names of all files but locks and the index."""
    files = [path.name for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
    return sorted(name for name in files if not name.endswith(".lock.partial") and name != ".index.sqlite")


def test_a_download_is_verified_and_reported(server, tmp_path):
    server.files["/" + NAME] = GOOD
    events = []
    download(
        f"{server.url}/{NAME}", tmp_path / "c" / NAME, sha256=hashlib.sha256(GOOD).hexdigest(), listener=events.append
    )
    assert (tmp_path / "c" / NAME).read_bytes() == GOOD
    assert events[-2] == Progress("download", len(GOOD), len(GOOD), "bytes", NAME)
    assert everything_in(tmp_path / "c") == [NAME]


@pytest.mark.parametrize("fault", ["truncated", "html", "html-hidden", "header", "sum", "missing"])
def test_partial_or_wrong_files_never_get_the_name(server, tmp_path, fault):
    server.files["/" + NAME] = GOOD
    sha256 = None
    if fault == "truncated":
        server.truncated.add("/" + NAME)
    if fault == "html":
        server.types["/" + NAME] = "text/html; charset=utf-8"
    if fault == "html-hidden":
        server.files["/" + NAME] = b"<!doctype html><html>log in</html>"
    if fault == "header":
        server.files["/" + NAME] = GOOD[:-2]
    if fault == "sum":
        sha256 = "0" * 64
    if fault == "missing":
        del server.files["/" + NAME]
    with pytest.raises(FetchError):
        download(f"{server.url}/{NAME}", tmp_path / NAME, sha256=sha256)
    assert everything_in(tmp_path) == []


def test_a_cancelled_download_leaves_no_files(server, tmp_path):
    server.files["/" + NAME] = GOOD
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        download(f"{server.url}/{NAME}", tmp_path / NAME, cancel=cancel)
    assert everything_in(tmp_path) == []


def test_a_full_disk_is_reported_before_the_first_byte(server, tmp_path, monkeypatch):
    server.files["/" + NAME] = GOOD
    monkeypatch.setattr("reeltune.fetch.verifying.free_disk", lambda folder: 10)
    with pytest.raises(NotEnoughDisk, match="10 free"):
        download(f"{server.url}/{NAME}", tmp_path / NAME)


@pytest.fixture
def mine(server, define, root, monkeypatch):
    """A definition whose weights and components come from the local server standing in for the Hub."""
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.files["/a/b/resolve/main/" + NAME] = GOOD
    for folder in ("tokenizer", "text_encoder", "vae"):
        listing = [
            {"type": "file", "path": f"{folder}/{name}", "size": 2, "oid": "0"} for name in ("config.json", "big.bin")
        ]
        server.files[f"/api/models/o/r/tree/main/{folder}"] = json.dumps(listing).encode()
        server.types[f"/api/models/o/r/tree/main/{folder}"] = "application/json"
        server.files[f"/o/r/resolve/main/{folder}/config.json"] = b"{}"
    define(
        "mine",
        {"architecture": "t2v", "URLs": [f"https://huggingface.co/a/b/resolve/main/{NAME}"], "components": "o/r"},
    )
    return load_catalog(root)["mine"]


def test_pull_downloads_weights_and_the_needed_component_files(mine, root):
    plan = pull(mine, machine=MACHINE)
    assert not plan.missing
    assert everything_in(root / "ckpts") == ["config.json", "config.json", "config.json", NAME]
    assert (root / "ckpts" / "o--r" / "vae" / "config.json").exists()


def test_weights_only(mine, root):
    plan = pull(mine, weights_only=True, machine=MACHINE)
    assert everything_in(root / "ckpts") == [NAME]
    assert len(plan.missing) == 3


def test_pull_does_not_use_the_network_when_all_files_are_on_disk(mine, monkeypatch):
    pull(mine, machine=MACHINE)

    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert not pull(mine, machine=MACHINE).missing


def test_offline_lists_the_missing_files(mine, monkeypatch):
    monkeypatch.setenv("REELTUNE_OFFLINE", "1")
    with pytest.raises(Offline, match=NAME):
        pull(mine, machine=MACHINE)


def test_an_interrupted_component_is_not_used(mine, server, root):
    listing = [{"type": "file", "path": f"vae/{name}"} for name in ("config.json", "x.safetensors")]
    server.files["/api/models/o/r/tree/main/vae"] = json.dumps(listing).encode()
    with pytest.raises(FetchError, match="file not found"):
        pull(mine, machine=MACHINE)
    assert not (root / "ckpts" / "o--r" / "vae").exists()
    server.files["/o/r/resolve/main/vae/x.safetensors"] = GOOD
    before = len(server.requests)
    assert not pull(mine, machine=MACHINE).missing
    assert everything_in(root / "ckpts" / "o--r" / "vae") == ["config.json", "x.safetensors"]
    assert len(server.requests) - before == 3  # the listing, a look at the file that was missing, and the file


@pytest.mark.parametrize("listing", [b"<html>", b"{}", b"[1]", b'[{"type": "file"}]'])
def test_invalid_component_listings_are_refused(mine, server, listing):
    server.files["/api/models/o/r/tree/main/tokenizer"] = listing
    with pytest.raises(FetchError, match="return a list of files"):
        pull(mine, machine=MACHINE)


def test_a_hostile_listing_stays_in_its_folder(mine, server, root):
    paths = ["tokenizer/../../evil.json", "../evil.json", "/etc/evil.json", "vae/other.json", "tokenizer/sub/x.json"]
    listing = [{"type": "file", "path": path} for path in paths]
    server.files["/api/models/o/r/tree/main/tokenizer"] = json.dumps(listing).encode()
    with pytest.raises(FetchError, match="has no files for the tokenizer"):
        pull(mine, machine=MACHINE)
    assert everything_in(root) == ["mine.json"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "a\0b",
        "CON",
        "con.safetensors",
        "a:b",
        "x" * 300,
        "a\nb",
        "tail. ",
        "LPT1.txt",
        "\u202eb",
    ],
)
def test_invalid_file_names_are_refused(name):
    with pytest.raises(FetchError):
        check_name(name)


@pytest.mark.parametrize("url", ["https://h/..", "https://h/%2e%2e%2fx", "https://h/a%00.safetensors", "https://h/"])
def test_hostile_urls_write_nowhere(define, root, url):
    define("mine", {"architecture": "t2v", "URLs": [url]})
    with pytest.raises(FetchError):
        pull(load_catalog(root)["mine"], weights_only=True, machine=MACHINE)
    assert everything_in(root / "ckpts") == []


def test_weights_without_a_file_name_are_verified(server, define, root):
    define("mine", {"architecture": "t2v", "URLs": [f"{server.url}/api/download/models/7"]})
    server.files["/api/download/models/7"] = b"<!doctype html>" + bytes(99)
    with pytest.raises(BadDownload, match="web page"):
        pull(load_catalog(root)["mine"], weights_only=True, machine=MACHINE)
    server.files["/api/download/models/7"] = GOOD
    plan = pull(load_catalog(root)["mine"], weights_only=True, machine=MACHINE)
    assert plan.selection.choices["transformer"].facts.identity.family == "wan"
    (root / "ckpts" / "7").write_bytes(b"<html>")
    assert not explain(load_catalog(root)["mine"], machine=MACHINE).items[0].present


def test_a_web_page_is_a_bad_download(server, tmp_path):
    server.files["/" + NAME] = b"{}"
    server.types["/" + NAME] = "application/json"
    with pytest.raises(BadDownload, match="HF_TOKEN"):
        download(f"{server.url}/{NAME}", tmp_path / NAME)


def test_a_civitai_url_is_resolved_and_its_file_is_found_again(server, define, root, monkeypatch):
    monkeypatch.setenv("CIVITAI_ENDPOINT", server.url)
    monkeypatch.setenv("CIVITAI_TOKEN", "civ_secret")
    answer = {
        "id": 56,
        "files": [
            {"name": "odd.pt", "primary": True},
            {"name": "fine_bf16.safetensors", "hashes": {"SHA256": hashlib.sha256(GOOD).hexdigest().upper()},
             "downloadUrl": "https://civitai.com/api/download/models/56"},
        ],
    }  # fmt: skip
    server.files["/api/v1/model-versions/56"] = json.dumps(answer).encode()
    server.files["/api/download/models/56"] = GOOD
    for link in (
        "https://civitai.com/api/download/models/56?format=SafeTensor",
        f"{server.url}/models/1?modelVersionId=56",
    ):
        define("mine", {"architecture": "t2v", "URLs": [link], "components": "o/r"})
        definition = load_catalog(root)["mine"]
        pull(definition, weights_only=True, machine=MACHINE)
        assert everything_in(root / "ckpts") == ["fine_bf16.safetensors"]
        before = len(server.requests)
        chosen = pull(definition, weights_only=True, machine=MACHINE).selection.choices["transformer"]
        assert chosen.facts.found.path.name == "fine_bf16.safetensors"
        assert len(server.requests) == before
        assert all(headers["Authorization"] == "Bearer civ_secret" for _, headers in server.requests)
        (root / "ckpts" / "fine_bf16.safetensors").unlink()


def test_two_processes_share_one_download(server, tmp_path):
    """The second waits for the first and finds the file."""
    import threading

    server.files["/" + NAME] = GOOD + bytes(2_000_000)
    errors = []

    def one():
        try:
            download(f"{server.url}/{NAME}", tmp_path / NAME)
        except FetchError as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert everything_in(tmp_path) == [NAME]
    assert server.sent < 1.1 * len(server.files["/" + NAME])


def test_the_whole_plan_must_fit_on_the_disk_before_the_first_byte(mine, root, monkeypatch):
    monkeypatch.setattr("reeltune.fetch.survey.free_disk", lambda folder: len(GOOD))
    with pytest.raises(NotEnoughDisk, match="The download takes"):
        pull(mine, machine=MACHINE)
    assert everything_in(root / "ckpts") == []
