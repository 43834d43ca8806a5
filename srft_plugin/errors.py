"""The one exception that means "the user can put this right", and how commands end with it."""

import difflib
import os
import sys
from collections.abc import Iterable, Sequence

# In the words of a CPU's allocator, of CUDA's libraries and of CUDA itself.
SHORT_OF_MEMORY = ("can't allocate memory", "ALLOC_FAILED", "CUDA error: out of memory")


class UserError(Exception):
    """Wrong input: a missing file, a bad value, a checkpoint of another network.

    The message says what was found and where, what was expected, and what to do. Commands print it
    as one line without a traceback and exit with status 2.
    """


def unknown(what: str, found: object, known: Iterable[str]) -> UserError:
    """The error for a word that is not in a list, with the nearest one that is."""
    known = list(known)
    near = difflib.get_close_matches(str(found), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return UserError(f"unknown {what} {found!r}{hint} Known: {', '.join(known)}")


def some(items: Sequence[object], limit: int = 3) -> str:
    """The first of some items for a message, and how many more there are."""
    shown = ", ".join(map(str, items[:limit]))
    return shown + (f" and {len(items) - limit} more" if len(items) > limit else "")


def out_of_memory(error: Exception) -> bool:
    """Whether a device, or a processor's own memory, was too small."""
    from torch import OutOfMemoryError  # not needed by commands that compute nothing

    return isinstance(error, OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in SHORT_OF_MEMORY)
    )


def report_errors(command, *arguments) -> int:
    """Calls a command; a ``UserError`` becomes one line instead of a traceback, and status 2.

    So does a file that the system refuses (no right to read it, a link to itself). Ctrl-C, and
    output that nobody reads on (``| head``), end it as they end other commands.
    """
    try:
        status = command(*arguments) or 0
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130  # 128 + SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        return 141  # 128 + SIGPIPE, which Windows has not
    except OSError as error:
        if error.filename is None:
            raise
        print(
            f"error: {error.filename}: {error.strerror}; correct that, or name another file",
            file=sys.stderr,
        )
        return 2
