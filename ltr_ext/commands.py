"""Sub-commands of `srft` about training and checkpoints: train, convert, inspect, env."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ltr_ext.admin.environment import device_name

ACCEPT_CHANGES = "--accept-changes"


def add_commands(subparsers) -> None:
    """Mounts the sub-commands on the `srft` parser."""
    train = subparsers.add_parser(
        "train", help="train a recipe, or resume it", description="Train a recipe, or resume it."
    )
    add_training_arguments(train)
    train.set_defaults(run=run_training)

    convert = subparsers.add_parser(
        "convert",
        help="rewrite a checkpoint as safetensors, or extend it",
        description=_convert.__doc__,
    )
    convert.add_argument("source", type=Path, help="an official checkpoint or one of ours")
    convert.add_argument("target", type=Path, help="the .safetensors file to write")
    convert.add_argument("--to", help="two_branch, or the network to start from these weights")
    convert.add_argument(
        "--modality", choices=("depth", "thermal", "event"), help="written to the metadata"
    )
    convert.add_argument("--network", help="what the file holds or starts")
    convert.add_argument(
        "--resize-positions",
        action="store_true",
        help="with --network: interpolate the position embeddings of another size to its own",
    )
    convert.add_argument(
        "--partial",
        action="store_true",
        help="with --network: accept missing and extra names; what is missing is random",
    )
    convert.set_defaults(run=_convert)

    inspect = subparsers.add_parser(
        "inspect", help="what a checkpoint holds", description=_inspect.__doc__
    )
    inspect.add_argument("file", type=Path, help="an official checkpoint or one of ours")
    inspect.add_argument("--json", action="store_true", help="print JSON")
    inspect.set_defaults(run=_inspect)

    env = subparsers.add_parser(
        "env", help="show or set the paths of data sets and results", description=_env.__doc__
    )
    env.add_argument("action", choices=("show", "set"))
    env.add_argument("key", nargs="?", help="for example depthtrack_dir or workspace_dir")
    env.add_argument("path", nargs="?", help="folder, stored as an absolute path")
    env.add_argument("--json", action="store_true", help="print JSON")
    env.set_defaults(run=_env)


def _convert(arguments: argparse.Namespace) -> int:
    """Rewrite a checkpoint as safetensors, on request as a network that extends it."""
    from ltr_ext.models.convert import convert

    network = convert(
        arguments.source,
        arguments.target,
        arguments.to,
        arguments.modality,
        arguments.network,
        partial=arguments.partial,
        resize_positions=arguments.resize_positions,
    )
    print(f"{network.spec.name}: {arguments.target}")
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    """Show which network a checkpoint holds, its sizes, metadata and parts; nothing is executed."""
    from ltr_ext.models.convert import contents, inspect

    if arguments.json:
        print(json.dumps(contents(arguments.file), indent=2))
    else:
        print(inspect(arguments.file))
    return 0


def _env(arguments: argparse.Namespace) -> int:
    """Show or set the paths of data sets, workspace and results."""
    from ltr_ext.admin.environment import (
        KEYS,
        environment,
        lookup,
        read_settings,
        set_path,
        settings_file,
    )
    from srft_plugin.errors import UserError, unknown

    if arguments.action == "set":
        if not (arguments.key and arguments.path):
            raise UserError(
                "usage: srft env set KEY PATH, for example "
                "srft env set depthtrack_dir /data/DepthTrack"
            )
        file = set_path(arguments.key, arguments.path)
        stored = Path(read_settings()[arguments.key])
        print(f"{arguments.key}: {stored}{'' if stored.exists() else ' (not there yet)'}")
        print(f"written to {file}")
        return 0
    paths = environment()
    shown = {
        "settings file": str(settings_file()),
        **{key: path for key in KEYS if (path := lookup(key))},
        "workspace_dir": str(paths.workspace_dir),
        "results_dir": str(paths.results_dir),
        "pretrained_dir": str(paths.pretrained_dir),
    }
    if arguments.key:
        if arguments.key not in KEYS:
            raise unknown("setting", arguments.key, KEYS)
        if arguments.key not in shown:
            raise UserError(
                f"{arguments.key} is not set; set it by `srft env set {arguments.key} PATH`"
            )
        shown = {arguments.key: shown[arguments.key]}
    if arguments.json:
        print(json.dumps(shown, indent=2))
    else:
        for key, path in shown.items():
            print(f"{key}: {path}")
    return 0


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `srft train` and of `python -m ltr_ext.run_training`."""
    parser.add_argument("config", help="a recipe of ltr_ext/train_settings/srft")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change")
    parser.add_argument("--name", help="name of the run; the config's unless given")
    parser.add_argument("--workspace", type=Path, help="folder for runs; see `srft env`")
    parser.add_argument("--device", type=device_name, help="default: the GPU where there is one")
    parser.add_argument(
        ACCEPT_CHANGES,
        action="store_true",
        help="go on with a run that was begun with other settings",
    )


def parse_arguments(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Like ``parse_args``, but overrides may also stand after the options."""
    arguments, rest = parser.parse_known_args(argv)
    takes = hasattr(arguments, "overrides")
    late = [word for word in rest if takes and "=" in word and not word.startswith("-")]
    if wrong := [word for word in rest if word not in late]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    if late:
        arguments.overrides += late
    return arguments


def run_training(arguments: argparse.Namespace) -> int:
    """Trains what the command line asks for."""
    from ltr_ext.admin.environment import default_device
    from ltr_ext.recipe import load_recipe
    from ltr_ext.run_training import run_dir, train

    recipe = load_recipe(arguments.config).override(arguments.overrides)
    folder = run_dir(arguments.name or arguments.config, arguments.workspace)
    device = arguments.device or default_device()
    train(recipe, folder, device, arguments.accept_changes)
    return 0
