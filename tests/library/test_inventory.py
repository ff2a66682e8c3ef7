import os

from conftest import safetensors_bytes
from reeltune.definitions import Version
from reeltune.library import inventory as library
from reeltune.library.folders import walk
from reeltune.library.inventory import Inventory

TENSORS = {"head.modulation": ("BF16", [1, 2, 4]), "patch_embedding.weight": ("BF16", [4, 16, 1, 2, 2])}
URL = Version("https://h/sub/x_bf16.safetensors?download=true")


def put(path, content=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(safetensors_bytes(TENSORS) if content is None else content)
    return path


def test_files_are_found_at_any_depth_in_every_folder(root, tmp_path):
    inventory = Inventory(root, (str(tmp_path / "comfy"),))
    assert inventory.find_version(URL) == (None, [])
    elsewhere = put(tmp_path / "comfy" / "a" / "b" / "x_bf16.safetensors")
    assert Inventory(root, (str(tmp_path / "comfy"),)).find_version(URL)[0].path == elsewhere
    own = put(root / "ckpts" / "deep" / "x_bf16.safetensors")
    file, _ = Inventory(root, (str(tmp_path / "comfy"),)).find_version(URL)
    assert file.path == own
    assert file.identity.family == "wan"


def test_a_truncated_file_is_unusable_with_a_reason(root):
    cut = put(root / "ckpts" / "x_bf16.safetensors", safetensors_bytes(TENSORS)[:-1])
    file, unusable = Inventory(root).find_version(URL)
    assert file is None
    assert unusable[0].path == cut
    assert "truncated" in unusable[0].reason
    whole = put(root / "ckpts" / "z" / "x_bf16.safetensors")
    assert Inventory(root).find_version(URL)[0].path == whole


def test_partial_files_are_not_found(root):
    put(root / "ckpts" / "x_bf16.safetensors.partial")
    assert Inventory(root).find_version(URL)[0] is None


def test_local_paths_absolute_relative_and_moved(root, tmp_path):
    relative = put(root / "ckpts" / "y.safetensors")
    assert Inventory(root).find_version(Version("ckpts/y.safetensors"))[0].path == relative
    absolute = put(tmp_path / "else" / "w.safetensors")
    assert Inventory(root).find_version(Version(str(absolute)))[0].path == absolute
    assert Inventory(root).find_version(Version("old/place/y.safetensors"))[0].path == relative


def test_components_by_their_path(root):
    inventory = Inventory(root)
    assert inventory.component("a/b", "vae") is None
    put(root / "ckpts" / "a--b" / "vae" / "config.json", b"{}")
    assert inventory.component("a/b", "vae") == root / "ckpts" / "a--b" / "vae"
    put(root / "mine" / "vae" / "config.json", b"{}")
    assert inventory.component("mine", "vae") == root / "mine" / "vae"


def test_files_in_the_package_are_found_last(root):
    file, _ = Inventory(root).find_version(Version("ckpts/nano_t2v_bf16.safetensors"))
    assert file.path.parent.name == "nano"
    own = put(root / "ckpts" / "nano_t2v_bf16.safetensors")
    assert Inventory(root).find_version(Version("ckpts/nano_t2v_bf16.safetensors"))[0].path == own


def test_a_folder_that_disappears_during_the_walk_hides_no_other(tmp_path, monkeypatch):
    """As folders of /proc do."""
    for name in ("gone", "kept"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.safetensors").write_bytes(b"x")
    real = os.path.realpath

    def realpath(path, **more):
        if str(path).endswith("gone"):
            raise FileNotFoundError(path)
        return real(path, **more)

    monkeypatch.setattr(os.path, "realpath", realpath)
    assert list(walk([tmp_path]).by_name) == ["kept.safetensors"]


def test_a_header_is_read_once_for_all_inventories_and_again_after_a_change(root, monkeypatch):
    path = put(root / "ckpts" / "x_bf16.safetensors")
    reads = []
    real = library.read_header
    monkeypatch.setattr(library, "read_header", lambda path: reads.append(path) or real(path))
    first = Inventory(root).read_checkpoint(path)
    Inventory(root).read_checkpoint(path)
    assert len(reads) == 2  # the file has just been written, and might change within the same tick of the clock
    monkeypatch.setattr(library, "_SETTLED_NS", -(10**18))
    assert Inventory(root).read_checkpoint(path) == Inventory(root).read_checkpoint(path) == first
    assert len(reads) == 3
    status = path.stat()
    path.write_bytes(safetensors_bytes(TENSORS).replace(b"head.modulation", b"head.modulatioN"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert Inventory(root).read_checkpoint(path).identity != first.identity
    assert len(reads) == 4
