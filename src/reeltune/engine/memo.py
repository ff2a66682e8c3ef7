"""Embeddings of the last prompts, so that another seed or size doesn't load the encoders again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from PIL import Image

from reeltune.engine.families.base import Config, Tensors
from reeltune.engine.inputs import InputImages
from reeltune.engine.stamps import Stamps
from reeltune.request.values import Request

_MOST = 8  # prompts; one is 4 to 8 MB


@dataclass(frozen=True)
class Encoded:
    """A request's embeddings, and what the user should know of how they came about."""

    tensors: Tensors
    notices: tuple[str, ...] = ()


class Memo:
    """The embeddings of the last few prompts; the one not asked for longest goes first."""

    def __init__(self) -> None:
        self._rows: OrderedDict[Hashable, Encoded] = OrderedDict()

    def get(self, key: Hashable) -> Encoded | None:
        """What was kept under the key."""
        if key not in self._rows:
            return None
        self._rows.move_to_end(key)
        return self._rows[key]

    def keep(self, key: Hashable, encoded: Encoded) -> Encoded:
        """Keep and return embeddings."""
        self._rows[key] = encoded
        while len(self._rows) > _MOST:
            self._rows.popitem(last=False)
        return encoded

    def clear(self) -> None:
        """Forget all."""
        self._rows.clear()


def key_of(
    request: Request, images: InputImages, config: Config, components: Mapping[str, Stamps], dtype: object
) -> Hashable:
    """All that enters embeddings: texts, guidance, images, what the encoders are, and what the transformer expects."""
    files = tuple(sorted(components.items()))
    return (
        request.prompt, request.negative_prompt, request.guidance.enabled, (request.width, request.height),
        _digest(images.start), _digest(images.end),
        config.get("image_condition_type"), config.get("guidance_embeds"), config.get("pos_embed_seq_len"),
        files, str(dtype),
    )  # fmt: skip


def _digest(image: Image.Image | None) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest() + str(image.size) if image else ""
