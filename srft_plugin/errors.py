"""The one exception that means "the user can put this right"."""


class UserError(Exception):
    """Wrong input: a missing file, a bad value, a checkpoint of another network.

    The message says what was found and where, what was expected, and what to do. Commands print it
    as one line without a traceback and exit with status 2.
    """
