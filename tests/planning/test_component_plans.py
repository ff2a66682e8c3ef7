"""Components in plans: versions that a definition lists, files in place, and what is still to be downloaded."""

import json
import math
import re
from dataclasses import replace

import pytest
import torch
import transformers
from diffusers import AutoencoderKLLTX2Audio
from diffusers.pipelines.ltx2 import LTX2Vocoder

import comfyui
import ltx2_files
import wangp
from conftest import safetensors_bytes
from reeltune import Preferences, explain, load_catalog
from reeltune.cli.app import app
from reeltune.families import ARCHITECTURES
from reeltune.library.index import Index
from reeltune.library.inventory import Inventory
from reeltune.machine import Machine
from reeltune.planning import components
from reeltune.planning.estimate import estimate
from reeltune.planning.savings import savings_of
from reeltune.service.model_states import missing_bytes
from reeltune.weights.saving import plan_saving

MACHINE = Machine(2**35, 2**34)
T2V = {"patch_embedding.weight": ("BF16", [1536, 16, 1, 2, 2]), "head.modulation": ("BF16", [1, 2, 1536]),
       "head.head.weight": ("BF16", [64, 1536])}  # fmt: skip
LINEARS = r"blocks\.\d+\.(attn|ffn)\..*"
KINDS = {"bf16": {}, "int8": {}, "fp8": {}}


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def text_encoder(path, kind="bf16", width=32):
    config = transformers.UMT5Config(
        vocab_size=50, d_model=width, d_kv=8, d_ff=48, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    state = wangp.umt5(transformers.UMT5EncoderModel(config).to(torch.bfloat16).state_dict())
    metadata = None
    if kind == "int8":
        state, metadata = wangp.int8(state, LINEARS)
    if kind == "fp8":
        state, _ = comfyui.scaled_fp8(state, LINEARS)
    return wangp.write(path, state, metadata)


@pytest.fixture
def weights(root):
    return str(put(root / "ckpts" / "x_bf16.safetensors", safetensors_bytes(T2V)))


def plan_of(root, id="mine", **preferences):
    return explain(load_catalog(root)[id], Preferences(**preferences), machine=MACHINE)


# --- versions that the definition lists ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preferred", "present", "chosen"),
    [("int8", ("bf16", "int8", "fp8"), "int8"), ("bf16", ("int8", "fp8", "bf16"), "bf16"), ("int8", ("fp8", "bf16"), "bf16"),
     ("bf16", ("int8", "fp8"), "fp8"), ("int8", ("fp8",), "fp8"), ("bf16", ("int8",), "int8")],
)  # fmt: skip
def test_the_text_encoder_is_chosen_like_a_transformer(root, define, weights, preferred, present, chosen):
    names = {"bf16": "t_bf16", "int8": "t_quanto_bf16_int8", "fp8": "t_fp8_scaled"}
    for kind in present:
        text_encoder(root / "ckpts" / f"{names[kind]}.safetensors", kind)
    urls = [f"ckpts/{names[kind]}.safetensors" for kind in present]
    define("mine", {"architecture": "t2v_1.3B", "URLs": [weights], "text_encoder_URLs": urls})
    plan = plan_of(root, text_encoder_quantization=preferred)
    choice = plan.selection.components["text_encoder"]
    assert choice.version.file_name == f"{names[chosen]}.safetensors"
    assert plan.path("text_encoder") == root / "ckpts" / f"{names[chosen]}.safetensors"
    assert {row.version.file_name for row in plan.selection.rejected if row.slot == "text_encoder"} == {
        f"{names[kind]}.safetensors" for kind in present if kind != chosen
    }
    assert [item.subject for item in plan.missing] == ["tokenizer", "vae"]
    assert not plan.item("text_encoder").quantize  # it is small
    told = " ".join(plan.notices)
    assert ("16 bits are preferred" in told) == (preferred == "bf16" and chosen != "bf16")
    shown = plan.as_json()
    assert shown["choices"]["text_encoder"]["reason"].startswith(
        {"bf16": "16 bits", "int8": "quanto int8", "fp8": "scaled fp8"}[chosen]
    )
    assert shown["components"]["text_encoder"]["present"]


def test_versions_that_are_not_on_disk_are_downloaded_like_weights(root, define, weights):
    urls = [f"https://h/t_{kind}.safetensors" for kind in ("bf16", "quanto_fp16_int8", "nvfp4")]
    define(
        "mine",
        {
            "architecture": "t2v_1.3B",
            "URLs": [weights],
            "text_encoder_URLs": urls,
            "VAE_URLs": ["https://h/v.safetensors"],
        },
    )
    plan = plan_of(root)
    assert {item.subject: (item.url, item.path) for item in plan.missing if not item.repository} == {
        "text_encoder": (urls[1], root / "ckpts" / "t_quanto_fp16_int8.safetensors"),  # its scales are converted
        "vae": ("https://h/v.safetensors", root / "ckpts" / "v.safetensors"),
    }
    reasons = {row.version.url: row.reason for row in plan.selection.rejected}
    assert "nvfp4" in reasons[urls[2]]


def test_another_model_and_another_size_are_named(root, define, weights):
    path = text_encoder(root / "ckpts" / "t_bf16.safetensors")
    define("mine", {"architecture": "t2v_1.3B", "URLs": [weights], "VAE_URLs": [str(path)]})
    with pytest.raises(Exception, match=r"header is not that of the Wan 2.1 VAE .*UMT5-XXL text encoder"):
        plan_of(root)
    whole = T2V | {
        "text_embedding.0.weight": ("BF16", [8, 64]), "time_embedding.0.weight": ("BF16", [8, 8]),
        "blocks.0.ffn.0.weight": ("BF16", [8, 8]),
    }  # fmt: skip
    put(root / "ckpts" / "x_bf16.safetensors", safetensors_bytes(whole))
    define("mine", {"architecture": "t2v_1.3B", "URLs": [weights], "text_encoder_URLs": [str(path)]})
    with pytest.raises(Exception, match="its size is 32, and the transformer needs a text_encoder of size 64"):
        plan_of(root)
    text_encoder(root / "ckpts" / wangp.UMT5_FILE)
    define("mine", {"architecture": "t2v_1.3B", "URLs": [weights]})
    plan = plan_of(root)
    assert "text_encoder" in [item.subject for item in plan.missing]
    assert any("of size 64" in notice for notice in plan.notices)
    text_encoder(root / "ckpts" / wangp.UMT5_FILE, width=64)
    assert "text_encoder" not in [item.subject for item in plan_of(root).missing]


def test_the_folder_of_the_text_encoder_has_its_tokenizer(root, define, weights, tmp_path):
    path = text_encoder(root / "ckpts" / "own" / "t_bf16.safetensors")
    model = {
        "architecture": "t2v_1.3B",
        "URLs": [weights],
        "text_encoder_URLs": [str(path)],
        "text_encoder_folder": "own",
    }
    define("mine", model)
    assert "tokenizer" in [item.subject for item in plan_of(root).missing]
    put(root / "ckpts" / "own" / "tokenizer.json", b"{}")
    assert plan_of(root).path("tokenizer") == root / "ckpts" / "own"
    elsewhere = tmp_path / "w" / "own"
    (root / "ckpts" / "own" / "tokenizer.json").rename(put(elsewhere / "tokenizer.json", b""))
    assert plan_of(root, model_folders=(str(tmp_path / "w"),)).path("tokenizer") == elsewhere
    del model["text_encoder_URLs"]
    define("mine", model)
    put(elsewhere / "config.json", b"{}")
    put(elsewhere / "model.safetensors", safetensors_bytes(T2V))
    assert plan_of(root, model_folders=(str(tmp_path / "w"),)).path("text_encoder") == elsewhere


# --- int8 while loading ---------------------------------------------------------------------------------------------


def test_large_text_encoders_become_int8_if_that_is_preferred(root, define, weights, monkeypatch):
    monkeypatch.setattr(components, "SMALLEST_QUANTIZED", 1000)
    path = text_encoder(root / "ckpts" / wangp.UMT5_FILE)
    define("mine", {"architecture": "t2v_1.3B", "URLs": [weights]})
    int8, bf16 = plan_of(root), plan_of(root, text_encoder_quantization="bf16")
    assert int8.item("text_encoder").quantize
    assert not bf16.item("text_encoder").quantize
    assert int8.item("text_encoder").memory_bytes < 0.6 * path.stat().st_size
    assert not any("text_encoder" in notice for notice in int8.notices)
    fp8 = text_encoder(root / "ckpts" / "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "fp8")
    path.unlink()
    plan = plan_of(root)
    assert (plan.path("text_encoder"), plan.item("text_encoder").quantize) == (fp8, True)
    in_16_bits = plan_of(root, text_encoder_quantization="bf16").item("text_encoder")
    assert in_16_bits.memory_bytes > 1.3 * in_16_bits.bytes
    stored = text_encoder(root / "ckpts" / wangp.UMT5_INT8_FILE, "int8")
    plan = plan_of(root)
    assert (plan.path("text_encoder"), plan.item("text_encoder").quantize) == (stored, False)
    complete = replace(plan, items=tuple(replace(item, bytes=item.bytes or 1) for item in plan.items))
    assert estimate(complete).encoders < sum(item.bytes for item in complete.items)


QWEN_LINEAR = re.compile(r".*(_proj|\.qkv|\.proj|mlp\.[02])\.weight")
IN_8_BITS = {"fp8": ("F8_E4M3", ".weight", ".scale_weight"), "int8": ("I8", ".weight._data", ".weight._scale")}


def whole_qwen():
    """The shapes of Qwen2.5-VL 7B, by the names in the files of ComfyUI and WanGP."""
    text = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
            "num_key_value_heads": 4, "vocab_size": 152064}  # fmt: skip
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    with torch.device("meta"):
        config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision)
        state = transformers.Qwen2_5_VLForConditionalGeneration(config).state_dict()
    return {name: tuple(row.shape) for name, row in comfyui.qwen(state).items()}


def holes(path, tensors):
    """A file with this header, and nothing but holes behind it."""
    start = safetensors_bytes(tensors, data=b"")
    widths = {"BF16": 2, "F32": 4, "F8_E4M3": 1, "I8": 1}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(start)
        file.truncate(len(start) + sum(widths[dtype] * math.prod(shape) for dtype, shape in tensors.values()))
    return path


def qwen_file(path, kind):
    tensors = {}
    for name, shape in whole_qwen().items():
        if kind == "bf16" or not QWEN_LINEAR.fullmatch(name):
            tensors[name] = ("BF16", shape)
            continue
        dtype, weight, scale = IN_8_BITS[kind]
        tensors[name.removesuffix(".weight") + weight] = (dtype, shape)
        tensors[name.removesuffix(".weight") + scale] = ("F32", ()) if kind == "fp8" else ("BF16", (shape[0], 1))
    return holes(path, tensors)


@pytest.mark.parametrize("architecture", ["hunyuan_1_5_t2v", "k5_lite_t2v"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [("bf16", "qwen_2.5_vl_7b"), ("fp8", "qwen_2.5_vl_7b_fp8_scaled"), ("bf16", "Qwen2.5-VL-7B-Instruct_bf16"),
     ("int8", "Qwen2.5-VL-7B-Instruct_quanto_bf16_int8")],
)  # fmt: skip
def test_qwen_in_int8_and_in_16_bits(root, define, architecture, kind, name):
    """Only the part that reads texts counts: 7.07 of 8.29 billion weights, 6.53 of them in linear layers."""
    path = qwen_file(root / "ckpts" / "deep" / f"{name}.safetensors", kind)
    define("mine", {"architecture": architecture, "URLs": ["https://h/x_bf16.safetensors"]})
    assert path.stat().st_size > 8e9
    for preferred in ("int8", "bf16"):
        item = plan_of(root, text_encoder_quantization=preferred).item("text_encoder")
        assert (item.path, item.in_place) == (path, True)
        assert item.quantize == (preferred == "int8" and kind != "int8")
        expected = {"int8": 7.6e9, "bf16": 14.1e9}["int8" if "int8" in (preferred, kind) else "bf16"]
        assert item.memory_bytes == pytest.approx(expected, rel=0.03)


# --- files in place -------------------------------------------------------------------------------------------------


def test_explain_shows_what_is_not_downloaded(root, define, weights, capsys):
    path = text_encoder(root / "ckpts" / wangp.UMT5_FILE)
    define("mine", {"architecture": "t2v_1.3B", "URLs": [weights]})
    plan = plan_of(root)
    assert plan.bytes_in_place == path.stat().st_size + (root / "ckpts" / "x_bf16.safetensors").stat().st_size
    plan_saved = savings_of(load_catalog(root), Preferences(), Inventory(root), MACHINE)
    saved = {row.id: row for row in plan_saved}
    assert saved["mine"].subjects == ("transformer", "text_encoder")
    assert saved["mine"].missing is None
    assert saved["t2v"].subjects == ("text_encoder",)
    app(["explain", "mine", "--root", str(root)], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "in place" in shown
    assert "are used where they are, and not downloaded" in shown


def test_ls_all_lists_folders_contents_formats_and_problems(root, define, weights, tmp_path, capsys):
    folder = tmp_path / "ComfyUI" / "models"
    text_encoder(folder / "text_encoders" / "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "fp8")
    put(folder / "vae" / "cut.safetensors", safetensors_bytes(T2V)[:-1])
    put(folder / "loras" / "odd.safetensors", safetensors_bytes({"a.lora_down.weight": ("BF16", [2, 2])}))
    (root / "reeltune.json").write_text(json.dumps({"model_folders": [str(folder)]}))
    define("mine", {"architecture": "t2v_1.3B", "URLs": [weights]})
    app(["ls", "--all", "--root", str(root)], standalone_mode=False)
    shown = capsys.readouterr().out
    for words in (
        str(folder),
        "UMT5-XXL text encoder",
        "fp8",
        "truncated",
        "LoRA",
        "Wan model: t2v_1.3B",
        "USED WHERE IT IS",
        "mine",
    ):
        assert words in shown, words
    app(["ls", "--all", "--json", "--root", str(root)], standalone_mode=False)
    shown = json.loads(capsys.readouterr().out)
    files = {row["path"]: row for row in shown["files"]}
    assert files[str(folder / "vae" / "cut.safetensors")]["problem"]
    assert {row["id"]: row["parts"] for row in shown["models"]}["mine"] == ["transformer", "text_encoder"]


def test_files_under_unknown_names_are_used_with_a_notice(root, define, weights, monkeypatch):
    odd = text_encoder(root / "ckpts" / "odd.safetensors")
    define("mine", {"architecture": "t2v_1.3B", "URLs": [weights]})
    assert "text_encoder" in [item.subject for item in plan_of(root).missing]  # of another size than the published one
    monkeypatch.setattr("reeltune.checkpoints.components.ComponentMatch.is_published", True)
    plan = plan_of(root)
    assert plan.path("text_encoder") == odd
    assert sum(f"{odd} is used, because its header is that of the UMT5-XXL" in notice for notice in plan.notices) == 1


# --- files with several models ------------------------------------------------------------------------------------


def everything(path):
    """A file of LTX-2 with the transformer, both connectors and the vocoder, as its release stores them."""
    blocks = {"audio_adaln_single.emb.timestep_embedder.linear_1.bias": [16], "patchify_proj.weight": [32, 8]}
    tensors = {f"model.diffusion_model.{name}": ("BF16", shape) for name, shape in blocks.items()}
    with torch.device("meta"):
        parts = ltx2_files.vocoder(LTX2Vocoder(in_channels=32, hidden_channels=32).state_dict())
        vae = AutoencoderKLLTX2Audio(base_channels=16, ch_mult=(1, 1, 2), num_res_blocks=1, latent_channels=4)
        sound = ltx2_files.statistics(vae.state_dict())
    tensors |= {f"vocoder.{name}": ("BF16", list(row.shape)) for name, row in parts.items()}
    tensors |= {f"audio_vae.{name}": ("BF16", list(row.shape)) for name, row in sound.items()}
    return put(path, safetensors_bytes(tensors))


def test_a_file_with_several_models_counts_once(root, define):
    path = everything(root / "ckpts" / "ltx-2-19b-dev.safetensors")
    define("mine", {"architecture": "ltx2_19B", "URLs": [str(path)]})
    plan = plan_of(root)
    holders = [item for item in plan.items if item.path == path]
    assert [item.subject for item in holders] == ["transformer", "audio_vae", "vocoder"]
    assert sum(item.bytes for item in holders) == plan.bytes_in_place == path.stat().st_size
    assert all(0 < item.memory_bytes < path.stat().st_size for item in holders[1:])
    complete = replace(plan, items=tuple(replace(item, bytes=item.bytes or 0) for item in plan.items))
    assert estimate(complete).disk == path.stat().st_size


def test_a_file_that_is_listed_twice_counts_once(root, define, weights):
    lora = put(root / "style.safetensors", safetensors_bytes({"a.lora_down.weight": ("BF16", [2, 2])}))
    url = "https://h/both.safetensors"
    Index(root / "ckpts").record_url(url, 1000, "")
    model = {"architecture": "t2v_1.3B", "URLs": [url], "VAE_URLs": [url], "preload_URLs": [url]}
    define("mine", model, activated_loras=[str(lora), str(lora)])
    plan = plan_of(root)
    assert [item.bytes for item in plan.items if item.url == url] == [1000, 0, 0]
    assert [item.bytes for item in plan.items if item.path == lora] == [lora.stat().st_size, 0]
    known = replace(plan, items=tuple(item for item in plan.items if not item.repository))
    assert missing_bytes(root, known) == 1000


# --- transformers of ComfyUI ----------------------------------------------------------------------------------------


def test_the_same_published_model_under_comfyuis_name_stands_in(root, tmp_path):
    models = tmp_path / "models"
    catalog = load_catalog(root)
    preferences = Preferences(model_folders=(str(models),))
    fp16 = put(models / "diffusion_models" / "wan2.1_t2v_1.3B_fp16.safetensors", safetensors_bytes(T2V))
    put(models / "diffusion_models" / "wan2.1_t2v_1.3B_fp16_my_merge.safetensors", safetensors_bytes(T2V))
    plan = explain(catalog["t2v_1.3B"], preferences, machine=MACHINE)
    assert plan.path("transformer") == fp16
    assert plan.transformer.quantize_on_load
    assert any("the same published model as wan2.1_text2video_1.3B_mbf16" in notice for notice in plan.notices)
    listed = [row for row in plan.selection.rejected if row.version.remote]
    assert listed
    assert all("wan2.1_t2v_1.3B_fp16.safetensors has the same model" in row.reason for row in listed)
    savings, reasons = plan_saving(plan)
    assert not savings
    assert "a file of another program" in reasons[0]
    assert explain(catalog["t2v"], preferences, machine=MACHINE).missing  # another size
    own = put(root / "ckpts" / "wan2.1_text2video_1.3B_mbf16.safetensors", safetensors_bytes(T2V))
    assert explain(catalog["t2v_1.3B"], preferences, machine=MACHINE).path("transformer") == own
    own.unlink()
    put(fp16, safetensors_bytes({"a": ("BF16", [2])}))
    plan = explain(catalog["t2v_1.3B"], preferences, machine=MACHINE)
    assert not plan.transformer.present


# Models whose sizes the transformer doesn't tell: between it and LTX-2's text encoder are the connectors.
APART = {("ltx2", name) for name in ("text_encoder", "audio_vae", "vocoder")}
ONLY_IN_FOLDERS = {("ltx2_25_22B", "text_encoder")}  # no program's file of Gemma 4 is known


def test_every_published_architecture_names_kinds_of_files():
    for architecture in ARCHITECTURES.values():
        for component in architecture.parts:
            in_folders = (architecture.id, component.name) in ONLY_IN_FOLDERS
            assert component.kind or "tokenizer" in component.name or in_folders
            apart = (architecture.family.name, component.name) in APART
            assert bool(component.feeds) == (component.is_model and not apart)
