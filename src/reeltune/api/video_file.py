"""Finished videos as answers, in whole or in the parts that the header Range asks for."""

from __future__ import annotations

from fastapi.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from reeltune.api.errors import ApiError, answer_to


class VideoFile(FileResponse):
    """A file. A range that can't be understood, or that lies behind its end, is answered with an error."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        refused = False

        async def checked(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] >= 400:
                refused = True
                text = "The header Range must name bytes of the file, such as bytes=0-999."
                answer = answer_to(ApiError(message["status"], text, param="range", code="invalid_range"))
                answer.raw_headers += [header for header in message["headers"] if header[0] == b"content-range"]
                await answer(scope, receive, send)
            elif not refused:
                await send(message)

        await super().__call__(scope, receive, checked)
