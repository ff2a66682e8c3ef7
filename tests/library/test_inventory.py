import os

from conftest import safetensors_bytes
from reeltune.definitions import Version
from reeltune.families import ARCHITECTURES
from reeltune.library.folders import walk
from reeltune.library.inventory import Inventory, component_files

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


# --- what a WanGP folder holds --------------------------------------------------------------------------------

BF16_FILE, INT8_FILE = (f"umt5-xxl/models_t5_umt5-xxl-enc-{kind}.safetensors" for kind in ("bf16", "quanto_int8"))


def parts(architecture="t2v"):
    return {component.name: component for component in ARCHITECTURES[architecture].parts}


def test_wangp_files_are_chosen_by_preference_then_by_availability(root):
    text_encoder = parts()["text_encoder"]
    assert Inventory(root).wangp_component(text_encoder, "int8") == (None, [])
    bf16 = put(root / "ckpts" / BF16_FILE)
    assert Inventory(root).wangp_component(text_encoder, "int8") == (bf16, [])
    int8 = put(root / "ckpts" / INT8_FILE)
    assert Inventory(root).wangp_component(text_encoder, "int8") == (int8, [])
    assert Inventory(root).wangp_component(text_encoder, "bf16") == (bf16, [])


def test_wangp_files_in_model_folders_are_used_and_broken_ones_are_not(root, tmp_path):
    text_encoder = parts()["text_encoder"]
    broken = put(root / "ckpts" / INT8_FILE, safetensors_bytes(TENSORS)[:-1])
    elsewhere = put(tmp_path / "WanGP" / INT8_FILE)
    path, unusable = Inventory(root, (str(tmp_path / "WanGP"),)).wangp_component(text_encoder, "int8")
    assert path == elsewhere
    assert unusable[0].path == broken
    assert "truncated" in unusable[0].reason


def test_wangp_folders_are_used_when_they_are_complete(root):
    tokenizer = parts()["tokenizer"]
    put(root / "ckpts" / "umt5-xxl" / "tokenizer.json", b"{}")
    assert Inventory(root).wangp_component(tokenizer, "int8") == (None, [])
    model = put(root / "ckpts" / "umt5-xxl" / "spiece.model", b"x")
    put(root / "ckpts" / BF16_FILE)
    assert Inventory(root).wangp_component(tokenizer, "int8") == (model.parent, [])
    assert {path.name for path in component_files(model.parent, tokenizer)} == {"tokenizer.json", "spiece.model"}
    clip, folder = parts("hunyuan")["text_encoder_2"], root / "ckpts" / "clip_vit_large_patch14"
    put(folder / "config.json", b"{}")
    assert Inventory(root).wangp_component(clip, "int8") == (None, [])
    put(folder / "model.safetensors")
    assert Inventory(root).wangp_component(clip, "int8") == (folder, [])
    put(folder / "model.safetensors", b"<html>")
    assert Inventory(root).wangp_component(clip, "int8")[1][0].path == folder


def test_wan_2_2_does_not_use_the_vae_of_wan_2_1(root):
    put(root / "ckpts" / "Wan2.1_VAE.safetensors")
    assert Inventory(root).wangp_component(parts()["vae"], "int8")[0] is not None
    assert Inventory(root).wangp_component(parts("ti2v_2_2")["vae"], "int8") == (None, [])


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
