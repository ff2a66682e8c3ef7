"""What a weight file is, told from its header: the one look `inspect`, `add` and the page share."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from reeltune.checkpoints.header import Header, parse_header, read_header
from reeltune.checkpoints.identify import Identity, identify
from reeltune.checkpoints.names import SIXTEEN_BITS, read_name
from reeltune.errors import CheckpointError
from reeltune.files import expand, is_file, is_folder
from reeltune.net import HEADER_SECONDS, Session, UrlSource


@dataclass(frozen=True)
class Inspection:
    """A file's header, its identity, and where its name contradicts it."""

    source: str
    header: Header
    identity: Identity
    notices: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values for `inspect --json`."""
        row = asdict(self.identity)
        return {
            "source": self.source,
            "format": "safetensors",
            **{
                key: row[key]
                for key in ("family", "role", "architectures", "layout", "prefix", "quantization", "dtype")
            },
            **{key: row[key] for key in ("dtypes", "parameters", "bytes")},
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
            raise CheckpointError(f"{path} {missing}.", hint="Give the path of a .safetensors file, or its URL.")
        header = read_header(path)
    identity = identify(header)
    return Inspection(text, header, identity, (*header.notices, *_contradictions(text, identity)))


def _contradictions(name: str, identity: Identity) -> list[str]:
    facts = read_name(name)
    found = []
    if facts.quantization not in (SIXTEEN_BITS, identity.quantization):
        found.append(f"The name says {facts.quantization}, the header {identity.quantization}: the header counts.")
    elif facts.dtype and identity.dtype in ("bf16", "fp16") and facts.dtype != identity.dtype:
        found.append(f"The name says {facts.dtype}, the header {identity.dtype}: the header counts.")
    return found
