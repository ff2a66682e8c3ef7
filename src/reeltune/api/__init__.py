"""The HTTP API: `/v1`, which video clients speak already, and `/api`, which shows models, plans and the queue.

    app = build_api(workspace)

Everything here is made of the functions in `reeltune.service`; it imports neither torch nor the page.
"""

from __future__ import annotations

HEALTH = "/healthz"  # needs no key
TOPS = ("/v1", "/api", "/mcp", "/docs", "/openapi.json", "/metrics")  # these, and everything below them
