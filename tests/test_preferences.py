import json

import pytest

from reeltune.errors import PreferencesError
from reeltune.machine import Gpu, Machine, free_disk, probe
from reeltune.preferences import Preferences, load_preferences, save_preferences


def test_defaults_and_flags(root):
    preferences, notices = load_preferences(root)
    assert preferences == Preferences("int8", "auto", "auto", "outputs", ())
    assert not notices
    changed = preferences.with_flags(quantization="bf16", dtype=None)
    assert (changed.quantization, changed.dtype) == ("bf16", "auto")


def test_unknown_fields_survive_a_round_trip(root):
    (root / "reeltune.json").write_text(json.dumps({"schema_version": 9, "dtype": "fp16", "future": {"a": 1}}))
    preferences, _ = load_preferences(root)
    assert preferences.dtype == "fp16"
    save_preferences(root, preferences.with_flags(quantization="bf16"))
    stored = json.loads((root / "reeltune.json").read_text(encoding="utf-8"))
    assert stored["future"] == {"a": 1}
    assert stored["quantization"] == "bf16"


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"dtype": "fp32"}',
        '{"quantization": 8}',
        '{"model_folders": "x"}',
        '{"outputs": 3}',
        '{"memory_profile": "fast"}',
        '{"attention": 1}',
        '{"compile": "yes"}',
        '{"int8": "static"}',
    ],
)
def test_a_broken_file_is_named_and_left_alone(root, content):
    path = root / "reeltune.json"
    path.write_text(content)
    with pytest.raises(PreferencesError, match=r"reeltune\.json"):
        load_preferences(root)
    assert path.read_text() == content


def test_an_existing_wgp_config_is_read_once(root):
    old = {"transformer_quantization": "bf16", "transformer_dtype_policy": "fp16", "save_path": "videos", "profile": 4}
    old |= {"text_encoder_quantization": "bf16", "attention_mode": "sage2", "compile": "transformer", "boost": 1}
    (root / "wgp_config.json").write_text(json.dumps(old))
    preferences, notices = load_preferences(root)
    assert (preferences.quantization, preferences.dtype, preferences.outputs) == ("bf16", "fp16", "videos")
    assert preferences.text_encoder_quantization == "bf16"
    assert (preferences.memory_profile, preferences.attention, preferences.compile) == ("streamed", "sage", True)
    assert "Its profile 4 becomes the memory profile streamed." in notices
    assert any("boost" in line for line in notices)
    (root / "wgp_config.json").write_text("{}")
    again, notices = load_preferences(root)
    assert again == preferences
    assert again.extra["wgp"] == {"boost": 1}
    assert not notices


@pytest.mark.parametrize(
    ("number", "profile"),
    [(1, "resident"), (2, "streamed"), (3, "stages"), (3.5, "stages"), (4, "streamed"), (4.5, "streamed"), (5, "minimum"),
     (-1, "auto"), (9, "auto")],
)  # fmt: skip
def test_wangps_profiles_by_number(root, number, profile):
    (root / "wgp_config.json").write_text(json.dumps({"profile": number}))
    preferences, notices = load_preferences(root)
    assert preferences.memory_profile == profile
    assert "profile" in " ".join(notices)


def test_machines_and_their_data_types():
    turing, ampere = Gpu("RTX 2080", 8 * 2**30, 7.5), Gpu("RTX 3090", 24 * 2**30, 8.6)
    both = Machine(1, 1, (turing, ampere))
    assert both.device("auto") == "cuda"
    assert both.data_types("auto") == ("fp16",)
    assert both.data_types("cuda:1") == ("bf16", "fp16")
    assert both.data_types("cpu") == ("bf16", "fp16")
    assert Machine(1, 1, apple=True).device("auto") == "mps"
    assert Machine(1, 1).device("auto") == "cpu"


def test_this_machine(tmp_path):
    machine = probe()
    assert 0 < machine.ram_free <= machine.ram
    assert free_disk(tmp_path / "not" / "there") > 0
