"""Which memory profile a machine gets for a choice, and why."""

import pytest

from reeltune import Preferences, explain, load_catalog
from reeltune.machine import Gpu, Machine
from reeltune.planning.memory import PROFILES, MemoryProfile, activations, pick

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
    found = pick(explain(big, Preferences(quantization=quantization), machine=machine(card)))
    assert found.name == profile
    assert found.reason


def test_stages_where_two_transformers_or_encoders_do_not_fit_beside_each_other(big, root, define):
    files = {"URLs": ["ckpts/x_bf16.safetensors"], "URLs2": ["ckpts/x_bf16.safetensors"], "auto_quantize": True}
    define("two", {"architecture": "t2v_2_2", **files})
    explanation = explain(load_catalog(root)["two"], Preferences(), machine=machine(32))
    assert pick(explanation).name == "stages"
    assert "GB" in pick(explanation).reason


def test_larger_videos_need_more(big, root, define):
    assert activations(explain(big, machine=machine(0))) == 32_760 * 5120 * 30  # 832x480, 81 frames
    model = {"architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors"], "auto_quantize": True}
    define("large", model, resolution="1280x720")
    large = load_catalog(root)["large"]
    assert activations(explain(large, machine=machine(0))) == 75_600 * 5120 * 30
    assert pick(explain(large, Preferences(), machine=machine(24))).name == "streamed"


def test_other_devices_and_wishes(big):
    assert pick(explain(big, Preferences(), machine=machine(0))).name == "resident"
    assert pick(explain(big, Preferences(), machine=machine(0, apple=True))).reason.startswith("mps computes in")
    wished = pick(explain(big, Preferences(memory_profile="minimum"), machine=machine(80)))
    assert (wished.name, wished.reason) == ("minimum", "as you chose")


def test_pinned_where_the_memory_allows(big):
    assert pick(explain(big, Preferences(), machine=machine(12, ram=64))).pinned
    assert not pick(explain(big, Preferences(), machine=machine(12, ram=24))).pinned


def test_before_headers_are_known(root):
    found = pick(explain(load_catalog(root)["t2v"], Preferences(), machine=machine(12)))
    assert (found.name, found.reason) == ("stages", "until the weights' headers are known")


def test_one_step_down_each_time():
    profile, names = MemoryProfile("resident", "", True), []
    while profile:
        names.append(profile.name)
        profile = profile.lower("memory ran out")
    assert tuple(names) == PROFILES
