"""The errors that are reported to the user.

    DsvlError              a message, and a hint that says what to do; exit status 1
    ├── UsageError         the command line or a setting is wrong; exit status 2
    │   └── SettingError   ... the value of one setting; the command line adds where it is set
    ├── ImageError         one picture cannot be read; the commands continue with the others
    │   └── NotFetched     ... because its address is not fetched offline; a stored row of it is not stale for that
    ├── InvalidRequest     a request of a list cannot be answered as it asks; OpenAI's formats have a name for it
    ├── InvalidAnswer      an answer is not what its schema asks for; the commands continue with the others
    ├── ContextOverflow    the prompt does not fit into the model's context; chat offers to drop something
    ├── MemoryShortage     not enough memory for a single answer; named in the batch row
    ├── DoesNotFit         not enough memory to load a model; chat may release the one that it has
    └── SomeFailed         some inputs failed, and each was reported; exit status 1, nothing more is printed

A subclass exists only if some code reacts to it. Library errors are wrapped where they occur with
`raise ... from exc`, so that `--debug` shows the whole chain.
"""

from __future__ import annotations

import errno
from enum import IntEnum


class ExitStatus(IntEnum):
    """The exit statuses of every command; 128 + n means signal n, as in shells."""

    OK = 0
    ERROR = 1
    USAGE = 2
    BUG = 3
    HANGUP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class DsvlError(Exception):
    """An error that is reported to the user in one line, with a hint if there is a remedy.

    Args:
        message: what went wrong, in one line without a full stop.
        hint: what the user can do about it.
    """

    status = ExitStatus.ERROR

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DsvlError):
    """The command line is contradictory or asks for something that does not exist."""

    status = ExitStatus.USAGE


class SettingError(UsageError):
    """A setting has a value that it cannot have.

    Args:
        setting: its name, such as `top_p`.
        value: the wrong value.
        problem: `it must be ...`, or the whole message if `is_whole`.
        hint: what the user can do about it.
        is_whole: whether `problem` names the value itself.
    """

    def __init__(
        self, setting: str, value: object, problem: str, hint: str | None = None, *, is_whole: bool = False
    ) -> None:
        super().__init__(problem if is_whole else f"{setting} is {value!r}; {problem}", hint)
        self.setting = setting
        self.value = value
        self.problem = problem
        self.is_whole = is_whole

    def at(self, origin: str, text: str) -> str:
        """Return the message for a setting that the user made as `origin`, such as `DSVL_TOP_P`, with this text."""
        if not self.is_whole:
            return f"{origin} is {text}; {self.problem}"
        return self.problem if origin.startswith("-") else f"{self.problem} ({origin})"


class ImageError(DsvlError):
    """One picture cannot be opened, decoded or fetched."""


class NotFetched(ImageError):
    """The picture has an address, and there is to be no connection."""


class InvalidRequest(DsvlError):
    """A request of a list cannot be answered as it asks; the message names the field."""


class InvalidAnswer(DsvlError):
    """An answer was cut or is not valid under its schema."""


class ContextOverflow(DsvlError):
    """A prompt does not fit into the model's context.

    Args:
        prompt_tokens: the length of the prompt, in tokens.
        context_length: the size of the model's context, in tokens.
        hint: what the user can do about it.
    """

    def __init__(self, prompt_tokens: int, context_length: int, hint: str | None = None) -> None:
        super().__init__(
            f"the prompt has {prompt_tokens:,} tokens, but the model's context is {context_length:,}",
            hint or "use fewer pictures or a shorter prompt",
        )
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length


class MemoryShortage(DsvlError):
    """There is not enough memory even for a single answer."""


class DoesNotFit(DsvlError):
    """There is not enough memory to load a model.

    Args:
        message, hint: as for every error.
        lacking_bytes: how much more memory it needs.
    """

    def __init__(self, message: str, hint: str | None, lacking_bytes: int) -> None:
        super().__init__(message, hint)
        self.lacking_bytes = lacking_bytes


class SomeFailed(DsvlError):
    """Some inputs failed, and each failure was reported already; only sets the exit status."""


# What libraries say when memory runs out: torch on CPUs, on Windows, CUDA, cuBLAS, XPU and MPS, and C++.
_SHORTAGES = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "OUT_OF_MEMORY",
    "OUT_OF_DEVICE_MEMORY",
    "OUT_OF_HOST_MEMORY",
    "ALLOC_FAILED",
    "std::bad_alloc",
    "cannot allocate memory",
)


def is_out_of_memory(exc: BaseException) -> bool:
    """Return whether memory ran out, by type or by what the libraries say."""
    if isinstance(exc, OSError):
        return exc.errno == errno.ENOMEM
    return isinstance(exc, MemoryError) or (
        isinstance(exc, RuntimeError)
        and (type(exc).__name__ == "OutOfMemoryError" or any(words in str(exc) for words in _SHORTAGES))
    )
