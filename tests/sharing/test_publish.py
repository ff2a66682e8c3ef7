"""Publishing a finetune of nano on a server that speaks the Hub's API: interrupted, refused, damaged, and as a user."""

import json
import signal
import subprocess
import sys
import threading
from types import MappingProxyType

import pytest

from hub import READER, TOKEN, sha256
from reeltune import CancelToken, load_catalog
from reeltune.errors import Cancelled, PublishError, PublishRefused, RepositoryChanged, UploadDamaged
from reeltune.sharing.licenses import License
from reeltune.sharing.own_files import parse_versions
from reeltune.sharing.plan import PublishOptions, UploadState, plan_publication
from reeltune.sharing.publishing import open_repository, publish
from sharing_roots import NANO, command, environment, glow

APACHE = License("apache-2.0")
BASE = "https://huggingface.co/me/glow/resolve/main"
POINTS = 10  # of interruption


def run(root, tmp_path, repo="me/glow", confirm=lambda plan: plan, cancel=None, **options):
    catalog = load_catalog(root)
    options = PublishOptions(**{"license": APACHE, **options})
    folder = tmp_path / "examples"
    return publish(catalog, "glow", options, open_repository(catalog, repo), folder, confirm, cancel=cancel)


def assert_published(hub, path, root):
    """Everything is on the server, in one commit, and the definition lists it."""
    repository = hub.repositories["me/glow"]
    assert len(repository.commits) == 2  # the first one creates the repository
    for name in ("glow_bf16.safetensors", "glow_quanto_bf16_int8.safetensors"):
        assert sha256(repository.files[name]) == sha256((root / "ckpts" / name).read_bytes())
    model = json.loads(path.read_text())["model"]
    assert model["URLs"] == [f"{BASE}/glow_bf16.safetensors", f"{BASE}/glow_quanto_bf16_int8.safetensors"]
    assert model["sha256"]["glow_bf16.safetensors"] == sha256(repository.files["glow_bf16.safetensors"])
    assert json.loads(repository.files["glow.json"])["model"]["URLs"] == model["URLs"]


def test_everything_arrives_in_one_commit_and_the_definition_follows(hub, root, tmp_path):
    path = glow(root)
    before = path.read_text()
    published = run(root, tmp_path)
    assert_published(hub, path, root)
    assert published.edited
    assert published.tag == "v1"
    assert published.url == "https://huggingface.co/me/glow/blob/main/glow.json"
    repository = hub.repositories["me/glow"]
    assert repository.private
    assert repository.tags == {"v1": repository.head}
    card = repository.files["README.md"].decode()
    assert 'license: "apache-2.0"' in card
    assert f"reeltune add {published.url}" in card
    assert "int8, computes in bf16" in card
    after = path.read_text()
    kept = [line for line in before.splitlines() if "ckpts/" not in line and "profiles_dir" not in line]
    assert [line for line in kept if line.rstrip(",") not in after] == []  # the edit leaves the other lines alone
    plan = load_catalog(root)["glow"]
    assert [version.remote for version in plan.slots["transformer"]] == [True, True]


def test_own_files_are_still_used_after_publishing(hub, root, tmp_path):
    glow(root)
    run(root, tmp_path)
    from reeltune import explain

    plan = explain(load_catalog(root)["glow"])
    assert plan.missing == ()
    assert plan.path("transformer").parent == root / "ckpts"


def test_a_second_run_sends_nothing(hub, root, tmp_path):
    path = glow(root)
    run(root, tmp_path)
    received, text = hub.received, path.read_text()
    hub.requests.clear()
    published = run(root, tmp_path)
    assert hub.received == received
    assert len(hub.repositories["me/glow"].commits) == 2
    assert not published.edited
    assert path.read_text() == text
    assert not [request for request in hub.requests if request.startswith("PUT")]


def test_a_changed_definition_is_one_more_commit(hub, root, tmp_path):
    path = glow(root)
    run(root, tmp_path)
    received = hub.received
    path.write_text(path.read_text().replace("Glow", "Glow 2"))
    assert run(root, tmp_path).tag == "v2"
    assert hub.received == received
    assert json.loads(hub.repositories["me/glow"].files["glow.json"])["model"]["name"] == "Glow 2"


# --- interruptions ----------------------------------------------------------------------------------------------


def start(root):
    words = ["publish", "glow", "--repo", "me/glow", "--yes", "--license", "apache-2.0", "--root", str(root)]
    return subprocess.Popen(
        [sys.executable, "-m", "reeltune", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment()
    )


def test_a_publish_that_is_killed_anywhere_is_continued_by_running_it_again(hub, root, tmp_path):
    path = glow(root)
    before = path.read_bytes()
    run(root, tmp_path)
    total = len(hub.requests)
    killed_at = []
    for point in range(POINTS):
        hub.repositories.clear()
        hub.store.clear()
        hub.parts.clear()
        hub.requests.clear()
        path.write_bytes(before)
        number = 1 + point * (total - 1) // (POINTS - 1)
        process = start(root)
        hub.hook = lambda count, method, request, number=number, process=process: (
            process.send_signal(signal.SIGKILL) or "drop" if count == number else None
        )
        output = process.communicate(timeout=300)[0]
        assert process.returncode == -signal.SIGKILL, (number, output)
        killed_at.append(hub.requests[number - 1].split("/")[-2:])
        hub.hook = lambda *_: None
        committed = "me/glow" in hub.repositories and len(hub.repositories["me/glow"].commits) > 1
        assert committed or set(hub.repositories.get("me/glow", Empty).files) <= {".gitattributes"}
        assert path.read_bytes() == before  # the definition is edited last
        received = hub.received
        arrived = sum(map(len, hub.store.values()))
        run(root, tmp_path)
        assert_published(hub, path, root)
        sizes = sum(
            (root / "ckpts" / f"glow_{name}.safetensors").stat().st_size for name in ("bf16", "quanto_bf16_int8")
        )
        assert hub.received - received == sizes - arrived  # what had arrived wasn't sent again
    assert len({tuple(request) for request in killed_at}) > 5


class Empty:
    files = MappingProxyType({})


def test_a_cancel_takes_effect_inside_a_file(hub, root, tmp_path):
    path = glow(root)
    before = path.read_bytes()
    cancel = CancelToken()

    def hook(count, method, request):
        if method == "PUT" and request.startswith("/upload"):
            cancel.cancel()

    hub.hook = hook
    with pytest.raises(Cancelled):
        run(root, tmp_path, cancel=cancel)
    assert 0 < hub.received < (root / "ckpts" / "glow_bf16.safetensors").stat().st_size
    assert path.read_bytes() == before
    hub.hook = lambda *_: None
    run(root, tmp_path)
    assert_published(hub, path, root)


# --- refused ----------------------------------------------------------------------------------------------------


@pytest.fixture
def unchanged(root):
    """The definition, which must not change."""
    path = glow(root)
    before = path.read_bytes()
    yield path
    assert path.read_bytes() == before


def assert_nothing_published(hub, name="me/glow"):
    repository = hub.repositories.get(name)
    assert repository is None or len(repository.commits) == 1


@pytest.mark.parametrize("token", ["hf_" + "x" * 34, ""])
def test_a_wrong_token_and_none(hub, root, tmp_path, unchanged, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(PublishRefused, match="refused the token" if token else "There is no token") as caught:
        run(root, tmp_path)
    assert not token or token not in str(caught.value)
    assert_nothing_published(hub)


def test_a_token_that_may_only_read(hub, root, tmp_path, unchanged, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(PublishRefused, match="Your token can only read"):
        run(root, tmp_path)
    hub.create("me/glow")
    with pytest.raises(PublishRefused, match="Your token may not write to me/glow"):
        run(root, tmp_path)
    assert_nothing_published(hub)


def test_a_repository_of_somebody_else(hub, root, tmp_path, unchanged, monkeypatch):
    with pytest.raises(PublishRefused, match="can't create repositories of else"):
        run(root, tmp_path, repo="else/glow")
    hub.create("else/glow")
    with pytest.raises(PublishRefused, match="may not write to else/glow"):
        run(root, tmp_path, repo="else/glow")
    assert_nothing_published(hub, "else/glow")


def test_a_repository_that_has_another_model(hub, root, tmp_path, unchanged):
    hub.create("me/glow", {"glow_bf16.safetensors": b"another model"})
    with pytest.raises(PublishError, match=r"exists already, and has another glow_bf16\.safetensors"):
        run(root, tmp_path)
    assert_nothing_published(hub)


def test_force_replaces_the_files_of_another_model(hub, root, tmp_path):
    path = glow(root)
    hub.create("me/glow", {"glow_bf16.safetensors": b"another model"}, private=True)
    run(root, tmp_path, force=True)
    assert_published(hub, path, root)


def test_the_head_moves_while_files_are_sent(hub, root, tmp_path, unchanged):
    repository = hub.create("me/glow", private=True)

    def hook(count, method, request):
        if "/commit/" in request:
            repository.add({**repository.files, "theirs.txt": b"meanwhile"})

    hub.hook = hook
    with pytest.raises(RepositoryChanged, match="has changed meanwhile") as caught:
        run(root, tmp_path)
    assert "Run the same command again" in caught.value.hint
    assert set(repository.files) == {".gitattributes", "theirs.txt"}


def test_the_head_moves_while_the_plan_is_read(hub, root, tmp_path, unchanged):
    repository = hub.create("me/glow", private=True)

    def confirm(plan):
        repository.add({**repository.files, "theirs.txt": b"meanwhile"})
        return plan

    with pytest.raises(RepositoryChanged, match="after the plan was shown"):
        run(root, tmp_path, confirm=confirm)
    assert hub.received == 0


def damaged(content):
    return content[:-1] + bytes([content[-1] ^ 1])


def test_a_damaged_upload_that_the_hub_notices(hub, root, tmp_path, unchanged):
    hub.damage = damaged
    with pytest.raises(PublishError, match="sha256 of the object differs"):
        run(root, tmp_path)
    assert_nothing_published(hub)


def test_a_damaged_upload_that_nobody_notices_is_undone(hub, root, tmp_path, unchanged):
    hub.damage = damaged
    hub.checks_uploads = False
    with pytest.raises(
        UploadDamaged, match=r"other bytes than were sent of glow_bf16\.safetensors; the commit was undone"
    ):
        run(root, tmp_path)
    assert set(hub.repositories["me/glow"].files) == {".gitattributes"}


@pytest.mark.parametrize(("status", "request_part"), [(500, "/commit/"), (429, "/repos/create"), ("drop", "/commit/")])
def test_a_server_that_fails_and_works_again(hub, root, tmp_path, status, request_part):
    path = glow(root)
    before = path.read_bytes()
    hub.hook = lambda count, method, request: status if request_part in request else None
    with pytest.raises(PublishError) as caught:
        run(root, tmp_path)
    assert "Run the same command again" in caught.value.hint
    assert path.read_bytes() == before
    assert_nothing_published(hub)
    hub.hook = lambda *_: None
    run(root, tmp_path)
    assert_published(hub, path, root)


def test_a_definition_with_nothing_of_its_own(hub, root, tmp_path):
    from reeltune.definitions.copying import copy_definition

    catalog = load_catalog(root)
    with pytest.raises(PublishError, match="nano_neon is built in"):
        plan_publication(catalog, "nano_neon", PublishOptions(), open_repository(catalog, "me/x"), tmp_path)
    copy_definition(catalog, "t2v", "mine")
    catalog = load_catalog(root)
    with pytest.raises(PublishError, match="lists no file of this machine"):
        plan_publication(catalog, "mine", PublishOptions(), open_repository(catalog, "me/x"), tmp_path)


# --- pull requests, visibility, versions ------------------------------------------------------------------------


def test_a_pull_request_to_somebody_else(hub, root, tmp_path, unchanged):
    repository = hub.create("else/glow")
    published = run(root, tmp_path, repo="else/glow", pull_request=True)
    assert published.page.endswith("/discussions/1")
    assert not published.edited
    assert set(repository.files) == {".gitattributes"}
    assert "glow_bf16.safetensors" in repository.others[repository.pulls[0]]


def test_public_only_after_the_check(hub, root, tmp_path):
    glow(root)
    seen = []
    hub.hook = lambda count, method, request: seen.append(
        (request.split("/")[-1][:8], [one.private for one in hub.repositories.values()])
    )
    run(root, tmp_path, public=True)
    assert not hub.repositories["me/glow"].private
    assert all(private == [True] for _, private in seen if private)


def test_missing_versions_are_made_and_only_wanted_ones_are_published(hub, root, tmp_path):
    path = glow(root)
    run(root, tmp_path, versions=parse_versions("int8-bf16,int8-fp16"))
    model = json.loads(path.read_text())["model"]
    names = ["glow_quanto_bf16_int8.safetensors", "glow_quanto_fp16_int8.safetensors"]
    assert model["URLs"] == ["ckpts/glow_bf16.safetensors", *(f"{BASE}/{name}" for name in names)]
    published = json.loads(hub.repositories["me/glow"].files["glow.json"])["model"]
    assert published["URLs"] == [f"{BASE}/{name}" for name in names]
    assert set(published["sha256"]) == set(names)


def test_versions_that_can_not_be_made(hub, root, tmp_path):
    with pytest.raises(PublishError, match="Invalid version 'int4'"):
        parse_versions("bf16,int4")
    path = glow(root)
    value = json.loads(path.read_text())
    value["model"]["URLs"] = value["model"]["URLs"][1:]
    path.write_text(json.dumps(value))
    with pytest.raises(PublishError, match="no 16-bit version that it could be made from"):
        run(root, tmp_path, versions=("int8-fp16",))


def test_urls_of_others_stay_and_only_own_files_are_sent(hub, root, tmp_path):
    path = glow(
        root,
        URLs=["https://example.org/theirs_bf16.safetensors?token=s3cret", "ckpts/glow_quanto_bf16_int8.safetensors"],
    )
    run(root, tmp_path)
    files = hub.repositories["me/glow"].files
    assert set(files) == {".gitattributes", "README.md", "glow.json", "glow_quanto_bf16_int8.safetensors"}
    theirs, mine = json.loads(files["glow.json"])["model"]["URLs"]
    assert theirs == "https://example.org/theirs_bf16.safetensors"  # without the token
    assert mine == f"{BASE}/glow_quanto_bf16_int8.safetensors"
    assert 'base_model_relation: "quantized"' in files["README.md"].decode()
    assert "s3cret" in path.read_text()  # the user's own definition keeps it
    assert not any(b"s3cret" in body for body in hub.bodies)


def test_loras_are_own_files(hub, root, tmp_path):
    path = glow(root)
    folder = root / "loras" / "wan_1.3B"
    for name in ("a", "b"):
        (root / "loras").mkdir(exist_ok=True)
        content = (NANO / "nano_turbo_lora_r32_bf16.safetensors").read_bytes()
        (root / "loras" / f"{name}_lora.safetensors").write_bytes(content)
    value = json.loads(path.read_text())
    value["model"]["loras"] = ["a_lora.safetensors"]
    value["activated_loras"] = ["b_lora.safetensors"]
    path.write_text(json.dumps(value))
    assert not folder.exists()
    run(root, tmp_path)
    published = json.loads(hub.repositories["me/glow"].files["glow.json"])
    assert published["model"]["loras"] == [f"{BASE}/a_lora.safetensors"]
    assert published["activated_loras"] == [f"{BASE}/b_lora.safetensors"]
    from reeltune import explain

    assert explain(load_catalog(root)["glow"]).missing == ()


# --- as a user --------------------------------------------------------------------------------------------------


def test_the_command_shows_the_plan_first_and_asks(hub, root):
    path = glow(root)
    before = path.read_bytes()
    shown = command(root, "publish", "glow", "--repo", "me/glow", "--dry-run", "--versions", "bf16,int8-bf16,int8-fp16")
    assert shown.returncode == 0, shown.stderr
    lines = {line.split()[0]: line for line in shown.stdout.splitlines() if line}
    digest = sha256((root / "ckpts" / "glow_bf16.safetensors").read_bytes())
    assert lines["glow_bf16.safetensors"].split() == ["glow_bf16.safetensors", "5.8", "MB", "new", digest]
    assert "to be made" in lines["glow_quanto_fp16_int8.safetensors"]
    assert "me/glow (new, private), in one commit" in shown.stdout
    assert "License: not chosen yet" in shown.stdout
    refused = command(root, "publish", "glow", "--repo", "me/glow", stdin="apache-2.0\nn\n")
    assert refused.returncode == 1
    assert hub.repositories == {}
    assert path.read_bytes() == before
    done = command(root, "publish", "glow", "--repo", "me/glow", stdin="no-such\nmit\ny\n")
    assert done.returncode == 0, done.stderr
    assert "reeltune add https://huggingface.co/me/glow/blob/main/glow.json" in done.stdout
    assert json.loads(path.read_text())["model"]["license"] == "mit"
    again = command(root, "publish", "glow", "--repo", "me/glow", "--yes")  # the license is remembered
    assert again.returncode == 0, again.stderr
    assert "License: mit" in again.stdout
    assert TOKEN not in "".join(each.stdout + each.stderr for each in (shown, refused, done, again))


def test_offline_and_names_that_are_none(hub, root, tmp_path, monkeypatch):
    glow(root)
    for name in ("glow", "https://example.org/x/y/z", "me/../x", "me/glow/tree/main"):
        with pytest.raises(PublishError, match="is not the name of a repository"):
            run(root, tmp_path, repo=name)
    assert open_repository(load_catalog(root), "https://huggingface.co/me/glow").name == "me/glow"
    monkeypatch.setenv("REELTUNE_OFFLINE", "1")
    from reeltune.errors import Offline

    with pytest.raises(Offline):
        run(root, tmp_path)


def test_the_states_of_files(hub, root, tmp_path):
    glow(root)
    run(root, tmp_path)
    repository = hub.repositories["me/glow"]
    repository.add({**repository.files, "glow_bf16.safetensors": b"older"})
    catalog = load_catalog(root)
    plan = plan_publication(
        catalog, "glow", PublishOptions(license=APACHE), open_repository(catalog, "me/glow"), tmp_path
    )
    states = {file.name: file.state for file in plan.files}
    assert states == {
        "glow_bf16.safetensors": UploadState.REPLACES,
        "glow_quanto_bf16_int8.safetensors": UploadState.SAME,
        "README.md": UploadState.SAME,
        "glow.json": UploadState.SAME,
    }


def test_sharing_commands_never_load_torch(hub, root):
    path = glow(root)
    code = (
        "import sys\nfrom reeltune.cli import main\ntry:\n    main(sys.argv[1:])\nfinally:\n"
        "    assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)\n"
    )
    for words in (
        ["publish", "glow", "--repo", "me/glow", "--dry-run"],
        ["publish", "glow", "--repo", "me/glow", "--yes", "--license", "mit"],
        ["lock", "glow"],
        ["check", "--online"],
        ["add", str(path), "--id", "other", "--yes"],
    ):
        answer = subprocess.run(
            [sys.executable, "-c", code, *words, "--root", str(root)],
            capture_output=True, text=True, check=False, env=environment(),
        )  # fmt: skip
        assert answer.returncode == 0, (words, answer.stderr)


def test_xet_reports_its_progress_and_is_aborted_by_a_cancel(monkeypatch, tmp_path):
    """Xet needs a server of its own: here it is only asked for what `sending` does around it."""
    from types import SimpleNamespace

    from huggingface_hub.utils import _xet, _xet_progress_reporting

    from reeltune.sharing.sending import Addition, prepared, quiet_hub

    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    aborted = threading.Event()
    monkeypatch.setattr(_xet, "abort_xet_session", aborted.set)
    original = _xet_progress_reporting.XetUploadProgressReporter
    events = []
    cancel = CancelToken()
    addition = Addition("x.safetensors", 100, events.append, cancel)
    weights = tmp_path / "x.safetensors"
    weights.write_bytes(b"0" * 100)
    assert prepared("x.safetensors", weights, "0" * 64, addition).path_or_fileobj == str(weights)
    with pytest.raises(Cancelled), quiet_hub(addition):  # noqa: PT012
        reporter = _xet_progress_reporting.XetUploadProgressReporter()
        assert reporter is not original
        reporter.update_progress(SimpleNamespace(total_bytes_completed=40), {})
        reporter.update_progress(SimpleNamespace(total_bytes_completed=30), {})
        cancel.cancel()
        reporter.update_progress(SimpleNamespace(total_bytes_completed=60), {})
        reporter.close()
        assert aborted.wait(60)
        raise RuntimeError("the session was aborted")
    assert [event.done for event in events] == [40]
    assert _xet_progress_reporting.XetUploadProgressReporter is original
