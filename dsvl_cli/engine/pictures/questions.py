"""Recognizes a question that was given in place of a picture."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from dsvl_cli.engine.pictures.addresses import is_data_address, is_file_address
from dsvl_cli.engine.pictures.images import PICTURE_EXTENSIONS, is_address
from dsvl_cli.engine.pictures.missing import find_file
from dsvl_cli.engine.pictures.patterns import match_files
from dsvl_cli.errors import UsageError


def refuse_questions(arguments: Sequence[str], command: str) -> None:
    """Check that no picture of a command line is clearly a question.

    Args:
        arguments: what stands where pictures are expected.
        command: such as `dsvl describe`, for the hint.

    Raises:
        UsageError: one is a question; the hint shows the command line with `-p`.
    """
    for argument in arguments:
        if _is_question(argument):
            pictures = [other for other in arguments if not _is_question(other)] or ["IMAGE"]
            shown = " ".join(shlex.quote(picture) for picture in pictures)
            raise UsageError(
                f"{argument!r} is not a picture", f"ask with -p: {command} {shown} -p {_in_quotes(argument)}"
            )


def _is_question(argument: str) -> bool:
    if is_address(argument) or is_data_address(argument) or is_file_address(argument):
        return False
    text = argument.strip()
    words = text.split()
    has_extension = os.path.splitext(text.rstrip("?!."))[1].lower() in PICTURE_EXTENSIONS
    looks_like_one = len(words) > 1 and not has_extension and (text.endswith("?") or os.sep not in text)
    if not looks_like_one and not (len(words) == 1 and text.endswith("?") and text[:-1].isalpha()):
        return False
    return not (os.path.lexists(argument) or find_file(argument) or match_files(argument))


def _in_quotes(text: str) -> str:
    return f'"{text}"' if not set('"$`\\!') & set(text) else shlex.quote(text)
