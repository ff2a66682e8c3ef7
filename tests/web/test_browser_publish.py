"""Publishing in a real Chromium, on a server that speaks the Hub's API."""

import json
import shutil

import pytest
from acting import describe_publication, tab

from hub import TOKEN, Hub
from servers import Server
from serving import Window, chromium
from sharing_roots import glow


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A server of the page that uses a local Hub."""
    hub = Hub()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    root = tmp_path / "root"
    root.mkdir()
    glow(root)
    server = Server(root, offline=False)
    yield hub, server.start()
    server.assert_no_faults()
    server.stop()
    hub.close()
    shutil.rmtree(root)


def test_the_plan_is_shown_and_the_finetune_is_published(chromium, published):
    hub, server = published
    window = Window(chromium, server)
    page = window.open()
    tab(page, "Create")
    page.locator("#publish-plan").wait_for()
    page.locator("#publish-plan").click()
    page.locator("#publish-said .rt-problem", has_text="Choose a finetune first").wait_for()
    describe_publication(page, "mit")
    page.locator("#publish").click()
    page.locator("#publish-said .rt-problem", has_text="no plan").wait_for()
    page.locator("#publish-plan").click()
    page.locator("#publish-files li", has_text="glow_bf16.safetensors").wait_for()
    page.locator("#publication", has_text="License: mit").wait_for()
    assert hub.repositories == {}
    page.locator("#publish").click()
    page.locator("#publication .rt-good", has_text="Published.").wait_for(timeout=300_000)
    assert (
        "reeltune add https://huggingface.co/me/glow/blob/main/glow.json" in page.locator("#publication").inner_text()
    )
    assert "glow.json" in hub.repositories["me/glow"].files
    model = json.loads((server.root / "finetunes" / "glow.json").read_text())["model"]
    assert model["license"] == "mit"
    window.close()
