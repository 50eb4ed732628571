"""The `metadata.jsonl` of a Hugging Face ImageFolder: a folder of pictures that `datasets` loads with their texts.

The format: https://huggingface.co/docs/datasets/image_dataset#imagefolder
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dsvl_cli.batch.item import Item
from dsvl_cli.batch.output.disk import explained
from dsvl_cli.batch.output.journal import Journal
from dsvl_cli.batch.output.sinks import JournalOnly
from dsvl_cli.batch.row import Row, encode
from dsvl_cli.engine.storage.files import new_file
from dsvl_cli.errors import DsvlError, UsageError

METADATA = "metadata.jsonl"
_NAME = "file_name"


class ImageFolder(JournalOnly):
    """Writes `{"file_name": "2019/a.png", "text": ...}` for each answer; pictures without one are left out.

    Args:
        path: the file, in the folder of the pictures.
        questions: the names of the questions, which become columns.
        dress: puts something around the answers.

    Raises:
        UsageError: a question has the name of a column of pictures.
    """

    def __init__(self, path: Path, questions: Sequence[str], dress: Callable[[str], str] = str) -> None:
        self.path = path
        self._questions = questions
        self._dress = dress
        for name in questions:
            if name == "image" or name.endswith((_NAME, f"{_NAME}s")):
                raise UsageError(f"a question cannot be named {name} in an ImageFolder", "rename it")

    def takes(self, item: Item, id: str) -> bool:  # noqa: A002
        """Return True.

        Raises:
            DsvlError: the picture is no file in the folder.
        """
        if item.own_id or item.id != item.path or self._name(item.path) is None:
            raise DsvlError(
                f"{item.path} is not a file in {self.path.parent}, so {METADATA} cannot name it",
                "give the pictures' folder with -o, or use another --format",
            )
        return True

    def more(self, row: Row) -> Mapping[str, Any]:
        """Return the name of the row's file, for the journal."""
        return {_NAME: self._name(row.path)}

    def finish(self, journal: Journal, is_changed: bool) -> None:
        """Write the file unless it is up to date."""
        if not is_changed and self.path.exists() and self.path.stat().st_mtime_ns >= journal.path.stat().st_mtime_ns:
            return
        with explained(self.path), new_file(self.path) as file:
            for fields in journal.fields():
                row = Row.from_fields(fields)
                if row.error is None and isinstance(name := fields.get(_NAME), str):
                    texts = {
                        each: self._dress(row.answers[each].text) for each in self._questions if each in row.answers
                    }
                    file.write(encode({_NAME: name, **texts}) + b"\n")

    def _name(self, path: str) -> str | None:
        """Return the path of a picture below the folder, or None if it is elsewhere."""
        folder, name = os.path.split(path)
        try:
            inside = os.path.relpath(os.path.realpath(folder), os.path.realpath(self.path.parent))
        except ValueError:  # on different drives
            return None
        if inside == os.pardir or inside.startswith(os.pardir + os.sep) or "::" in path:
            return None
        return os.path.normpath(os.path.join(inside, name)).replace(os.sep, "/")
