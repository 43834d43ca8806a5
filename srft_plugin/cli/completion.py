"""`srft completion`: what a shell needs to complete `srft` commands with the tab key."""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh", "tcsh")


def add_commands(subparsers) -> None:
    """Mounts `srft completion`."""
    completion = subparsers.add_parser(
        "completion", help="print a shell's completion script", description=_completion.__doc__
    )
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(run=_completion)


def _completion(arguments: argparse.Namespace) -> int:
    """Print a completion script; for bash: srft completion bash >
    ~/.local/share/bash-completion/completions/srft"""
    import shtab

    from . import build_parser

    print(shtab.complete(build_parser(), arguments.shell))
    return 0
