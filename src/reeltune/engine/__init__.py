"""The engine: definitions into videos, in stages. Imports torch."""
