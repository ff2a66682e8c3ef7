"""Weights into memory: mapped tensors, the int8 arithmetic, the transformer loader. Imports torch."""
