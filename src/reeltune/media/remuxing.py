"""Copy the streams of a video into a new MP4 file, with other tags and without decoding."""

from __future__ import annotations

import json
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.stream import Stream

from reeltune.errors import MediaError
from reeltune.files import reason
from reeltune.media.container import FAILURES, open_container, video_stream
from reeltune.media.kinds import display
from reeltune.untrusted import JsonObject, clean_text


def copy_video(source: Path, target: Path, metadata: JsonObject) -> None:
    """Write the video of `source` and its sound to `target`, with `metadata` as its only tag.

    Other streams are left out, and so is sound in a codec that MP4 doesn't support.

    The same source and metadata give the same bytes. Raises MediaError.
    """
    comment = clean_text(json.dumps(metadata, ensure_ascii=False, default=str))
    with open_container(source) as container:
        stream = video_stream(container, source)
        try:
            options = {"movflags": "+faststart", "fflags": "+bitexact"}
            with av.open(str(target), "w", format="mp4", options=options) as written:
                written.metadata["comment"] = comment
                copies: dict[int, Stream] = {stream.index: written.add_stream_from_template(stream)}
                for sound in container.streams.audio[:1]:
                    if _codec(sound) in written.supported_codecs:
                        copies[sound.index] = written.add_stream_from_template(sound)
                for packet in container.demux(*(container.streams[index] for index in copies)):
                    if packet.dts is None:  # the empty packet at the end
                        continue
                    packet.stream = copies[packet.stream.index]
                    written.mux(packet)
        except (*FAILURES, TypeError, RuntimeError) as error:
            message = f"{display(source)} can't be copied: {clean_text(reason(error))}."
            raise MediaError(message, hint="Leave the example videos out (--examples 0).") from error


def _codec(stream: AudioStream) -> str:
    """The name of a codec; empty where FFmpeg doesn't know it."""
    context = getattr(stream, "codec_context", None)
    return context.codec.canonical_name if context is not None else ""
