"""The architecture, held: who may import whom, and what importing may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

# A part of the package imports from those of the levels before its own. One that names others of its own level may
# import from these, too.
LEVELS: tuple[dict[str, set[str]], ...] = (
    {"errors": set(), "sampler": set()},
    {"system": set()},
    {"record": set()},
    {"formats": set(), "jpeg": set()},
    {"sources": set()},
    {"dataset": set()},
    {"loading": set()},
    {"packing": set(), "adapters": set(), "baselines": set()},
    {"tools": set(), "profiling": set()},
    {"cli": set()},
    {"__main__": set(), "__init__": {"__main__"}},
)

# The modules, or the packages, that may import each library from elsewhere; no other library may be imported.
LIBRARIES = {
    "aiohttp": {"system/remote.py"},
    "crc32c": {"formats/"},
    "cv2": {"loading/transforms.py"},
    "distributed": {"system/dask_pool.py"},
    "fsspec": {"system/remote.py"},
    "jax": {"adapters/jax.py"},
    "llvmlite": {"jpeg/vectors.py"},
    "lmdb": {"formats/lmdb.py"},
    "numba": {"system/jit.py", "jpeg/vectors.py"},
    "numpy": {""},
    "PIL": {"jpeg/", "baselines/naive.py", "tools/contact_sheet.py"},
    "pyarrow": {"sources/parquet.py"},
    "scipy": {"sources/labels.py"},
    "simplejpeg": {"jpeg/codec.py"},
    "tensorflow": {"adapters/tensorflow.py", "baselines/"},
    "tensorpack": {"adapters/tensorpack.py", "baselines/tensorpack.py"},
    "torch": {"adapters/torch.py"},
    "tqdm": {"system/progress.py"},
    "upath": {"system/remote.py"},
}


class Import(NamedTuple):
    """A module that a file imports, at a line of it."""

    file: str
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.name}"


def imports_of(path: Path, package: Path) -> Iterator[Import]:
    """All imports of a file, anywhere in it; of ``from a import b`` the name is a.b."""
    file = path.relative_to(package).as_posix()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (Import(file, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (Import(file, node.lineno, f"{module}.{alias.name}") for alias in node.names)


def all_imports(package: Path) -> list[Import]:
    return [each for path in sorted(package.rglob("*.py")) for each in imports_of(path, package)]


def part_of(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def may_import(importer: str, imported: str) -> bool:
    level = {part: number for number, parts in enumerate(LEVELS) for part in parts}
    is_before = level[imported] < level[importer]
    return importer == imported or is_before or imported in LEVELS[level[importer]][importer]


def broken_levels(package: Path) -> list[str]:
    """Imports of a part of this package that the levels do not allow."""
    parts = {part for parts in LEVELS for part in parts}
    within = [(each, each.name.split(".")[1]) for each in all_imports(package) if each.name.startswith("ingest.")]
    return [
        f"{each}: {part_of(each.file)} may not"
        for each, imported in within
        if imported in parts and not may_import(part_of(each.file), imported)
    ]


def misplaced_libraries(package: Path) -> list[str]:
    """Imports of a library where it has no place."""
    outside = [each for each in all_imports(package) if top(each) not in {*sys.stdlib_module_names, "ingest"}]
    return [
        f"{each}: {top(each)} has its place in {', '.join(sorted(LIBRARIES.get(top(each), {'no module'})))}"
        for each in outside
        if not any(each.file.startswith(place) for place in LIBRARIES.get(top(each), ()))
    ]


def top(each: Import) -> str:
    return each.name.split(".")[0]


def test_every_part_has_a_level():
    found = {part_of(path.relative_to(ROOT / "ingest").as_posix()) for path in (ROOT / "ingest").rglob("*.py")}
    assert found == {part for parts in LEVELS for part in parts}


def test_imports_go_one_way():
    assert broken_levels(ROOT / "ingest") == []


def test_each_library_has_its_place():
    assert misplaced_libraries(ROOT / "ingest") == []
    used = [(top(each), each.file) for each in all_imports(ROOT / "ingest")]
    places = [(library, place) for library, files in LIBRARIES.items() for place in files]
    unused = [pair for pair in places if not any(name == pair[0] and file.startswith(pair[1]) for name, file in used)]
    assert unused == []


def test_no_import_is_relative():
    assert [str(each) for each in all_imports(ROOT / "ingest") if each.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        ("sources/odd.py", "from ingest.dataset.manifest import Manifest", "sources may not"),
        ("sampler.py", "def f():\n    import ingest.packing.build", "sampler may not"),
        ("record.py", "import cv2", "cv2 has its place in loading/transforms.py"),
        ("loading/fast.py", "import torchvision.io", "torchvision has its place in no module"),
        ("tools/odd.py", "if True:\n    from tensorpack.dataflow import DataFlow", "tensorpack has its place in"),
    ],
)
def test_a_wrong_import_is_named_with_file_and_line(tmp_path: Path, file: str, line: str, expected: str):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{line}\n")
    (found,) = {*broken_levels(tmp_path), *misplaced_libraries(tmp_path)}
    assert found.startswith(f"{file}:{line.count(chr(10)) + 1} imports ")
    assert expected in found


def test_models_and_ingest_do_not_know_each_other():
    assert [str(each) for each in all_imports(ROOT / "ingest") if top(each) in ("models", "train")] == []
    assert [str(each) for each in all_imports(ROOT / "models") if top(each) in ("ingest", "train")] == []


def loaded_by(code: str, libraries: tuple[str, ...]) -> list[str]:
    code = f"import sys\n{code}\nprint(*[name for name in {libraries} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_importing_ingest_loads_nothing_heavy():
    assert loaded_by("import ingest", ("tensorflow", "tensorpack", "cv2", "lmdb", "numpy")) == []


def test_workers_load_no_framework():
    frameworks = ("tensorflow", "tensorpack", "torch", "jax")
    assert loaded_by("import ingest.loading.batches, ingest.packing.build", frameworks) == []
