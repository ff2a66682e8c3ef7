"""The web page: built from definitions, architectures and the vocabulary of settings; it names no model.

What it shows of the engine comes from the worker process (`reeltune.jobs`): nothing here imports torch.
"""
