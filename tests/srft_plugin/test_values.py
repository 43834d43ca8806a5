"""Values as users type them."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srft_plugin.errors import UserError
from srft_plugin.values import read_assignments, read_value

KINDS = [
    (int, "7", 7),
    (float, "1e-4", 1e-4),
    (str, "none", "none"),
    (Path, "a/b", Path("a/b")),
    (bool, "True", True),
    (bool, "0", False),
    (float | None, "none", None),
    (float | None, "2", 2.0),
    (str | None, "None", None),
    (tuple[str, ...], "a,b", ("a", "b")),
    (tuple[float, ...], "1,2", (1.0, 2.0)),
    (tuple[str, ...], "", ()),
]


@pytest.mark.parametrize(("hint", "text", "value"), KINDS, ids=lambda value: str(value))
def test_a_text_becomes_the_settings_type(hint, text, value):
    found = read_value("x", text, hint)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("hint", "text", "message"),
    [
        (int, "7.5", "x=7.5: expected int"),
        (float | None, "half", "x=half: expected float"),
        (bool, "perhaps", "x=perhaps: expected true or false"),
        (tuple[int, ...], "1,b", "x=1,b: expected int"),
    ],
)
def test_another_text_is_an_error(hint, text, message):
    with pytest.raises(UserError, match=message):
        read_value("x", text, hint)


@given(st.lists(st.floats(allow_nan=False), min_size=1))
def test_numbers_come_back(numbers):
    assert read_value("x", ",".join(map(repr, numbers)), tuple[float, ...]) == tuple(numbers)


def test_assignments_are_read_by_the_fields_of_a_dataclass():
    @dataclass
    class Settings:
        rate: float
        sizes: tuple[int, ...] = ()

    assert read_assignments(["sizes=1,2", "rate=3"], Settings) == {"rate": 3.0, "sizes": (1, 2)}
    assert read_assignments([], Settings) == {}
    for text, message in (("rate", "expected key=value"), ("size=1", "did you mean 'sizes'")):
        with pytest.raises(UserError, match=message):
            read_assignments([text], Settings)
