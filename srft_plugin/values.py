"""Settings as users type them: the text of a value, read as the type that the setting has."""

from __future__ import annotations

from collections.abc import Iterable
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from srft_plugin.errors import UserError, unknown

BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def read_value(name: str, text: str, hint: Any) -> Any:
    """``text`` as a value of the setting ``name``, whose annotation is ``hint``.

    That is a class that takes a text, ``bool``, a tuple of one class, whose values are separated by
    commas, or one of these or None. Of a union the first is taken.

    Raises:
        UserError: it is no such value.
    """
    options = get_args(hint) or (hint,)
    if NoneType in options and text.lower() == "none":
        return None
    kind = options[0]
    if kind is bool:
        if text.lower() not in BOOLEANS:
            raise UserError(f"{name}={text}: expected true or false")
        return BOOLEANS[text.lower()]
    try:
        if get_origin(hint) is tuple:
            return tuple(kind(part) for part in text.split(",") if part)
        return kind(text)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}={text}: expected {getattr(kind, '__name__', kind)}") from error


def read_assignments(assignments: Iterable[str], settings: type) -> dict[str, Any]:
    """What ``key=value`` texts say of the fields of the dataclass ``settings``.

    Raises:
        UserError: an unknown key (the nearest is suggested) or a value of another type.
    """
    hints, values = get_type_hints(settings), {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"override {assignment!r}: expected key=value")
        if key not in hints:
            raise unknown("setting", key, hints)
        values[key] = read_value(key, text, hints[key])
    return values
