"""What a weight file is, by its header: what `inspect`, `add` and the page show."""

from __future__ import annotations

import os
from dataclasses import dataclass

from reeltune.checkpoints.contents import Header
from reeltune.checkpoints.header import parse_header, read_header
from reeltune.checkpoints.identify import Identity, identify
from reeltune.checkpoints.names import quantization_objection, read_name
from reeltune.dtypes import DType, Quantization
from reeltune.errors import CheckpointError
from reeltune.files import expand, is_file, is_folder
from reeltune.net import HEADER_SECONDS, Session, UrlSource
from reeltune.untrusted import JsonObject


@dataclass(frozen=True)
class Inspection:
    """A file's header, its identity, and where its name contradicts it."""

    source: str
    header: Header
    identity: Identity
    notices: tuple[str, ...]

    def as_json(self) -> JsonObject:
        """Plain values for `inspect --json`."""
        return {
            "source": self.source,
            "format": self.header.container,
            "family": self.identity.family,
            "role": self.identity.role,
            "architectures": self.identity.architectures,
            "layout": self.identity.layout,
            "prefix": self.identity.prefix,
            "quantization": self.identity.quantization,
            "dtype": self.identity.dtype,
            "dtypes": dict(self.identity.dtypes),
            "parameters": self.identity.parameters,
            "bytes": self.identity.bytes,
            "tensors": len(self.header.tensors),
            "evidence": list(self.identity.evidence),
            "metadata": sorted(self.header.metadata),
            "notices": list(self.notices),
        }


def inspect(
    source: str | os.PathLike[str], *, session: Session | None = None, seconds: float = HEADER_SECONDS
) -> Inspection:
    """Inspect a local file, or a URL by Range requests (no body is downloaded).

    `session`: connections and tokens to use; without one the tokens of the environment. `seconds`: for all that is read
    over the network. Raises HeaderError, UnsupportedFormat, FetchError, Offline.
    """
    text = os.fspath(source)
    if text.lower().startswith(("http://", "https://")):
        with UrlSource(text, session, seconds=seconds) as remote:
            header = parse_header(remote)
        text = remote.name
    else:
        path = expand(text)
        if not is_file(path):
            missing = "is a folder" if is_folder(path) else "doesn't exist"
            raise CheckpointError(
                f"{path} {missing}.", hint="Give the path of a .safetensors or .gguf file, or its URL."
            )
        header = read_header(path)
    identity = identify(header)
    notices = (*header.notices, *contradictions(text, identity), *_obstacles(identity))
    return Inspection(text, header, identity, notices)


def _obstacles(identity: Identity) -> list[str]:
    """Why the file can't be loaded."""
    reason = quantization_objection(identity.quantization) or identity.objection
    return [f"It can't be loaded: {reason}."] if reason else []


def contradictions(name: str, identity: Identity) -> list[str]:
    """Where the name of a file contradicts its header."""
    named = read_name(name)
    header_dtype = identity.dtype
    if named.quantization not in (Quantization.NONE, identity.quantization):
        return [f"The name says {named.quantization}, the header {identity.quantization}: the header counts."]
    if named.dtype and header_dtype in (DType.BF16, DType.FP16) and named.dtype is not header_dtype:
        return [f"The name says {named.dtype}, the header {header_dtype}: the header counts."]
    return []
