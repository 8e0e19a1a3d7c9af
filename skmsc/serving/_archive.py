"""Files of named parts that are refused when cut short or altered: a zip archive with checksums."""

import hashlib
import io
import json
import os
import zipfile
import zlib
from importlib import metadata
from pathlib import Path

from skmsc import __version__

_CHECKSUMS = "checksums.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same parts give the same bytes


def version(package):
    """Version of a package that is here; skmsc may run from its sources, without metadata."""
    return __version__ if package == "skmsc" else metadata.version(package)


def write_archive(path, kind, parts):
    """Write named parts into one file, in one step, so that no reader sees half of it.

    Parameters
    ----------
    path : path-like
        File to write; one that is there is replaced.
    kind : str
        What the file is, which `read_archive` asks for.
    parts : dict of str to bytes
        What it holds.

    Returns
    -------
    digest : str
        SHA-256 of the file, in hexadecimal digits.
    """
    checksums = {name: hashlib.sha256(part).hexdigest() for name, part in parts.items()}
    head = json.dumps({"kind": kind, "sha256": checksums}, indent=1).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in {_CHECKSUMS: head, **parts}.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), part, zipfile.ZIP_DEFLATED)
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(buffer.getbuffer())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def read_archive(path, kind, sha256=None):
    """Read what `write_archive` wrote.

    Parameters
    ----------
    path : path-like
        The file.
    kind : str
        What it should be.
    sha256 : str, default=None
        What `write_archive` returned. The checksums inside tell that a file is whole, this that it
        is the one that was written.

    Returns
    -------
    parts : dict of str to bytes

    Raises
    ------
    ValueError
        When the file is no such archive, cut short, altered, or not the one with that digest.
    """
    content = Path(path).read_bytes()
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path} is not the file with the digest sha256={sha256!r}.")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        head = json.loads(parts.pop(_CHECKSUMS))
        found, checksums = head["kind"], dict(head["sha256"])
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError),
        *(LookupError, ValueError, TypeError, AttributeError),  # checksums that say something else
    ) as error:
        raise ValueError(f"{path} is cut short, damaged, or no file of this kind.") from error
    if found != kind:
        raise ValueError(f"{path} holds {found!r}, not {kind!r}.")
    if {name: hashlib.sha256(part).hexdigest() for name, part in parts.items()} != checksums:
        raise ValueError(f"{path} was altered: its parts do not have their checksums.")
    return parts
