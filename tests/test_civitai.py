"""CivitAI's URLs: which of a version's files a URL means, and what is said where it means none."""

import contextlib
import hashlib
import json
from urllib.parse import urlsplit

import pytest

from conftest import safetensors_bytes
from reeltune import load_catalog
from reeltune.cli import main
from reeltune.errors import FetchError
from reeltune.net import Session, is_civitai
from reeltune.net.civitai import resolve

SHAPES = {"head.modulation": ("BF16", [1, 2, 4]), "patch_embedding.weight": ("BF16", [4, 16, 1, 2, 2])}
HIGH, LOW = (safetensors_bytes(SHAPES | {f"{name}.bias": ("BF16", [8])}) for name in ("high", "low"))


def file(id, name, content=b"", kind="Model", url=None, **metadata):
    """A file as CivitAI's API describes it."""
    facts = {"format": "SafeTensor", "size": "full", "fp": "fp16"} | metadata
    row = {"id": id, "name": name, "type": kind, "metadata": facts,
           "hashes": {"SHA256": hashlib.sha256(content).hexdigest().upper()}}  # fmt: skip
    return row | ({"downloadUrl": url} if url else {})


FILES = [
    file(1, "full_fp16.safetensors", primary=True) | {"primary": True},
    file(2, "pruned_fp16.safetensors", size="pruned"),
    file(3, "full_fp8.safetensors", fp="fp8"),
    file(4, "vae.safetensors", kind="VAE"),
    file(5, "old.ckpt", format="PickleTensor"),
]


@pytest.fixture
def api(server, monkeypatch):
    """The local server in CivitAI's place, with one version."""
    monkeypatch.setenv("CIVITAI_ENDPOINT", server.url)

    def answer(files, **fields):
        server.files["/api/v1/model-versions/56"] = json.dumps({"id": 56, "files": files} | fields).encode()

    server.version = answer
    return server


def found(url):
    with Session() as session:
        return resolve(session, url)


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("", "full_fp16.safetensors"),
        ("type=Model&format=SafeTensor&size=full&fp=fp16", "full_fp16.safetensors"),
        ("type=Model&format=SafeTensor&size=pruned&fp=fp16", "pruned_fp16.safetensors"),
        ("fp=FP8", "full_fp8.safetensors"),
        ("type=vae", "vae.safetensors"),
        ("fileId=2", "pruned_fp16.safetensors"),
        ("fileid=3&token=secret", "full_fp8.safetensors"),
    ],
)
def test_the_file_that_a_query_asks_for(api, query, name):
    api.version(FILES)
    source = found(f"https://civitai.com/api/download/models/56?{query}")
    assert source.name == name
    assert "secret" not in source.url
    page = found(f"https://civitai.com/models/12/a-model?modelVersionId=56&{query}")
    assert page.name == name


@pytest.mark.parametrize(
    "query", ["fp=nf4", "fileId=99", "format=PickleTensor", "fileId=5", "type=Model&fp=fp8&size=pruned"]
)
def test_a_query_that_no_file_matches_is_refused_and_the_files_are_listed(api, query):
    api.version(FILES)
    with pytest.raises(
        FetchError, match=r"full_fp16\.safetensors \(fileId=1, model, safetensor, full, fp16\)"
    ) as caught:
        found(f"https://civitai.com/api/download/models/56?{query}")
    assert "pruned_fp16" in str(caught.value)
    assert "?fileId=" in caught.value.hint


def test_files_that_cant_be_told_apart_are_listed(api):
    api.version([file(1, "high.safetensors"), file(2, "low.safetensors")])
    for query in ("", "?type=Model"):
        with pytest.raises(FetchError, match=r"2 files.*high\.safetensors \(fileId=1.*low\.safetensors \(fileId=2"):
            found(f"https://civitai.com/api/download/models/56{query}")
    assert found("https://civitai.com/api/download/models/56?fileId=2").name == "low.safetensors"


def test_the_primary_file_is_meant_and_the_others_are_named(api):
    api.version([file(1, "high.safetensors") | {"primary": True}, file(2, "low.safetensors")])
    source = found("https://civitai.com/api/download/models/56")
    assert source.name == "high.safetensors"
    assert "low.safetensors (fileId=2" in source.notices[0]
    api.version(FILES[:1] + FILES[3:])
    assert not found("https://civitai.com/api/download/models/56").notices  # a VAE is no other model


def test_gguf_files_are_used_where_they_are_asked_for_or_nothing_else_is_there(api):
    files = [
        file(1, "x-Q8_0.gguf", format="GGUF") | {"primary": True},
        file(2, "x-Q4_K_M.gguf", format="GGUF", size="pruned"),
        file(3, "x_bf16.safetensors"),
    ]
    api.version(files)
    url = "https://civitai.com/api/download/models/56"
    assert found(url).name == "x_bf16.safetensors"
    assert found(f"{url}?format=GGUF").name == "x-Q8_0.gguf"
    assert found(f"{url}?fileId=2").name == "x-Q4_K_M.gguf"
    api.version(files[:2])
    source = found(url)
    assert source.name == "x-Q8_0.gguf"
    assert "x-Q4_K_M.gguf (fileId=2" in source.notices[0]


@pytest.mark.parametrize("host", ["civitai.com", "www.civitai.com", "civitai.red", "CivitAI.green", "CIVITAI.COM"])
def test_all_names_of_the_site(api, host, monkeypatch):
    monkeypatch.setenv("CIVITAI_TOKEN", "civ_secret")
    api.version(FILES)
    assert found(f"https://{host}/api/download/models/56?fileId=2").name == "pruned_fp16.safetensors"
    assert api.requests[0][1]["Authorization"] == "Bearer civ_secret"


def test_other_hosts_are_not_it():
    for url in (
        "https://civitai.com.evil/x",
        "https://evil/civitai.com",
        "https://notcivitai.com/x",
        "http://[x]/y",
        "civitai.com",
    ):
        assert not is_civitai(url)


ODD = [
    {}, {"files": None}, {"files": {}}, {"files": [None, 1, "x", []]}, {"files": [{"name": None}]}, {"files": [{"name": 5}]},
    {"files": [{"name": "x.pt", "hashes": [1]}]}, {"files": [{"name": "x.safetensors", "hashes": [1], "metadata": "no", "id": 1e999}]},
    {"files": [{"name": "../../x.safetensors", "downloadUrl": 7}]}, [], None, 1, "x",
]  # fmt: skip


@pytest.mark.parametrize("answer", ODD, ids=range(len(ODD)))
def test_odd_answers_are_typed_errors_or_a_file(api, answer):
    api.files["/api/v1/model-versions/56"] = json.dumps(answer).encode()
    source = None
    with contextlib.suppress(FetchError):  # and nothing else
        source = found("https://civitai.com/api/download/models/56")
    assert source is None or urlsplit(source.url).path.startswith("/api/download/models/")


@pytest.fixture
def both(api, define):
    """Wan 2.2 as one version of two files, high and low noise."""
    api.version([file(1, "high_noise.safetensors", HIGH) | {"primary": True}, file(2, "low_noise.safetensors", LOW)])
    plain = api.answer

    def routed(handler):
        api.files["/api/download/models/56"] = LOW if "fileId=2" in handler.path else HIGH
        plain(handler)

    api.answer = routed
    url = "https://civitai.com/api/download/models/56"

    def write(*queries):
        define("wan22", {"architecture": "t2v_2_2", "components": "o/r",
                         "URLs": [url + queries[0]], "URLs2": [url + queries[1]]})  # fmt: skip

    return write


def run(*words):
    try:
        main(list(words))
    except SystemExit as end:
        return end.code
    return 0


def test_a_version_of_two_files_gives_both(both, root):
    both("?fileId=1", "?fileId=2")
    assert run("pull", "wan22", "--weights-only", "--root", str(root)) in (0, None)
    assert (root / "ckpts" / "high_noise.safetensors").read_bytes() == HIGH
    assert (root / "ckpts" / "low_noise.safetensors").read_bytes() == LOW


def test_pull_ends_with_1_where_a_file_is_another_models(api, define, root, capsys):
    """What the URL serves is sound, and the weights of another model."""
    api.files["/x.safetensors"] = safetensors_bytes({"adaln_single.emb.timestep_embedder.linear_1.bias": ("BF16", [8])})
    define("mine", {"architecture": "t2v", "URLs": [f"{api.url}/x.safetensors"], "components": "o/r"})
    assert run("pull", "mine", "--weights-only", "--root", str(root)) == 1
    assert "its header is that of ltxv_13B" in capsys.readouterr().err


def test_pull_ends_with_1_where_a_file_became_another_models(api, define, root, capsys):
    """It does while it is downloaded: what came is sound, and of no use."""
    api.files["/x.safetensors"] = HIGH

    def replaced(handler, body):
        if len(api.requests) > 1:
            other = {"adaln_single.emb.timestep_embedder.linear_1.bias": ("BF16", [8])}
            api.files["/x.safetensors"] = safetensors_bytes(other)
        return False

    api.faults["/x.safetensors"] = replaced
    define("mine", {"architecture": "t2v", "URLs": [f"{api.url}/x.safetensors"], "components": "o/r"})
    assert run("pull", "mine", "--weights-only", "--root", str(root)) == 1
    assert "its header is that of ltxv_13B" in capsys.readouterr().err


def test_a_refusal_in_the_sites_own_words_with_the_right_token(api, define, root, monkeypatch):
    sentence = "The creator of this asset requires you to be logged in to download it"

    def refuse(handler, body):
        raw = json.dumps({"error": "Unauthorized", "message": sentence}).encode()
        handler.send_response(401)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)
        return True

    api.version([file(1, "x.safetensors", HIGH, url="https://civitai.com/api/download/models/56")])
    api.files["/api/download/models/56"] = HIGH
    api.faults["/api/download/models/56"] = refuse
    from reeltune import pull

    define("mine", {"architecture": "t2v", "URLs": ["https://civitai.com/api/download/models/56"], "components": "o/r"})
    definition = load_catalog(root)["mine"]
    with pytest.raises(FetchError, match=sentence) as caught:
        pull(definition, weights_only=True)
    assert "Set CIVITAI_TOKEN" in caught.value.hint
    assert "HF_TOKEN" not in str(caught.value)
    monkeypatch.setenv("CIVITAI_TOKEN", "civ_stale")
    with pytest.raises(FetchError, match=sentence) as caught:
        pull(definition, weights_only=True)
    assert "CIVITAI_TOKEN) was refused" in caught.value.hint
    assert "civ_stale" not in str(caught.value)
