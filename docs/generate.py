"""Pages that the code writes itself: every recipe, every setting, every command."""

from __future__ import annotations

import argparse
import dataclasses
import re

from mkdocs.structure.files import File

from ltr_ext.recipe import Recipe, config_names, load_recipe
from srft_plugin.cli import build_parser


def on_files(files, config):
    """Hook of mkdocs: adds the generated pages."""
    for name, text in (("recipes.md", recipes_page()), ("commands.md", commands_page())):
        files.append(File.generated(config, name, content=text))
    return files


def recipes_page() -> str:
    """All configs with what they change, and all settings with their defaults."""
    defaults = Recipe(network="", datasets=("",))
    lines = [
        "# Recipes and settings",
        "",
        "`srft train CONFIG key=value ...` trains a recipe with some of its settings changed.",
        "",
        "## Recipes",
        "",
        "| config | network | data | base | regularizer | trains | other settings |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    shown = ("network", "datasets", "base", "regularizer", "trainable")
    for name in config_names():
        recipe = load_recipe(name)
        changed = [
            f"`{field.name}={_text(getattr(recipe, field.name))}`"
            for field in dataclasses.fields(Recipe)
            if field.name not in shown
            and getattr(recipe, field.name) != getattr(defaults, field.name)
        ]
        cells = [_text(getattr(recipe, field)) for field in shown]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {' '.join(changed)} |")
    lines += ["", "## Settings", "", "| setting | default | meaning |", "| --- | --- | --- |"]
    meanings = setting_meanings()
    for field in dataclasses.fields(Recipe):
        required = field.default is dataclasses.MISSING
        default = "required" if required else f"`{_text(field.default)}`"
        lines.append(f"| `{field.name}` | {default} | {meanings[field.name]} |")
    return "\n".join(lines) + "\n"


def setting_meanings() -> dict[str, str]:
    """Setting to its sentence in the docstring of ``Recipe``; several may share one."""
    text = Recipe.__doc__.split("Args:")[1]
    entries = re.split(r"\n {8}(?=[\w, ]+: )", text)
    meanings = {}
    for entry in entries[1:]:
        names, _, meaning = entry.partition(": ")
        meaning = " ".join(meaning.split()).replace("``", "`").replace("|", "\\|")
        meanings |= dict.fromkeys(re.split(r",\s*", names), meaning)
    return meanings


def commands_page() -> str:
    """The help of `srft` and of every command below it."""
    lines = ["# Commands", "", "`srft completion bash` (or `zsh`) prints a completion script."]
    for words, parser in _parsers(build_parser(), ("srft",)):
        lines += ["", f"## {' '.join(words)}", "```text", _help(parser), "```"]
    return "\n".join(lines) + "\n"


def _parsers(parser: argparse.ArgumentParser, words: tuple[str, ...]):
    yield words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from _parsers(child, (*words, name))


def _help(parser: argparse.ArgumentParser) -> str:
    parser.formatter_class = _PlainHelp
    return parser.format_help().rstrip()


class _PlainHelp(argparse.HelpFormatter):
    """The same width whatever the terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=90)


def _text(value) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)
