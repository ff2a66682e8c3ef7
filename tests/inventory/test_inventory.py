from conftest import safetensors_bytes
from reeltune.definitions import Version
from reeltune.inventory import Inventory

TENSORS = {"head.modulation": ("BF16", [1, 2, 4]), "patch_embedding.weight": ("BF16", [4, 16, 1, 2, 2])}
URL = Version("https://h/sub/x_bf16.safetensors?download=true")


def put(path, content=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(safetensors_bytes(TENSORS) if content is None else content)
    return path


def test_found_at_any_depth_in_every_folder(root, tmp_path):
    inventory = Inventory(root, (str(tmp_path / "comfy"),))
    assert inventory.locate(URL) == (None, [])
    elsewhere = put(tmp_path / "comfy" / "a" / "b" / "x_bf16.safetensors")
    assert Inventory(root, (str(tmp_path / "comfy"),)).locate(URL)[0].path == elsewhere
    own = put(root / "ckpts" / "deep" / "x_bf16.safetensors")
    found, _ = Inventory(root, (str(tmp_path / "comfy"),)).locate(URL)
    assert found.path == own
    assert found.identity.family == "wan"


def test_a_cut_file_is_passed_over_with_the_reason(root):
    cut = put(root / "ckpts" / "x_bf16.safetensors", safetensors_bytes(TENSORS)[:-1])
    found, unusable = Inventory(root).locate(URL)
    assert found is None
    assert unusable[0].path == cut
    assert "truncated" in unusable[0].reason
    whole = put(root / "ckpts" / "z" / "x_bf16.safetensors")
    assert Inventory(root).locate(URL)[0].path == whole


def test_partial_files_count_for_nothing(root):
    put(root / "ckpts" / "x_bf16.safetensors.partial")
    assert Inventory(root).locate(URL)[0] is None


def test_local_paths_absolute_relative_and_moved(root, tmp_path):
    relative = put(root / "ckpts" / "y.safetensors")
    assert Inventory(root).locate(Version("ckpts/y.safetensors"))[0].path == relative
    absolute = put(tmp_path / "else" / "w.safetensors")
    assert Inventory(root).locate(Version(str(absolute)))[0].path == absolute
    assert Inventory(root).locate(Version("old/place/y.safetensors"))[0].path == relative


def test_components_by_their_path(root):
    inventory = Inventory(root)
    assert inventory.component("a/b", "vae") is None
    put(root / "ckpts" / "a--b" / "vae" / "config.json", b"{}")
    assert inventory.component("a/b", "vae") == root / "ckpts" / "a--b" / "vae"
    put(root / "mine" / "vae" / "config.json", b"{}")
    assert inventory.component("mine", "vae") == root / "mine" / "vae"


def test_what_ships_with_the_package_is_found_last(root):
    found, _ = Inventory(root).locate(Version("ckpts/nano_t2v_bf16.safetensors"))
    assert found.path.parent.name == "nano"
    own = put(root / "ckpts" / "nano_t2v_bf16.safetensors")
    assert Inventory(root).locate(Version("ckpts/nano_t2v_bf16.safetensors"))[0].path == own
