"""The command line that all questions share."""

from __future__ import annotations

import argparse
from pathlib import Path


def parse_arguments(description, *, needs_data, argv=None):
    """``--data DIR`` and ``--quick``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=needs_data,
        metavar="DIR",
        help="folder of the public data sets",
    )
    parser.add_argument(
        "--quick", action="store_true", help="few repeats: shows that the code runs, no evidence"
    )
    return parser.parse_args(argv)
