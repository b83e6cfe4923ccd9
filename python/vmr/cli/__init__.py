"""The command line: ``vmr COMMAND ...``.

Each command is a module with ``add_parser`` and ``run``; what it needs is imported in ``run``, so that
the help answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

from vmr.cli import (
    cache,
    compare,
    convert,
    data,
    doctor,
    evaluate,
    features,
    models,
    predict,
    retrieve,
    train,
)
from vmr.errors import VmrError

_EPILOG = """\
exit codes:
  0  done                      4  a video cannot be read
  1  an error inside vmr       5  a model is missing or failed
  2  the command is not right  6  a result or the cache cannot be written
  3  an input is not right     7  a training run cannot go on
                             130  interrupted
(vmr data check --strict: 1 where something is odd)
"""


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="vmr",
        description="Video moment retrieval: say where in a video a sentence happens.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    from vmr import __version__

    top.add_argument("--version", action="version", version=f"vmr {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (
        retrieve,
        train,
        predict,
        compare,
        evaluate,
        data,
        features,
        convert,
        models,
        cache,
        doctor,
    ):
        module.add_parser(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    warnings.showwarning = _show_warning
    options = _parsed(arguments)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
    except VmrError as error:
        print(f"vmr: error: {error}", file=sys.stderr)
        return _left(error.exit_code)
    except KeyboardInterrupt as error:
        # Of what runs long only a retrieval without a cache begins anew.
        kept = "what was computed is in the cache, and the same command goes on there"
        said = str(error) or ("" if getattr(options, "no_cache", True) else kept)
        print(f"vmr: interrupted{f'; {said}' if said else ''}", file=sys.stderr)
        return _left(130)
    except BrokenPipeError:
        # The reader of our output has gone; nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _left(code: int) -> int:
    """The exit code; the process ends here where a model is still at work for nobody."""
    calls = sys.modules.get("vmr.backends.calls")
    if calls is not None and calls.under_way():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; settings (KEY=VALUE) may stand among them, where argparse wants them together."""
    top = parser()
    options, left = top.parse_known_args(arguments)
    if left:
        known = hasattr(options, "settings") and not any(
            word.startswith("-") or "=" not in word for word in left
        )
        if not known:
            top.error(f"unrecognized arguments: {' '.join(left)}")
        options.settings = [*options.settings, *left]
    return options


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"vmr: warning: {message}", file=file or sys.stderr)
