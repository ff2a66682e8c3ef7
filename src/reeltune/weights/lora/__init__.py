"""LoRA files of every dialect, matched to the stored tensors that they change.

`dialects` says what the keys mean, `names` which module each belongs to, `targets` where that module is stored,
`adapter` how strong the file says it is, `reading` turns its tensors into edits, `matching` does it for a whole file.
"""

from reeltune.weights.lora.matching import Applied, match, second_of_two
from reeltune.weights.lora.targets import Targets

__all__ = ["Applied", "Targets", "match", "second_of_two"]
