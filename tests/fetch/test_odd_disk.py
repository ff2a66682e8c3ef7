"""A root that is not as it should be: links in circles, files in the place of folders, pipes, locks, other's names."""

import errno
import json
import os
import sqlite3
import sys
from pathlib import Path

import pytest

from conftest import safetensors_bytes
from reeltune import explain, load_catalog, pull
from reeltune.cli import main
from reeltune.errors import ChoiceError, FetchError, Offline, ReeltuneError
from reeltune.fetch import Scope, plan_download
from reeltune.fetch.download import Downloader
from reeltune.fetch.task import DownloadTask
from reeltune.library.adding import inspect_source
from reeltune.library.cleanup import list_entries
from reeltune.library.folders import walk
from reeltune.library.index import FILE_NAME, Index
from reeltune.library.inventory import Inventory
from reeltune.library.places import check_name
from reeltune.library.verify import verify
from reeltune.machine import Machine
from reeltune.preferences import Preferences

SHAPES = {"head.modulation": ("BF16", [1, 2, 4]), "patch_embedding.weight": ("BF16", [4, 16, 1, 2, 2])}
GOOD = safetensors_bytes(SHAPES)
MACHINE = Machine(2**34, 2**33)
NAME = "x_bf16.safetensors"
posix = pytest.mark.skipif(sys.platform == "win32", reason="this system has no such files")


@pytest.fixture
def mine(server, define, root):
    server.files["/" + NAME] = GOOD
    define("mine", {"architecture": "t2v", "URLs": [f"{server.url}/{NAME}"], "components": "o/r"})
    return load_catalog(root)["mine"]


def run(*words):
    try:
        main(list(words))
    except SystemExit as end:
        return end.code or 0
    return 0


def make(kind, ckpts, monkeypatch):
    if kind == "dangling":
        ckpts.symlink_to(ckpts.parent / "unmounted")
    elif kind == "loop":
        ckpts.symlink_to(ckpts)
    elif kind == "file":
        ckpts.write_text("not a folder")
    elif kind == "unreadable":
        ckpts.mkdir()
        scan, listed = os.scandir, Path.iterdir

        def refuse(path="."):
            if str(path).startswith(str(ckpts)):
                raise PermissionError(errno.EACCES, "Permission denied")
            return scan(path)

        monkeypatch.setattr(os, "scandir", refuse)
        monkeypatch.setattr(Path, "iterdir", lambda path: refuse(path) and listed(path))


@posix
@pytest.mark.parametrize("kind", ["dangling", "loop", "file", "unreadable"])
def test_ckpts_that_is_not_a_folder_is_a_clear_error(mine, root, kind, monkeypatch, capsys):
    make(kind, root / "ckpts", monkeypatch)
    plan = explain(mine, machine=MACHINE)
    assert len(plan.missing) == len(plan.items)
    assert any("can't be read" in line for line in plan.notices)
    _, plan = plan_download([mine], scope=Scope(weights_only=True), machine=MACHINE)
    assert plan.bytes_to_download == len(GOOD)
    for words in (["ls"], ["verify"], ["gc", "--dry-run"], ["rm", "mine", "--yes"]):
        assert run(*words, "--root", str(root)) == 1
    if kind != "unreadable":
        with pytest.raises(ReeltuneError, match="can't be created"):
            pull(mine, weights_only=True, machine=MACHINE)
    assert "Traceback" not in capsys.readouterr().err


@posix
def test_a_named_pipe_blocks_no_command(mine, root):
    ckpts = root / "ckpts"
    ckpts.mkdir()
    for name in (NAME, "pipe.safetensors", "o--r/vae/config.json"):
        (ckpts / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(ckpts / name)
    catalog = load_catalog(root)
    assert not explain(mine, machine=MACHINE).items[0].present
    faults = [result.fault for result in verify(catalog, list_entries(catalog))]
    assert len(faults) == 3
    assert all("regular file" in fault for fault in faults)
    assert pull(mine, weights_only=True, machine=MACHINE).items[0].path.read_bytes() == GOOD


@posix
def test_an_index_that_is_a_pipe_or_a_folder_is_ignored(root):
    ckpts = root / "ckpts"
    ckpts.mkdir()
    (ckpts / NAME).write_bytes(GOOD)
    for make_it in (os.mkfifo, os.mkdir):
        make_it(ckpts / FILE_NAME)
        index = Index(ckpts)
        index.record_file(ckpts / NAME, "https://h/x", "a" * 64)
        assert index.file_from_url("https://h/x") is None
        (ckpts / FILE_NAME).unlink() if make_it is os.mkfifo else (ckpts / FILE_NAME).rmdir()


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "Permission denied"), OSError(errno.EROFS, "Read-only file system")]
)
@pytest.mark.parametrize("where", ["lock", "mkdir", "rename"])
def test_a_read_only_folder_is_a_clear_error(mine, root, monkeypatch, error, where):
    def refuse(*args, **kwargs):
        raise error

    if where == "lock":
        monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    if where == "mkdir":
        monkeypatch.setattr(Path, "mkdir", refuse)
    if where == "rename":
        monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(ReeltuneError, match=error.strerror):
        pull(mine, weights_only=True, machine=MACHINE)


def test_a_component_that_cant_be_renamed_is_a_clear_error(root, tmp_path, monkeypatch):
    from reeltune.fetch.pulling import _rename_component

    aside = tmp_path / "vae.partial"
    aside.mkdir()
    (aside / "config.json").write_text("{}")
    (tmp_path / "vae").write_text("a file")
    with pytest.raises(FetchError, match="can't be renamed"):
        _rename_component(aside, tmp_path / "vae")
    (tmp_path / "vae").unlink()
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("another process's")
    _rename_component(aside, tmp_path / "vae")
    assert not aside.exists()
    assert (tmp_path / "vae" / "config.json").read_text() == "another process's"


# --- the index -------------------------------------------------------------------------------------------------


@pytest.fixture
def learned(root):
    """An index that knows one file."""
    ckpts = root / "ckpts"
    ckpts.mkdir()
    (ckpts / NAME).write_bytes(GOOD)
    Index(ckpts).record_file(ckpts / NAME, "https://h/x", "a" * 64)
    return ckpts


def test_a_locked_index_is_never_deleted(learned, monkeypatch):
    monkeypatch.setattr("reeltune.library.index._WRITE_WAIT_SECONDS", 0.05)
    other = sqlite3.connect(learned / FILE_NAME, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    inode = (learned / FILE_NAME).stat().st_ino
    Index(learned).record_file(learned / NAME, "https://h/y", "b" * 64)
    assert (learned / FILE_NAME).stat().st_ino == inode
    other.execute("ROLLBACK")
    other.close()
    assert Index(learned).file_from_url("https://h/x") == learned / NAME


@pytest.mark.parametrize(
    ("code", "deleted"),
    [
        (sqlite3.SQLITE_FULL, False), (sqlite3.SQLITE_BUSY, False), (sqlite3.SQLITE_READONLY, False),
        (sqlite3.SQLITE_IOERR, False), (sqlite3.SQLITE_CANTOPEN, False), (None, False),
        (sqlite3.SQLITE_CORRUPT, True), (sqlite3.SQLITE_NOTADB, True),
    ],
)  # fmt: skip
def test_only_a_damaged_index_is_replaced(learned, monkeypatch, code, deleted):
    connect, calls = sqlite3.connect, []

    def failing(*args, **kwargs):
        if kwargs.get("uri"):
            return connect(*args, **kwargs)
        calls.append(args)
        if len(calls) > 1:
            return connect(*args, **kwargs)
        error = sqlite3.OperationalError("it fails")
        if code is not None:
            error.sqlite_errorcode = code
        raise error

    monkeypatch.setattr(sqlite3, "connect", failing)
    Index(learned).record_file(learned / NAME, "https://h/y", "b" * 64)
    assert (Index(learned).file_from_url("https://h/x") is None) == deleted
    assert (Index(learned).file_from_url("https://h/y") is None) != deleted


def test_an_index_of_the_previous_version_is_migrated(root):
    ckpts = root / "ckpts"
    ckpts.mkdir()
    path = ckpts / NAME
    path.write_bytes(GOOD)
    facts = path.stat()
    old = sqlite3.connect(ckpts / FILE_NAME)
    old.execute(
        "CREATE TABLE files (name TEXT, url TEXT, bytes INTEGER, changed_ns INTEGER, sha256 TEXT, PRIMARY KEY (name, url))"
    )
    old.execute("CREATE TABLE sizes (url TEXT PRIMARY KEY, bytes INTEGER NOT NULL)")
    old.execute(
        "INSERT INTO files VALUES (?, ?, ?, ?, ?)", (NAME, "https://h/x", facts.st_size, facts.st_mtime_ns, "a" * 64)
    )
    old.execute("INSERT INTO sizes VALUES ('https://h/x', 7)")
    old.execute("PRAGMA user_version = 3")
    old.commit()
    old.close()
    for _ in range(2):
        index = Index(ckpts)
        assert (index.file_from_url("https://h/x"), index.size_of_url("https://h/x")) == (path, 7)
        index.record_url("https://h/y", 8, "b" * 64)
        assert (index.size_of_url("https://h/y"), index.sha256_of_url("https://h/y")) == (8, "b" * 64)


def test_records_outside_the_folder_are_ignored(learned, root):
    (root / "outside").write_bytes(GOOD)
    facts = (root / "outside").stat()
    with sqlite3.connect(learned / FILE_NAME) as connection:
        for name in ("../outside", str(root / "outside")):
            record = (name, "https://h/out", facts.st_size, facts.st_mtime_ns, "c" * 64)
            connection.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?)", record)
        connection.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?)", (b"\xff", 1, "x", "y", 2.5))
    assert Index(learned).file_from_url("https://h/out") is None
    assert Index(learned).files_with_sha256("c" * 64) == []
    assert Index(learned).file_from_url("https://h/x") == learned / NAME


def test_verify_works_in_a_read_only_folder(root, define, monkeypatch, capsys):
    """As on a read-only file system: SQLite can't write its index."""
    ckpts = root / "ckpts"
    ckpts.mkdir()
    (ckpts / NAME).write_bytes(GOOD)
    connect = sqlite3.connect

    def readonly(path, **kwargs):
        connection = connect(path, **kwargs)
        connection.execute("PRAGMA query_only = ON")
        return connection

    monkeypatch.setattr(sqlite3, "connect", readonly)
    assert run("verify", "--root", str(root)) == 0
    out = capsys.readouterr().out
    assert f"ok   {NAME}: sound; there is no sha256 to compare with" in out
    assert "0 damaged" in out


def test_verify_shows_paths_under_ckpts_and_a_row_for_each_component(root, capsys):
    folder = root / "ckpts" / "o--r" / "vae"
    folder.mkdir(parents=True)
    for name in ("config.json", "more.json"):
        (folder / name).write_text("{}")
    (root / "ckpts" / "sub").mkdir()
    (root / "ckpts" / "sub" / NAME).write_bytes(GOOD)
    assert run("verify", "--root", str(root)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[:-1]] == ["ok   o--r/vae", f"ok   sub/{NAME}"]
    assert "2 files" in lines[0]
    (folder / "config.json").write_bytes(b"\x1f\x8b\x08compressed")
    (root / "ckpts" / FILE_NAME).unlink()
    assert run("verify", "--root", str(root)) == 1
    assert "BAD  o--r/vae/config.json: it is compressed (gzip), not JSON" in capsys.readouterr().out


# --- names and listings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [".index.sqlite", ".INDEX.sqlite", ".index.sqlite-journal", "x.safetensors.partial", "x.PARTIAL", "x.unusable1"],
)
def test_names_of_the_programs_own_files_are_refused(name, server, define, root):
    with pytest.raises(FetchError, match="can't be used as a file name"):
        check_name(name)
    server.files["/" + name] = GOOD
    define("mine", {"architecture": "t2v", "URLs": [f"{server.url}/{name}"], "components": "o/r"})
    with pytest.raises(FetchError, match="can't be used as a file name"):
        pull(load_catalog(root)["mine"], weights_only=True, machine=MACHINE)


SIZES = ["1e999", "-1", "null", '"x"', "true", "1.5", str(10**30), "[]"]


@pytest.mark.parametrize("size", SIZES)
def test_odd_sizes_in_a_listing_count_as_unknown(server, define, root, monkeypatch, size):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    for folder in ("tokenizer", "text_encoder", "vae"):
        listing = f'[{{"type": "file", "path": "{folder}/config.json", "size": {size}, "lfs": {{"size": {size}, "oid": [1]}}}}]'
        server.files[f"/api/models/o/r/tree/main/{folder}"] = listing.encode()
        server.files[f"/o/r/resolve/main/{folder}/config.json"] = b"{}"
    server.files["/" + NAME] = GOOD
    define("mine", {"architecture": "t2v", "URLs": [f"{server.url}/{NAME}"], "components": "o/r"})
    _, plan = plan_download([load_catalog(root)["mine"]], machine=MACHINE)
    assert plan.unknown_sizes == 3
    assert not pull(load_catalog(root)["mine"], machine=MACHINE).missing


@pytest.mark.parametrize(
    "listing_text",
    ["[" * 5000, '[{"type": 1, "path": "x"}]', '[{"type": "file", "path": null}]', "\xff", "1e999", '{"a": 1}'],
)
def test_invalid_listings_are_refused(server, define, root, monkeypatch, listing_text):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.files["/api/models/o/r/tree/main/tokenizer"] = listing_text.encode("latin-1")
    server.files["/" + NAME] = GOOD
    define("mine", {"architecture": "t2v", "URLs": [f"{server.url}/{NAME}"], "components": "o/r"})
    with pytest.raises(FetchError, match="return a list of files"):
        pull(load_catalog(root)["mine"], machine=MACHINE)


@pytest.mark.parametrize(
    "source", ["http://[x]/y", "http://[::1/x.safetensors", "https://u:p@[y]/z", "http://", "https://h:99999/x"]
)
def test_add_refuses_invalid_urls(root, source):
    with pytest.raises(ReeltuneError):
        inspect_source(load_catalog(root), source)


# --- large folders ---------------------------------------------------------------------------------------------


def test_a_walk_is_bounded_and_reports_it(tmp_path):
    for outer in range(10):
        for inner in range(10):
            (tmp_path / str(outer) / str(inner)).mkdir(parents=True)
            (tmp_path / str(outer) / str(inner) / "deep.bin").touch()
        (tmp_path / str(outer) / "near.bin").touch()
    files = walk([tmp_path], max_files=60)
    assert len(files.by_name["near.bin"]) == 5
    assert "contains too many files" in files.notices[0]
    assert "Name the folder" in files.notices[0]
    whole = walk([tmp_path])
    assert (len(whole.by_name["near.bin"]), len(whole.by_name["deep.bin"]), whole.notices) == (10, 100, [])
    assert walk([tmp_path], seconds=-1).notices


@posix
def test_circular_links_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").symlink_to(tmp_path)
    (tmp_path / "c").symlink_to(tmp_path / "c")
    (tmp_path / "x.bin").touch()
    assert walk([tmp_path]).by_name == {"x.bin": [tmp_path / "x.bin"]}


def test_folders_are_walked_once_for_many_definitions(server, define, root, monkeypatch):
    from reeltune.fetch import pull_all

    walks = []
    monkeypatch.setattr(
        "reeltune.library.inventory.walk", lambda *args, **kwargs: walks.append(args) or walk(*args, **kwargs)
    )
    for number in range(5):
        server.files[f"/{number}.safetensors"] = GOOD
        define(
            f"d{number}", {"architecture": "t2v", "URLs": [f"{server.url}/{number}.safetensors"], "components": "o/r"}
        )
    catalog = load_catalog(root)
    definitions = [catalog[f"d{number}"] for number in range(5)]
    pull_all(definitions, scope=Scope(weights_only=True), machine=MACHINE)
    assert len(walks) == 2  # before and after
    inventory, walks[:] = Inventory(root, ()), []
    for definition in definitions:
        explain(definition, machine=MACHINE, inventory=inventory)
    assert len(walks) == 1


def test_a_model_folder_with_too_many_files_is_a_notice(mine, root, tmp_path, monkeypatch):
    for number in range(30):
        (tmp_path / "all" / f"f{number}").mkdir(parents=True)
    (root / "reeltune.json").write_text(json.dumps({"model_folders": [str(tmp_path / "all")]}))
    monkeypatch.setattr("reeltune.library.inventory.walk", lambda folders: walk(folders, max_files=10))
    assert any("contains too many files" in line for line in explain(mine, machine=MACHINE).notices)


# --- offline ---------------------------------------------------------------------------------------------------


def test_a_truncated_file_is_reported_offline(mine, root, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (root / "ckpts").mkdir()
    (root / "ckpts" / NAME).write_bytes(GOOD[:-1])
    with pytest.raises(Offline, match=r"the existing file can't be used.*truncated") as caught:
        pull(mine, weights_only=True, machine=MACHINE)
    assert "Unset HF_HUB_OFFLINE" in caught.value.hint


@pytest.mark.parametrize("words", [["explain", "mine"], ["explain", "mine", "--online"], ["pull", "mine", "--dry-run"]])
def test_a_plan_does_not_fail_offline(mine, root, monkeypatch, words, capsys):
    plan_download([mine], scope=Scope(weights_only=True), machine=MACHINE)
    (root / "ckpts").mkdir()
    plan_download([mine], scope=Scope(weights_only=True), machine=MACHINE)
    monkeypatch.setenv("REELTUNE_OFFLINE", "1")
    assert run(*words, "--root", str(root)) == 0
    captured = capsys.readouterr()
    assert f"{len(GOOD)} B" in captured.out  # remembered
    assert captured.err.count("Unset REELTUNE_OFFLINE") <= 2  # headers, and sizes


def test_a_plan_does_not_fail_when_a_server_is_down(define, root, monkeypatch):
    monkeypatch.setattr("reeltune.fetch.download.pause_after", lambda failures, asked: 0.0)
    define("mine", {"architecture": "t2v", "URLs": [f"http://127.0.0.1:1/{NAME}"], "components": "o/r"})
    events = []
    _, plan = plan_download(
        [load_catalog(root)["mine"]], scope=Scope(weights_only=True), machine=MACHINE, listener=events.append
    )
    assert plan.unknown_sizes == 1
    assert "refused" in events[0].message


def test_bars_show_paths_under_ckpts_and_one_row_for_a_component(server, define, root, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    for folder in ("tokenizer", "text_encoder", "vae"):
        names = ("config.json", "model.safetensors") if folder == "vae" else ("config.json",)
        listing = [
            {"type": "file", "path": f"{folder}/{name}", "size": len(GOOD) if "model" in name else 2} for name in names
        ]
        server.files[f"/api/models/o/r/tree/main/{folder}"] = json.dumps(listing).encode()
        server.files[f"/o/r/resolve/main/{folder}/config.json"] = b"{}"
    server.files["/o/r/resolve/main/vae/model.safetensors"] = GOOD
    server.files["/" + NAME] = GOOD
    define("mine", {"architecture": "t2v", "URLs": [f"{server.url}/{NAME}"], "components": "o/r"})
    events = []
    pull(load_catalog(root)["mine"], Preferences(), machine=MACHINE, listener=events.append)
    bars = {}
    for event in events:
        if getattr(event, "stage", "") == "download":
            bars[event.subject] = (event.done, event.total)
    assert set(bars) == {NAME, "o--r/tokenizer", "o--r/text_encoder", "o--r/vae", "in total"}
    assert bars["o--r/vae"] == (len(GOOD) + 2, len(GOOD) + 2)
    assert bars["in total"] == (2 * len(GOOD) + 6, 2 * len(GOOD) + 6)
    planned = next(event for event in events if type(event).__name__ == "Planned")
    assert [file.name for file in planned.files] == [NAME, "o--r/tokenizer", "o--r/text_encoder", "o--r/vae"]


def test_a_downloader_without_an_index_replaces_existing_files(server, tmp_path):
    server.files["/" + NAME] = GOOD
    (tmp_path / NAME).write_bytes(GOOD[:-1] + b"?")  # the same size
    with Downloader() as downloader:
        downloader.fetch(DownloadTask(f"{server.url}/{NAME}", tmp_path / NAME, True))
    assert (tmp_path / NAME).read_bytes() == GOOD


def test_explain_online_and_a_dry_run_show_all_sizes(server, define, root, monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    for folder in ("tokenizer", "text_encoder", "vae"):
        listing = [{"type": "file", "path": f"{folder}/config.json", "size": 4321}]
        server.files[f"/api/models/o/r/tree/main/{folder}"] = json.dumps(listing).encode()
    server.files["/" + NAME] = GOOD
    define("mine", {"architecture": "t2v", "URLs": [f"{server.url}/{NAME}"], "components": "o/r"})
    for words in (["explain", "mine", "--online"], ["pull", "mine", "--dry-run"]):
        assert run(*words, "--root", str(root)) == 0
        out = capsys.readouterr().out
        assert "?" not in out
        assert out.count("4.3 KB") >= 3
    del server.files["/api/models/o/r/tree/main/vae"]
    assert run("explain", "mine", "--online", "--root", str(root)) == 0
    assert "404" in capsys.readouterr().err


def test_a_file_of_another_model_is_refused_before_it_is_downloaded(server, define, root):
    server.files["/" + NAME] = safetensors_bytes({"adaln_single.emb.timestep_embedder.linear_1.bias": ("BF16", [8])})
    define("mine", {"architecture": "t2v", "URLs": [f"{server.url}/{NAME}"], "components": "o/r"})
    with pytest.raises(ChoiceError, match=f"{NAME}: its header is that of"):
        pull(load_catalog(root)["mine"], weights_only=True, machine=MACHINE)
    assert not list((root / "ckpts").glob(NAME))
