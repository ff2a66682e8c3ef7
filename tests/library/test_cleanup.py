"""What lies in ckpts, whose it is, and what may go."""

import hashlib
import json

import filelock
import pytest

from conftest import safetensors_bytes
from reeltune import load_catalog, pull
from reeltune.library.cleanup import list_entries, remove
from reeltune.library.index import Index
from reeltune.library.verify import verify
from reeltune.machine import Machine

TENSORS = {"head.modulation": ("BF16", [1, 2, 4]), "patch_embedding.weight": ("BF16", [4, 16, 1, 2, 2])}
GOOD = safetensors_bytes(TENSORS)
MACHINE = Machine(2**34, 2**33)


@pytest.fixture
def two(server, define, root):
    """Two definitions that share one file and have one each; all fetched."""
    for name in ("a", "b", "shared"):
        server.files[f"/{name}_bf16.safetensors"] = GOOD
    urls = {name: f"{server.url}/{name}_bf16.safetensors" for name in ("a", "b", "shared")}
    define("one", {"architecture": "t2v", "URLs": [urls["a"]], "preload_URLs": [urls["shared"]], "components": "o/r"})
    define("two", {"architecture": "t2v", "URLs": [urls["b"]], "preload_URLs": "one", "components": "o/r"})
    catalog = load_catalog(root)
    for id in ("one", "two"):
        pull(catalog[id], weights_only=True, machine=MACHINE)
    (root / "ckpts" / "shared_bf16.safetensors").write_bytes(GOOD)
    return catalog


def by_name(catalog):
    return {entry.path.name: entry for entry in list_entries(catalog)}


def test_entries_list_the_definitions_that_use_them(two):
    entries = by_name(two)
    assert entries["a_bf16.safetensors"].users == ("one",)
    assert entries["a_bf16.safetensors"].downloaded
    assert entries["b_bf16.safetensors"].users == ("two",)
    assert entries["shared_bf16.safetensors"].users == ("one", "two")  # one of them by reference
    assert not entries["shared_bf16.safetensors"].downloaded
    assert entries["a_bf16.safetensors"].bytes == len(GOOD)


def test_a_broken_definition_uses_every_file_it_mentions(two, root):
    (root / "finetunes" / "broken.json").write_text('{"model": {"URLs": ["https://h/a_bf16.safetensors"],', "utf-8")
    assert by_name(load_catalog(root))["a_bf16.safetensors"].users == ("broken", "one")


def test_only_files_of_this_program_are_leftovers(two, root):
    ckpts = root / "ckpts"
    (ckpts / "foreign.safetensors").write_bytes(GOOD)
    (ckpts / "gone.safetensors.partial").write_bytes(b"1234")
    (ckpts / "gone.safetensors.journal.partial").write_bytes(b"not a journal")
    (ckpts / "a_bf16.safetensors.unusable1").write_bytes(b"wrong")
    (ckpts / "a_bf16.safetensors.partial").write_bytes(b"a download to go on with")
    (root / "finetunes" / "two.json").unlink()
    catalog = load_catalog(root)
    leftovers = {entry.path.name for entry in list_entries(catalog) if entry.leftover}
    assert leftovers == {"gone.safetensors", "b_bf16.safetensors"}
    for entry in list_entries(catalog):
        if entry.leftover:
            assert remove(entry) == ""
    left = {path.name for path in ckpts.iterdir() if path.is_file()} - {".index.sqlite"}
    assert left == {
        "foreign.safetensors", "a_bf16.safetensors", "a_bf16.safetensors.partial", "shared_bf16.safetensors",
        "a_bf16.safetensors.unusable1",
    }  # fmt: skip


def test_files_being_downloaded_are_not_removed(two, root):
    partial = root / "ckpts" / "new.safetensors.partial"
    partial.write_bytes(b"half")
    with filelock.FileLock(root / "ckpts" / "new.safetensors.lock.partial"):
        assert remove(by_name(two)["new.safetensors"]) == "it is being downloaded right now"
        assert partial.exists()


def test_a_component_is_one_entry_and_removing_a_link_keeps_its_target(two, root, tmp_path):
    outside = tmp_path / "outside.bin"
    outside.write_bytes(b"precious")
    folder = root / "ckpts" / "o--r" / "vae"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", "utf-8")
    (folder / "model.bin").symlink_to(outside)
    entry = by_name(two)["vae"]
    assert (entry.state, entry.users, len(entry.files)) == ("component", ("one", "two"), 2)
    assert remove(entry) == ""
    assert outside.read_bytes() == b"precious"
    assert not folder.exists()


def test_verify_finds_a_flipped_bit_and_records_new_sha256(two, root):
    ckpts = root / "ckpts"
    results = {result.path.name: result for result in verify(two, list_entries(two))}
    assert all(not result.fault for result in results.values())
    assert results["a_bf16.safetensors"].compared
    assert not results["shared_bf16.safetensors"].compared
    assert Index(ckpts).sha256(ckpts / "shared_bf16.safetensors") == hashlib.sha256(GOOD).hexdigest()
    for name in ("a_bf16.safetensors", "shared_bf16.safetensors"):
        path = ckpts / name
        path.write_bytes(GOOD[:-1] + bytes([GOOD[-1] ^ 1]))
    (ckpts / "b_bf16.safetensors").write_bytes(GOOD[:-2])
    faults = {result.path.name: result.fault for result in verify(two, list_entries(two))}
    assert "its sha256 is" in faults["a_bf16.safetensors"]
    assert "its sha256 is" in faults["shared_bf16.safetensors"]
    assert "truncated" in faults["b_bf16.safetensors"] or "bytes" in faults["b_bf16.safetensors"]


def test_a_sha256_in_the_definition_applies_to_files_on_disk(two, root, define, server):
    url = f"{server.url}/a_bf16.safetensors"
    define(
        "one", {"architecture": "t2v", "URLs": [url], "components": "o/r", "sha256": {"a_bf16.safetensors": "0" * 64}}
    )
    catalog = load_catalog(root)
    faults = [
        result.fault for result in verify(catalog, list_entries(catalog)) if result.path.name == "a_bf16.safetensors"
    ]
    assert "0" * 64 in faults[0]
    from reeltune import explain

    plan = explain(catalog["one"], machine=MACHINE)
    assert not plan.items[0].present
    assert "its sha256 is" in " ".join(plan.notices)


def test_several_definitions_share_one_plan_and_all_versions_can_be_downloaded(server, define, root, monkeypatch):
    from reeltune.errors import NotEnoughDisk
    from reeltune.fetch import Scope, plan_download, pull_all

    names = ["x_bf16.safetensors", "x_fp16.safetensors", "y_bf16.safetensors"]
    for name in names:
        server.files["/" + name] = GOOD
    urls = [f"{server.url}/{name}" for name in names]
    define("one", {"architecture": "t2v", "URLs": urls[:2], "components": "o/r"})
    define("two", {"architecture": "t2v", "URLs": [urls[2]], "preload_URLs": [urls[0]], "components": "o/r"})
    catalog = load_catalog(root)
    both = [catalog["one"], catalog["two"]]
    scope = Scope(weights_only=True)
    _, plan = plan_download(both, scope=scope, machine=MACHINE)
    assert plan.bytes_to_download == 2 * len(GOOD)
    monkeypatch.setattr("reeltune.fetch.survey.free_disk", lambda folder: 2 * len(GOOD) - 1)
    with pytest.raises(NotEnoughDisk):
        pull_all(both, scope=scope, machine=MACHINE)
    assert not (root / "ckpts").exists() or not [*(root / "ckpts").glob("*.safetensors")]
    monkeypatch.setattr("reeltune.fetch.survey.free_disk", lambda folder: 10**12)
    events = []
    pull_all(both, scope=Scope(weights_only=True, all_versions=True), machine=MACHINE, listener=events.append)
    assert sorted(path.name for path in (root / "ckpts").glob("*.safetensors")) == names
    planned = next(event for event in events if type(event).__name__ == "Planned")
    assert [file.name for file in planned.files] == names
    assert json.loads(json.dumps(planned.to_fetch)) == 3 * len(GOOD)


@pytest.mark.parametrize(
    "written", ["https://h/my%20model.safetensors", r"https:\/\/h\/my model.safetensors", r"my\u0020model.safetensors"]
)
def test_a_broken_definition_uses_a_file_however_its_name_is_escaped(root, define, written):
    ckpts = root / "ckpts"
    (ckpts / "me--comp" / "vae").mkdir(parents=True)
    (ckpts / "me--comp" / "vae" / "config.json").write_text("{}", "utf-8")
    (ckpts / "my model.safetensors").write_bytes(GOOD)
    index = Index(ckpts)
    index.record_file(ckpts / "my model.safetensors", "https://h/x", "0" * 64)
    index.record_file(ckpts / "me--comp" / "vae" / "config.json", "https://h/c", "0" * 64)
    (root / "finetunes" / "broken.json").write_text(
        '{"model": {"components": "me/comp", "URLs": ["' + written + '"],}', "utf-8"
    )
    assert not [entry for entry in list_entries(load_catalog(root)) if entry.leftover]


def test_files_can_be_used_by_path_link_and_name(root, define):
    ckpts = root / "ckpts"
    (ckpts / "you--comp" / "vae").mkdir(parents=True)
    for name in ("a.safetensors", "Big.safetensors", "Wan2.1_VAE.safetensors", "you--comp/vae/x.json"):
        (ckpts / name).write_bytes(GOOD)
        Index(ckpts).record_file(ckpts / name, f"https://h/{len(name)}", "0" * 64)
    (ckpts / "b.safetensors").symlink_to(ckpts / "a.safetensors")
    define("one", {"architecture": "t2v", "URLs": ["ckpts/b.safetensors", "ckpts/big.safetensors"]})
    define("two", {"architecture": "t2v", "URLs": ["ckpts/b.safetensors"], "components": "ckpts/you--comp"})
    define("odd", {"architecture": "t2v", "URLs": ["ckpts/c.safetensors"], "author": "http://[me"})
    assert not [entry.path for entry in list_entries(load_catalog(root)) if entry.leftover]


def test_partial_files_of_other_programs_stay_and_unreadable_folders_stop_gc(root):
    from reeltune.errors import DefinitionError
    from reeltune.library.cleanup import leftovers

    (root / "ckpts").mkdir()
    (root / "ckpts" / "other.partial").write_bytes(b"another program's")
    assert not leftovers(load_catalog(root))
    (root / "finetunes").rmdir()
    (root / "finetunes").symlink_to(root / "unmounted")
    with pytest.raises(DefinitionError, match="can't be read"):
        leftovers(load_catalog(root))


def test_a_file_recorded_for_several_urls_is_found_by_each(root):
    ckpts = root / "ckpts"
    ckpts.mkdir()
    path = ckpts / "x.safetensors"
    path.write_bytes(GOOD)
    index = Index(ckpts)
    for url in ("https://civitai.com/api/download/models/5", "https://civitai.com/models/1?modelVersionId=5"):
        index.record_file(path, url, "a" * 64)
    assert index.file_from_url("https://civitai.com/api/download/models/5") == path
    assert index.file_from_url("https://civitai.com/models/1?modelVersionId=5") == path
    assert index.sha256(path) == "a" * 64


def test_sha256_of_a_definition_do_not_apply_to_component_files(root, define):
    folder = root / "ckpts" / "o--r" / "vae"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", "utf-8")
    define(
        "one",
        {
            "architecture": "t2v",
            "URLs": ["https://h/x.safetensors"],
            "components": "o/r",
            "sha256": {"config.json": "0" * 64},
        },
    )
    catalog = load_catalog(root)
    assert [result.fault for result in verify(catalog, list_entries(catalog))] == [""]


def test_sizes_are_known_offline_after_the_server_was_asked_once(two, root, monkeypatch):
    from reeltune.errors import Offline
    from reeltune.fetch import Scope, plan_download, pull_all

    path = root / "ckpts" / "a_bf16.safetensors"
    path.unlink()
    monkeypatch.setenv("REELTUNE_OFFLINE", "1")
    scope, notices = Scope(weights_only=True), []
    with pytest.raises(Offline, match=f"a_bf16.safetensors from http.*a_bf16.safetensors .{len(GOOD):,} bytes"):
        pull_all([two["one"]], scope=scope, machine=MACHINE)
    _, plan = plan_download([two["one"]], scope=scope, machine=MACHINE, listener=notices.append)
    assert (plan.bytes_to_download, plan.unknown_sizes) == (len(GOOD), 0)
    assert "Unset REELTUNE_OFFLINE" in notices[0].message
    (root / "ckpts" / ".index.sqlite").unlink()
    with pytest.raises(Offline, match="unknown size"):
        pull_all([two["one"]], scope=scope, machine=MACHINE)
    assert plan_download([two["one"]], scope=scope, machine=MACHINE)[1].unknown_sizes == 1
