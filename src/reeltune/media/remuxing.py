"""Copy the streams of a video into a new MP4 file, with other tags and without decoding."""

from __future__ import annotations

import json
from pathlib import Path

import av

from reeltune.errors import MediaError
from reeltune.files import reason
from reeltune.media.container import FAILURES, open_container, video_stream
from reeltune.media.kinds import display
from reeltune.untrusted import JsonObject, clean_text


def copy_video(source: Path, target: Path, metadata: JsonObject) -> None:
    """Write the video of `source` to `target`, with `metadata` as its only tag; sound and other streams are left out.

    The same source and metadata give the same bytes. Raises MediaError.
    """
    comment = clean_text(json.dumps(metadata, ensure_ascii=False, default=str))
    with open_container(source) as container:
        stream = video_stream(container, source)
        try:
            options = {"movflags": "+faststart", "fflags": "+bitexact"}
            with av.open(str(target), "w", format="mp4", options=options) as written:
                written.metadata["comment"] = comment
                copied = written.add_stream_from_template(stream)
                for packet in container.demux(stream):
                    if packet.dts is None:  # the empty packet at the end
                        continue
                    packet.stream = copied
                    written.mux(packet)
        except (*FAILURES, TypeError, RuntimeError) as error:
            message = f"{display(source)} can't be copied: {clean_text(reason(error))}."
            raise MediaError(message, hint="Leave the example videos out (--examples 0).") from error
