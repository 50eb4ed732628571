"""Which models can be named, what their names stand for, and whether one is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsvl_cli.engine.checkpoint import hub
from dsvl_cli.engine.checkpoint.find import ALIASES, EMBEDDED, find_missing, is_base_name, resolve_model
from dsvl_cli.errors import DsvlError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Catalogue:
    """Answers questions about models without loading one.

    Args:
        aliases: the user's own names for models, in lower case.
        revision: of the hub's models.
    """

    def __init__(self, aliases: Mapping[str, str], revision: str | None = None) -> None:
        self._aliases = aliases
        self._revision = revision

    def names(self) -> Sequence[tuple[str, str]]:
        """Return the aliases, the user's own first, with where each model is."""
        own = [(alias, target) for alias, target in self._aliases.items()]
        known = [name for name in ALIASES if name not in self._aliases and not is_base_name(name)]
        return [*own, *((name, self._where(name)) for name in known)]

    def check(self, name: str) -> None:
        """Refuse an unknown name, a folder without a model, and a base model.

        Raises:
            DsvlError: for one of these reasons.
        """
        where = resolve_model(self._resolve(name))
        if isinstance(where, Path) and (missing := find_missing(where)):
            raise DsvlError(f"{name} is not a complete model: {where} has no {missing[0]}", "choose another folder")
        if is_base_name(where.name if isinstance(where, Path) else where):
            raise refuse_base(name)

    def refer(self, name: str) -> str:
        """Return a name that is valid in every folder.

        Raises:
            DsvlError: there is no such model.
        """
        target = self._resolve(name)
        if target.lower() in ALIASES:
            return target.lower()
        return str(resolve_model(target))

    def find_obstacle(self, name: str, options: Mapping[str, Any]) -> DsvlError | None:
        """Return why a model cannot be loaded from this machine, or None if it can."""
        try:
            where = resolve_model(self._resolve(name))
        except DsvlError:
            return DsvlError(f"its model {name} is no longer on this machine")
        if isinstance(where, Path):
            return DsvlError(f"its model {name} is no longer complete") if find_missing(where) else None
        if _is_cached(where, options.get("revision", self._revision)):
            return None
        return DsvlError(f"its model {name} is not on this machine", f"--model {name} downloads it")

    def _resolve(self, name: str) -> str:
        return self._aliases.get(name.lower(), name)

    def _where(self, name: str) -> str:
        if name == EMBEDDED:
            return "built in; knows drawn shapes and numbers"
        return "on this machine" if _is_cached(ALIASES[name], None) else "to be downloaded"


def _is_cached(repo: str, revision: str | None) -> bool:
    cached = hub.find_snapshot(repo, revision)
    return cached is not None and not find_missing(cached)


def refuse_base(name: str) -> DsvlError:
    """Return the error that says that a base model cannot chat."""
    hint = f"use {name.removesuffix('-base')}" if name.endswith("-base") else "use 1.3b or 7b, or another chat model"
    return DsvlError(f"{name} is a base model: it completes text and cannot chat", hint)
