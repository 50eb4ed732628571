"""Writes rows as shards. Imports Ray; like the modules beside it that do, it is only imported for a job."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ray.data.block import Block, BlockAccessor
from ray.data.datasource import BlockBasedFileDatasink

from dsvl_cli.batch.output.settings import Settings
from dsvl_cli.batch.output.tables import table_columns, write_parquet_into
from dsvl_cli.batch.row import Row


class ShardSink(BlockBasedFileDatasink):  # type: ignore[misc]  # Ray need not be installed
    """Writes tables of `number` and `row`: the numbers go into Ray's checkpoint, and only the rows into the shard.

    Args:
        path: the folder.
        filesystem: pyarrow's file system.
        settings: those of the rows.
        rows_per_shard: the least number of rows of a shard, except the last ones.
    """

    def __init__(self, path: str, filesystem: Any, settings: Settings, rows_per_shard: int) -> None:
        super().__init__(
            path,
            filesystem=filesystem,
            file_format=settings.format,
            min_rows_per_file=rows_per_shard,
            try_create_dir=False,
        )
        self._settings = settings

    def write_block_to_file(self, block: BlockAccessor, file: Any) -> None:
        """Write a shard, in the format of the local engine's files."""
        lines: list[bytes] = block.to_arrow().column("row").to_pylist()
        settings = self._settings
        if settings.format == "jsonl":
            file.write(b"".join(lines))
        else:
            columns = table_columns(
                tuple(settings.prompts), settings.read_constraints(), has_samples=settings.samples > 1
            )
            write_parquet_into(file, map(Row.from_json, lines), columns)

    def write(self, blocks: Iterable[Block], ctx: Any) -> None:
        """Write the blocks of a task as one shard."""
        super().write([block for block in blocks if BlockAccessor.for_block(block).num_rows()], ctx)
