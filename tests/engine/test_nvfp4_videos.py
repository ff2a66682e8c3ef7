"""Videos with files in nvfp4: the same as from their decoded weights, and the commands that show such a file."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_parts
from cases import write_case

import nvfp4_files
from nvfp4_files import KINDS
from reeltune import Engine, Preferences, explain, load_catalog
from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.identify import identify
from reeltune.cli import main
from reeltune.errors import CheckpointError, ChoiceError
from reeltune.library.inventory import PACKAGE_FILES
from reeltune.machine import probe
from reeltune.planning.estimate import estimate
from reeltune.weights._libraries import is_int8

FILE = PACKAGE_FILES / "nano_t2v_bf16.safetensors"
NANO = {"num_inference_steps": 3, "resolution": "32x32", "video_length": 5, "seed": 3, "prompt": "a red circle"}
QUANTIZATIONS = ("bf16", "int8")


@pytest.fixture
def nano(root, define):
    """A function that writes nano in nvfp4, as a program stores it, and its decoded weights: two definitions."""

    def write(kind, **more):
        (root / "ckpts").mkdir(exist_ok=True)
        plain = root / "ckpts" / "nano_decoded_bf16.safetensors"
        path = nvfp4_files.convert(FILE, root / "ckpts" / "nano_nvfp4.safetensors", kind, plain, **more)
        for id, file in (("mine", path), ("decoded", plain)):
            define(
                id,
                {
                    "architecture": "t2v_1.3B",
                    "components": "reeltune/nano",
                    "URLs": [f"ckpts/{file.name}"],
                    "auto_quantize": True,
                },
            )
        catalog = load_catalog(root)
        return catalog["mine"], catalog["decoded"]

    return write


def frames(definition, quantization, models=None, **settings):
    with Engine(definition, preferences=Preferences(quantization=quantization)) as engine:
        video = engine.generate(**settings)
        if models is not None:
            models += [loaded.model for loaded in engine._warm.models._loaded.values()]
        return video.frames


@pytest.mark.parametrize("kind", KINDS)
def test_nano_makes_the_video_of_its_decoded_weights(nano, kind):
    ours, decoded = nano(kind)
    wanted = frames(decoded, "bf16", **NANO)
    assert np.array_equal(frames(ours, "bf16", **NANO), wanted)
    models = []
    in_int8 = frames(ours, "int8", models, **NANO).astype(int)
    assert any(is_int8(parameter) for parameter in models[0].parameters())
    assert np.abs(in_int8 - frames(decoded, "int8", **NANO).astype(int)).mean() < 2


@pytest.mark.parametrize("kind", ["comfyui", "lightx2v"])
@pytest.mark.parametrize("name", ["t2v", "i2v", "t2v_2_2"])
def test_tiny_models_make_the_video_of_their_decoded_weights(root, define, parts, monkeypatch, name, kind):
    monkeypatch.setitem(tiny_parts.WAN_CONFIG, "attention_head_dim", 16)  # so that rows are whole blocks
    definition, settings = write_case(name, root, define, parts)
    in_nvfp4, decoded = {}, {}
    for slot, versions in definition.slots.items():
        source = Path(versions[0].url)
        plain, path = (source.with_name(f"{source.stem}_{what}.safetensors") for what in ("decoded_bf16", "nvfp4"))
        nvfp4_files.convert(source, path, kind, plain)
        in_nvfp4[slot] = [replace(versions[0], url=str(path))]
        decoded[slot] = [replace(versions[0], url=str(plain))]
    ours, theirs = replace(definition, slots=in_nvfp4), replace(definition, slots=decoded)
    plan = explain(ours, Preferences(quantization="bf16"))
    assert {choice.quantization for choice in plan.selection.choices.values()} == {"nvfp4"}
    assert np.array_equal(frames(ours, "bf16", **settings), frames(theirs, "bf16", **settings))
    assert frames(ours, "int8", **settings).shape == frames(theirs, "bf16", **settings).shape


def test_the_plan_counts_what_the_weights_become(nano):
    ours, decoded = nano("comfyui")
    for quantization in QUANTIZATIONS:
        plan, wanted = (
            explain(definition, Preferences(quantization=quantization), machine=probe())
            for definition in (ours, decoded)
        )
        assert estimate(plan).transformer == estimate(wanted).transformer
    choice = plan.selection.choices["transformer"]
    reason = "nvfp4, no usable int8 version is listed: quantized to int8 while loading, runs in bf16, on disk"
    assert (choice.reason, choice.keep, choice.quantize_on_load) == (reason, False, True)


def test_commands_show_it(nano, root, capsys):
    nano("comfyui", notes="metadata")
    path = root / "ckpts" / "nano_nvfp4.safetensors"

    def said(*command):
        with pytest.raises(SystemExit) as caught:
            sys.exit(main([str(word) for word in command]))
        assert not caught.value.code, command
        answer = capsys.readouterr()
        return " ".join((answer.out + answer.err).split())

    found = json.loads(said("inspect", path, "--json"))
    assert (found["quantization"], found["dtype"], found["notices"]) == ("nvfp4", "bf16", [])
    assert found["parameters"] == identify(read_header(FILE)).parameters
    assert "quantized to int8 while loading" in said("explain", "mine", "--root", root)
    assert "converted to 16 bits" in said("explain", "mine", "--quantization", "bf16", "--root", root)
    assert "mine" in said("list", "--root", root)
    assert "nano_quanto_bf16_int8.safetensors" in said("quantize", path)
    assert "nano_bf16.safetensors" in said("quantize", path, "--to", "bf16")


def test_int8_versions_are_saved(nano, root):
    ours, _ = nano("lightx2v")
    with Engine(ours, preferences=Preferences(save_quantized=True)) as engine:
        saved = engine.generate(**NANO).frames
    assert (root / "ckpts" / "nano_quanto_bf16_int8.safetensors").is_file()
    again = load_catalog(root)["mine"]
    assert explain(again).selection.choices["transformer"].version.file_name == "nano_quanto_bf16_int8.safetensors"
    assert np.array_equal(saved, frames(again, "int8", **NANO))


def test_a_damaged_file_is_reported(nano, root):
    ours, _ = nano("lightx2v")
    path = root / "ckpts" / "nano_nvfp4.safetensors"
    tensor = next(tensor for name, tensor in read_header(path).tensors.items() if name.endswith(".weight_scale"))
    content = bytearray(path.read_bytes())
    content[tensor.begin] = 0x7F
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="its nvfp4 scales are NaN or infinite"):
        frames(ours, "bf16", **NANO)


def test_a_file_that_does_not_tell_its_layout_is_refused_by_its_header(root, define, server):
    """Before it is downloaded."""
    from conftest import safetensors_bytes

    layer = {"weight": ("U8", [128, 32]), "weight_scale": ("F8_E4M3", [128, 4]), "weight_scale_2": ("F32", [])}
    tensors = {f"blocks.0.ffn.0.{name}": tensor for name, tensor in layer.items()}
    server.files["/x_nvfp4.safetensors"] = safetensors_bytes({"head.modulation": ("BF16", [1, 2, 4]), **tensors})
    define("mine", {"architecture": "t2v", "URLs": [f"{server.url}/x_nvfp4.safetensors"]})
    with pytest.raises(ChoiceError, match="doesn't tell whether its nvfp4 scales lie in tiles or in rows"):
        explain(load_catalog(root)["mine"], online=True)
    assert not list((root / "ckpts").glob("*nvfp4*"))
