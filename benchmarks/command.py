"""The command line that all questions share."""

from __future__ import annotations

import argparse
import atexit
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp


def parse_arguments(description, *, needs_data, flags=None, argv=None):
    """``--data DIR`` and ``--quick``; a quick run without data gets simulated files.

    `flags` are others of a question's own: name -> help.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of the public data sets; may be left out of a quick run, which then simulates",
    )
    parser.add_argument(
        "--quick", action="store_true", help="few repeats: shows that the code runs, no evidence"
    )
    for name, text in (flags or {}).items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    arguments = parser.parse_args(argv)
    if needs_data and arguments.data is None:
        if not arguments.quick:
            parser.error("--data DIR is needed, or --quick")
        arguments.data = _simulated_files()
    return arguments


def _simulated_files():
    """A folder of simulated files, removed when Python ends."""
    from benchmarks.simulated import write_files

    folder = Path(mkdtemp(prefix="skmsc-benchmarks-"))
    atexit.register(rmtree, folder)
    write_files(folder)
    return folder
