import pytest

from reeltune.checkpoints.keys import Places, map_names, matches, translate
from reeltune.families.wan import WAN


@pytest.mark.parametrize("label", ["wan_t2v_1.3B", "wan_t2v_14B", "wan_i2v_14B", "wan_vace_module_14B"])
def test_every_name_translates_and_back(headers, label):
    for name in headers[label]:
        other = translate(name, WAN, "original")
        assert other is not None, name
        assert translate(other, WAN, "diffusers") == name


@pytest.mark.parametrize("label", ["wan_t2v_1.3B", "wan_i2v_14B", "wan_vace_module_1.3B"])
def test_equal_to_diffusers_converter(headers, label):
    import torch
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    theirs = convert_wan_transformer_to_diffusers({name: torch.empty(0) for name in headers[label]})
    assert set(theirs) == {translate(name, WAN, "original") for name in headers[label]}


@pytest.mark.parametrize("suffix", ["weight", "bias", "weight._data", "weight._scale", "input_scale"])
def test_suffixes_follow_their_module(suffix):
    assert translate(f"blocks.17.ffn.0.{suffix}", WAN, "original") == f"blocks.17.ffn.net.0.proj.{suffix}"


@pytest.mark.parametrize("name", ["", "blocks.x.ffn.0.weight", "blocks.0.ffn.5.weight", "vae.conv1.weight", "blocks.0"])
def test_names_of_nothing_are_none(name):
    assert translate(name, WAN, "original") is None


def test_unknown_names_are_kept_apart():
    names = map_names(["p.head.head.weight", "p.zzz", "head.head.weight"], WAN, "original", "p.")
    assert names.diffusers == {"p.head.head.weight": Places(("proj_out.weight",))}
    assert names.unknown == ("p.zzz", "head.head.weight")


def test_patterns():
    assert matches("blocks.12.ffn.0", "blocks.{}.ffn.0")
    assert not matches("blocks.x.ffn.0", "blocks.{}.ffn.0")
    assert not matches("blocks.1.ffn.0.weight", "blocks.{}.ffn.0")
