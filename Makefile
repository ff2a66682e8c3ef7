# Four commands: run, test, check, bench. They make .venv on first use (pip takes what constraints.txt pins).
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: run test check bench
.DEFAULT_GOAL := run

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

run: $(STAMP)
	@$(BIN)/reeltune generate nano_t2v --seed 7
	@echo
	@echo "That is your video. Next:"
	@echo "  $(BIN)/reeltune generate nano_t2v 'a blue square slides to the left over a white background'"
	@echo "  $(BIN)/reeltune generate nano_neon --seed 7     a finetune: the same world as neon outlines"
	@echo "  $(BIN)/reeltune list              every model it knows"
	@echo "  $(BIN)/reeltune explain t2v       which weights it would take, and why"

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python bench/load.py
