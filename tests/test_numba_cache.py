"""Compiled functions where the installation and the home folder cannot be written, as in many containers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.system import jit

ROOT = Path(__file__).parent.parent

# Root may write anywhere unless it gives its capabilities up.
UNPRIVILEGED = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []

CODE = """
import os, numpy
from ingest import record
assert record._varint_at(numpy.array([5], numpy.uint8), 0, 1)[0] == 5
print(record.__file__, type(record._varint_at._cache).__name__, os.environ.get("NUMBA_CACHE_DIR"))
"""


@pytest.mark.skipif(bool(UNPRIVILEGED) and not shutil.which("setpriv"), reason="root without setpriv")
@pytest.mark.parametrize("temporary", ["free", "occupied"])
def test_neither_the_installation_nor_home_can_be_written(tmp_path: Path, temporary: str):
    site, home, scratch = (tmp_path / name for name in ("site", "home", "tmp"))
    shutil.copytree(ROOT / "ingest", site / "ingest", ignore=shutil.ignore_patterns("__pycache__"))
    home.mkdir()
    scratch.mkdir()
    own = scratch / f"ingest-numba-{os.geteuid()}"
    if temporary == "occupied":
        own.mkdir()
        own.chmod(0o777)
    scratch.chmod(0o1777)
    for folder in (home, site, *(path for path in site.rglob("*") if path.is_dir())):
        folder.chmod(0o555)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(scratch), "PYTHONPATH": str(site)}
    command = [*UNPRIVILEGED, sys.executable, "-B", "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=home)
    for folder in (site, *(path for path in site.rglob("*") if path.is_dir()), home, scratch):
        folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    source, cache, variable = done.stdout.split()
    assert source == str(site / "ingest" / "record.py")
    assert (cache, variable) == (("FunctionCache", str(own)) if temporary == "free" else ("NullCache", "None"))
    assert bool(list(scratch.rglob("*.nbi"))) == (temporary == "free")
    assert temporary != "free" or own.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("problem", ["link", "open to others", "unsafe above"])
def test_a_folder_that_others_may_write_to_is_not_trusted(
    tmp_path: Path, problem: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jit.tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"ingest-numba-{os.geteuid()}"
    if problem == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    elif problem == "open to others":
        folder.mkdir()
        folder.chmod(0o770)
    else:
        tmp_path.chmod(0o777)
    assert jit._temporary_folder() is None


def test_without_compilation_functions_are_as_they_are():
    code = "from ingest.system.jit import jit; f = lambda: 1; print(jit(f) is f)"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "True\n", done.stderr
