"""What architectures declare for files beside their checkpoints."""

import pytest

from reeltune.families import ARCHITECTURES

FOLDERS = {
    "t2v": ("wan", "wan"),
    "vace_14B": ("wan", "wan"),
    "t2v_2_2": ("wan", "wan_2_2"),
    "i2v_2_2": ("wan", "wan_2_2"),
    "vace_14B_2_2": ("wan", "wan_2_2"),
    "i2v": ("wan_i2v", "wan_i2v"),
    "fun_inp": ("wan_i2v", "wan_i2v"),
    "flf2v_720p": ("wan_i2v", "wan_i2v"),
    "t2v_1.3B": ("wan_1.3B", "wan_1.3B"),
    "fun_inp_1.3B": ("wan_1.3B", "wan_1.3B"),
    "vace_1.3B": ("wan_1.3B", "wan_1.3B"),
    "ti2v_2_2": ("wan_5B", "wan_2_2_5B"),
    "lucy_edit": ("wan_5B", "wan_2_2_5B"),
    "sky_df_1.3B": ("wan_1.3B", ""),
    "sky_df_14B": ("wan", ""),
    "animate": ("wan_i2v", "wan_i2v"),
    "chrono_edit": ("wan_i2v", "wan_chrono_edit"),
    "phantom_1.3B": ("wan_1.3B", "wan_1.3B"),
    "phantom_14B": ("wan", "wan"),
    "wanmove": ("wan_i2v", "wan_i2v"),
    "i2v_2_2_svi2pro": ("wan", "wan_2_2"),
    "vace_ditto_14B": ("wan", "wan"),
    "hunyuan": ("hunyuan", "hunyuan"),
    "hunyuan_i2v": ("hunyuan_i2v", "hunyuan_i2v"),
    "ltxv_13B": ("ltxv", "ltxv"),
    **dict.fromkeys(("ltx2_19B", "ltx2_22B"), ("ltx2", "ltx2_dev_accelerators")),
    "ltx2_22B_msr": ("ltx2", "ltx2_msr_dev_accelerators"),
    "ltx2_25_22B": ("ltx2", "ltx2_25_dev_accelerators"),
    **dict.fromkeys(("hunyuan_1_5_t2v", "hunyuan_1_5_i2v"), ("hunyuan_1_5", "hunyuan_1_5")),
    **{id: (id, id) for id in ("k5_lite_t2v", "k5_lite_i2v", "k5_pro_t2v", "k5_pro_i2v")},
}


@pytest.mark.parametrize("id", ARCHITECTURES)
def test_each_architecture_names_the_folders_of_its_loras_and_profiles(id):
    architecture = ARCHITECTURES[id]
    assert (architecture.loras, architecture.profiles) == FOLDERS[id]
