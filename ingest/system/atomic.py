"""Files that are either whole or absent, whatever happens while they are written."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.system import paths

TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; afterwards flush it to disk and rename it to ``path``.

    If the body raises, the temporary file is removed and ``path`` stays as it was. A process killed in the body
    leaves ``NAME.????????.tmp`` behind, never a partial ``NAME``; no two writers use the same. The temporary file of a
    remote ``path`` is a local one.
    """
    if paths.is_remote(path):
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch) / path.name
            paths.upload(Path(scratch) / path.name, path)
        return
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        yield temporary
        paths.sync(temporary)
        temporary.replace(path)
        # The name is safe only once the folder that holds it is on disk, too.
        paths.sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``: after a crash the file has either its old content or the new."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
