"""Publishing for the page: in a process of its own, with its progress, and never without a plan."""

import json
import sys
import threading
import time
from dataclasses import replace

import pytest

from conftest import workspace_of
from reeltune.errors import PublishError
from reeltune.service.publications import Publications, PublicationState
from reeltune.sharing.process import PLAN, PUBLISH, PublishRequest
from sharing_roots import glow

REQUEST = PublishRequest(PLAN, "glow", "me/glow", license="mit", public=True)


@pytest.fixture
def publications(root):
    made = workspace_of(root).publications
    yield made
    made.close()


def wait(publications, *states):
    end = time.monotonic() + 300
    while publications.current.state not in states:
        assert time.monotonic() < end, publications.current
        time.sleep(0.05)
    return publications.current


def ended(publications):
    return wait(publications, *(state for state in PublicationState if state is not PublicationState.RUNNING))


def test_a_plan_and_then_everything_is_published(hub, root, publications):
    path = glow(root)
    publications.start(REQUEST)
    planned = ended(publications)
    assert planned.state is PublicationState.PLANNED, planned
    assert {file["name"] for file in planned.plan["files"]} >= {"glow_bf16.safetensors", "README.md", "glow.json"}
    assert planned.plan["is_new"]
    assert hub.repositories == {}
    publications.start(replace(REQUEST, action=PUBLISH))
    published = ended(publications)
    assert published.state is PublicationState.PUBLISHED, published
    assert published.url == "https://huggingface.co/me/glow/blob/main/glow.json"
    assert not hub.repositories["me/glow"].private
    assert json.loads(path.read_text())["model"]["license"] == "mit"
    assert published.stage == "upload"


def test_no_plan_no_publication(hub, root, publications):
    glow(root)
    with pytest.raises(PublishError, match="no plan for these values"):
        publications.start(replace(REQUEST, action=PUBLISH))
    with pytest.raises(PublishError, match="is not a license"):
        publications.start(replace(REQUEST, license="nothing"))
    publications.start(REQUEST)
    ended(publications)
    with pytest.raises(PublishError, match="no plan for these values"):
        publications.start(replace(REQUEST, action=PUBLISH, public=False))


def test_errors_of_the_hub_arrive(hub, root, publications, monkeypatch):
    glow(root)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    publications.start(REQUEST)
    failed = ended(publications)
    assert failed.state is PublicationState.FAILED
    assert "refused the token" in failed.error
    assert "xxxx" not in repr(failed)


def test_a_repository_that_changes_after_the_plan(hub, root, publications):
    glow(root)
    repository = hub.create("me/glow", private=True)
    publications.start(REQUEST)
    ended(publications)
    repository.add({**repository.files, "theirs.txt": b""})
    publications.start(replace(REQUEST, action=PUBLISH))
    assert "after the plan was shown" in ended(publications).error


def test_one_at_a_time_and_a_cancel(hub, root, publications):
    path = glow(root)
    before = path.read_bytes()
    publications.start(REQUEST)
    ended(publications)
    asked = threading.Event()

    def hold(count, method, request):
        if method == "PUT":
            asked.wait(300)
            time.sleep(1)  # in which the process hears of it

    hub.hook = hold
    publications.start(replace(REQUEST, action=PUBLISH))
    with pytest.raises(PublishError, match="Another publication is running"):
        publications.start(REQUEST)
    while publications.current.stage != "upload":
        assert publications.current.state is PublicationState.RUNNING
        time.sleep(0.02)
    publications.cancel()
    asked.set()
    assert ended(publications).state is PublicationState.CANCELLED
    assert path.read_bytes() == before


def test_a_process_that_dies_and_lines_that_are_none(root):
    for code, words in (("import os; print('x'); print('[]'); os._exit(3)", "code 3"), ("", "code 0")):
        publications = Publications(root, (sys.executable, "-c", code))
        publications.start(REQUEST)
        failed = ended(publications)
        assert failed.state is PublicationState.FAILED
        assert words in failed.error
        publications.close()
    publications = Publications(root, (str(root / "nothing"),))
    with pytest.raises(PublishError, match="can't be started"):
        publications.start(REQUEST)
    assert publications.current.state is PublicationState.NONE
