"""The settings of one video, complete, checked and typed: what the engine is given."""
