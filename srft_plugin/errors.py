"""The one exception that means "the user can put this right", and how commands end with it."""

import sys


class UserError(Exception):
    """Wrong input: a missing file, a bad value, a checkpoint of another network.

    The message says what was found and where, what was expected, and what to do. Commands print it
    as one line without a traceback and exit with status 2.
    """


def report_errors(command, *arguments) -> int:
    """Calls a command and prints a ``UserError`` as one line instead of a traceback."""
    try:
        return command(*arguments) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
