import json
import os
import random

import pytest

from reeltune.errors import PreferencesError
from reeltune.machine import Gpu, Machine, free_disk, probe
from reeltune.preferences import FIELDS, Preferences, load_preferences, save_preferences


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


ODD = [
    ("dtype", "fp32"),
    ("quantization", 8.5),
    ("quantization", None),
    ("model_folders", "x"),
    ("outputs", 3),
    ("outputs", ""),
    ("outputs", "a\0b"),
    ("memory_profile", "fast"),
    ("attention", 1),
    ("attention", ["sdpa"]),
    ("compile", "yes"),
    ("int8", {"a": {}}),
    ("device", "banana"),
    ("connections", 2.5),
    ("connections", True),
    ("rate_limit", -1),
    ("stall_seconds", 1e6),
    ("tokens", ["a"]),
]


@pytest.mark.parametrize(("name", "value"), ODD)
def test_one_odd_value_is_named_and_costs_only_itself(root, name, value):
    path = root / "reeltune.json"
    good = {"text_encoder_quantization": "bf16", "future": 1}
    path.write_text(json.dumps({name: value, **good}), encoding="utf-8")
    preferences, notices = load_preferences(root)
    assert preferences == Preferences(text_encoder_quantization="bf16", extra={"future": 1})
    (notice,) = notices
    assert name in notice
    assert "reeltune.json" in notice
    save_preferences(root, preferences.with_flags(text_encoder_quantization="int8"))
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored[name] == value  # never overwritten unasked
    assert stored["text_encoder_quantization"] == "int8"
    save_preferences(root, preferences, replaced=[name])
    assert load_preferences(root) == (preferences, [])


def test_numbers_without_end_and_lone_surrogates_are_values_like_any_other(root):
    text = '{"connections": %s, "rate_limit": NaN, "outputs": "a\\ud800b", "dtype": "fp16"}' % ("9" * 310)
    (root / "reeltune.json").write_text(text)
    preferences, notices = load_preferences(root)
    assert (preferences.connections, preferences.rate_limit, preferences.dtype) == (4, 0, "fp16")
    assert preferences.outputs == "a\ufffdb"
    assert len(notices) == 2


def test_the_good_folders_and_tokens_beside_an_odd_one_are_used_and_no_token_is_shown(root):
    written = {"model_folders": ["/a", 3, "b\0"], "tokens": {"hub": "hf_1", "civitai": "secret key"}}
    (root / "reeltune.json").write_text(json.dumps(written))
    preferences, notices = load_preferences(root)
    assert preferences.model_folders == ("/a",)
    assert preferences.tokens == {"hub": "hf_1"}
    assert len(notices) == 3
    assert "secret" not in " ".join(notices)
    save_preferences(root, preferences)
    stored = json.loads((root / "reeltune.json").read_text())
    assert (stored["model_folders"], stored["tokens"]) == (written["model_folders"], written["tokens"])


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b"", b"[" * 100_000, b'{"a": ' * 90 + b"1" + b"}" * 90])
def test_a_file_that_can_not_be_read_is_named_and_never_overwritten(root, content):
    path = root / "reeltune.json"
    path.write_bytes(content)
    preferences, notices = load_preferences(root)
    assert preferences == Preferences()
    assert "reeltune.json" in notices[0]
    with pytest.raises(PreferencesError, match=r"reeltune\.json"):
        save_preferences(root, preferences.with_flags(dtype="fp16"))
    assert path.read_bytes() == content


def test_what_is_no_regular_file_is_named(root):
    path = root / "reeltune.json"
    for make in (path.mkdir, lambda: path.symlink_to(path), lambda: os.mkfifo(path)):
        if make is not path.mkdir and os.name == "nt":
            continue
        make()
        assert load_preferences(root)[1]
        path.rmdir() if make == path.mkdir else path.unlink()


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("dtype", "FP16", "fp16"),
        ("dtype", "Float16", "fp16"),
        ("quantization", "fp16", "bf16"),
        ("quantization", "16bit", "bf16"),
        ("quantization", "INT8", "int8"),
        ("device", "CUDA:1", "cuda:1"),
        ("memory_profile", " Streamed ", "streamed"),
        ("connections", 8.0, 8),
        ("rate_limit", 3, 3.0),
    ],
)
def test_usual_ways_to_write_a_value(name, written, value):
    assert getattr(Preferences().with_flags(**{name: written}), name) == value


def test_thousands_of_files(root):
    """Mutations of a whole file: preferences come of every one, and none is overwritten."""
    rng = random.Random(7)
    atoms = [
        None,
        True,
        0,
        -1,
        2**63,
        "9" * 310,
        1e308,
        "",
        "\0",
        "\ud800",
        "auto",
        "int8",
        [],
        [None],
        {},
        {"a": 1},
        "x" * 9000,
    ]
    names = [*FIELDS, "tokens", "extra", "schema_version", "wgp", "", "\ud800"]
    path = root / "reeltune.json"
    for _ in range(3000):
        content = {name: rng.choice(atoms) for name in rng.sample(names, rng.randint(0, len(names)))}
        raw = bytearray(json.dumps(content).encode())
        if rng.random() < 0.3:
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        path.write_bytes(raw)
        preferences, notices = load_preferences(root)
        for text in (preferences.outputs, *preferences.model_folders, *notices):
            text.encode("utf-8")


def test_configurations_of_wangp_that_are_odd(root):
    rng = random.Random(8)
    atoms = [None, True, 0, 3.5, 99, 10**30, "", "int8", "BF16", "\0", "\ud800", [], [1], {"a": []}, "x" * 9000]
    names = [
        "transformer_quantization",
        "transformer_dtype_policy",
        "text_encoder_quantization",
        "save_path",
        "profile",
    ]
    names += ["attention_mode", "compile", "boost", "vae_config"]
    for _ in range(300):
        content = {name: rng.choice(atoms) for name in rng.sample(names, rng.randint(0, len(names)))}
        (root / "wgp_config.json").write_text(json.dumps(content))
        preferences, notices = load_preferences(root)
        assert load_preferences(root) == (preferences, [])
        assert any("were imported" in line for line in notices)
        (root / "reeltune.json").unlink()


def test_an_existing_wgp_config_is_read_once(root):
    old = {"transformer_quantization": "bf16", "transformer_dtype_policy": "fp16", "save_path": "videos", "profile": 4}
    old |= {"text_encoder_quantization": "bf16", "attention_mode": "sage2", "compile": "transformer", "boost": 1}
    (root / "wgp_config.json").write_text(json.dumps(old))
    preferences, notices = load_preferences(root)
    assert (preferences.quantization, preferences.dtype, preferences.outputs) == ("bf16", "fp16", "videos")
    assert preferences.text_encoder_quantization == "bf16"
    assert (preferences.memory_profile, preferences.attention, preferences.compile) == ("streamed", "sage", True)
    assert "WanGP's profile 4 becomes memory profile streamed." in notices
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
