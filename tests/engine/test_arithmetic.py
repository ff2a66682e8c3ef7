"""Which precision and how many threads a video is computed with."""

import pytest
import torch

from reeltune import Engine, Preferences, load_catalog
from reeltune.engine.arithmetic import arithmetic, threads_for
from reeltune.families import ARCHITECTURES
from reeltune.machine import Machine
from reeltune.planning.plan import explain
from reeltune.request.build import build_request
from reeltune.settings import layer

SMALL = {"num_attention_heads": 6, "attention_head_dim": 32}
LARGE = {"num_attention_heads": 12, "attention_head_dim": 128}


def a_request(root, **settings):
    architecture = ARCHITECTURES["t2v_1.3B"]
    definition = load_catalog(root)["t2v_1.3B"]
    return build_request(definition, {**layer(architecture), "prompt": "x", **settings})[0]


def test_small_layers_get_one_thread_and_large_ones_all(root):
    architecture = ARCHITECTURES["t2v_1.3B"]
    small = a_request(root, resolution="64x64", video_length=17)
    assert threads_for(architecture, small, SMALL, 8) == 1
    assert threads_for(architecture, small, LARGE, 8) == 1
    assert threads_for(architecture, a_request(root), SMALL, 8) == 8
    assert threads_for(architecture, a_request(root), LARGE, 8) == 8


@pytest.mark.parametrize(("preferred", "expected"), [(0, 1), (2, 2)])
def test_the_preference_wins_and_torch_is_as_before(root, preferred, expected):
    plan = explain(load_catalog(root)["nano_t2v"], Preferences(threads=preferred))
    request = a_request(root, resolution="64x64", video_length=17)
    before = torch.get_num_threads()
    with arithmetic(plan, request, SMALL):
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == before


def test_a_video_in_fp32_products_is_nearly_the_same(root):
    frames = []
    for types in (frozenset({"bf16", "fp16"}), frozenset()):
        machine = Machine(2**34, 2**33, cpu_types=types)
        with Engine(load_catalog(root)["nano_t2v"], machine=machine) as engine:
            assert engine.prepare().products_in_fp32 == (not types)
            frames.append(engine.generate(seed=3, num_inference_steps=4).frames.astype(float))
    assert abs(frames[0] - frames[1]).mean() < 2
    assert (frames[0] != frames[1]).any()
