"""What an output can be, and what can become of texts that are there already; light, for the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Format = Literal["jsonl", "csv", "parquet", "openai", "txt"]
FORMATS_BY_EXTENSION: Mapping[str, Format] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet",
}  # fmt: skip
Existing = Literal["skip", "overwrite", "append", "prepend"]
