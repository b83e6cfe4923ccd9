"""``vmr doctor``: what this installation has and lacks."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmr.cli.common import Commands


def add_parser(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "doctor",
        help="say what this installation has, and what to install for what is missing",
        description="Says what this installation has, and what to install for what is missing. "
        "The exit code is 5 where vmr cannot work at all.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints the findings."""
    import json

    from vmr.doctor import build_config, findings
    from vmr.errors import BackendError

    found = findings()
    if options.json:
        parts = [{"part": f.part, "state": f.state, "ok": f.ok, "advice": f.advice} for f in found]
        print(json.dumps({"version": 1, "build": build_config(), "parts": parts}, indent=2))
    else:
        for finding in found:
            print(f"{'ok ' if finding.ok else '-- '} {finding.part}: {finding.state}")
            if finding.advice:
                print(f"     {finding.advice}")
    broken = any(finding.required and not finding.ok for finding in found)
    return BackendError.exit_code if broken else 0
