"""The architecture, held: who may import whom, and what importing may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

# A module imports only from floors below its own.
FLOORS = [
    {"errors", "compiled", "terminal"},
    {"options"},
    {"progress", "remote", "sample", "order", "shuffle", "workers", "slots"},
    {"files"},
    {"atomic", "cluster", "foreign"},
    {"jpeg", "formats"},
    {"views"},
    {"manifest", "sources", "synth"},
    {"cache", "output", "check"},
    {"build", "dataset"},
    {"batches", "convert", "estimate", "inspection", "sheet", "verify"},
    {"stream"},
    {"feed", "loaders"},
    {"profile"},
    {"cli"},
    {"__main__"},
]

# Each outside library has one room, and may stand with the loaders that ours is compared with.
ROOMS = {
    "numba": {"compiled"},
    "simplejpeg": {"jpeg"},
    "PIL": {"jpeg", "loaders", "sheet"},
    "cv2": {"views"},
    "lmdb": {"formats"},
    "crc32c": {"formats"},
    "distributed": {"cluster"},
    "pyarrow": {"sources"},
    "scipy": {"sources"},
    "upath": {"remote"},
    "tqdm": {"progress"},
    "tensorpack": {"stream", "loaders"},
    "tensorflow": {"feed", "loaders"},
}


def imports_of(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def modules() -> dict[Path, str]:
    """All files of the package and the room each belongs to; ``__init__`` belongs to the whole house."""
    files = (path for path in (ROOT / "ingest").rglob("*.py") if path != ROOT / "ingest" / "__init__.py")
    return {path: path.relative_to(ROOT / "ingest").parts[0].removesuffix(".py") for path in files}


def test_every_room_has_a_floor():
    assert {room for floor in FLOORS for room in floor} == set(modules().values())


def test_imports_go_down():
    height = {room: level for level, floor in enumerate(FLOORS) for room in floor}
    wrong = []
    for path, room in modules().items():
        for name in imports_of(path):
            parts = name.split(".")
            if parts[0] != "ingest" or len(parts) < 2 or parts[1] not in height or parts[1] == room:
                continue
            if height[parts[1]] >= height[room]:
                wrong.append(f"{room} imports {parts[1]}")
    assert wrong == []


def test_each_library_has_one_room():
    found: dict[str, set[str]] = {library: set() for library in ROOMS}
    for path, room in modules().items():
        for name in imports_of(path):
            if name.split(".")[0] in found:
                found[name.split(".")[0]].add(room)
    assert found == ROOMS


def test_models_and_ingest_do_not_know_each_other():
    assert all(not name.startswith("models") for path in modules() for name in imports_of(path))
    for path in (ROOT / "models").glob("*.py"):
        assert all(not name.startswith("ingest") for name in imports_of(path)), path


def test_importing_ingest_loads_nothing_heavy():
    heavy = ("tensorflow", "tensorpack", "cv2", "lmdb", "numpy")
    code = f"import sys, ingest; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_workers_load_no_tensorflow():
    code = "import sys, ingest.batches, ingest.build; print('tensorflow' in sys.modules or 'tensorpack' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
