import pytest

from reeltune.definitions.nearest import nearest_name
from reeltune.definitions.section import ModelSection
from reeltune.families import ARCHITECTURES
from reeltune.families.others import OTHER_ARCHITECTURES

KNOWN = {*ARCHITECTURES, "i2v_720p", "ltxv_distilled"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("t2w", "t2v"), ("T2V", "t2v"), ("t2v_14B", "t2v"), ("i2v2_2", "i2v_2_2"), ("vace14b", "vace_14B"),
        ("hunyaun", "hunyuan"), ("hunyuan-i2v", "hunyuan_i2v"), ("fun_imp", "fun_inp"), ("ltx_13B", "ltxv_13B"),
        ("t2v 1.3b", "t2v_1.3B"), ("i2v_480p", "i2v"),
        # another number is another model, and so are names that only begin alike
        ("ltx2_13B", ""), ("ltx2_22B", "ltx2_22B"), ("nano_t2v", ""), ("t2v_5B", ""), ("hunyuan_1_6_t2v", ""), ("s2v", ""), ("", ""),
        ("t2v" * 1000, ""), ("wan", ""), ("i2v_2_1", ""),
    ],
)  # fmt: skip
def test_slips_of_the_pen_only(name, meant):
    assert nearest_name(name, KNOWN) == meant


@pytest.mark.parametrize(
    ("key", "meant"),
    [("url", "URLs"), ("URL", "URLs"), ("Name", "name"), ("URLS2", "URLs2"), ("arquitecture", "architecture"),
     ("module", "modules"), ("lora", "loras"), ("preload_urls", "preload_URLs"), ("zzz", ""), ("group", "")],
)  # fmt: skip
def test_keys_of_the_model_object(key, meant):
    assert nearest_name(key, ModelSection.model_fields) == meant


def test_an_architecture_of_another_program_is_no_slip():
    assert not OTHER_ARCHITECTURES & KNOWN
