"""What a stored conversation brings back, and what the command line's flags win over."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.engine.conversation import Conversation, Message
from dsvl_cli.engine.options import LoadOptions, SamplingParams
from dsvl_cli.terminal.chat.loading import ModelChoice
from dsvl_cli.terminal.chat.restoring import AnyModel, CommandLine, last_exchange, restore, values_to_keep
from dsvl_cli.terminal.chat.settings import ChatSettings
from tests.terminal.fake_model import Kept, make_picture

SAVED = {"model": "other", "quantization": "int8", "temperature": 0.7, "stop": ["END"], "overflow": "drop-oldest"}


def bring_back(
    settings: dict[str, Any], line: CommandLine, system: str | None = None, defaults: ChatSettings | None = None
) -> tuple[ModelChoice, ChatSettings, str | None, str]:
    kept = Kept("id1", None, Conversation([], system), "other", settings)
    found = restore(kept, line, defaults or ChatSettings(), AnyModel())
    return found.choice, found.settings, found.system, found.summary


def test_model_settings_and_system_text_come_back() -> None:
    choice, settings, system, summary = bring_back(SAVED, CommandLine(), "be terse")
    assert choice == ModelChoice("other", {"quantization": "int8"})
    assert (settings.sampling.temperature, settings.sampling.stop, settings.overflow) == (0.7, ("END",), "drop-oldest")
    assert system == "be terse"
    assert summary == (
        "restored: model other, quantization int8, temperature 0.7, stop END, overflow drop-oldest, the system prompt"
    )


@pytest.mark.parametrize(
    ("load", "parameter", "told"),
    [
        (LoadOptions("tiny"), "model", "--model wins over other"),
        (LoadOptions(quantization="bnb-nf4"), "quantization", "--quantization wins over int8"),
        (LoadOptions(), "temperature", "--temperature wins over 0.7"),
        (LoadOptions(), "overflow", "--overflow wins over drop-oldest"),
        (LoadOptions(), "system", "--system wins over the saved one"),
    ],
)
def test_a_flag_wins_and_that_is_said(load: LoadOptions, parameter: str, told: str) -> None:
    line = CommandLine(load, "be long", frozenset({parameter}))
    choice, settings, system, summary = bring_back(SAVED, line, "be terse")
    assert told in summary
    assert choice.name == ("tiny" if parameter == "model" else "other")
    # Loading options belong to the model that they were given for.
    assert choice.options == ({} if parameter in ("model", "quantization") else {"quantization": "int8"})
    assert settings.sampling.temperature == (0.0 if parameter == "temperature" else 0.7)
    assert settings.overflow == ("error" if parameter == "overflow" else "drop-oldest")
    assert system == ("be long" if parameter == "system" else "be terse")


def test_what_files_and_variables_set_does_not_win() -> None:
    line = CommandLine(LoadOptions("tiny", dtype="float32"), "from a file")
    configured = ChatSettings(SamplingParams(temperature=0.5))
    choice, settings, system, summary = bring_back({"model": "other", "temperature": 0.0}, line, None, configured)
    assert choice == ModelChoice("other", {"dtype": "auto"})
    assert settings.sampling.temperature == 0.0
    assert system is None
    assert summary == "restored: model other, temperature 0.0"


def test_a_conversation_of_an_older_version_brings_its_model_back() -> None:
    configured = ChatSettings(SamplingParams(temperature=0.5))
    choice, settings, _, summary = bring_back({}, CommandLine(LoadOptions(dtype="float32")), None, configured)
    assert choice == ModelChoice("other")
    assert settings == configured
    assert summary == "restored: model other"


@pytest.mark.parametrize(
    "settings",
    [{"temperature": -1}, {"temperature": "hot"}, {"stop": [1]}, {"overflow": 3}, {"quantization": "new"}, {"x": 1}],
)
def test_what_another_version_has_saved_is_passed_over(settings: dict[str, Any]) -> None:
    choice, found, _, _ = bring_back({"model": "other", **settings}, CommandLine())
    assert (choice, found) == (ModelChoice("other"), ChatSettings())


sampling = st.builds(
    SamplingParams,
    st.integers(1, 5000),
    st.floats(0, 2),
    st.integers(0, 100),
    st.floats(0.1, 1),
    st.floats(0, 1),
    st.floats(0.5, 2),
    st.integers(0, 99),
    st.lists(st.text(min_size=1), max_size=2).map(tuple),
)
options = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["auto", "float32", "bfloat16"]),
        "quantization": st.sampled_from([None, "int8", "int4"]),
        "include_head": st.booleans(),
    },
)


@given(sampling, st.sampled_from(["error", "drop-oldest"]), options, options)
def test_whatever_was_set_comes_back_whatever_is_configured_now(
    params: SamplingParams, overflow: Any, then: dict[str, Any], now: dict[str, Any]
) -> None:
    settings = ChatSettings(params, overflow)
    before = CommandLine(LoadOptions("m", **then))
    saved = values_to_keep(ModelChoice("m"), settings, ChatSettings(), before, "m")
    line = CommandLine(LoadOptions(**now))
    choice, found, _, _ = bring_back(saved, line)
    assert found == settings
    names = ("dtype", "quantization", "include_head")
    loaded = {**{name: getattr(line.load, name) for name in names}, **choice.options}
    assert loaded == {name: getattr(before.load, name) for name in names}


def test_a_seed_that_was_drawn_is_not_kept() -> None:
    drawn = ChatSettings(SamplingParams(temperature=1.0, seed=123))
    saved = values_to_keep(ModelChoice("m"), drawn, drawn, CommandLine(), "m")
    assert saved["seed"] is None
    chosen = values_to_keep(ModelChoice("m"), drawn, drawn, CommandLine(given=frozenset({"seed"})), "m")
    assert chosen["seed"] == 123


@given(st.text(max_size=2000), st.text(max_size=2000), st.integers(1, 120))
def test_the_last_exchange_takes_few_lines(question: str, answer: str, width: int) -> None:
    messages = [Message("user", (make_picture(), question)), Message("assistant", (answer,))]
    lines = last_exchange(messages, width)
    assert 1 <= len(lines) <= 6
    if width > 20:
        assert all(len(line) <= width for line in lines)


def test_the_last_exchange_shows_question_and_answer() -> None:
    messages = [
        Message("user", ("before",)),
        Message("assistant", ("gone",)),
        Message("user", (make_picture(), "what is it?")),
        Message("assistant", ("a red\n\ncircle",)),
    ]
    assert last_exchange(messages, 80) == ["> [1 picture] what is it?", "a red circle"]
    assert last_exchange(messages[:1], 80) == ["> before"]
    assert last_exchange([], 80) == []
