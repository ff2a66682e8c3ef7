"""Where components are found: by published names, by headers, in all folders that the user names."""

import os
import time

import pytest
import torch
import transformers
from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan

import comfyui
import wangp
from conftest import head_of, safetensors_bytes
from reeltune.families import ARCHITECTURES
from reeltune.library import component_search
from reeltune.library.component_folders import component_files
from reeltune.library.found import find_files
from reeltune.library.header_cache import HeaderCache
from reeltune.library.inventory import PACKAGE_FILES, Inventory
from reeltune.library.other_programs import search_folders

TENSORS = {"head.modulation": ("BF16", [1, 2, 4]), "patch_embedding.weight": ("BF16", [4, 16, 1, 2, 2])}
REPOSITORY = ARCHITECTURES["t2v"].components_repo


def component(name, architecture="t2v"):
    return next(row for row in ARCHITECTURES[architecture].parts if row.name == name)


def put(path, content=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(safetensors_bytes(TENSORS) if content is None else content)
    return path


def tiny_text(path, layout=wangp.umt5):
    sizes = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    model = transformers.UMT5EncoderModel(transformers.UMT5Config(**sizes, feed_forward_proj="gated-gelu"))
    return wangp.write(path, layout(model.to(torch.bfloat16).state_dict()))


def whole_file(path, shapes, dtype="BF16"):
    """A file of true size with a true header over a hole."""
    start, size = head_of({name: list(shape) for name, shape in shapes.items()}, dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)
    return path


@pytest.fixture(scope="module")
def published():
    """Shapes of the published models."""
    with init_empty_weights():
        text = transformers.UMT5EncoderModel(
            transformers.UMT5Config(
                vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
                feed_forward_proj="gated-gelu",
            )
        )  # fmt: skip
        vae = AutoencoderKLWan()
        return {
            "umt5": {name: row.shape for name, row in wangp.umt5(text.state_dict()).items()},
            "vae": {name: row.shape for name, row in wangp.wan_vae(vae.state_dict()).items()},
        }


def candidates(root, name="text_encoder", folders=(), architecture="t2v"):
    inventory = Inventory(root, folders)
    return inventory.components.candidates(component(name, architecture), ARCHITECTURES[architecture].components_repo)


def test_published_names_are_found_at_any_depth_in_any_case(root, tmp_path):
    assert candidates(root) == ([], [])
    own = tiny_text(root / "ckpts" / wangp.UMT5_FILE)
    deep = tiny_text(tmp_path / "AI" / "a" / "b" / "UMT5_xxl_FP16.safetensors")
    places, unusable = candidates(root, folders=(str(tmp_path / "AI"),))
    assert [place.path for place in places] == [own, deep]
    assert all(place.published and place.size == 32 for place in places)
    assert not unusable


def test_a_published_name_does_not_make_a_component(root, tmp_path):
    other = put(root / "ckpts" / "umt5_xxl_fp16.safetensors", safetensors_bytes({"a.weight": ("BF16", [4])}))
    cut = put(tmp_path / "x" / "umt5_xxl_fp8_e4m3fn_scaled.safetensors", safetensors_bytes(TENSORS)[:-1])
    page = put(tmp_path / "x" / "models_t5_umt5-xxl-enc-bf16.safetensors", b"<html>" * 9)
    places, unusable = candidates(root, folders=(str(tmp_path / "x"),))
    assert not places
    reasons = {file.path: file.reason for file in unusable}
    assert "header is not that of the UMT5-XXL text encoder" in reasons[other]
    assert "truncated" in reasons[cut]
    assert "web page" in reasons[page]


def test_any_name_is_enough_for_a_file_of_the_published_sizes(root, tmp_path, published):
    text = whole_file(tmp_path / "disk" / "my favorite.safetensors", published["umt5"])
    whole_file(tmp_path / "disk" / "cut.safetensors", dict(list(published["umt5"].items())[:-3]))
    tiny = tiny_text(tmp_path / "disk" / "small umt5.safetensors")
    vae = whole_file(tmp_path / "disk" / "vae" / "v.safetensors", published["vae"])
    folders = (str(tmp_path / "disk"),)
    places, _ = candidates(root, folders=folders)
    assert [(place.path, place.published) for place in places] == [(text, False)]
    assert [place.path for place in candidates(root, "vae", folders)[0]] == [vae]
    assert not candidates(root, "vae", folders, "ti2v_2_2")[0]  # which has a VAE of its own
    found = {file.path: file for file in find_files(Inventory(root, folders)).files if file.folder != PACKAGE_FILES}
    assert found[text].contents == found[tiny].contents == ("UMT5-XXL text encoder",)
    assert found[vae].contents == ("Wan 2.1 VAE",)
    assert found[tmp_path / "disk" / "cut.safetensors"].contents == ()
    named = tiny_text(root / "ckpts" / wangp.UMT5_FILE)
    assert [place.path for place in candidates(root, folders=folders)[0]] == [named]  # a published name comes first


def test_a_repository_of_another_architecture_has_the_same_components(root):
    folder = root / "ckpts" / ARCHITECTURES["t2v_2_2"].components_repo.replace("/", "--") / "vae"
    put(folder / "config.json", b"{}")
    assert [place.path for place in candidates(root, "vae")[0]] == [folder]
    assert not candidates(root, "vae", architecture="ti2v_2_2")[0]
    assert not candidates(root, "vae", architecture="hunyuan")[0]


def test_tokenizers_are_used_when_they_are_complete(root, tmp_path):
    folder = root / "ckpts" / "umt5-xxl"
    put(folder / "tokenizer_config.json", b"{}")
    assert not candidates(root, "tokenizer")[0]
    put(folder / "tokenizer.json", b"{}")
    assert [place.path for place in candidates(root, "tokenizer")[0]] == [folder]
    clip = tmp_path / "w" / "Wan2GP" / "ckpts" / "clip_vit_large_patch14"
    put(clip / "vocab.json", b"{}")
    folders = (str(tmp_path / "w"),)
    assert not candidates(root, "tokenizer_2", folders, "hunyuan")[0]
    put(clip / "merges.txt", b"")
    assert [place.path for place in candidates(root, "tokenizer_2", folders, "hunyuan")[0]] == [clip]
    assert {path.name for path in component_files(clip, component("tokenizer_2", "hunyuan"))} == {
        "vocab.json",
        "merges.txt",
    }


# --- which folders are searched -----------------------------------------------------------------------------------


def test_installations_stand_for_their_folders_of_models(root, tmp_path):
    comfyui_home, wangp_home = tmp_path / "ComfyUI", tmp_path / "Wan2GP"
    for folder in (comfyui_home / "models" / "vae", comfyui_home / "comfy", wangp_home / "ckpts"):
        folder.mkdir(parents=True)
    put(wangp_home / "wgp.py", b"")
    found = search_folders(root, (str(comfyui_home), str(wangp_home), "missing"))
    assert found.folders == (comfyui_home / "models", wangp_home / "ckpts", root / "missing")
    assert found.sources == (comfyui_home,)
    assert search_folders(root, (str(comfyui_home / "models"),)).sources == (comfyui_home,)


YAML = """
comfyui:
     base_path: {base}
     checkpoints: models/checkpoints/
     text_encoders: |
          models/text_encoders/
          models/clip/  # legacy location still supported
     custom_nodes: nodes
other:
    vae: $WEIGHTS/vae
    diffusion_models: ~/unet
    controlnet: no
    3: [a, b]
nothing:
"""


def test_extra_model_paths_name_more_folders(root, tmp_path, monkeypatch):
    monkeypatch.setenv("WEIGHTS", str(tmp_path / "w"))
    monkeypatch.setenv("HOME", str(tmp_path))
    home = tmp_path / "ComfyUI"
    put(home / "extra_model_paths.yaml", YAML.format(base=tmp_path / "b").encode())
    (home / "models").mkdir()
    for named in (home, home / "models"):
        found = search_folders(root, (str(named),))
        assert found.folders == (
            home / "models", tmp_path / "b/models/checkpoints", tmp_path / "b/models/text_encoders",
            tmp_path / "b/models/clip", tmp_path / "w/vae", tmp_path / "unet",
        )  # fmt: skip
        assert not found.notices
    tiny_text(tmp_path / "b" / "models" / "clip" / "umt5_xxl_fp16.safetensors")
    assert candidates(root, folders=(str(home),))[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [(b"a: [", "no valid YAML"), (b"- a", "no sections"), (b"\xff\xfe", "no valid YAML"), (b"x" * 1_000_001, "more than"),
     (b"!!python/object/apply:os.system [id]", "no valid YAML"), (b"[" * 5000, "no valid YAML"), (b"a: {b: \"\\0\"}", ""), (b"", "")],
)  # fmt: skip
def test_a_damaged_list_of_folders_stops_nothing(root, tmp_path, text, words):
    put(tmp_path / "ComfyUI" / "extra_model_paths.yaml", text)
    found = search_folders(root, (str(tmp_path / "ComfyUI"),))
    assert found.folders == (tmp_path / "ComfyUI",)
    assert len(found.notices) == bool(words)
    assert words in "".join(found.notices)
    assert Inventory(root, (str(tmp_path / "ComfyUI"),)).notices == found.notices


def test_loops_of_links_and_thousands_of_files_are_bounded(root, tmp_path, monkeypatch):
    folder = tmp_path / "huge"
    content = safetensors_bytes(TENSORS)
    for number in range(3000):
        put(folder / str(number % 50) / f"{number}.safetensors", content)
    (folder / "loop").symlink_to(folder)
    (folder / "self").symlink_to("self")
    os.mkfifo(folder / "pipe.safetensors")
    (root / "ckpts").mkdir()
    folders = (str(folder),)
    started = time.process_time()
    first = Inventory(root, folders).components.all_facts
    seconds = time.process_time() - started
    assert sum(path.is_relative_to(folder) for path in first) == 3000
    assert seconds < 20
    reads = []
    monkeypatch.setattr(Inventory, "read_checkpoint", lambda self, path: reads.append(path))
    again = Inventory(root, folders).components.all_facts  # from the cache
    assert {path: facts.identity.evidence for path, facts in again.items()} == {
        path: facts.identity.evidence for path, facts in first.items()
    }
    assert not reads
    monkeypatch.setattr(component_search, "_MAX_HEADERS", 10)
    search = Inventory(root, folders).components
    assert len(search.all_facts) == 10
    assert "were not searched" in search.notices[0]


def test_the_cache_of_headers_forgets_changed_files_and_survives_damage(root, tmp_path):
    (root / "ckpts").mkdir()
    path = tiny_text(root / "ckpts" / "x.safetensors")
    facts = Inventory(root).components.all_facts
    cache = HeaderCache(root / "ckpts")
    assert cache.get(path, path.stat()) == facts[path]
    assert facts[path].identity.components[0].kind == "umt5"
    tiny_text(path, dict)
    assert cache.get(path, path.stat()) is None
    assert Inventory(root).components.all_facts[path].identity.components[0].layout == "transformers"
    stored = next((root / "ckpts").glob(".index.sqlite.headers"))
    stored.write_bytes(b"damaged" * 100)
    assert path in Inventory(root).components.all_facts
    cut = put(root / "ckpts" / "cut.safetensors", safetensors_bytes(TENSORS)[:-1])
    assert "truncated" in Inventory(root).components.all_facts[cut].error


# --- the Hub's cache ----------------------------------------------------------------------------------------------


def hub(tmp_path, monkeypatch, repository, files):
    """A repository in the cache."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    top = tmp_path / "hf" / "hub" / f"models--{repository.replace('/', '--')}"
    put(top / "refs" / "main", b"abc")
    for number, (name, content) in enumerate(files.items()):
        blob = put(top / "blobs" / f"{number:064x}", content)
        link = top / "snapshots" / "abc" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return top / "snapshots" / "abc"


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "HOME"])
def test_where_the_cache_is(root, tmp_path, monkeypatch, variable):
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "c"))
    folder = {"HF_HOME": "c/hub", "HF_HUB_CACHE": "c", "XDG_CACHE_HOME": "c/huggingface/hub"}.get(
        variable, "c/.cache/huggingface/hub"
    )
    assert Inventory(root).hub_cache.folder == tmp_path / folder


def test_components_and_files_in_the_cache(root, tmp_path, monkeypatch):
    vae = {"vae/config.json": b"{}", "vae/diffusion_pytorch_model.safetensors": safetensors_bytes(TENSORS)}
    snapshot = hub(tmp_path, monkeypatch, REPOSITORY, vae | {"sub dir/x_bf16.safetensors": safetensors_bytes(TENSORS)})
    inventory = Inventory(root)
    assert inventory.component(REPOSITORY, "vae") == snapshot / "vae"
    assert inventory.component(REPOSITORY, "text_encoder") is None
    url = f"https://huggingface.co/{REPOSITORY}/resolve/main/sub%20dir/x_bf16.safetensors?download=true"
    assert inventory.hub_cache.file_of_url(url) == snapshot / "sub dir" / "x_bf16.safetensors"
    assert inventory.hub_cache.file_of_url(url.replace("main", "other")) is None
    assert inventory.hub_cache.file_of_url("https://huggingface.co/a/../resolve/main/../../x") is None
    assert inventory.hub_cache.sha256(snapshot / "sub dir" / "x_bf16.safetensors") == f"{2:064x}"
    assert inventory.hub_cache.key_of(snapshot / "vae" / "config.json").endswith(
        f"{REPOSITORY}/resolve/main/vae/config.json"
    )
    blobs = [path for paths in inventory.files.by_name.values() for path in paths if "blobs" in path.parts]
    assert not blobs


def test_interrupted_downloads_in_the_cache_are_not_used(root, tmp_path, monkeypatch):
    index = b'{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    files = {"text_encoder/model.safetensors.index.json": index, "text_encoder/config.json": b"{}",
             "text_encoder/model-00001-of-00002.safetensors": safetensors_bytes(TENSORS)}  # fmt: skip
    snapshot = hub(tmp_path, monkeypatch, REPOSITORY, files)
    assert Inventory(root).component(REPOSITORY, "text_encoder") is None
    put(snapshot / "text_encoder" / "model-00002-of-00002.safetensors")
    assert Inventory(root).component(REPOSITORY, "text_encoder") == snapshot / "text_encoder"
    (snapshot / "text_encoder" / "config.json").unlink()
    assert Inventory(root).component(REPOSITORY, "text_encoder") is None


def test_fp8_and_int8_are_named(root, tmp_path):
    state, _ = comfyui.scaled_fp8(
        {f"encoder.block.{b}.layer.0.SelfAttention.q.weight": torch.ones(4, 4) for b in (0, 1)}, ".*"
    )
    wangp.write(root / "ckpts" / "x.safetensors", state)
    formats = {file.path.name: file.format for file in find_files(Inventory(root)).files}
    assert formats["x.safetensors"] == "scaled fp8"
