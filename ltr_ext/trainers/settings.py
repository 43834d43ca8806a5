"""The settings that a run was begun with: written beside it, compared when it is resumed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ltr_ext.admin.files import read_object, write_text
from ltr_ext.recipe import Recipe
from srft_plugin.errors import UserError

FILE = "recipe.json"
FREE = ("workers", "keep", "save_minutes")  # may change without a word: no weight depends on them
# These say what the saved state belongs to, or how it counts steps: no run can change them.
FIXED = (
    "network", "base", "trainable", "regularizer", "regularizer_options", "lr_groups", "batch_size",
    "samples_per_epoch", "prior",
)  # fmt: skip


def write_settings(folder: Path, recipe: Recipe) -> None:
    """Writes the recipe into the folder of its run."""
    write_text(folder / FILE, json.dumps(dataclasses.asdict(recipe), indent=2) + "\n")


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of the run in ``folder``, as ``write_settings`` wrote them.

    Raises:
        UserError: there are none, or they are damaged.
    """
    return read_object(
        folder / FILE,
        "the settings of the run are lost; put the file back or begin the run anew in another "
        "folder",
    )


def move_settings(folder: Path, recipe: Recipe, names: Iterable[str]) -> None:
    """Writes ``names`` of ``recipe`` into the settings of the run in ``folder``, if there is one.

    For a caller that knows that they only say in other words, such as of another mount point, what
    the run was begun with.
    """
    if (folder / FILE).is_file():
        moved = {name: getattr(recipe, name) for name in names}
        write_text(folder / FILE, json.dumps(read_settings(folder) | moved, indent=2) + "\n")


def read_recipe(folder: Path) -> Recipe:
    """The recipe of the run in ``folder``.

    Raises:
        UserError: there is none, it is damaged, or of another version.
    """
    settings = read_settings(folder)
    try:
        return Recipe(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})
    except TypeError as error:
        raise UserError(f"{folder / FILE} is not of this version: {error}") from error


def check_settings(folder: Path, recipe: Recipe, accept: bool) -> set[str]:
    """Compares ``recipe`` with that of the run in ``folder``; settings it lacked had the default.

    Args:
        accept: let other settings pass where the state of the run can go on with them.

    Returns:
        The settings that differ, but for those that no weight depends on.

    Raises:
        UserError: there are differences, with the list of them, or nothing to compare with.
    """
    before = read_settings(folder)
    now = json.loads(json.dumps(dataclasses.asdict(recipe)))
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
    defaults = json.loads(json.dumps(defaults, default=str))
    changed = [k for k in now if k not in FREE and before.get(k, defaults[k]) != now[k]]
    fixed = [key for key in changed if key in FIXED]
    if not changed or (accept and not fixed):
        return set(changed)

    def shown(keys: list[str]) -> str:
        return ", ".join(f"{k}: {before.get(k, defaults[k])!r} -> {now[k]!r}" for k in keys)

    if fixed:
        raise UserError(
            f"{folder} holds a run with other settings ({shown(changed)}), and a run cannot change "
            f"{', '.join(fixed)}; give the run another name, or delete the folder"
        )
    raise UserError(
        f"{folder} holds a run with other settings ({shown(changed)}); give the run another name, "
        "delete the folder, or go on with them by --accept-changes"
    )


def with_settings(saved: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The optimizer state ``saved`` with the settings of ``now``, a state of the new optimizer."""
    merged = saved | {"param_groups": now["param_groups"]}
    if "srft" in saved:
        settings = {key: now["srft"][key] for key in ("total_steps", "kappa", "prior_ranks")}
        merged["srft"] = saved["srft"] | settings
    return merged
