# Short names for the commands of README.md and CONTRIBUTING.md; everything works without just.

# Run the tests.
test:
    python -m pytest

# Run the tests that need no torch, in about a minute.
quick:
    python -m pytest -m quick

# Check style and types.
lint:
    ruff check
    ruff format --check
    mypy

# Repair style.
fix:
    ruff check --fix
    ruff format

# Bring the shell completions and the generated pages of docs/ up to date.
completions:
    python completions/generate.py
    python docs/generate.py

# Run the long campaigns.
soak:
    python -m pytest -m soak --timeout 7200

# Measure everything into benchmarks/RESULTS.md; makes a full-size checkpoint with random weights first (4 GB).
bench *arguments:
    python -m benchmarks {{arguments}}
