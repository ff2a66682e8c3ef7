"""Sharing: publishing finetunes on the Hub, installing and updating shared definitions, locks, and online checks."""
