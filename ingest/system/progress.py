"""The one progress bar."""

from __future__ import annotations

from tqdm import tqdm

from ingest.system.terminal import Stderr, printable


def bar(total: int | None, description: str, unit: str = "images", initial: int = 0, hidden: bool = False) -> tqdm:
    """A bar on stderr with the rate in ``unit``/s and the time left; in a file, a line every ten seconds."""
    stderr = Stderr()
    return tqdm(
        total=total,
        desc=printable(description),
        unit=f" {unit}",
        initial=initial,
        file=stderr,
        mininterval=0.1 if stderr.isatty() else 10,
        dynamic_ncols=True,
        disable=hidden,
    )
