"""Several finetunes of one architecture merged into one file, as a stream.

`rows` reads the rows of one model in the order in which another one stores them, `mixtures` computes merged rows from
them, `measuring` makes the first pass that two of the methods need, and `merge` writes the file.
"""

from reeltune.weights.merging.merge import Ingredient, merge
from reeltune.weights.merging.methods import Method

__all__ = ["Ingredient", "Method", "merge"]
