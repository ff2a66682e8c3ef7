"""The links to videos that assistants get: to the address that the client has used, also behind a proxy with TLS."""

from types import SimpleNamespace

import pytest
from starlette.requests import Request

from reeltune.api.mcp_server import _http_link


@pytest.mark.parametrize(
    ("headers", "base"),
    [
        ({"host": "localhost:7860"}, "http://localhost:7860"),
        ({"host": "videos.example.org", "x-forwarded-proto": "https"}, "https://videos.example.org"),
        ({"host": "videos.example.org", "x-forwarded-proto": "javascript"}, "http://videos.example.org"),
    ],
)
def test_a_link_leads_to_the_address_of_the_request(headers, base):
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "scheme": "http", "server": ("127.0.0.1", 7860), "path": "/mcp", "headers": raw}
    context = SimpleNamespace(request_context=SimpleNamespace(request=Request(scope)))
    link = _http_link(context, SimpleNamespace(id=12), 1)
    assert link == f"{base}/v1/videos/video_12/content?number=1"
