"""Videos with GGUF files: nano, a tiny model of every family, and both transformers of Wan 2.2."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_parts
from cases import write_case

import gguf_files
import reeltune
from reeltune import Engine, Preferences, explain, load_catalog, pull
from reeltune.errors import ChoiceError
from reeltune.machine import probe

NANO = Path(reeltune.__file__).parent / "nano"
PROMPT = {
    "prompt": "a red circle moves right on a black background", "seed": 7, "num_inference_steps": 6, "resolution": "64x64",
    "video_length": 17, "guidance_scale": 3.0, "flow_shift": 3.0,
}  # fmt: skip
FAMILIES = (
    "t2v", "vace_14B", "t2v_2_2", "hunyuan", "ltxv_13B", "lucy_edit", "sky_df_1.3B", "sky_df_14B", "animate", "chrono_edit",
    "hunyuan_1_5_t2v", "hunyuan_1_5_i2v_step", "k5_lite_t2v", "k5_lite_i2v",
)  # fmt: skip
DEFINITION = {"architecture": "t2v_1.3B", "components": str(NANO / "reeltune--nano")}


def generate(definition, quantization="bf16", **settings):
    with Engine(definition, preferences=Preferences(quantization=quantization)) as engine:
        return engine.generate(**settings)


def frames(definition, quantization="bf16", **settings):
    return generate(definition, quantization, **settings).frames.astype(int)


@pytest.fixture(scope="module")
def in_16_bits(tmp_path_factory):
    definition = load_catalog(tmp_path_factory.mktemp("root"))["nano_t2v"]
    return frames(definition, **PROMPT)


@pytest.mark.parametrize("quantization", ["bf16", "int8"])
@pytest.mark.parametrize(("type_name", "most"), [("Q8_0", 2), ("Q4_0", 12)])
def test_nano_makes_nearly_the_same_video(root, define, in_16_bits, type_name, most, quantization):
    (root / "ckpts").mkdir()
    gguf_files.convert(NANO / "nano_t2v_bf16.safetensors", root / "ckpts" / f"nano-{type_name}.gguf", type_name)
    define("mine", DEFINITION | {"URLs": [f"ckpts/nano-{type_name}.gguf"]})
    ours = frames(load_catalog(root)["mine"], quantization, **PROMPT)
    assert 0 < np.abs(ours - in_16_bits).mean() < most


def test_nano_without_blocks_makes_the_same_video(root, define, in_16_bits):
    (root / "ckpts").mkdir()
    gguf_files.convert(NANO / "nano_t2v_bf16.safetensors", root / "ckpts" / "nano-BF16.gguf", "BF16")
    define("mine", DEFINITION | {"URLs": ["ckpts/nano-BF16.gguf"]})
    definition = load_catalog(root)["mine"]
    assert (
        explain(definition, Preferences(quantization="bf16"))
        .selection.choices["transformer"]
        .reason.startswith("16 bits")
    )
    assert np.array_equal(frames(definition, **PROMPT), in_16_bits)


@pytest.mark.parametrize("type_name", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_tiny_model_of_each_family_makes_nearly_the_same_video(root, define, parts, monkeypatch, name, type_name):
    monkeypatch.setitem(tiny_parts.WAN_CONFIG, "attention_head_dim", 16)  # so that rows are whole blocks
    monkeypatch.setattr(gguf_files, "SMALL", 64)
    definition, settings = write_case(name, root, define, parts)
    wanted = frames(definition, **settings)
    slots = {}
    for slot, versions in definition.slots.items():
        source = Path(versions[0].url)
        target = gguf_files.convert(source, source.with_name(f"{source.stem}-{type_name}.gguf"), type_name)
        slots[slot] = [replace(versions[0], url=str(target))]
    quantized = replace(definition, slots=slots)
    plan = explain(quantized, Preferences(quantization="int8"))
    assert {choice.quantization for choice in plan.selection.choices.values()} == {"gguf"}
    for quantization in ("bf16", "int8"):
        ours = frames(quantized, quantization, **settings)
        assert ours.shape == wanted.shape
        assert 0 < np.abs(ours - wanted).mean() < 25


def test_loras_run_beside_it(root, define):
    (root / "ckpts").mkdir()
    gguf_files.convert(NANO / "nano_t2v_bf16.safetensors", root / "ckpts" / "nano-Q8_0.gguf", "Q8_0")
    lora = str(NANO / "nano_neon_lora_r32_bf16.safetensors")
    define("mine", DEFINITION | {"URLs": ["ckpts/nano-Q8_0.gguf"], "loras": [lora]})
    define("bf16", DEFINITION | {"URLs": [str(NANO / "nano_t2v_bf16.safetensors")], "loras": [lora]})
    catalog = load_catalog(root)
    for quantization in ("bf16", "int8"):
        ours, wanted = (frames(catalog[id], quantization, **PROMPT) for id in ("mine", "bf16"))
        assert np.abs(ours - wanted).mean() < 2


def test_a_plan_takes_what_it_says(root, define):
    (root / "ckpts").mkdir()
    gguf_files.convert(NANO / "nano_t2v_bf16.safetensors", root / "ckpts" / "nano-Q8_0.gguf", "Q8_0")
    define("mine", DEFINITION | {"URLs": ["https://h/nano-Q8_0.gguf", "https://h/nano-IQ2_XS.gguf"]})
    plan = explain(load_catalog(root)["mine"], machine=probe())
    choice = plan.selection.choices["transformer"]
    assert choice.present
    assert (
        choice.reason
        == "GGUF, no usable int8 version is listed: quantized to int8 while loading, runs in bf16, on disk"
    )
    assert "IQ1 to IQ3" in plan.selection.rejected[0].reason


def test_what_cannot_be_decoded_is_refused_before_a_byte_is_downloaded(root, define, server):
    shapes = {"head.modulation": (1, 2, 8), "patch_embedding.weight": (8, 16, 1, 2, 2), "head.head.weight": (64, 256)}
    tensors = {
        name: gguf_files.Entry("IQ3_S" if name == "head.head.weight" else "F32", shape)
        for name, shape in shapes.items()
    }
    server.files["/x.gguf"] = gguf_files.File(tensors).content()
    define("mine", DEFINITION | {"URLs": [f"{server.url}/x.gguf"]})
    with pytest.raises(ChoiceError, match="IQ1 to IQ3"):
        pull(load_catalog(root)["mine"])
    assert len(server.requests) == 1  # of the header
    assert not list((root / "ckpts").glob("*.gguf*"))
