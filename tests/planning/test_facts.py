"""What is chosen, listed and refused on the facts on disk and behind URLs."""

import re

import pytest

from conftest import safetensors_bytes
from reeltune import Preferences, explain, load_catalog, pull
from reeltune.checkpoints.header import read_header
from reeltune.errors import BadDownload, CheckpointError, ChoiceError, FetchError, NotRunnable
from reeltune.fetch.pulling import Scope, plan_download, pull_all
from reeltune.library.inventory import Inventory
from reeltune.machine import Machine
from reeltune.planning.facts import local_summaries
from reeltune.planning.local import local_problems

MACHINE = Machine(2**34, 2**33)
T2V = {
    "head.modulation": ("BF16", [1, 2, 4]), "patch_embedding.weight": ("BF16", [4, 16, 1, 2, 2]),
    "head.head.weight": ("BF16", [64, 4]), "text_embedding.0.weight": ("BF16", [4, 8]),
    "time_embedding.0.weight": ("BF16", [4, 8]), "blocks.0.ffn.0.weight": ("BF16", [8, 4]),
}  # fmt: skip
I2V = T2V | {"patch_embedding.weight": ("BF16", [4, 36, 1, 2, 2])}
INT8 = {name: tensor for name, tensor in T2V.items() if name != "blocks.0.ffn.0.weight"} | {
    "blocks.0.ffn.0.weight._data": ("I8", [8, 4]), "blocks.0.ffn.0.weight._scale": ("BF16", [8, 1]),
}  # fmt: skip
NVFP4 = T2V | {"blocks.0.ffn.0.weight_scale_2": ("F32", [1])}


def chosen(plan):
    return plan.selection.choices["transformer"].version.file_name


def here(root, id):
    return next(summary for summary in local_summaries(load_catalog(root), Preferences(), MACHINE) if summary.id == id)


# --- a name that hides or lies about what a file holds -----------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"plain.safetensors": INT8, "x_bf16.safetensors": T2V}, "plain.safetensors"),  # it hides its type
        ({"x_bf16.safetensors": T2V, "plain.safetensors": INT8}, "plain.safetensors"),
        ({"x_quanto_bf16_int8.safetensors": NVFP4, "x_bf16.safetensors": T2V}, "x_bf16.safetensors"),  # it lies
        ({"x_quanto_bf16_int8.safetensors": I2V, "x_bf16.safetensors": T2V}, "x_bf16.safetensors"),
        ({"x_nvfp4.safetensors": T2V}, "x_nvfp4.safetensors"),
        ({"x_quanto_bf16_int8.safetensors": INT8, "plain.safetensors": T2V}, "x_quanto_bf16_int8.safetensors"),
    ],
)
def test_explain_online_and_pull_choose_the_same_file(server, define, root, files, expected):
    for name, tensors in files.items():
        server.files[f"/{name}"] = safetensors_bytes(tensors)
    define("mine", {"architecture": "t2v", "URLs": [f"{server.url}/{name}" for name in files]})
    definition = load_catalog(root)["mine"]
    assert chosen(explain(definition, machine=MACHINE, online=True)) == expected
    pulled = pull(definition, weights_only=True, machine=MACHINE)
    assert chosen(pulled) == expected
    assert not [item for item in pulled.missing if item.weights]
    assert [path.name for path in (root / "ckpts").glob("*.safetensors")] == [expected]
    plans, _ = plan_download([definition], scope=Scope(weights_only=True), machine=MACHINE)
    assert chosen(plans[0]) == expected


def test_a_dead_url_is_rejected_with_a_notice(server, define, root):
    server.files["/x_bf16.safetensors"] = safetensors_bytes(T2V)
    urls = [f"{server.url}/gone_quanto_bf16_int8.safetensors", f"{server.url}/x_bf16.safetensors"]
    define("mine", {"architecture": "t2v", "URLs": urls})
    for plan in (
        explain(load_catalog(root)["mine"], machine=MACHINE, online=True),
        pull(load_catalog(root)["mine"], weights_only=True, machine=MACHINE),
    ):
        assert chosen(plan) == "x_bf16.safetensors"
        (notice,) = [line for line in plan.notices if "404" in line]
        assert "gone_quanto_bf16_int8.safetensors is passed over" in notice


def test_when_every_url_is_dead_the_servers_error_is_raised(server, define, root):
    define("mine", {"architecture": "t2v", "URLs": [f"{server.url}/gone_bf16.safetensors"]})
    with pytest.raises(FetchError, match="404"):
        explain(load_catalog(root)["mine"], machine=MACHINE, online=True)
    with pytest.raises(FetchError, match="404"):
        pull(load_catalog(root)["mine"], weights_only=True, machine=MACHINE)
    server.files["/gone_bf16.safetensors"] = b"<!doctype html>" + bytes(99)
    with pytest.raises(CheckpointError, match="web page"):
        explain(load_catalog(root)["mine"], machine=MACHINE, online=True)
    with pytest.raises(BadDownload):
        pull(load_catalog(root)["mine"], weights_only=True, machine=MACHINE)


def test_the_network_is_not_used_when_all_files_are_on_disk(server, define, root):
    server.files["/x_bf16.safetensors"] = safetensors_bytes(T2V)
    define(
        "mine", {"architecture": "t2v", "URLs": [f"{server.url}/x_bf16.safetensors", f"{server.url}/plain.safetensors"]}
    )
    pull(load_catalog(root)["mine"], weights_only=True, machine=MACHINE)
    before = len(server.requests)
    explain(load_catalog(root)["mine"], machine=MACHINE, online=True)
    pull(load_catalog(root)["mine"], weights_only=True, machine=MACHINE)
    assert len(server.requests) == before


# --- what can't run ------------------------------------------------------------------------------------------------


def test_models_that_can_not_run_are_only_downloaded_anyway(server, define, root):
    server.files["/x_bf16.safetensors"] = safetensors_bytes(T2V)
    urls = [f"{server.url}/x_bf16.safetensors"]
    define("merged", {"architecture": "t2v_1.3B", "URLs": urls, "modules": ["vace_14B"]})
    define("two", {"architecture": "t2v_1.3B", "URLs": urls, "URLs2": urls})
    define("images", {"architecture": "flf2v_720p", "URLs": urls, "image_outputs": True})
    catalog = load_catalog(root)
    for id, words in (
        ("merged", "merges modules"),
        ("two", "second transformer"),
        ("images", "makes single images"),
    ):
        assert words in here(root, id).reason
        assert words in explain(catalog[id], machine=MACHINE).as_json()["reason"]
        for act in (pull_all, plan_download):
            with pytest.raises(NotRunnable, match=words):
                act([catalog[id]], machine=MACHINE)
    assert not server.requests
    with pytest.raises(FetchError):  # of its components, which this server doesn't have
        pull_all([catalog["two"]], machine=Machine(2**34, 2**33), anyway=True)
    assert server.requests


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://h/x-IQ2_XXS.gguf", "GGUF weights of the types IQ1 to IQ3, TQ, MXFP4 and other rare ones can't"),
        ("https://h/x.pth", "pickle files can run code"),
        ("https://h/svdq-int4_r32-x.safetensors", "nunchaku (SVDQuant) weights can't be loaded"),
        ("https://h/x_w4a8.safetensors", "w4a8 weights (4 bits) can't be loaded"),
        ("https://h/x_nf4.safetensors", "nf4 weights (bitsandbytes) can't be loaded"),
    ],
)
def test_versions_in_unsupported_formats_are_rejected(define, root, url, words):
    define("mine", {"architecture": "t2v", "URLs": [url, url + "?again"]})
    define("module", {"architecture": "vace_14B", "URLs": "t2v", "modules": [[url]]})
    summaries = {summary.id: summary for summary in load_catalog(root).summaries()}
    for id in ("mine", "module"):
        assert words in summaries[id].reason
        assert words in here(root, id).reason
        assert not here(root, id).runnable
        with pytest.raises((ChoiceError, NotRunnable), match=re.escape(words.split(" can")[0])):
            pull(load_catalog(root)[id], machine=MACHINE)


def test_a_header_overrides_the_name(define, root):
    define("mine", {"architecture": "t2v", "URLs": ["https://h/x_nvfp4.safetensors"]})
    (root / "ckpts").mkdir()
    (root / "ckpts" / "x_nvfp4.safetensors").write_bytes(safetensors_bytes(T2V))
    assert here(root, "mine").runnable


# --- files on this machine ------------------------------------------------------------------------------------------


@pytest.fixture
def local(root, define):
    (root / "models").mkdir()
    (root / "models" / "i2v_bf16.safetensors").write_bytes(safetensors_bytes(I2V))
    (root / "models" / "cut_bf16.safetensors").write_bytes(safetensors_bytes(T2V)[:-1])
    define("gone", {"architecture": "t2v", "URLs": ["models/gone_bf16.safetensors"]})
    define("other", {"architecture": "t2v", "URLs": ["models/i2v_bf16.safetensors"]})
    define("cut", {"architecture": "t2v", "URLs": ["models/cut_bf16.safetensors"]})
    return load_catalog(root)


def test_unusable_local_files_make_a_definition_not_runnable(local, root):
    assert "models/gone_bf16.safetensors is not there" in here(root, "gone").reason
    assert "its header is that of i2v" in here(root, "other").reason
    assert "not there" not in here(root, "other").reason
    assert not any(here(root, id).runnable for id in ("gone", "other", "cut"))


@pytest.mark.parametrize(
    ("id", "hint"),
    [
        ("gone", "Put the file there"),
        ("other", "write the architecture that the file is of"),
        ("cut", "replace the file"),
    ],
)
def test_the_hint_depends_on_the_cause(local, id, hint):
    with pytest.raises(ChoiceError) as caught:
        explain(local[id], machine=MACHINE)
    assert hint in caught.value.hint


def test_check_reports_paths_without_a_file(local, root, define):
    define(
        "preload", {"architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors"], "preload_URLs": ["loras/x.json"]}
    )
    catalog, inventory = load_catalog(root), Inventory(root)
    own = [id for id in catalog if catalog[id].own_file]
    problems_by_id = {id: [str(problem) for problem in local_problems(catalog[id], root / id, inventory)] for id in own}
    assert {id for id, problems in problems_by_id.items() if problems} == {"gone", "other", "cut", "preload"}
    assert str(root / "loras" / "x.json") in problems_by_id["preload"][0]
    assert "its header is that of i2v" in problems_by_id["other"][0]
    items = explain(catalog["preload"], machine=MACHINE).items
    assert [item.path for item in items if item.subject == "preload"] == [root / "loras" / "x.json"]


def test_a_missing_listed_file_is_a_notice_when_another_is_used(root, define):
    define(
        "mine",
        {"architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors", "ckpts/x_quanto_bf16_int8.safetensors"]},
    )
    notices = explain(load_catalog(root)["mine"], machine=MACHINE).notices
    assert any("ckpts/x_quanto_bf16_int8.safetensors is not there" in line for line in notices)
    plain = explain(load_catalog(root)["mine"], Preferences(quantization="bf16"), machine=MACHINE).notices
    assert not any("not there" in line for line in plain)  # it would not have been used


@pytest.mark.parametrize(
    ("architecture", "takes"),
    [("t2v", "vace_14B"), ("t2v_1.3B", "vace_1.3B"), ("t2v_2_2", "vace_14B_2_2"), ("hunyuan", "")],
)
def test_the_reason_names_the_architecture_that_accepts_modules(root, define, architecture, takes):
    define("mine", {"architecture": architecture, "URLs": ["https://h/x.safetensors"], "modules": ["vace_14B"]})
    reason = load_catalog(root)["mine"].reason
    assert f"it merges modules, which {architecture} does not support" in reason
    assert (f'use "architecture": "{takes}"' in reason) == bool(takes)


def test_a_file_that_many_definitions_list_is_read_once(root, define, monkeypatch):
    (root / "ckpts").mkdir()
    path = root / "ckpts" / "x_bf16.safetensors"
    path.write_bytes(safetensors_bytes(T2V))
    for number in range(20):
        define(f"d{number}", {"architecture": "t2v", "URLs": ["ckpts/x_bf16.safetensors"]})
    read, inventory = [], Inventory(root)
    monkeypatch.setattr("reeltune.library.inventory.read_header", lambda path: read.append(path) or read_header(path))
    catalog = load_catalog(root)
    for number in range(20):
        assert explain(catalog[f"d{number}"], machine=MACHINE, inventory=inventory).items[0].present
    assert read.count(path) == 1
    path.write_bytes(safetensors_bytes(I2V))  # replaced, it is another file
    with pytest.raises(ChoiceError):
        explain(catalog["d0"], machine=MACHINE, inventory=inventory)
