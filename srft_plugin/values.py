"""Settings as users type them: the text of a value, read as the type that the setting has."""

from __future__ import annotations

from types import NoneType
from typing import Any, get_args, get_origin

from srft_plugin.errors import UserError

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
