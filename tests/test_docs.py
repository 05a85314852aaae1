"""The documents, as far as that can be held in seconds; support/docs_check.py runs what they tell a reader to run."""

from __future__ import annotations

import mmap
import re
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path

import pytest
from support.docs_check import DOCUMENTS, ROOT, Check, blocks, commands, flags_of, help_of, program_of, unknown_flags

import ingest
from ingest import formats
from ingest.baselines import BASELINES
from ingest.loading.options import LoaderOptions
from ingest.record import FIELDS
from ingest.sources.detect import kinds
from models import NETWORKS

SUBCOMMANDS = ("build-shards", "convert", "inspect", "profile", "synth", "verify")
PROGRAMS = [*(("ingest", name) for name in SUBCOMMANDS), ("train.py",)]
SCRIPTS = [("benchmarks/loaders.py",), ("benchmarks/mnist_questions.py",)]
OURS = ("README.md", *(name for name in DOCUMENTS if name.startswith("docs/")))


@cache
def prose(document: str) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", (ROOT / document).read_text(), flags=re.M | re.S)


@cache
def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path.relative_to(ROOT).as_posix()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_block_is_passed_over_for_its_language(document: str):
    for block in blocks(document):
        assert re.fullmatch(r"sh|console|python|(json|hexdump) \S+|", block.language), f"{document}:{block.line}"
        is_figure = not block.language and not re.search(r"^(\$|ingest|python|make) ", block.text, re.M)
        assert block.language or is_figure, f"{document}:{block.line}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str):
    links = re.findall(r"\]\(([^)\s]+)\)", prose(document))
    for link in links:
        if re.match(r"[a-z]+://", link):
            continue
        name, _, anchor = link.partition("#")
        path = ((ROOT / document).parent / name).resolve() if name else ROOT / document
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


def test_every_document_is_reached_from_the_readme():
    reached = {target for name in OURS for target in re.findall(r"([\w-]+\.md)", (ROOT / name).read_text())}
    assert {Path(name).name for name in OURS} - reached == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_have_the_flags_that_they_are_given(document: str):
    for block in blocks(document):
        if block.language in ("sh", "console"):
            for command in commands(block):
                for part in re.split(r" \| |&&|;", command.text):
                    assert unknown_flags(part.strip()) == set(), f"{document}:{command.line}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_flags_in_prose_are_flags_of_something(document: str):
    known = set().union(*(flags_of(help_of(program)) for program in PROGRAMS + SCRIPTS))
    for span in re.findall(r"`([^`]+)`", prose(document)):
        if span.startswith("--") or program_of(span):
            assert flags_of(span) - known == set(), span


@pytest.mark.parametrize("program", [("ingest",), *PROGRAMS], ids=" ".join)
def test_help_has_an_example(program: tuple[str, ...]):
    text = help_of(program)
    _, heading, examples = text.partition("\nexample")
    assert heading, f"{' '.join(program)} --help: no example"
    for line in examples.splitlines()[1:]:
        assert not unknown_flags(line.strip()), line


def test_every_command_is_among_those_held_here():
    found = re.findall(r"^    ([a-z][a-z-]+)(?: |$)", help_of(("ingest",)), re.M)
    assert sorted(found) == sorted(SUBCOMMANDS)


def text_of(document: str) -> str:
    """A document as one line."""
    return " ".join((ROOT / document).read_text().split())


def test_the_readme_is_an_overview():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 130
    assert any("for images, labels in ingest.Loader(" in line for line in lines[:50])


def test_the_pages_name_all_formats_sources_networks_and_loaders():
    assert kinds() in text_of("docs/packing.md")
    commands_page, training_page = text_of("docs/commands.md"), text_of("docs/training.md")
    assert commands_page.count(f"--format {'|'.join(sorted(formats.NAMES, reverse=True))}") == 2
    assert f"--against {','.join(BASELINES)}" in commands_page
    assert f"--loader {'|'.join(BASELINES)}" in training_page
    for name, network in NETWORKS.items():
        sizes, recipe = f"{network.image_size}, {network.min_image_size}", network.recipe
        row = rf"\| `{name}` \| [\d,]+( at {network.classes})? \| {recipe.batch_size}, {recipe.epochs} \| {sizes} \|"
        assert re.search(row, training_page), f"the table of networks: {row}"


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_the_page_of_commands_has_every_flag(name: str):
    text = (ROOT / "docs/commands.md").read_text()
    (section,) = re.findall(rf"^## ingest {name}$(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert flags_of(help_of(("ingest", name))) - {"--help"} == flags_of(section)


def test_the_pages_of_training_have_every_flag():
    pages = text_of("docs/training.md") + text_of("docs/commands.md")
    assert flags_of(help_of(("train.py",))) - {"--help"} - flags_of(pages) == set()


def test_the_page_of_the_loader_has_every_option_and_its_default():
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| ", (ROOT / "docs/loading.md").read_text(), re.M)
    defaults = {
        field.name: "required" if field.default is MISSING else f"`{field.default}`" for field in fields(LoaderOptions)
    }
    assert dict(rows) == defaults


def test_the_page_of_storage_has_every_variable():
    sources = "".join(path.read_text() for path in (ROOT / "ingest").rglob("*.py"))
    named = set(re.findall(r"\bINGEST_\w+", sources))
    assert named == set(re.findall(r"^\| `(INGEST_\w+)` \|", (ROOT / "docs/storage.md").read_text(), re.M))


def test_the_format_page_has_every_field():
    text = (ROOT / "docs/format.md").read_text()
    for field in FIELDS:
        assert f"| `{field.key.decode()}` |" in text, field.key


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of docs/format.md, drawn and built as it says there."""
    folder = tmp_path_factory.mktemp("example")
    drawing = next(block for block in blocks("docs/format.md") if 'Path("tiny/ramp")' in block.text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(drawing.text, {})
    for name in ("tfrecord", "lmdb"):
        ingest.build_shards(folder / "tiny", folder / f"tiny-{name}", format=name, shards=1, workers=0)
    return folder


def test_the_documented_manifest_is_the_real_one(example: Path):
    (block,) = [block for block in blocks("docs/format.md") if block.language.startswith("json ")]
    assert (example / block.language.removeprefix("json ")).read_text() == block.text + "\n"


@pytest.mark.parametrize("name", ["tfrecord", "lmdb"])
def test_the_documented_bytes_are_the_real_ones(example: Path, name: str):
    if name == "lmdb" and mmap.PAGESIZE != 4096:
        pytest.skip("the example is of pages of 4096 bytes")
    found = [block for block in blocks("docs/format.md") if block.language.startswith(f"hexdump tiny-{name}/")]
    assert len(found) == 2
    for block in found:
        path = example / block.language.removeprefix("hexdump ")
        data, shown = path.read_bytes(), 0
        for line in block.text.splitlines():
            at, digits = re.fullmatch(r"([0-9a-f]{4})  ((?:[0-9a-f]{2} ?)+)(?: .*)?", line).groups()
            content = bytes.fromhex(digits)
            assert data[int(at, 16) :][: len(content)] == content, line
            # Whole files but for LMDB's pages, which are mostly empty.
            assert path.suffix == ".lmdb" or int(at, 16) == shown, line
            shown = int(at, 16) + len(content)
        assert path.suffix == ".lmdb" or shown == len(data)


_DOCUMENT = """
```sh
touch made
export WORD=said; echo nothing
echo $WORD $(ls made) > \\
  heard && grep "said made" heard
```

```sh not run: needs the moon
rocket --to moon
```

```python needs pytest<8, no-such-package
raise SystemExit("not run")
```

```python needs pytest>=8
open("heard").read().index("said")
```

```console
$ ingest verify SHARDS [--decode] [--repair SRC [--labels FILE]]
whatever it prints
```

```python
open("heard").read().index("said")
```
"""


@pytest.mark.parametrize(
    ("block", "failure"),
    [
        ("", None),
        ("```sh\nls nowhere\n```", "31: ended with 2\n  ls nowhere\n"),
        ("```console\n$ ingest convert SHARDS OUT --fromat tfrecord|lmdb\n```", "31: no such flag: --fromat\n"),
        ("```python\nimage_bytes\n```", "31: ended with 1\n  image_bytes\n"),
        ("```sh\nmake everything\n```", "31: ended with 2\n"),
    ],
)
def test_what_does_not_run_as_it_stands_is_named(tmp_path: Path, block: str, failure: str | None):
    (tmp_path / "stand-ins").mkdir()
    document = tmp_path / "page.md"
    document.write_text(f"{_DOCUMENT}\n{block}\n")
    (tmp_path / "scratch").mkdir()
    check = Check(tmp_path / "scratch", tmp_path / "stand-ins")
    check.document(str(document))
    assert check.counts == {"run": 5, "synopses": 1}
    whys = [note.split(": ", 2)[2] for note in check.notes]
    assert whys == ["needs the moon", f"it needs pytest<8, and {pytest.__version__} is installed"]
    found = [text.removeprefix(f"{document}:") for text in check.failures]
    assert len(found) == (failure is not None)
    assert all(text.startswith(failure) for text in found)
