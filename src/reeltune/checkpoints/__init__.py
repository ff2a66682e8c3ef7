"""Checkpoints read without their data: header, names, identity, key layouts, weight formats."""
