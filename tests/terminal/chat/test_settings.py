from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsvl_cli.engine.options import OF_A_QUESTION, SamplingParams
from dsvl_cli.errors import UsageError
from dsvl_cli.terminal.chat.settings import (
    SETTINGS,
    ChatSettings,
    Setting,
    changed_settings,
    find_setting,
    set_value,
    show_value,
    value_of,
)

DEFAULTS = ChatSettings()
OTHER_VALUES = {
    "max_new_tokens": "3",
    "temperature": "0.2",
    "top_k": "20",
    "top_p": "0.5",
    "min_p": "0.1",
    "repetition_penalty": "1.1",
    "seed": "42",
    "stop": "END 'two words'",
    "overflow": "drop-oldest",
}
BAD_VALUES = {
    "max_new_tokens": ["0", "-1", "1.5", "many", ""],
    "temperature": ["-0.1", "nan", "inf", "hot"],
    "top_k": ["-1", "2.0"],
    "top_p": ["0", "1.01", "nan"],
    "min_p": ["-0.1", "2"],
    "repetition_penalty": ["0", "-1", "inf"],
    "seed": ["-1", "random", "1e3"],
    "stop": ["''", "'unclosed"],
    "overflow": ["drop", "DROP-OLDEST"],
}


def test_every_sampling_parameter_can_be_set() -> None:
    sampling = {field.name for field in fields(SamplingParams)} - OF_A_QUESTION
    assert {setting.name for setting in SETTINGS} == sampling | {"overflow"}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_good_values_are_taken_shown_and_taken_back(setting: Setting) -> None:
    changed = set_value(DEFAULTS, setting, OTHER_VALUES[setting.name], DEFAULTS)
    assert changed != DEFAULTS
    assert dict(changed_settings(changed)) == {setting.name: show_value(value_of(changed, setting))}
    again = set_value(DEFAULTS, setting, show_value(value_of(changed, setting)), DEFAULTS)
    assert again == changed
    assert set_value(changed, setting, "default", DEFAULTS) == DEFAULTS
    for suggestion in setting.suggestions:
        set_value(DEFAULTS, setting, suggestion, DEFAULTS)


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD_VALUES.items() for text in texts])
def test_bad_values_are_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=name):
        set_value(DEFAULTS, find_setting(name), text, DEFAULTS)


def test_default_is_what_the_chat_began_with() -> None:
    began = ChatSettings(SamplingParams(temperature=0.3))
    temperature = find_setting("temperature")
    changed = set_value(began, temperature, "0.9", began)
    assert set_value(changed, temperature, "default", began) == began


def test_a_setting_is_found_as_its_flag_is_written_too() -> None:
    assert find_setting("max-new-tokens").name == "max_new_tokens"


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(UsageError) as error:
        find_setting("temprature")
    assert error.value.hint == "did you mean temperature?"


@given(st.sampled_from(SETTINGS), st.text(max_size=20))
def test_no_text_breaks_a_setting(setting: Setting, text: str) -> None:
    try:
        changed = set_value(DEFAULTS, setting, text, DEFAULTS)
    except UsageError:  # any other error would be a bug
        return
    else:
        assert set_value(DEFAULTS, setting, show_value(value_of(changed, setting)), DEFAULTS) == changed
