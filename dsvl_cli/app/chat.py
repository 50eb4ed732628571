"""`dsvl chat`: combines the engine, the session store and the terminal."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dsvl_cli.engine.checkpoint.catalogue import Catalogue, refuse_base
from dsvl_cli.engine.checkpoint.find import find_checkpoint
from dsvl_cli.engine.options import DEFAULT_OVERFLOW
from dsvl_cli.engine.pictures.questions import refuse_questions
from dsvl_cli.errors import DsvlError, ExitStatus, ImageError, UsageError
from dsvl_cli.terminal.chat.attachments import PictureSources
from dsvl_cli.terminal.chat.chat import Chat
from dsvl_cli.terminal.chat.conversation_store import ConversationStore, Export, NoStore
from dsvl_cli.terminal.chat.input.repl import Lines, Repl
from dsvl_cli.terminal.chat.loading import BackgroundModel, LoadModel, ModelChoice
from dsvl_cli.terminal.chat.restoring import AnyModel, CommandLine, ModelCatalogue, Restored
from dsvl_cli.terminal.chat.script import NoAnswer, ScriptLines, json_writer
from dsvl_cli.terminal.chat.services import Services
from dsvl_cli.terminal.chat.settings import ChatSettings
from dsvl_cli.terminal.plain import open_answer
from dsvl_cli.terminal.progress import ConsoleListener

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dsvl_cli.engine.conversation import ChatModel, Picture
    from dsvl_cli.engine.options import LoadOptions, Overflow, SamplingParams
    from dsvl_cli.engine.progress import Listener
    from dsvl_cli.sessions.session import SavedSession
    from dsvl_cli.sessions.store import SessionStore
    from dsvl_cli.terminal.console import Console


def run_chat(
    console: Console,
    images: Sequence[str],
    options: LoadOptions,
    sampling: SamplingParams,
    *,
    overflow: Overflow = DEFAULT_OVERFLOW,
    system: str | None = None,
    question: str | None = None,
    go_on: bool = False,
    session: str | None = None,
    save: bool = True,
    as_json: bool = False,
    aliases: Mapping[str, str] = MappingProxyType({}),
    load: LoadModel | None = None,
    given: frozenset[str] = frozenset(),
) -> ExitStatus:
    """Chat: at a terminal with a line editor, otherwise with each line of stdin as a message.

    Without a terminal, each answer is printed verbatim and followed by one newline. An error is reported in one line on
    stderr, reading continues with the next line, and the final exit status is 1. Ctrl-C ends a script; at a terminal it
    only stops an answer. If a picture of the command line fails, a script ends there: its questions are about it.

    Args:
        console: the streams to chat on.
        images: paths, URLs and globs of the pictures for the first message.
        options: which model to load, and how.
        sampling: sampling parameters, until changed with `/set`.
        overflow: what to do when the conversation no longer fits into the context, until changed with `/set`.
        system: replaces the checkpoint's default system prompt in a new conversation.
        question: sent first, with the pictures.
        go_on: continue the most recent conversation.
        session: the id or name of a conversation to continue.
        save: save the conversation; if False, nothing else is saved to disk either.
        as_json: print each turn as one JSON object.
        aliases: the user's model aliases, also accepted by `/model`.
        load: loads a model by name; the engine's loader by default.
        given: the names of the parameters that were set on the command line itself, or by a profile that it names: they
            win over what a conversation brings back.

    Raises:
        DsvlError: there is no such conversation, its model is not on this machine, or options conflict.
        KeyboardInterrupt: Ctrl-C in a script.
    """
    from dsvl_cli.sessions.store import SessionStore, default_store_path

    if question == "-":
        raise UsageError("a chat reads its messages from stdin, so -p cannot", "give the question itself")
    refuse_questions(images, "dsvl chat")
    if go_on and session is not None:
        raise UsageError("--continue and --session cannot be used together", "use one of them")
    path = default_store_path(console.environment.variables)
    options = replace(options, cache=options.cache and save)
    with SessionStore(path) as store:
        kept = _find_session(store, go_on=go_on, session=session)
        catalogue = AnyModel() if load else Catalogue(aliases, options.revision)
        loading = BackgroundModel(load or _engine_loader(options, aliases), ConsoleListener(console))
        services = _services(
            console,
            store if save else NoStore(),
            aliases,
            catalogue,
            offline=options.offline,
            as_json=as_json,
        )
        settings = ChatSettings(sampling, overflow)
        line = CommandLine(options, system, given)
        chat = Chat(console, loading, services, settings, line=line, scripted=not _is_interactive(console))
        choice = ModelChoice(options.model)
        if kept is not None:
            restored = chat.open(kept)
            _check_model(restored, kept)
            choice = restored.choice
            chat.advise(_greeting(kept, has_others=go_on and len(store.list(2)) > 1))
            chat.show_restored(restored)
        lines = _open_lines(chat, path.with_name("history") if save else None)
        loading.start(choice.name, choice.options)  # not earlier: importing in two threads at once is slower
        return Repl(chat, lines).run(images, question)


def _find_session(store: SessionStore, *, go_on: bool, session: str | None) -> SavedSession | None:
    if session is not None:
        return store.load(session)
    if not go_on:
        return None
    latest = store.latest()
    if latest is None:
        raise DsvlError("there is no conversation to continue", "start one with dsvl chat")
    return latest


def _engine_loader(options: LoadOptions, aliases: Mapping[str, str]) -> LoadModel:
    def load(name: str, listener: Listener, **others: Any) -> ChatModel:
        # torch takes seconds to import; this runs in the background.
        _open_torch_libraries()
        from dsvl_cli.engine.model import load_model

        wanted = replace(options, model=aliases.get(name.lower(), name), **others)
        checkpoint = find_checkpoint(wanted, listener)
        if not checkpoint.has_chat:
            raise refuse_base(name)
        return load_model(wanted, listener, checkpoint)

    return load


def _open_torch_libraries() -> None:
    """Open torch's largest library before torch does: `import` would hold the GIL for 0.2 s, ctypes does not.

    Flags and order are those of torch itself. If this fails, the import does the work.
    """
    if sys.platform != "linux" or "torch" in sys.modules:
        return
    import ctypes
    import importlib.util

    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        return
    folder = Path(torch.origin).parent / "lib"
    open_library = ctypes.CDLL(None).dlopen
    open_library(bytes(folder / "libtorch_global_deps.so"), os.RTLD_NOW | os.RTLD_GLOBAL)
    open_library(bytes(folder / "libtorch_cpu.so"), os.RTLD_NOW)


def _check_model(restored: Restored, kept: SavedSession) -> None:
    """Refuse to go on with another model than the conversation's unless it is asked for.

    Raises:
        DsvlError: the conversation's model is not on this machine.
    """
    obstacle = restored.obstacle
    if obstacle is not None:
        another = f"`dsvl chat --session {kept.id} --model NAME` continues with another model"
        hint = f"{another}; {obstacle.hint}" if obstacle.hint else another
        raise DsvlError(f"{kept.heading}: {obstacle.message}", hint)


def _greeting(kept: SavedSession, *, has_others: bool) -> str:
    messages, pictures = len(kept.conversation.messages), len(kept.conversation.pictures)
    shown = f"{pictures} {'picture' if pictures == 1 else 'pictures'}"
    others = "; dsvl sessions list shows the others" if has_others else ""
    return f"continuing {kept.heading} ({messages} messages, {shown}){others}"


def _services(
    console: Console,
    store: ConversationStore,
    aliases: Mapping[str, str],
    catalogue: ModelCatalogue,
    *,
    offline: bool,
    as_json: bool,
) -> Services:
    from dsvl_cli.engine.checkpoint.find import ALIASES

    sources = _picture_sources(offline=offline)
    models = tuple(dict.fromkeys([*aliases, *ALIASES]))
    export = partial(_export, store)
    if as_json:
        return Services(sources, store, export, NoAnswer, json_writer(console), models, catalogue)
    return Services(sources, store, export, lambda: open_answer(console), models=models, catalogue=catalogue)


def _picture_sources(*, offline: bool) -> PictureSources:
    from dsvl_cli.engine.pictures import images
    from dsvl_cli.engine.pictures.clipboard import read_clipboard
    from dsvl_cli.engine.pictures.missing import find_file

    def read(source: str) -> Picture:
        if source == "-":
            raise ImageError(
                "a chat cannot read a picture from stdin, which has its messages", "give the picture's path"
            )
        return images.read_picture(source, offline=offline)

    return PictureSources(
        read, images.expand_sources, images.crop, read_clipboard, frozenset(images.PICTURE_EXTENSIONS), find_file
    )


def _export(store: ConversationStore, export: Export) -> None:
    from dsvl_cli.sessions.export import export_session
    from dsvl_cli.sessions.session import SavedSession
    from dsvl_cli.sessions.store import SessionStore

    begun = now = datetime.now(UTC)
    if export.session_id and isinstance(store, SessionStore):
        with suppress(DsvlError):  # removed meanwhile
            begun = store.find(export.session_id).created
    session = SavedSession(export.session_id or "", export.name, export.model, begun, now, export.conversation)
    export_session(session, export.path, embed=export.embed, overwrite=export.overwrite)


def _is_interactive(console: Console) -> bool:
    try:
        typed = console.environment.stdin.isatty()
    except ValueError:  # closed
        return False
    return typed and (console.answer_is_terminal or console.status_is_terminal)


def _open_lines(chat: Chat, history: Path | None) -> Lines:
    if chat.scripted:
        return ScriptLines(chat.console.environment.stdin)
    # prompt-toolkit takes 0.3 s to import, and a script does not need it.
    from dsvl_cli.terminal.chat.input.line_editor import LineEditor

    return LineEditor(chat, history)
