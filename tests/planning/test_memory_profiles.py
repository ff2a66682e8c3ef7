"""Which memory profile a machine gets for a choice, and why."""

import pytest

from reeltune import Preferences, explain, load_catalog
from reeltune.machine import Gpu, Machine
from reeltune.planning.memory import ChosenProfile, MemoryProfile, activations, choose_profile

GB = 2**30


def machine(card, ram=64, apple=False):
    gpus = (Gpu("card", card * GB, 8.6),) if card else ()
    return Machine(ram * GB, ram * GB, gpus, apple)


@pytest.mark.parametrize(
    ("card", "quantization", "profile"),
    [(80, "bf16", "resident"), (48, "bf16", "resident"), (24, "bf16", "streamed"), (24, "int8", "resident"),
     (16, "int8", "streamed"), (12, "int8", "streamed"), (8, "int8", "streamed"), (4, "int8", "minimum")],
)  # fmt: skip
def test_of_the_14b_model_by_card(big, card, quantization, profile):
    found = choose_profile(explain(big, Preferences(quantization=quantization), machine=machine(card)))
    assert found.profile == profile
    assert found.reason


def test_stages_where_two_transformers_or_encoders_do_not_fit_beside_each_other(big, root, define):
    files = {"URLs": ["ckpts/x_bf16.safetensors"], "URLs2": ["ckpts/x_bf16.safetensors"], "auto_quantize": True}
    define("two", {"architecture": "t2v_2_2", **files})
    plan = explain(load_catalog(root)["two"], Preferences(), machine=machine(32))
    assert choose_profile(plan).profile == "stages"
    assert "GB" in choose_profile(plan).reason


def test_larger_videos_need_more(big, root, define):
    assert activations(explain(big, machine=machine(0))) == 32_760 * 5120 * 30  # 832x480, 81 frames
    model = {"architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors"], "auto_quantize": True}
    define("large", model, resolution="1280x720")
    large = load_catalog(root)["large"]
    assert activations(explain(large, machine=machine(0))) == 75_600 * 5120 * 30
    assert choose_profile(explain(large, Preferences(), machine=machine(24))).profile == "streamed"


def test_other_devices_and_wishes(big):
    assert choose_profile(explain(big, Preferences(), machine=machine(0))).profile == "resident"
    assert choose_profile(explain(big, Preferences(), machine=machine(0, apple=True))).reason.startswith(
        "mps computes in"
    )
    chosen = choose_profile(explain(big, Preferences(memory_profile="minimum"), machine=machine(80)))
    assert (chosen.profile, chosen.reason) == ("minimum", "as you chose")


def test_pinned_where_the_memory_allows(big):
    assert choose_profile(explain(big, Preferences(), machine=machine(12, ram=64))).pinned
    assert not choose_profile(explain(big, Preferences(), machine=machine(12, ram=24))).pinned


@pytest.mark.parametrize(
    ("card", "preload", "profile", "kept"),
    [(12, 2000, "streamed", 2 * 10**9), (12, 0, "streamed", 0), (80, 2000, "resident", 0), (4, 2000, "minimum", 0)],
)  # fmt: skip
def test_part_of_the_weights_stays_on_the_card(big, root, define, card, preload, profile, kept):
    model = {"architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors"], "auto_quantize": True}
    define("mine", model | {"preload_in_VRAM": preload})
    plan = explain(load_catalog(root)["mine"], Preferences(), machine=machine(card))
    chosen = choose_profile(plan)
    assert (chosen.profile, chosen.preload) == (profile, kept)
    assert ("preload_in_VRAM" in chosen.reason) == bool(kept)


def test_no_more_stays_on_the_card_than_fits(big, root, define):
    model = {"architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors"], "auto_quantize": True}
    define("mine", model | {"preload_in_VRAM": 500_000})
    chosen = choose_profile(explain(load_catalog(root)["mine"], Preferences(), machine=machine(12)))
    assert chosen.profile == "streamed"
    assert 10**9 < chosen.preload < 12 * GB
    preferred = Preferences(memory_profile="streamed")
    assert choose_profile(explain(load_catalog(root)["mine"], preferred, machine=machine(12))).preload == 5 * 10**11


def test_before_headers_are_known(root):
    found = choose_profile(explain(load_catalog(root)["t2v"], Preferences(), machine=machine(12)))
    assert (found.profile, found.reason) == ("stages", "until the weights' headers are known")


def test_one_step_down_each_time():
    chosen, profiles = ChosenProfile(MemoryProfile.RESIDENT, "", True), []
    while chosen:
        profiles.append(chosen.profile)
        assert chosen.pinned
        chosen = chosen.smaller("memory ran out")
    assert profiles == list(MemoryProfile)
