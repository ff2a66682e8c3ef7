"""What the web page and the HTTP API share: drafts, uploads, finetunes, presets, the state of models."""
