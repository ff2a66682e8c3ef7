"""`lock`: with it, another machine gets the same bytes or an error."""

import json
import shutil

import pytest

from hub import sha256
from reeltune import load_catalog, pull
from reeltune.definitions.locks import lock_beside, read_lock
from reeltune.errors import BadDownload, LockError, LockMismatch
from reeltune.sharing.licenses import License
from reeltune.sharing.locking import check_lock, lock_definition
from reeltune.sharing.plan import PublishOptions
from reeltune.sharing.publishing import open_repository, publish
from sharing_roots import NANO, command, glow

BASE = "https://huggingface.co/me/glow/resolve/main"


@pytest.fixture
def published(hub, root, tmp_path):
    """A root with a published definition, and one of another machine with the same definition and its lock."""
    glow(root)
    catalog = load_catalog(root)
    options = PublishOptions(license=License("mit"))
    publish(catalog, "glow", options, open_repository(catalog, "me/glow"), tmp_path / "x", lambda plan: plan)
    lock_definition(load_catalog(root), "glow")
    other = tmp_path / "other"
    (other / "finetunes").mkdir(parents=True)
    for name in ("glow.json", "glow.lock"):
        shutil.copy(root / "finetunes" / name, other / "finetunes" / name)
    return other


def test_the_lock_lists_everything(published, root):
    value = json.loads((root / "finetunes" / "glow.lock").read_text())
    assert value["lock_version"] == 1
    assert value["definition"] == "glow"
    files = {file["source"]: file for file in value["files"]}
    weights = (root / "ckpts" / "glow_bf16.safetensors").read_bytes()
    assert files[f"{BASE}/glow_bf16.safetensors"] == {
        "source": f"{BASE}/glow_bf16.safetensors", "bytes": len(weights), "sha256": sha256(weights)
    }  # fmt: skip
    vae = "https://huggingface.co/reeltune/nano/resolve/main/vae/config.json"
    assert files[vae]["sha256"] == sha256((NANO / "reeltune--nano" / "vae" / "config.json").read_bytes())
    parts = {source.split("/")[-2] for source in files if "reeltune/nano" in source}
    assert parts == {"vae", "text_encoder", "tokenizer"}


def test_another_machine_gets_the_same_bytes(published, root):
    plan = pull(load_catalog(published)["glow"])
    for path in (published / "ckpts").glob("*.safetensors"):
        assert path.read_bytes() == (root / "ckpts" / path.name).read_bytes()
    assert plan.missing == ()
    assert check_lock(load_catalog(published), "glow") == ()
    answer = command(published, "lock", "glow", "--check")
    assert "all files on disk are the locked ones" in answer.stdout


def test_another_file_upstream_is_refused(published, hub):
    files = hub.repositories["me/glow"].files
    value = json.loads((published / "finetunes" / "glow.json").read_text())
    del value["model"]["sha256"]  # so that only the lock knows it
    (published / "finetunes" / "glow.json").write_text(json.dumps(value))
    for name in ("glow_bf16.safetensors", "glow_quanto_bf16_int8.safetensors"):
        files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])
    with pytest.raises(BadDownload, match="sha256"):
        pull(load_catalog(published)["glow"])
    assert not list((published / "ckpts").glob("*.safetensors"))


def test_another_file_on_disk_is_refused(published, root):
    (published / "ckpts").mkdir()
    for name in ("bf16", "quanto_bf16_int8"):
        raw = (NANO / f"nano_t2v_{name}.safetensors").read_bytes()  # sound, of the same size, another model
        (published / "ckpts" / f"glow_{name}.safetensors").write_bytes(raw)
    answer = command(published, "generate", "glow", "--set", "num_inference_steps=1")
    assert answer.returncode == 1
    assert "glow_quanto_bf16_int8.safetensors is not the locked file" in answer.stderr
    plan = pull(load_catalog(published)["glow"])  # its sha256 is known now: the locked file is downloaded
    assert plan.path("transformer").read_bytes() == (root / "ckpts" / "glow_quanto_bf16_int8.safetensors").read_bytes()


def test_a_definition_that_has_changed_since_is_refused(published):
    path = published / "finetunes" / "glow.json"
    shutil.copytree(NANO, published / "ckpts", dirs_exist_ok=True)
    path.write_text(
        path.read_text().replace(f"{BASE}/glow_quanto_bf16_int8", "https://h.example/nano_neon_quanto_bf16_int8")
    )
    with pytest.raises(LockError, match="doesn't list nano_neon_quanto_bf16_int8"):
        pull(load_catalog(published)["glow"])


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", "{}", '{"lock_version": 2, "files": []}', '{"lock_version": 1, "files": [{}]}',
        '{"lock_version": 1, "files": [{"source": "x", "bytes": -1, "sha256": "' + "0" * 64 + '"}]}',
        '{"lock_version": 1, "files": [{"source": "x", "bytes": 1, "sha256": "zz"}]}',
    ],
)  # fmt: skip
def test_a_broken_lock_is_an_error_and_the_definition_is_listed(root, text):
    path = glow(root)
    path.with_suffix(".lock").write_text(text)
    with pytest.raises(LockError, match="not a lock file that can be used"):
        read_lock(path.with_suffix(".lock"))
    definition = load_catalog(root)["glow"]
    assert any("lock file" in problem.message for problem in definition.notices)
    with pytest.raises(LockError):
        pull(definition)


def test_a_lock_can_not_lead_outside_a_component(root):
    path = glow(root)
    lock_definition(load_catalog(root), "glow")
    text = path.with_suffix(".lock").read_text()
    path.with_suffix(".lock").write_text(text.replace("vae/config.json", "vae/../../../x"))
    with pytest.raises(Exception, match="can't be used as a file name"):
        pull(load_catalog(root)["glow"])


def test_local_files_are_locked_by_their_paths(root):
    glow(root)
    _, lock = lock_definition(load_catalog(root), "glow")
    assert lock_beside(root / "finetunes" / "glow.json") == lock
    assert lock.get("ckpts/glow_bf16.safetensors").bytes == (root / "ckpts" / "glow_bf16.safetensors").stat().st_size
    (root / "ckpts" / "glow_quanto_bf16_int8.safetensors").write_bytes(
        (NANO / "nano_t2v_quanto_bf16_int8.safetensors").read_bytes()
    )
    with pytest.raises(LockMismatch):
        pull(load_catalog(root)["glow"])


def test_files_that_can_not_be_locked(root, server, define):
    with pytest.raises(LockError, match="nano_t2v is built in"):
        lock_definition(load_catalog(root), "nano_t2v")
    server.files["/x_bf16.safetensors"] = b"0" * 1000
    define(
        "x", {"architecture": "t2v_1.3B", "URLs": [f"{server.url}/x_bf16.safetensors"], "components": "reeltune/nano"}
    )
    with pytest.raises(LockError, match=r"sha256 of x_bf16[.]safetensors is unknown"):
        lock_definition(load_catalog(root), "x")
    define("y", {"architecture": "t2v_1.3B", "URLs": [f"{server.url}/gone.safetensors"], "components": "reeltune/nano"})
    with pytest.raises(LockError, match="can't be locked"):
        lock_definition(load_catalog(root), "y")
    with pytest.raises(LockError, match="has no lock"):
        check_lock(load_catalog(root), "y")


def test_remote_files_are_locked_by_what_the_hub_reports(published, hub, root):
    for path in (root / "ckpts").glob("glow*"):
        path.unlink()
    (root / "ckpts" / ".index.sqlite").unlink(missing_ok=True)
    before = read_lock(root / "finetunes" / "glow.lock")
    (root / "finetunes" / "glow.lock").unlink()
    _, lock = lock_definition(load_catalog(root), "glow")
    assert lock == before
