"""URLs whose last part is equal are never one file; files whose bytes are equal are stored once."""

import hashlib
import json
import random

import pytest

from conftest import safetensors_bytes
from reeltune import explain, load_catalog, pull
from reeltune.errors import ChoiceError
from reeltune.fetch import Scope, plan_download, pull_all
from reeltune.library.cleanup import leftovers, list_entries, remove
from reeltune.library.index import FILE_NAME, Index
from reeltune.library.places import unique_name
from reeltune.library.verify import verify
from reeltune.machine import Machine

MACHINE = Machine(2**34, 2**33)
NAME = "diffusion_pytorch_model.safetensors"
SHAPES = {"head.modulation": ("BF16", [1, 2, 4]), "patch_embedding.weight": ("BF16", [4, 16, 1, 2, 2])}
VACE = {"vace_patch_embedding.weight": ("BF16", [1536, 96, 1, 2, 2]), "vace_blocks.0.after_proj.bias": ("BF16", [1536])}


def weights(seed, shapes=SHAPES):
    """A checkpoint whose bytes no other seed's has; its size is the same."""
    plain = safetensors_bytes(shapes)
    count = len(plain) - 8 - int.from_bytes(plain[:8], "little")
    return safetensors_bytes(shapes, data=random.Random(seed).randbytes(count))


A, B = weights(1), weights(2)
assert len(A) == len(B)


@pytest.fixture
def served(server):
    server.files |= {f"/a/{NAME}": A, f"/b/{NAME}": B}
    return server


@pytest.fixture
def clashing(served, define, root):
    """Two definitions whose URLs end alike."""
    for letter in "ab":
        define(letter, {"architecture": "t2v", "URLs": [f"{served.url}/{letter}/{NAME}"], "components": "o/r"})
    return load_catalog(root)


def transformer(definition):
    return explain(definition, machine=MACHINE).items[0]


def get(definition):
    return pull(definition, weights_only=True, machine=MACHINE).items[0]


def test_two_definitions_never_share_a_file(clashing, root):
    first = get(clashing["a"])
    assert (first.path.name, first.path.read_bytes()) == (NAME, A)
    before = transformer(clashing["b"])
    assert not before.present
    assert before.path != first.path
    second = get(clashing["b"])
    assert second.path == before.path
    assert second.path.read_bytes() == B
    assert transformer(clashing["a"]).path.read_bytes() == A
    assert sorted(path.name for path in (root / "ckpts").glob("*.safetensors")) == sorted([NAME, second.path.name])


def test_files_of_the_same_name_get_different_paths_in_one_plan(clashing):
    both = [clashing["a"], clashing["b"]]
    _, plan = plan_download(both, scope=Scope(weights_only=True), machine=MACHINE)
    assert len({task.target for task in plan.tasks}) == 2
    paths = [plan.items[0].path for plan in pull_all(both, scope=Scope(weights_only=True), machine=MACHINE)]
    assert [path.read_bytes() for path in paths] == [A, B]


def test_files_are_matched_to_their_urls_without_the_index(clashing, root):
    for letter in "ab":
        get(clashing[letter])
    (root / "ckpts" / FILE_NAME).unlink()
    assert transformer(clashing["a"]).path.read_bytes() == A
    assert transformer(clashing["b"]).path.read_bytes() == B


def test_a_file_of_unknown_origin_is_used_if_only_one_url_matches(clashing, root, define, served):
    path = root / "ckpts" / NAME
    path.parent.mkdir()
    path.write_bytes(A)
    assert not transformer(clashing["a"]).present  # it could be either's
    (root / "finetunes" / "b.json").unlink()
    assert transformer(load_catalog(root)["a"]).path == path
    define("b", {"architecture": "hunyuan", "URLs": [f"{served.url}/b/{NAME}"]})  # whose header this is not
    assert transformer(load_catalog(root)["a"]).path == path


def test_a_file_of_unknown_origin_is_matched_by_size_or_sha256(clashing, root):
    path = root / "ckpts" / NAME
    path.parent.mkdir()
    path.write_bytes(A)
    index = Index(root / "ckpts")
    index.record_url(transformer(clashing["b"]).url, len(B) + 1)
    assert transformer(clashing["a"]).path == path
    assert not transformer(clashing["b"]).present
    index.record_url(transformer(clashing["b"]).url, len(B), hashlib.sha256(B).hexdigest())
    list(verify(clashing, list_entries(clashing)))  # learns the file's sha256
    assert transformer(clashing["a"]).path == path
    assert not transformer(clashing["b"]).present


def test_a_sound_file_of_another_url_is_not_renamed(clashing, root):
    path = root / "ckpts" / NAME
    path.parent.mkdir()
    path.write_bytes(A)
    assert get(clashing["b"]).path.read_bytes() == B
    assert path.read_bytes() == A
    assert transformer(clashing["a"]).path == path  # b has its own by now


def test_both_transformers_of_one_definition(server, define, root):
    for place, content in (("high_noise", A), ("low_noise", B)):
        server.files[f"/{place}/model.safetensors"] = content
    urls = {key: [f"{server.url}/{place}/model.safetensors"] for key, place in
            (("URLs", "high_noise"), ("URLs2", "low_noise"))}  # fmt: skip
    define("wan22", {"architecture": "t2v_2_2", "components": "o/r", **urls})
    definition = load_catalog(root)["wan22"]
    assert len({item.path for item in explain(definition, machine=MACHINE).items[:2]}) == 2
    items = pull(definition, weights_only=True, machine=MACHINE).items
    assert [item.path.read_bytes() for item in items[:2]] == [A, B]
    assert all(item.present for item in explain(definition, machine=MACHINE).items[:2])


def test_local_paths_with_the_same_file_name(define, root):
    (root / "ckpts" / "high").mkdir(parents=True)
    (root / "ckpts" / "high" / "model.safetensors").write_bytes(A)
    define(
        "wan22",
        {"architecture": "t2v_2_2", "URLs": ["ckpts/high/model.safetensors"], "URLs2": ["low/model.safetensors"]},
    )
    with pytest.raises(ChoiceError, match=r"low/model\.safetensors is not there.*it is the file ckpts/high/model"):
        explain(load_catalog(root)["wan22"], machine=MACHINE)


def test_preloaded_files_and_modules(server, define, root):
    for place, content in (("p", b"one"), ("q", b"two")):
        server.files[f"/{place}/extra.bin"] = content
    for place, seed in (("m", 1), ("n", 2)):
        server.files[f"/{place}/vace.safetensors"] = weights(seed, VACE)
    server.files["/base.safetensors"] = A
    for id, extra, module in (("one", "p", "m"), ("two", "q", "n")):
        model = {"architecture": "vace_1.3B", "URLs": [f"{server.url}/base.safetensors"], "components": "o/r",
                 "modules": [[f"{server.url}/{module}/vace.safetensors"]],
                 "preload_URLs": [f"{server.url}/{extra}/extra.bin"]}  # fmt: skip
        define(id, model)
    for part in ("tokenizer", "text_encoder", "vae"):
        (root / "ckpts" / "o--r" / part).mkdir(parents=True)
        (root / "ckpts" / "o--r" / part / "config.json").write_text("{}")
    catalog = load_catalog(root)
    both = [catalog["one"], catalog["two"]]
    pull_all(both, machine=MACHINE)
    for definition, extra, seed in zip(both, (b"one", b"two"), (1, 2), strict=True):
        items = {item.subject: item for item in explain(definition, machine=MACHINE).items}
        assert items["preload"].path.read_bytes() == extra
        assert items["modules[0]"].path.read_bytes() == weights(seed, VACE)


@pytest.mark.parametrize("disposition", ["", "shared.safetensors"], ids=["no name", "the same name"])
def test_urls_that_differ_in_the_query_alone(server, define, root, disposition):
    def answer(handler, body):
        server.files["/dl"] = {"7": A, "8": B}[handler.path.rpartition("=")[2]]
        server.headers["/dl"] = {"Content-Disposition": f'attachment; filename="{disposition}"'} if disposition else {}
        return False

    server.files["/dl"] = A
    kind = server.answer

    def routed(handler):
        answer(handler, b"")
        kind(handler)

    server.answer = routed
    for number in (7, 8):
        define(f"d{number}", {"architecture": "t2v", "URLs": [f"{server.url}/dl?id={number}"], "components": "o/r"})
    catalog = load_catalog(root)
    paths = [get(catalog[f"d{number}"]).path for number in (7, 8)]
    assert [path.read_bytes() for path in paths] == [A, B]
    if disposition:
        assert paths[0].name == disposition
    assert [transformer(catalog[f"d{number}"]).path for number in (7, 8)] == paths


@pytest.mark.parametrize("name", ["../evil.safetensors", ".index.sqlite", "x.partial", "con.safetensors", "a/b", ""])
def test_an_invalid_name_from_the_server_is_not_used(server, define, root, name):
    server.files["/dl"] = A
    server.headers["/dl"] = {"Content-Disposition": f'attachment; filename="{name}"'}
    define("mine", {"architecture": "t2v", "URLs": [f"{server.url}/dl?id=7"], "components": "o/r"})
    assert get(load_catalog(root)["mine"]).path == root / "ckpts" / "dl"


def test_rm_and_gc_distinguish_files_of_the_same_name(clashing, root):
    paths = {letter: get(clashing[letter]).path for letter in "ab"}
    users = {entry.path: entry.users for entry in list_entries(clashing)}
    assert users[paths["a"]] == ("a",)
    assert users[paths["b"]] == ("b",)
    (root / "finetunes" / "a.json").unlink()
    left = leftovers(load_catalog(root))
    assert [entry.path for entry in left] == [paths["a"]]
    assert remove(left[0]) == ""
    assert transformer(load_catalog(root)["b"]).path.read_bytes() == B


def test_a_possible_mirror_of_an_edited_definition_is_kept(clashing, root, define, served):
    path = get(clashing["a"]).path
    for letter in "ab":
        (root / "finetunes" / f"{letter}.json").unlink()
    define("a", {"architecture": "t2v", "URLs": [f"{served.url}/mirror/{NAME}"], "components": "o/r"})
    assert path not in [entry.path for entry in leftovers(load_catalog(root))]


def test_verify_compares_each_with_its_own_sha256(served, define, root):
    for letter, content in (("a", A), ("b", B)):
        model = {"architecture": "t2v", "URLs": [f"{served.url}/{letter}/{NAME}"], "components": "o/r",
                 "sha256": {NAME: hashlib.sha256(content).hexdigest()}}  # fmt: skip
        define(letter, model)
    catalog = load_catalog(root)
    paths = {letter: get(catalog[letter]).path for letter in "ab"}
    assert not [result.fault for result in verify(catalog, list_entries(catalog)) if result.fault]
    paths["b"].write_bytes(A)  # sound, and the wrong one's
    faults = {result.path: result.fault for result in verify(catalog, list_entries(catalog))}
    assert "sha256" in faults[paths["b"]]
    assert not faults[paths["a"]]


def test_urls_of_one_file_are_one(define, root, server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.files[f"/o/r/resolve/main/{NAME}"] = A
    forms = ["huggingface.co/o/r/resolve", "hf.co/o/r/blob", "HuggingFace.co/o/r/raw"]
    for number, form in enumerate(forms):
        urls = [f"https://{form}/main/{NAME}" + ("?download=true" if number else "")]
        define(f"d{number}", {"architecture": "t2v", "URLs": urls, "components": "x/y"})
    catalog = load_catalog(root)
    path = get(catalog["d0"]).path
    assert [transformer(catalog[f"d{number}"]).path for number in range(3)] == [path] * 3
    (root / "ckpts" / FILE_NAME).unlink()
    assert [transformer(catalog[f"d{number}"]).path for number in range(3)] == [path] * 3


def test_unique_names_keep_their_suffix_and_fit():
    assert unique_name(NAME, "https://h/a").startswith("diffusion_pytorch_model-")
    assert unique_name(NAME, "https://h/a").endswith(".safetensors")
    assert unique_name(NAME, "https://h/a") != unique_name(NAME, "https://h/b")
    assert unique_name("ü" * 100 + ".safetensors", "https://h/a").endswith(".safetensors")
    assert len(unique_name("ü" * 100 + ".safetensors", "https://h/a").encode()) <= 200
    assert "." not in unique_name("dl", "https://h/a")


# --- equal files -----------------------------------------------------------------------------------------------


def linked(server, path, content):
    """Serve a file as the Hub does, with its sha256."""
    server.files[path] = content
    server.headers[path] = {"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"'}


def test_equal_weights_under_different_urls_are_stored_once(server, define, root):
    for place in ("first/x.safetensors", "second/y.safetensors"):
        linked(server, f"/{place}", A)
        define(place[:5], {"architecture": "t2v", "URLs": [f"{server.url}/{place}"], "components": "o/r"})
    catalog = load_catalog(root)
    first = get(catalog["first"]).path
    server.sent = 0
    _, plan = plan_download([catalog["secon"]], scope=Scope(weights_only=True), machine=MACHINE)
    assert plan.bytes_to_download == 0
    assert get(catalog["secon"]).path == first
    assert server.sent <= 2 * 4096
    assert [path.name for path in (root / "ckpts").glob("*.safetensors")] == [first.name]
    assert {entry.path: entry.users for entry in list_entries(catalog)}[first] == ("first", "secon")


@pytest.fixture
def two_repositories(server, define, root, monkeypatch):
    """Two base models whose repositories hold the same text encoder."""
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    for repository in ("o/r", "o/s"):
        for folder in ("tokenizer", "text_encoder", "vae"):
            names = ["config.json"] + (["model.safetensors"] if folder == "text_encoder" else [])
            listing = [{"type": "file", "path": f"{folder}/{name}", "size": 2} for name in names]
            if folder == "text_encoder":
                listing[1] |= {"size": len(A), "lfs": {"oid": hashlib.sha256(A).hexdigest(), "size": len(A)}}
                linked(server, f"/{repository}/resolve/main/{folder}/model.safetensors", A)
            server.files[f"/api/models/{repository}/tree/main/{folder}"] = json.dumps(listing).encode()
            server.files[f"/{repository}/resolve/main/{folder}/config.json"] = b"{}"
    server.files["/w.safetensors"] = B
    for id, repository in (("one", "o/r"), ("two", "o/s")):
        define(id, {"architecture": "t2v", "URLs": [f"{server.url}/w.safetensors"], "components": repository})
    return load_catalog(root)


def encoders(root):
    return [root / "ckpts" / f"o--{letter}" / "text_encoder" / "model.safetensors" for letter in "rs"]


@pytest.mark.parametrize("together", [False, True], ids=["one after the other", "in one plan"])
def test_one_text_encoder_serves_two_base_models(two_repositories, server, root, together):
    catalog, planned = two_repositories, []
    both = [catalog["one"], catalog["two"]]
    for group in [both] if together else [[definition] for definition in both]:
        assert not [plan.missing for plan in pull_all(group, machine=MACHINE, listener=planned.append) if plan.missing]
    first, second = encoders(root)
    assert second.read_bytes() == A
    assert first.samefile(second)
    asked = [path for path, _ in server.requests if path.endswith("text_encoder/model.safetensors")]
    assert not [path for path in asked if path.startswith("/o/s")]


def test_files_are_copied_where_hard_links_dont_work(two_repositories, server, root, monkeypatch):
    def refuse(self, target):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    pull_all([two_repositories["one"], two_repositories["two"]], machine=MACHINE)
    first, second = encoders(root)
    assert second.read_bytes() == A
    assert not first.samefile(second)
    assert not [path for path, _ in server.requests if path.startswith("/o/s") and path.endswith(".safetensors")]


def test_a_hard_link_outlives_the_other_file_and_counts_once(two_repositories, root):
    from reeltune.library.cleanup import total_bytes

    pull_all([two_repositories["one"], two_repositories["two"]], machine=MACHINE)
    entries = list_entries(two_repositories)
    assert total_bytes(entries) == sum(entry.bytes for entry in entries) - len(A)
    first, second = encoders(root)
    remove(next(entry for entry in entries if first in entry.files))
    assert second.read_bytes() == A
    assert not explain(two_repositories["two"], machine=MACHINE).missing


def test_a_changed_file_with_the_recorded_sha256_is_not_used(two_repositories, root):
    pull(two_repositories["one"], machine=MACHINE)
    first, second = encoders(root)
    first.write_bytes(B + b"")
    pull(two_repositories["two"], machine=MACHINE)
    assert second.read_bytes() == A


# --- what is left of interrupted attempts ----------------------------------------------------------------------


def test_a_partial_file_of_one_url_is_not_continued_with_another(server, tmp_path, monkeypatch):
    """The server's ETags are made from sizes and dates, so that both files have the same one."""
    from reeltune import CancelToken
    from reeltune.errors import Cancelled
    from reeltune.fetch import transfer
    from reeltune.fetch.download import Downloader
    from reeltune.fetch.task import DownloadTask
    from reeltune.library.journal import BLOCK

    monkeypatch.setattr(transfer, "_MIN_PIECE_BYTES", 2 * BLOCK)
    monkeypatch.setattr(transfer, "_MAX_PIECE_BYTES", 2 * BLOCK)
    contents = {f"/{letter}/{NAME}": safetensors_bytes({"w": ("BF16", [10 * BLOCK])}, data=letter.encode() * 20 * BLOCK)
                for letter in "ab"}  # fmt: skip
    server.files |= contents
    server.etags |= dict.fromkeys(contents, '"same"')
    cancel = CancelToken()

    def stop(handler, body):
        if handler.headers.get("Range", "") > f"bytes={8 * BLOCK}":
            cancel.cancel()
        return False

    server.faults[f"/a/{NAME}"] = stop
    target = tmp_path / NAME
    with Downloader(cancel=cancel) as downloader, pytest.raises(Cancelled):
        downloader.fetch(DownloadTask(f"{server.url}/a/{NAME}", target, True))
    assert target.with_name(f"{NAME}.partial").exists()
    with Downloader() as downloader:
        downloader.fetch(DownloadTask(f"{server.url}/b/{NAME}", target, True))
    assert target.read_bytes() == contents[f"/b/{NAME}"]


def test_a_component_never_mixes_two_revisions(two_repositories, server, root):
    """The second file fails; meanwhile the first one changes on the server, to one of the same size."""
    listing = json.loads(server.files["/api/models/o/r/tree/main/text_encoder"])
    listing.reverse()
    path = "/o/r/resolve/main/text_encoder"
    server.files["/api/models/o/r/tree/main/text_encoder"] = json.dumps(listing).encode()
    config = server.files.pop(f"{path}/config.json")
    from reeltune.errors import FetchError

    with pytest.raises(FetchError, match="404"):
        pull(two_repositories["one"], machine=MACHINE)
    server.files[f"{path}/config.json"] = config
    linked(server, f"{path}/model.safetensors", B)
    listing[0]["lfs"]["oid"] = hashlib.sha256(B).hexdigest()
    server.files["/api/models/o/r/tree/main/text_encoder"] = json.dumps(listing).encode()
    pull(two_repositories["one"], machine=MACHINE)
    assert encoders(root)[0].read_bytes() == B


def test_a_url_that_is_listed_twice_is_one_file(served, define, root):
    url = f"{served.url}/a/{NAME}"
    define("twice", {"architecture": "t2v", "URLs": [url], "preload_URLs": [url], "components": "o/r"})
    definition = load_catalog(root)["twice"]
    first, second = explain(definition, machine=MACHINE).items[:2]
    assert first.path == second.path
    assert get(definition).path.name == NAME
    assert [path.name for path in (root / "ckpts").glob("*.safetensors")] == [NAME]


def test_a_component_file_is_not_used_as_a_version(define, root, monkeypatch):
    folder = root / "ckpts" / "o--r" / "transformer"
    folder.mkdir(parents=True)
    (folder / NAME).write_bytes(A)
    define("mine", {"architecture": "t2v", "URLs": [f"https://h/x/{NAME}"], "preload_URLs": ["https://h/config.json"]})
    items = explain(load_catalog(root)["mine"], machine=MACHINE).items[:2]
    assert not items[0].present
    assert not items[1].present  # the package's own components have files of that name too
    define("mine", {"architecture": "t2v", "URLs": [f"https://huggingface.co/o/r/resolve/main/transformer/{NAME}"]})
    assert transformer(load_catalog(root)["mine"]).path == folder / NAME
    cache = root / "cache" / "models--o--r" / "snapshots" / "1"
    cache.mkdir(parents=True)
    (cache / "x.safetensors").write_bytes(A)
    (root / "reeltune.json").write_text(json.dumps({"model_folders": ["cache"]}))
    define("mine", {"architecture": "t2v", "URLs": ["https://huggingface.co/o/r/resolve/main/x.safetensors"]})
    assert transformer(load_catalog(root)["mine"]).path == cache / "x.safetensors"


def test_names_that_differ_only_in_case_get_different_paths(server, define, root):
    server.files |= {"/a/Model.safetensors": A, "/b/model.safetensors": B}
    urls = {"URLs": [f"{server.url}/a/Model.safetensors"], "URLs2": [f"{server.url}/b/model.safetensors"]}
    define("wan22", {"architecture": "t2v_2_2", "components": "o/r", **urls})
    items = pull(load_catalog(root)["wan22"], weights_only=True, machine=MACHINE).items
    assert [item.path.read_bytes() for item in items[:2]] == [A, B]
    assert len({item.path.name.lower() for item in items[:2]}) == 2


def test_a_file_is_found_under_another_spelling_of_its_name(root, monkeypatch):
    """As on a file system that makes no difference between cases."""
    from pathlib import Path

    ckpts = root / "ckpts"
    ckpts.mkdir()
    (ckpts / "Model.safetensors").write_bytes(A)
    index = Index(ckpts)
    index.record_file(ckpts / "Model.safetensors", "https://h/a/Model.safetensors", "a" * 64)
    same = Path.samefile
    monkeypatch.setattr(Path, "samefile", lambda one, other: one.name == "model.safetensors" or same(one, other))
    assert index.sources(ckpts / "model.safetensors") == {"https://h/a/Model.safetensors"}
    monkeypatch.setattr(Path, "samefile", same)
    assert index.sources(ckpts / "model.safetensors") == frozenset()
