"""`python -m reeltune`."""

from reeltune.cli import main

main()
