# Each target sets everything up by itself; see setup.sh.
.PHONY: demo test check setup clean

setup:
	@./setup.sh

demo: setup
	.venv/bin/tessera demo --out out/demo

test: setup
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

clean:
	rm -rf .venv out build dist *.egg-info
