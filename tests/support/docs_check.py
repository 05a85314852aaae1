#!/usr/bin/env python3
"""Run what the documents tell a reader to run, as it stands there, and name what fails: ``make docs-check``.

Every block of README.md, docs/ and benchmarks/README.md in ``sh``, ``console`` or ``python`` is run, in order, in a
folder for each document that is a checkout with .venv, and with stand-ins for what the reader has: a few pictures under
ImageNet's names, MNIST's files, shards, a trained network. A command has a shell of its own; the block's lines with
export, cd and source go before it.

    ```sh not run: REASON      what cannot be run here, such as a cluster: only its syntax is checked
    ```python needs torch      what is run where these packages are installed, in these versions (``keras>=3, jax``);
                               elsewhere only its syntax is checked
    $ ingest verify SHARDS     a synopsis, with metavariables in capitals: only its flags are checked
    make TARGET                what they do is run elsewhere: only that make knows the target is checked

A training that lasts is ended by Ctrl-C once it has made a step, and must say that it saved; the reader's, finished, is
put in its place. All of these are counted or listed at the end, so that nothing is passed over in silence.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")), "benchmarks/README.md")

TRAINING_SECONDS, COMMAND_SECONDS = 25, 400

# What a command of a document writes, so that no stand-in may lie there: OUT, a --model-dir, a --out.
WRITES = re.compile(r"ingest synth (\S+)|build-shards \S+ (\S+)|convert \S+ (\S+)|--model-dir (\S+)|--out (\S+)")
SETS = re.compile(r"(export|cd|source) ")
A_STEP = re.compile(r"training [\w-]+: .*?\| *[1-9][\d.]*[kM]?/")


class Block(NamedTuple):
    """A fenced block: where its text begins, which packages it needs, and why it is not run, if it is not."""

    document: str
    line: int
    language: str
    needs: tuple[str, ...]
    reason: str | None
    text: str


class Command(NamedTuple):
    """A command of a block, its continued lines joined."""

    document: str
    line: int
    text: str


class DocsError(Exception):
    """A command that did not do what a document says."""


def blocks(document: str) -> list[Block]:
    """All fenced blocks of a document."""
    found, opened, text = [], None, []
    for number, line in enumerate((ROOT / document).read_text().splitlines(), 1):
        if line.startswith("```") and opened is None:
            words, _, reason = line.removeprefix("```").partition(" not run: ")
            language, _, packages = words.partition(" needs ")
            needs = tuple(package.strip() for package in packages.split(",") if package)
            opened, text = (number + 1, language.strip(), needs, reason or lacking(needs)), []
        elif line.startswith("```"):
            found.append(Block(document, *opened, "\n".join(text)))
            opened = None
        else:
            text.append(line)
    return found


def commands(block: Block) -> list[Command]:
    """The commands of a block of ``sh``, or behind the prompts of one of ``console``."""
    found: list[Command] = []
    continues = False
    for number, line in enumerate(block.text.splitlines(), block.line):
        if continues:
            found[-1] = found[-1]._replace(text=f"{found[-1].text}\n{line}")
        elif block.language == "console" and line.startswith("$ "):
            found.append(Command(block.document, number, line.removeprefix("$ ")))
        elif block.language == "sh" and line.strip() and not line.startswith("#"):
            found.append(Command(block.document, number, line))
        else:
            continue
        continues = line.endswith("\\")
    return found


def units(block: Block) -> list[Command]:
    """What is run of a block at a time: each command, or all of it."""
    whole = Command(block.document, block.line, block.text)
    return [whole] if block.reason or block.language == "python" else commands(block)


def lacking(needs: tuple[str, ...]) -> str | None:
    """Why a block cannot be run that needs these packages: the first that is not installed in such a version."""
    for requirement in map(Requirement, needs):
        installed = installed_version(requirement.name) or installed_version(f"{requirement.name}-cpu")
        if installed is None:
            return f"{requirement.name} is not installed"
        if not requirement.specifier.contains(installed, prereleases=True):
            return f"it needs {requirement}, and {installed} is installed"
    return None


def installed_version(package: str) -> str | None:
    """The version of a package, if it is installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def is_synopsis(text: str) -> bool:
    """Whether a command line has metavariables, options in brackets or alternatives, and cannot be typed as it is."""
    return any(re.fullmatch(r"\[.*|[A-Z][A-Z_]+(\.\w+)?\]*|\w+\|[\w|.]+", word) for word in text.split())


def flags_of(text: str) -> set[str]:
    """The flags in a command line."""
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))


@cache
def help_of(program: tuple[str, ...]) -> str:
    """What ``PROGRAM --help`` prints."""
    words = [sys.executable, *(("-m", *program) if program[0] == "ingest" else program), "--help"]
    return subprocess.run(words, cwd=ROOT, env=environment(ROOT), capture_output=True, text=True, check=True).stdout


def program_of(text: str) -> tuple[str, ...] | None:
    """Which of our programs a command line calls, as words that ``--help`` may follow."""
    match = re.match(
        r"(?:\S+/)?(?:(ingest) ([a-z][a-z-]+)|(?:\S*python )?(train\.py)|python (benchmarks/\w+\.py))", text
    )
    return tuple(word for word in match.groups() if word) if match else None


def unknown_flags(text: str) -> set[str]:
    """The flags of a command line that its program does not have; none where the program is not ours."""
    program = program_of(text)
    return flags_of(text) - flags_of(help_of(program)) if program else set()


def environment(folder: Path) -> dict[str, str]:
    """A reader's: the commands of .venv at hand, this checkout's package, and nothing of ours besides."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("INGEST_", "TF_CONFIG", "MAKE"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {
        **kept,
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "120",
        "PWD": str(folder),
    }


def checkout(folder: Path, text: str, stand_ins: Path) -> None:
    """What a reader of a document has: the tracked files, .venv, and the stand-ins that it names and does not make."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folder.mkdir()
    for name in sorted({path.split("/")[0] for path in listed.splitlines()}):
        (folder / name).symlink_to(ROOT / name)
    # Not a link to .venv itself, which 'make install' might find too old and clear.
    (folder / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != "installed":
            (folder / ".venv" / path.name).symlink_to(path)
    (folder / ".venv/installed").touch()
    made = {name.strip("\"'") for groups in WRITES.findall(text) for name in groups if name}
    for top in stand_ins.iterdir():
        for place in [top] if top.name in ("photos", "hf", "mnist") or not top.is_dir() else list(top.iterdir()):
            name = place.relative_to(stand_ins).as_posix()
            if name not in made and re.search(rf"\b{re.escape(name)}\b", text):
                copy(place, folder / name)


def copy(source: Path, to: Path) -> None:
    """Put a stand-in to its place, in place of what is there."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if to.is_dir():
        shutil.rmtree(to)
    shutil.copytree(source, to) if source.is_dir() else shutil.copy(source, to)


def run(words: list[str], text: str, folder: Path, log: Path) -> bool:
    """Run a command to its end, or, a training that lasts, to its first step. Returns whether it was cut there."""
    is_training = "train.py" in text and "--model-dir" in text
    start, is_cut = time.monotonic(), False
    with log.open("w") as output:
        process = subprocess.Popen(
            words, cwd=folder, env=environment(folder), stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            while process.poll() is None:
                time.sleep(0.1)
                seconds = time.monotonic() - start
                if is_training and not is_cut and seconds > TRAINING_SECONDS and A_STEP.search(log.read_text()):
                    os.killpg(process.pid, signal.SIGINT)
                    is_cut = True
                if seconds > COMMAND_SECONDS:
                    raise DocsError(f"not done after {COMMAND_SECONDS} s")
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode == 0:
        return False
    if not is_cut or process.returncode != 130:
        raise DocsError(f"ended with {process.returncode}")
    if "saved at step" not in log.read_text():
        raise DocsError("Ctrl-C: it does not say at which step it saved")
    return True


class Check:
    """Runs documents, and keeps count of what was not run, and why."""

    def __init__(self, scratch: Path, stand_ins: Path):
        self._scratch, self._log, self._stand_ins = scratch, scratch / "log", stand_ins
        self.counts = {"run": 0, "synopses": 0}
        self.notes: list[str] = []
        self.failures: list[str] = []

    def document(self, name: str) -> None:
        """Run all blocks of a document; at the first failure, note it and go on with the next document."""
        folder = self._scratch / name.replace("/", "-").removesuffix(".md")
        checkout(folder, (ROOT / name).read_text(), self._stand_ins)
        runnable = [block for block in blocks(name) if block.language in ("sh", "console", "python")]
        for block, command in [(each, unit) for each in runnable for unit in units(each)]:
            self._log.write_text("")
            try:
                self._one(block, command, folder)
            except DocsError as failure:
                output = "".join(f"  | {line}\n" for line in self._log.read_text().split("\n")[-40:])
                self.failures.append(f"{name}:{command.line}: {failure}\n  {command.text}\n{output}")
                print(f"FAILED {self.failures[-1]}", flush=True)
                return

    def _one(self, block: Block, command: Command, folder: Path) -> None:
        where, is_python = f"{command.document}:{command.line}", block.language == "python"
        if block.reason:
            check = (
                [sys.executable, "-c", "import sys; compile(sys.argv[1], '', 'exec')"] if is_python else ["bash", "-nc"]
            )
            self._execute([*check, command.text], command, folder)
            self.notes.append(f"not run: {where}: {block.reason}")
        elif is_python:
            (folder / "block.py").write_text(command.text + "\n")
            self._execute([sys.executable, "block.py"], command, folder)
            self.counts["run"] += 1
        elif is_synopsis(command.text):
            if wrong := unknown_flags(command.text):
                raise DocsError(f"no such flag: {', '.join(sorted(wrong))}")
            self.counts["synopses"] += 1
        elif command.text.startswith("make "):
            self._execute(["bash", "-c", command.text.replace("make ", "make -n ", 1)], command, folder)
            self.notes.append(f"run elsewhere: {where}: {command.text.split('#')[0].strip()}")
        else:
            setting = [other.text for other in commands(block) if other.line < command.line and SETS.match(other.text)]
            self._execute(["bash", "-c", "\n".join([*setting, command.text])], command, folder)
            self.counts["run"] += 1

    def _execute(self, words: list[str], command: Command, folder: Path) -> None:
        start = time.monotonic()
        was_cut = run(words, command.text, folder, self._log)
        if was_cut:
            place = re.search(r"--model-dir (\S+)", command.text)[1]
            copy(self._stand_ins / "runs/resnet18", folder / place)
            self.notes.append(f"ended by Ctrl-C after a step: {command.document}:{command.line}: {place}")
        first = command.text.split("\n")[0]
        print(f"{command.document}:{command.line}  {first[:90]}  {time.monotonic() - start:.1f} s", flush=True)


def main() -> int:
    """Check the documents that are given, or all; 1 if something failed."""
    from support.docs_stand_ins import make

    with tempfile.TemporaryDirectory() as scratch:
        check = Check(Path(scratch), Path(scratch) / "stand-ins")
        make(Path(scratch) / "stand-ins", with_training=lacking(("tensorflow<2.16",)) is None)
        for name in sys.argv[1:] or DOCUMENTS:
            check.document(name)
    print("", *check.notes, sep="\n")
    print(
        f"{check.counts['run']} commands and Python blocks run, {check.counts['synopses']} synopses checked, "
        f"{len(check.notes)} notes, {len(check.failures)} failures"
    )
    return bool(check.failures)


if __name__ == "__main__":
    sys.exit(main())
