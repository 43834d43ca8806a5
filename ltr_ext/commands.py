"""Sub-commands of `srft` about training: train, env."""

from __future__ import annotations

import argparse


def add_commands(subparsers) -> None:
    """Mounts the sub-commands on the `srft` parser."""
    from ltr_ext.run_training import add_arguments, run

    train = subparsers.add_parser(
        "train", help="train a recipe, or resume it", description="Train a recipe, or resume it."
    )
    add_arguments(train)
    train.set_defaults(run=run)

    env = subparsers.add_parser(
        "env", help="show or set the paths of data sets and results", description=_env.__doc__
    )
    env.add_argument("action", choices=("show", "set"))
    env.add_argument("key", nargs="?", help="for example depthtrack_dir or workspace_dir")
    env.add_argument("path", nargs="?")
    env.set_defaults(run=_env)


def _env(arguments: argparse.Namespace) -> int:
    """Show or set the paths of data sets, workspace and results."""
    from ltr_ext.admin.environment import environment, read_settings, set_path, settings_file
    from srft_plugin.errors import UserError

    if arguments.action == "set":
        if not (arguments.key and arguments.path):
            raise UserError(
                "usage: srft env set KEY PATH, for example "
                "srft env set depthtrack_dir /data/DepthTrack"
            )
        print(f"written to {set_path(arguments.key, arguments.path)}")
        return 0
    print(f"settings file: {settings_file()}")
    print(f"workspace_dir: {environment().workspace_dir}")
    print(f"results_dir: {environment().results_dir}")
    for key, path in sorted(read_settings().items()):
        if key.endswith("_dir") and key not in ("workspace_dir", "results_dir"):
            print(f"{key}: {path}")
    return 0
