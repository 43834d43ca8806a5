"""The `srft` command: sub-commands live in the packages they serve and are mounted here."""

from __future__ import annotations

import argparse
import difflib
import itertools
import re
from collections.abc import Iterable

from srft_plugin.errors import report_errors


class _Parser(argparse.ArgumentParser):
    """Suggests the nearest word when a sub-command, choice or option is unknown."""

    def parse_known_args(self, args=None, namespace=None):
        """As usual, but for a misspelt option, which is named before what it leaves missing."""
        if self._subparsers is None:  # those of a command of commands are its commands' to know
            self._check_options(args)
        return super().parse_known_args(args, namespace)

    def _check_options(self, words: Iterable[str]) -> None:
        known = {option.lstrip("-"): option for option in self._option_string_actions}
        for word in itertools.takewhile(lambda word: word != "--", words):
            name = word.partition("=")[0]
            if name.startswith("--") and not any(o.startswith(name) for o in known.values()):
                near = difflib.get_close_matches(name.lstrip("-"), known, n=1)
                hint = f"; did you mean {known[near[0]]!r}?" if near else ""
                self.error(f"unrecognized arguments: {name}{hint}")

    def error(self, message: str):
        match = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if match:
            known = re.findall(r"[\w.-]+", match[2])
            near = difflib.get_close_matches(match[1], known, n=1)
            if near:
                message = f"{message}; did you mean {near[0]!r}?"
        super().error(message)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, for `--help`, completion and the tests."""
    import ltr_ext.commands
    import ltr_ext.dataset.commands
    import pytracking_ext.commands
    import pytracking_ext.study.commands
    import srft_plugin.cli.completion
    import srft_plugin.cli.demo
    import srft_plugin.cli.figures
    import srft_plugin.cli.host
    import vot_integration.commands

    parser = _Parser(
        prog="srft",
        description="Sensitivity-aware regularized tuning of RGB-X trackers: train, track, score.",
    )
    subparsers = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=_Parser
    )
    for module in (
        srft_plugin.cli.demo,
        srft_plugin.cli.host,
        srft_plugin.cli.figures,
        ltr_ext.commands,
        ltr_ext.dataset.commands,
        pytracking_ext.commands,
        pytracking_ext.study.commands,
        vot_integration.commands,
        srft_plugin.cli.completion,
    ):
        module.add_commands(subparsers)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs one command; 0 when it succeeded, 2 when the user can put the cause right."""
    from ltr_ext.commands import parse_arguments

    arguments = parse_arguments(build_parser(), argv)
    return report_errors(arguments.run, arguments)
