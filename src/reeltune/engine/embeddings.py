"""Embeddings of the last prompts, so that another seed or size doesn't load the encoders again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from PIL import Image

from reeltune.engine.families.base import Tensors
from reeltune.engine.inputs import InputImages
from reeltune.engine.stamps import Stamps
from reeltune.families.base import Config
from reeltune.request.values import Request

_MOST_PROMPTS = 8  # the embeddings of one are 4 to 8 MB


@dataclass(frozen=True)
class Encoded:
    """The embeddings of a request, and notices about how they came about."""

    tensors: Tensors
    notices: tuple[str, ...] = ()


class EmbeddingCache:
    """The embeddings of the last few prompts. The least recently used ones are evicted first."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, Encoded] = OrderedDict()

    def known(self, keys: Iterable[Hashable]) -> dict[Hashable, Encoded]:
        """What is stored under some keys, by key."""
        found = {key: self._entries[key] for key in keys if key in self._entries}
        for key in found:
            self._entries.move_to_end(key)
        return found

    def store(self, encoded: Mapping[Hashable, Encoded]) -> None:
        """Store embeddings."""
        for key, embeddings in encoded.items():
            self._entries[key] = embeddings
            self._entries.move_to_end(key)
        while len(self._entries) > _MOST_PROMPTS:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Evict all."""
        self._entries.clear()


def key_of(
    request: Request, images: InputImages, config: Config, components: Mapping[str, Stamps], dtype: object
) -> Hashable:
    """Everything that embeddings depend on: texts, guidance, images, the files of the encoders, the transformer."""
    return (
        request.prompt,
        request.negative_prompt,
        request.guided,
        (request.width, request.height),
        _digest(images.start),
        _digest(images.end),
        *(_digest(image) for image in images.references if config.get("image_dim")),
        config.get("image_condition_type"),
        config.get("guidance_embeds"),
        config.get("pos_embed_seq_len"),
        tuple(sorted(components.items())),
        str(dtype),
    )


def _digest(image: Image.Image | None) -> str:
    """A text that differs for different images; empty for none."""
    if image is None:
        return ""
    return f"{hashlib.sha256(image.tobytes()).hexdigest()} {image.size}"
