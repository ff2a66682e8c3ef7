"""Requests: the complete, validated and typed settings of one video, from which the engine makes it."""
