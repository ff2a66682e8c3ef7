"""What an engine reports from call to call, and what it keeps."""

import pytest
import torch

from reeltune import Engine, Notice, Preferences, load_catalog
from reeltune.engine.reporting import Reporter
from reeltune.engine.warm import Warm
from reeltune.errors import DeviceMissing
from reeltune.planning.memory import ChosenProfile, MemoryProfile
from reeltune.planning.plan import explain
from reeltune.preferences import save_preferences

FAST = {"num_inference_steps": 2, "video_length": 5, "seed": 3}
BF16 = Preferences(quantization="bf16")


@pytest.fixture
def nano(root):
    return load_catalog(root)["nano_t2v"]


def messages(events):
    return [event.message for event in events if isinstance(event, Notice)]


def test_each_call_reports_its_notices_once(nano):
    events = []
    with Engine(nano, preferences=BF16, listener=events.append) as engine:
        for _ in engine.generate_each("a red circle\na blue square", **FAST):
            pass
        first = messages(events)
        events.clear()
        for _ in engine.generate_each("a red circle\na blue square", **FAST):
            pass
    assert len(first) == len(set(first))
    assert any(message.startswith("transformer: ") for message in first)
    assert messages(events) == first


def test_after_a_device_that_is_not_there_the_next_call_works(nano, root):
    save_preferences(root, Preferences(device="cuda:7"))
    with Engine(nano) as engine:
        for _ in range(2):
            with pytest.raises(DeviceMissing):
                engine.generate("a red circle", **FAST)
        save_preferences(root, BF16)
        assert engine.generate("a red circle", **FAST).frames.shape == (5, 64, 64, 3)


def test_a_request_can_be_made_as_it_is(nano):
    from reeltune.request.parse import parse

    request = parse(nano, {"prompt": "a red circle", **FAST}).requests[0]
    with Engine(nano, preferences=BF16) as engine:
        video = engine.make(request)
        again = engine.generate("a red circle", **FAST)
    assert (video.frames == again.frames).all()


def test_asking_for_a_path_prepares_nothing(nano, monkeypatch):
    with Engine(nano, preferences=BF16) as engine:
        video = engine.generate("a red circle", **FAST)
    monkeypatch.setattr("reeltune.engine.engine.make_ready", None)
    with Engine(nano, preferences=BF16) as other:
        assert other.output_path(video).parent == nano.root / "outputs"


def test_a_smaller_profile_after_an_earlier_video_is_reported(nano):
    events = []
    plan = explain(nano, BF16)
    warm, chosen = Warm(Reporter(events.append)), ChosenProfile(MemoryProfile.RESIDENT, "it fits")
    placement = warm.placement(plan, chosen)
    assert not messages(events)
    placement._step_down("out of memory")
    events.clear()
    assert warm.placement(plan, chosen) is placement
    assert messages(events) == [
        "Memory profile stages is used in place of resident: memory ran out in an earlier video."
    ]
    other = warm.placement(plan, ChosenProfile(MemoryProfile.MINIMUM, "as you chose"))
    assert (other.profile, other.device) == (MemoryProfile.MINIMUM, torch.device("cpu"))


def test_the_preference_to_save_quantized_files_counts_without_a_flag(nano, root, monkeypatch):
    called = []

    def saving(definition, preferences, **_):
        called.append((definition.id, preferences.save_quantized))
        return []

    monkeypatch.setattr("reeltune.engine.ready.save_quantized", saving)
    with Engine(nano, preferences=Preferences(quantization="bf16", save_quantized=True)) as engine:
        engine.prepare()
        engine.prepare()
    with Engine(nano, preferences=BF16, save_quantized=True) as engine:
        engine.prepare()
    with Engine(nano, preferences=BF16) as engine:
        engine.prepare()
    assert called == [("nano_t2v", True), ("nano_t2v", True)]
