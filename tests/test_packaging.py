"""The wheel: what is in it, and that it does its work away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from support.images import put

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, as pip would put it into site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "content")
    return folder / "content"


def run(unpacked: Path, folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """A command of the wheel, in another folder; the editable installation stands behind it."""
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_wheel_has_all_modules_and_says_that_it_is_typed(unpacked: Path):
    ours = {path.relative_to(ROOT) for path in (ROOT / "ingest").rglob("*.py")} | {Path("ingest/py.typed")}
    found = {path.relative_to(unpacked) for path in unpacked.rglob("*") if path.is_file()}
    assert {path for path in found if ".dist-info" not in str(path)} == ours
    (entry_points,) = unpacked.glob("*.dist-info/entry_points.txt")
    assert entry_points.read_text().split("\n\n")[0] == "[console_scripts]\ningest = ingest.cli:main\n"


def test_the_wheel_works_without_the_checkout(unpacked: Path, tmp_path: Path):
    where = run(unpacked, tmp_path, "-c", "import ingest; print(ingest.__file__)").stdout.strip()
    assert Path(where) == unpacked / "ingest" / "__init__.py"
    assert run(unpacked, tmp_path, "-m", "ingest", "--version").stdout == f"ingest {version('ingest-toolkit')}\n"
    assert run(unpacked, tmp_path, "-m", "ingest", "synth", "photos", "--classes", 2, "--images", 20).returncode == 0


def test_other_packages_called_models_and_train_are_left_alone(unpacked: Path, shards: dict[str, Path], tmp_path: Path):
    """Beside the wheel's content, as in site-packages; each would tell if it were imported."""
    site = tmp_path / "site-packages"
    theirs = {f"{name}/__init__.py": f"print('their {name}')".encode() for name in ("models", "train")}
    theirs |= {"train.py": b"print('their train.py')", "pyproject.toml": b'[project]\nname = "theirs"\n'}
    put(site, theirs)
    shutil.copytree(unpacked, site, dirs_exist_ok=True)
    assert {name: (site / name).read_bytes() for name in theirs} == theirs
    assert run(site, tmp_path, "-c", "import models, train").stdout.splitlines() == ["their models", "their train"]
    profiled = run(site, tmp_path, "-m", "ingest", "profile", shards["lmdb"], "--model", "lenet")
    assert (profiled.returncode, profiled.stdout) == (2, "")
    assert profiled.stderr.startswith("ingest profile: error: --model needs train.py, which is not in the installed")
    assert len(profiled.stderr.splitlines()) == 1


def test_the_public_names_have_types(tmp_path: Path):
    (tmp_path / "user.py").write_text(
        "import ingest\n"
        "reveal_type(ingest.load_manifest('shards').classes)\n"
        "reveal_type(ingest.build_shards('photos', 'shards', format='lmdb').records)\n"
        "ingest.dataflow('shards', batch_size='many', training=True)\n"
        "reveal_type(ingest.Loader('shards', batch_size=4, training=True).state_dict())\n"
        "ingest.Loader('shards', batch_size='many', training=True)\n"
        "reveal_type([batch.images for batch in ingest.Loader('shards', batch_size=4, training=True)])\n"
    )
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--config-file", os.devnull, "--ignore-missing-imports", "user.py"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert 'Revealed type is "tuple[str, ...]"' in shown.replace("builtins.", ""), shown
    assert 'Revealed type is "int"' in shown.replace("builtins.", ""), shown
    for name in ("dataflow", "Loader"):
        assert f'Argument "batch_size" to "{name}" has incompatible type "str"; expected "int"' in shown, shown
    assert 'Revealed type is "dict[str, Any]"' in shown.replace("builtins.", ""), shown
    assert 'Revealed type is "list[numpy.ndarray' in shown.replace("builtins.", ""), shown
