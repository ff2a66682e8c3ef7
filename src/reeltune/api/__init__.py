"""The HTTP API: `/v1`, which video clients speak already, and `/api`, which tells everything else about a root.

    app = build_api(workspace)

Everything here is made of the functions in `reeltune.service`; it imports neither torch nor the page.
"""
