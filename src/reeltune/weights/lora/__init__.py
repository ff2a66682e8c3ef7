"""LoRA files as edits of a model's parameters: merged into a file, or computed beside the model's layers.

`reading` turns the tensors of a module into edits, `matching` those of a whole file; `values` gives the numbers of the
model that some of them need.
"""

from reeltune.weights.lora.matching import Applied, Edits, read_edits, second_of_two
from reeltune.weights.lora.reading import check_values
from reeltune.weights.lora.values import FileValues, Values

__all__ = ["Applied", "Edits", "FileValues", "Values", "check_values", "read_edits", "second_of_two"]
