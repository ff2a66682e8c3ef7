"""What LoRA files of every dialect say, from their headers alone: which parameters of a model they change.

`dialects` explains the keys, `names` finds the module that each key belongs to, `targets` where the parameters of that
module are stored, `shapes` whether they have the right shape, and `fitting` does it for a whole file. `adapter` reads
how strong the file says it is.
"""

from reeltune.checkpoints.loras.fitting import LoraFit, LoraReport, fit_lora
from reeltune.checkpoints.loras.targets import Targets

__all__ = ["LoraFit", "LoraReport", "Targets", "fit_lora"]
