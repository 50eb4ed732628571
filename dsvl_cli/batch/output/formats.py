"""Output formats, and policies for existing text files. Cheap to import, for the command line.

A new format is named here; a table's writer is in `tables.py` and is listed in `sinks.py`, and `app/batch/output.py`
checks what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Format = Literal["jsonl", "csv", "parquet", "openai", "imagefolder", "txt"]
FORMATS_BY_EXTENSION: Mapping[str, Format] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet",
}  # fmt: skip
Existing = Literal["skip", "overwrite", "append", "prepend"]
