"""LoRAs in plans: those of published definitions, where they are found on disk, and how they are downloaded."""

import hashlib
import pickle
from pathlib import PurePosixPath

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from conftest import safetensors_bytes
from published import facts, write_all
from reeltune import Preferences, explain, load_catalog, pull
from reeltune.checkpoints.header import read_header
from reeltune.engine import models
from reeltune.engine.ready import make_ready
from reeltune.errors import BadDownload, FetchError, LoraMismatch, Unreachable, UnsupportedFormat
from reeltune.events import ignore
from reeltune.families import ARCHITECTURES
from reeltune.machine import Machine
from reeltune.planning.fit import check_loras
from reeltune.request.parse import parse

MACHINE = Machine(2**36, 2**35)
HUB = "https://huggingface.co/DeepBeepMeep/X/resolve/main/"
NAME = "style.safetensors"
# The folder of the LoRAs of each published definition whose architecture runs.
FOLDERS = {
    "i2v_fusionix": "wan_i2v",
    "ti2v_2_2_fastwan": "wan_5B",
    "lucy_edit_fastwan": "wan_5B",
    "lucy_edit_fastwan_1_1": "wan_5B",
    "chrono_edit_distill": "wan_i2v",
    "i2v_2_2_svi2pro": "wan",
    "i2v_2_2_Enhanced_Lightning_v2_svi2pro": "wan",
    "vace_14B_cocktail": "wan",
    "vace_14B_cocktail_2_2": "wan",
    "vace_fun_14B_cocktail_2_2": "wan",
    "vace_14B_lightning_3p_2_2": "wan",
    "ltx2_22B_msr": "ltx2",
    "ltx2_22B_msr_v2": "ltx2",
}


# --- published definitions ------------------------------------------------------------------------------------------


@pytest.fixture
def published(root):
    write_all(root)
    return load_catalog(root)


@pytest.fixture
def image(root):
    Image.new("RGB", (64, 64)).save(root / "start.png")
    return {"image_start": str(root / "start.png")}


def test_the_folders_are_those_of_all_that_have_loras_and_run():
    rows = facts()
    assert set(FOLDERS) == {id for id, row in rows.items() if row.get("loras") and row["architecture"] in ARCHITECTURES}


@pytest.mark.parametrize("id", FOLDERS)
def test_the_loras_are_items_of_the_plan(published, root, id):
    plan = explain(published[id], machine=MACHINE)
    names = facts()[id]["loras"]
    if isinstance(names, str):  # the definition whose list is used
        names = facts()[names]["loras"]
    found = [item for item in plan.items if item.subject.startswith("loras")]
    assert [item.subject for item in found] == [f"loras[{number}]" for number in range(len(names))]
    assert [item.url for item in found] == [HUB + name for name in names]
    assert [item.path for item in found] == [root / "loras" / FOLDERS[id] / name for name in names]
    assert not any(item.present for item in found)
    assert all(item in plan.missing and item.weights for item in found)
    assert [lora.item for lora in plan.loras] == found


CONSTANT = {"i2v_fusionix": [1.0], "ti2v_2_2_fastwan": [1.0], "vace_14B_cocktail": [1, 0.5, 0.5, 0.5]}
CONSTANT |= {id: [1, 0.2, 0.5, 0.5] for id in ("vace_14B_cocktail_2_2", "vace_fun_14B_cocktail_2_2")}
# Of each phase: the number of steps, the transformer and the guidance scale. The timesteps are those of diffusers'
# schedulers: 10 steps of unipc with shift 2 are 999, 947, 889, 823 … (threshold 875); 8 steps of euler with shift 3 are
# 1000, 947.5, 882.8, 800.8, 694 … (thresholds 965 and 800).
PHASES = {
    "ti2v_2_2_fastwan": [(3, "transformer", 1)],
    "vace_14B_cocktail": [(10, "transformer", 1)],
    "vace_14B_cocktail_2_2": [(3, "transformer", 1), (7, "transformer_2", 1)],
    "vace_fun_14B_cocktail_2_2": [(3, "transformer", 1), (7, "transformer_2", 1)],
    "vace_14B_lightning_3p_2_2": [(1, "transformer", 3.5), (3, "transformer", 1), (4, "transformer_2", 1)],
}


def rows_of(request):
    return [(phase.steps, phase.transformer, phase.guidance_scale) for phase in request.phases]


@pytest.mark.parametrize("id", CONSTANT)
def test_constant_weights_are_the_same_in_all_steps(published, image, id):
    call = image if id == "i2v_fusionix" else {}
    parsed = parse(published[id], call)
    (request,) = parsed.requests
    assert [lora.source for lora in request.loras] == [HUB + name for name in facts()[id]["loras"]]
    assert [set(lora.weights) for lora in request.loras] == [{weight} for weight in CONSTANT[id]]
    assert all(len(lora.weights) == request.steps for lora in request.loras)
    assert not any("lora" in notice.lower() for notice in parsed.notices)


@pytest.mark.parametrize("id", PHASES)
def test_phases_of_published_definitions(published, id):
    (request,) = parse(published[id], {}).requests
    assert rows_of(request) == PHASES[id]
    first = 0
    for phase in request.phases:
        assert phase.first_step == first
        first += phase.steps
    assert first == request.steps == facts()[id]["settings"]["num_inference_steps"]


def test_three_phases_with_a_lora_for_each_of_the_last_two(published):
    (request,) = parse(published["vace_14B_lightning_3p_2_2"], {}).requests
    assert [list(lora.weights) for lora in request.loras] == [[0, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]]


def test_the_users_loras_come_after_those_of_the_definition(published):
    call = {"activated_loras": [NAME], "loras_multipliers": "0;0.5;0.25"}
    (request,) = parse(published["vace_14B_lightning_3p_2_2"], call).requests
    assert [lora.source.rpartition("/")[2] for lora in request.loras] == [
        *facts()["vace_14B_lightning_3p_2_2"]["loras"], NAME,
    ]  # fmt: skip
    assert request.loras[2].weights == (0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25)


# --- on disk --------------------------------------------------------------------------------------------------------


def write_lora(path, *, size=None, module="blocks.0.self_attn.q", fill=0.0):
    """A LoRA of one module for nano, or for a model of another size or with other modules."""
    size = size or nano_size()
    path.parent.mkdir(parents=True, exist_ok=True)
    down, up = np.full((2, size), fill, np.float32), np.full((size, 2), fill, np.float32)
    save_file({f"diffusion_model.{module}.lora_A.weight": down, f"diffusion_model.{module}.lora_B.weight": up}, path)
    return path


def nano_size():
    """The hidden size of nano."""
    catalog = load_catalog("/nonexistent")
    (path,) = explain(catalog["nano_t2v"], Preferences(), machine=MACHINE).files("transformer")
    sizes = {part.shape[0] for name, part in read_header(path).tensors.items() if name.endswith("self_attn.q.bias")}
    (size,) = sizes
    return size


@pytest.fixture
def nano(root):
    return load_catalog(root)["nano_t2v"]


def item_of(definition, source, **preferences):
    """The item of one LoRA, and the notices of its plan."""
    plan = explain(definition, Preferences(**preferences), machine=MACHINE, loras=[source])
    (lora,) = plan.loras
    return lora.item


@pytest.mark.parametrize("folder", ["loras/wan_1.3B", "loras", "loras/wan_1.3B/mine", "loras/mine/more"])
@pytest.mark.parametrize("source", [NAME, f"https://h/a/{NAME}"])
def test_loras_are_found_in_the_folders_of_the_root(root, nano, folder, source):
    path = write_lora(root / folder / NAME)
    item = item_of(nano, source)
    assert (item.path, item.present, item.bytes) == (path, True, path.stat().st_size)


def test_the_folder_of_the_models_loras_comes_first(root, nano):
    paths = [write_lora(root / folder / NAME) for folder in ("loras/wan_1.3B", "loras", "loras/wan")]
    for path in paths:
        assert item_of(nano, NAME).path == path
        path.unlink()
    assert not item_of(nano, NAME).present


@pytest.mark.parametrize("place", ["absolute", "relative to the root", "below the folder", "Windows"])
def test_loras_are_found_by_their_path(root, nano, tmp_path, place):
    path, source = {
        "absolute": (tmp_path / "elsewhere" / NAME, str(tmp_path / "elsewhere" / NAME)),
        "relative to the root": (root / "mine" / NAME, f"mine/{NAME}"),
        "below the folder": (root / "loras" / "wan_1.3B" / "sub" / NAME, f"sub/{NAME}"),
        "Windows": (root / "loras" / "wan_1.3B" / "sub" / NAME, f"sub\\{NAME}"),
    }[place]
    write_lora(path)
    item = item_of(nano, source)
    assert item.present
    assert item.path == path


@pytest.mark.parametrize(
    ("model_folder", "lora_folder"),
    [
        ("wangp/ckpts", "wangp/loras/wan_1.3B"), ("wangp/ckpts", "wangp/loras"), ("comfy/models", "comfy/models/loras"),
        ("comfy/models/diffusion_models", "comfy/models/loras"), ("comfy/models", "comfy/models/loras/wan/styles"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("source", [NAME, f"https://h/a/{NAME}"])
def test_loras_are_found_in_the_model_folders_of_other_programs(nano, tmp_path, model_folder, lora_folder, source):
    (tmp_path / model_folder).mkdir(parents=True)
    path = write_lora(tmp_path / lora_folder / NAME)
    item = item_of(nano, source, model_folders=(str(tmp_path / model_folder),))
    assert (item.path, item.present) == (path, True)
    assert not item_of(nano, source).present


def test_the_root_comes_before_model_folders(root, nano, tmp_path):
    write_lora(tmp_path / "models" / "loras" / NAME)
    own = write_lora(root / "loras" / NAME)
    assert item_of(nano, NAME, model_folders=(str(tmp_path / "models"),)).path == own


@pytest.mark.parametrize("subfolder", ["styles", "styles/new", "a/b/c/d", "/styles/"])
def test_a_url_may_name_a_subfolder(root, nano, subfolder):
    expected = root / "loras" / "wan_1.3B" / subfolder.strip("/") / NAME
    item = item_of(nano, f"https://h/a/{NAME}|{subfolder}")
    assert (item.url, item.path, item.present) == (f"https://h/a/{NAME}", expected, False)
    write_lora(expected)
    item = item_of(nano, f"https://h/a/{NAME}|{subfolder}")
    assert (item.path, item.present) == (expected, True)


HOSTILE = [
    "..", "../..", "a/../../..", "styles/..", "..\\..", "./..", "~/x:", "a\0b", "con", "aux.txt/x", "a/b/c/d/e", "C:\\x", "a\nb",
    "x" * 300, "a//../b", "styles/. ./x ", "*", "a|b",
]  # fmt: skip


@pytest.mark.parametrize("subfolder", HOSTILE)
def test_hostile_subfolders_are_ignored(root, nano, subfolder):
    item = item_of(nano, f"https://h/a/{NAME}|{subfolder}")
    assert item.path == root / "loras" / "wan_1.3B" / NAME
    assert ".." not in PurePosixPath(item.path).parts


def test_an_absolute_subfolder_stays_in_the_folder(root, nano):
    item = item_of(nano, f"https://h/a/{NAME}|/etc/cron.d")
    assert item.path == root / "loras" / "wan_1.3B" / "etc" / "cron.d" / NAME


def test_two_urls_with_one_name_get_two_files(root, nano):
    plan = explain(nano, machine=MACHINE, loras=[f"https://h/a/{NAME}", f"https://h/b/{NAME}", f"https://h/a/{NAME}"])
    first, second, third = (lora.item.path for lora in plan.loras)
    assert first == third == root / "loras" / "wan_1.3B" / NAME
    assert second.parent == first.parent
    assert second.name.startswith("style-")


# --- downloaded -----------------------------------------------------------------------------------------------------


@pytest.fixture
def body(tmp_path):
    return write_lora(tmp_path / "made" / NAME, fill=0.5).read_bytes()


def nano_with(define, root, *ids, loras, **model):
    """Definitions of nano with LoRAs."""
    for id in ids:
        define(
            id,
            {"architecture": "t2v_1.3B", "URLs": "nano_t2v", "components": "reeltune/nano", "loras": loras, **model},
        )
    catalog = load_catalog(root)
    return [catalog[id] for id in ids]


def test_a_lora_is_downloaded_with_its_sha256_once_for_two_definitions(server, define, root, body):
    server.files[f"/{NAME}"] = body
    url = f"{server.url}/{NAME}"
    sums = {NAME: hashlib.sha256(body).hexdigest()}
    first, second = nano_with(define, root, "first", "second", loras=[url], sha256=sums)
    plan = pull(first, machine=MACHINE)
    path = root / "loras" / "wan_1.3B" / NAME
    assert not plan.missing
    assert plan.path("loras[0]") == path
    assert path.read_bytes() == body
    (report,) = check_loras(plan)
    assert (report.modules, report.total) == (1, 1)
    before = len(server.requests)
    plan = pull(second, machine=MACHINE)
    assert plan.path("loras[0]") == path
    assert pull(first, machine=MACHINE, loras=[url, NAME]).missing == ()
    assert len(server.requests) == before
    assert [file.name for file in (root / "loras").rglob("*.safetensors")] == [NAME]
    assert all(file.name.endswith(".lock.partial") for file in (root / "loras").rglob("*.partial"))


def test_another_sha256_is_refused(server, define, root, body):
    server.files[f"/{NAME}"] = body
    (mine,) = nano_with(define, root, "mine", loras=[f"{server.url}/{NAME}"], sha256={NAME: "0" * 64})
    with pytest.raises(BadDownload, match="sha256"):
        pull(mine, machine=MACHINE)
    assert list((root / "loras").rglob("*.safetensors")) == []


def test_a_lora_in_a_subfolder_is_downloaded_to_it(server, nano, root, body):
    server.files[f"/{NAME}"] = body
    source = f"{server.url}/{NAME}|styles/new"
    plan = pull(nano, machine=MACHINE, loras=[source])
    assert plan.path("loras[0]") == root / "loras" / "wan_1.3B" / "styles" / "new" / NAME
    assert not plan.missing
    before = len(server.requests)
    assert not pull(nano, machine=MACHINE, loras=[f"{server.url}/{NAME}"]).missing
    assert len(server.requests) == before


def test_an_interrupted_lora_is_resumed(server, nano, root, tmp_path):
    size = nano_size()
    whole = safetensors_bytes(
        {f"diffusion_model.blocks.{block}.self_attn.{part}.lora_{side}.weight": ("F32", shape)
         for block in range(2) for part in "qkvo" for side, shape in (("A", [64, size]), ("B", [size, 64]))}
    )  # fmt: skip
    server.files[f"/{NAME}"] = whole
    server.truncated.add(f"/{NAME}")
    with pytest.raises(FetchError):
        pull(nano, machine=MACHINE, loras=[f"{server.url}/{NAME}"])
    path = root / "loras" / "wan_1.3B" / NAME
    assert not path.exists()
    server.truncated.clear()
    server.requests.clear()
    plan = pull(nano, machine=MACHINE, loras=[f"{server.url}/{NAME}"])
    assert not plan.missing
    assert path.read_bytes() == whole
    starts = [headers.get("Range", "") for row, headers in server.requests if row == f"/{NAME}"]
    assert not any(start in ("", "bytes=0-") for start in starts)


# --- what can't be used ---------------------------------------------------------------------------------------------


@pytest.fixture
def nothing_is_loaded(monkeypatch):
    monkeypatch.setattr(models, "load_transformer", lambda *_, **__: pytest.fail("the model was loaded"))


def ready(definition, source):
    return make_ready(definition, Preferences(quantization="bf16"), MACHINE, [source], ignore, None)


WEB_PAGE = b"<!doctype html><html>log in</html>"


def unusable(kind, body, folder):
    """The content of a file that isn't a LoRA for nano."""
    if kind == "web page":
        return WEB_PAGE
    if kind == "cut off":
        return body[: len(body) // 2]
    if kind == "pickle":
        return pickle.dumps({"a": [1.0] * 500})
    if kind == "other family":
        return write_lora(folder / NAME, size=3072, module="double_blocks.0.img_attn_qkv").read_bytes()
    if kind == "other size":
        return write_lora(folder / NAME, size=5120).read_bytes()
    if kind == "a model":
        return safetensors_bytes({"blocks.0.self_attn.q.weight": ("BF16", [nano_size(), nano_size()])})
    return body


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("missing", FetchError, "file not found"), ("web page", BadDownload, "serves a web page"), ("typed as a page", BadDownload, "serves a page"),
        ("cut off", BadDownload, "is truncated"), ("connection ends", Unreachable, "closed the connection"), ("pickle", BadDownload, "can run code"),
        ("other family", LoraMismatch, "to this model: double_blocks"), ("other size", LoraMismatch, "made for a model of another size"),
        ("a model", UnsupportedFormat, "is no LoRA"),
    ],
)  # fmt: skip
def test_unusable_downloads_are_errors_before_anything_is_loaded(
    server, nano, root, tmp_path, body, nothing_is_loaded, kind, error, words
):
    path = f"/{NAME}"
    if kind != "missing":
        server.files[path] = unusable(kind, body, tmp_path / "other")
    if kind == "typed as a page":
        server.types[path] = "text/html; charset=utf-8"
    if kind == "connection ends":
        server.truncated.add(path)
    with pytest.raises(error, match=words) as caught:
        ready(nano, f"{server.url}{path}")
    assert NAME in str(caught.value)
    assert caught.value.hint
    kept = error in (LoraMismatch, UnsupportedFormat)  # a sound file, though not for this model
    assert len(list((root / "loras").rglob(NAME))) == kept


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("missing", FetchError, "neither a URL nor an existing file"), ("web page", FetchError, "is a web page"), ("cut off", FetchError, "truncated"), ("pickle", FetchError, "can run code"),
        ("other family", LoraMismatch, "to this model: double_blocks"), ("other size", LoraMismatch, "made for a model of another size"),
        ("a model", UnsupportedFormat, "is no LoRA"),
    ],
)  # fmt: skip
def test_unusable_files_are_errors_before_anything_is_loaded(
    nano, root, tmp_path, body, nothing_is_loaded, kind, error, words
):
    file = root / "loras" / "wan_1.3B" / NAME
    file.parent.mkdir(parents=True)
    if kind != "missing":
        file.write_bytes(unusable(kind, body, tmp_path / "other"))
    with pytest.raises(error, match=words) as caught:
        ready(nano, NAME)
    assert NAME in str(caught.value)
    assert caught.value.hint


def test_a_lora_that_fits_is_ready_with_its_report(server, nano, body, nothing_is_loaded):
    server.files[f"/{NAME}"] = body
    plan = ready(nano, f"{server.url}/{NAME}")
    assert not plan.missing
    (report,) = check_loras(plan)
    assert str(report) == "applied 1 of 1 modules."


@pytest.mark.parametrize("name", ["style.pt", "style.ckpt", "style.bin"])
def test_pickles_are_refused_by_name_too(nano, root, name, nothing_is_loaded):
    path = root / "loras" / "wan_1.3B" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps({"a": [1.0] * 500}))
    with pytest.raises(FetchError, match="can run code"):
        ready(nano, name)


@pytest.mark.parametrize("subfolder", ["../../z", "CON"])
def test_a_subfolder_that_cannot_be_used_is_a_notice(nano, subfolder):
    plan = explain(nano, machine=MACHINE, loras=[f"https://h/a/{NAME}|{subfolder}"])
    (notice,) = plan.loras[0].notices
    assert notice.startswith(f"The subfolder {subfolder!r} of ")
    assert notice.endswith("can't be used: the file is stored in loras/wan_1.3B.")
    assert notice in plan.notices


def test_a_file_may_have_a_bar_in_its_name(root, nano):
    path = write_lora(root / "loras" / "wan_1.3B" / "red|blue.safetensors")
    item = item_of(nano, "red|blue.safetensors")
    assert (item.path, item.present) == (path, True)


def test_blanks_around_urls_are_left_out(root, define):
    url = "https://h/x_bf16.safetensors"
    define("mine", {"architecture": "t2v", "URLs": [f" {url}\n"], "loras": [f"{url} "], "modules": [[f"\t{url}"]]})
    definition = load_catalog(root)["mine"]
    assert {version.url for versions in definition.all_versions.values() for version in versions} == {url}
    assert [lora.url for lora in definition.loras] == [url]
