"""Requests whose method an address isn't for."""

import pytest
from inside import inside, refusal_of

from reeltune.jobs import State


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT", "PROPFIND"])
@pytest.mark.parametrize("path", ["/v1/videos", "/api/queue", "/api/jobs/1/cancel", "/mcp", "/healthz", "/v1/gone"])
def test_other_methods_are_refused_as_the_api_refuses(inside, method, path):
    if (method, path) == ("HEAD", "/healthz"):
        return
    answer = inside.ask(method, path)
    assert answer.status_code == (404 if path == "/v1/gone" else 405)
    if method != "HEAD":
        assert refusal_of(answer)["code"] == ("not_found" if path == "/v1/gone" else "wrong_method")


def test_health_and_videos_are_asked_for_without_their_content(inside):
    """As load balancers and download managers do."""
    assert inside.ask("HEAD", "/healthz").status_code == inside.ask("GET", "/healthz").status_code
    (inside.root / "outputs" / "a.mp4").write_bytes(b"0123456789")
    inside.queue.add("nano_t2v", {"prompt": "x"})
    job = inside.queue.take("worker", 60.0)
    inside.queue.finish(job.attempt, State.DONE, outputs=["outputs/a.mp4"])
    answer = inside.ask("HEAD", f"/v1/videos/video_{job.id}/content")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "10")
    assert inside.ask("HEAD", "/v1/videos/video_99/content").status_code == 404
