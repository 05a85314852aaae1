"""Tars, read in place: where each image lies is found once, and its bytes are read from there. Nothing is unpacked.

a tar of tars            ILSVRC2012_img_train.tar: a tar of images for each class, named after it
a folder of such tars
CLASS/IMAGE files        in one tar, or in a folder of tars
WebDataset               KEY.jpg and KEY.cls, in one tar or in a folder of tars
images without folders   ILSVRC2012_img_val.tar, with labels

Every member is an entry, which is packed or quarantined with a reason, or is counted in ``Source.passed_over``. Folders
do not count, nor does the tar of a class, since what is in it does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from ingest.errors import BadSampleError, SourceError, fields_of
from ingest.record import Sample
from ingest.sources import ignored, tar_headers
from ingest.sources.base import NO_CLASS, Entries, Entry, Source, label_all, label_number
from ingest.sources.labels import labels_of
from ingest.sources.tar_headers import FOLDER, NO_FILE, NO_NAME, OUTSIDE, SOUND, Member
from ingest.system import paths

# What is wrong with an entry; its number is the last of the entry's `location`.
_NO_FOLDER, _NO_LABEL, _NO_IMAGE, _NO_TAR, _HIDDEN, _SEVERAL, _NO_KEY, _TOO_LARGE, _UNLABELLED = range(100, 109)
_LARGEST_BYTES = 2**29  # as many pixels as can be packed, uncompressed, with 16 bytes each
_FAULTS = tar_headers.FAULTS | {
    _NO_FOLDER: "not in a class folder",
    _NO_LABEL: "no .cls beside it says its class, or one out of range",
    _NO_IMAGE: "a .cls without an image beside it",
    _NO_TAR: "not a tar, as the others are",
    _HIDDEN: "hidden, and so in no class",
    _SEVERAL: "its key has several images, or several .cls: give each image a key and a .cls of its own",
    _NO_KEY: "not named KEY.SUFFIX, as a WebDataset's members are",
    _TOO_LARGE: f"more than {_LARGEST_BYTES:,} bytes, which no image has",
    _UNLABELLED: "its label is missing or out of range",
}

# What an image is called in a WebDataset; whether it can be decoded is another question.
_IMAGE_SUFFIXES = {
    "jpg", "jpeg", "jpe", "jfif", "jp2", "jls", "jxl", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "pbm",
    "pnm", "heic", "heif", "avif",
}  # fmt: skip
_COMPRESSED = re.compile(r".+\.(tar\.(gz|bz2?|xz|lzma|zst|lz4|Z)|tgz|tbz2?|txz|tzst)", re.IGNORECASE)
_PLAIN_FIELD = re.compile(r"[a-z0-9_.-]{1,24}")

_FIELDS = 20
"""Kinds of WebDataset's fields that are counted each by its name; how many there are, the archive says."""

_CLS_BYTES = 1024
"""The name or number of a class has no more."""

_PEEK_MEMBERS, _MAX_NAMED = 8, 3
"""First members by which an archive in a folder is known; damaged archives that an error names."""

_Key = tuple[int, str]  # of a sample: its archive, and the name of its .cls without the suffix


@dataclass(frozen=True)
class TarReader:
    """Reads members of the archives ``paths``; an entry's location is (number of the archive, byte, size, fault)."""

    paths: tuple[Path, ...]

    def __call__(self, entry: Entry) -> Sample:
        """The bytes of a member."""
        number, offset, size_bytes, fault = entry.location
        if fault:
            raise BadSampleError(_FAULTS[fault], path=self.paths[number], key=entry.key)
        return Sample(entry.key, entry.label, _read(self.paths[number], offset, size_bytes))


@dataclass(frozen=True)
class _Archives:
    """The archives that are opened as one source, what else lies beside them, and what is passed over, by rule."""

    paths: tuple[Path, ...]
    strays: list[Member] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)

    def members(self, classes: Sequence[str] = ()) -> Iterator[Member]:
        """The members of all, below the class of each archive where there are ``classes``.

        Raises SourceError at the end, which names all archives that cannot be read.
        """
        wrong: list[SourceError] = []
        for number, path in enumerate(self.paths):
            try:
                with path.open("rb") as file:
                    kept = self.kept(tar_headers.members(file, path, number, 0))
                    yield from _with_class_prefix(kept, classes[number], path) if classes else kept
            except SourceError as error:
                wrong.append(error)
            except OSError as error:
                wrong.append(_unreadable(path, error))
        _check_none_wrong(wrong)

    def kept(self, members: Iterable[Member]) -> Iterator[Member]:
        """Those members that are not passed over."""
        for member in members:
            rule = next(filter(None, map(ignored.rule, member.name.split("/"))), None)
            if rule is None:
                yield member
            elif member.fault != FOLDER:
                self.passed_over[rule] += 1

    def source(self, classes: Iterable[str], entries: Iterable[Entry]) -> Source:
        """The source of these entries, and of the strays."""
        all_entries = Entries(self._with_unique_keys(chain(entries, map(_bad, self.strays))))
        return Source(tuple(classes), all_entries, TarReader(self.paths), passed_over=dict(self.passed_over))

    def _with_unique_keys(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The entries, with their places in the keys of those that cannot be packed and are of the same name."""
        seen = set()
        for entry in entries:
            if entry.label == NO_CLASS and entry.key in seen:
                number, offset = entry.location[:2]
                entry = entry._replace(key=f"{entry.key} ({self.paths[number].name}, byte {offset})")
            elif entry.label == NO_CLASS:
                seen.add(entry.key)
            yield entry


KIND = "a tar or a folder of tars"


def open_source(path: Path) -> Source | None:
    """The tar, or folder of tars, at ``path``; None where it is something else.

    Raises SourceError where an archive is cut short, damaged, compressed or cannot be read, or its images have no
    classes. The error names all archives of a folder that are damaged.
    """
    return _open(path, None)


def open_labelled(path: Path, labels: Path) -> Source | None:
    """The tar at ``path``, by the labels at ``labels``; None where it is something else. Errors are open_source's."""
    return _open(path, labels)


def _open(path: Path, labels: Path | None) -> Source | None:
    if path.is_file():
        if not _is_tar(path):
            _check_not_compressed(path)
            if not _is_named_tar(path.name):
                return None
        return _of_archive(_Archives((path,)), labels)
    archives = None if labels else _archives_in(path)
    if archives is None:
        return None
    return _of_archive(archives, labels) if len(archives.paths) == 1 else _of_archives(archives)


def _archives_in(folder: Path) -> _Archives | None:
    """The tars in a folder that has no folders in it but hidden ones and junk; None where there are no tars."""
    listing = sorted(folder.iterdir()) if folder.is_dir() else []
    rules = {path: ignored.rule(path.name) for path in listing}
    hidden = [path for path in listing if path.name.startswith(".") and not rules[path]]
    visible = [path for path in listing if not path.name.startswith(".") and not rules[path]]
    if any(path.is_dir() for path in visible):
        return None
    faults, unread = _faults_of(visible)
    if SOUND not in faults.values() and not any(_is_named_tar(path.name) for path in unread):
        return None
    _check_none_wrong([_unreadable(path, error) for path, error in unread.items()])
    for path in [path for path, fault in faults.items() if fault == _NO_TAR]:
        _check_not_compressed(path)
        # A class without images is zeros alone; what else is named so is damaged, which shows when it is read.
        faults[path] = SOUND if _is_named_tar(path.name) else _NO_TAR
    faults |= {file: _HIDDEN for path in hidden for file in _files_in(path)}
    above = len(folder.parts)
    strays = [
        Member(name="/".join(path.parts[above:]), archive=0, offset=0, size_bytes=0, fault=fault, is_tar=False)
        for path, fault in faults.items()
        if fault
    ]
    passed_over = Counter(rule for path, rule in rules.items() if rule for _ in _files_in(path))
    return _Archives(tuple(path for path, fault in faults.items() if not fault), strays, passed_over)


def _faults_of(paths: list[Path]) -> tuple[dict[Path, int], dict[Path, OSError]]:
    """What is wrong with each file in a folder of tars, and those that cannot be read."""
    faults, unread = {}, {}
    for path in paths:
        try:
            path.stat()  # fails where a link leads to nothing
            faults[path] = NO_FILE if not path.is_file() else SOUND if _is_tar(path) else _NO_TAR
        except OSError as error:
            unread[path] = error
    return faults, unread


def _of_archive(archives: _Archives, labels: Path | None) -> Source:
    """The source of one archive: of class tars, or of images."""
    members = list(archives.members())
    sound = [member for member in members if not member.fault]
    _check_members_not_compressed(archives.paths[0], sound)
    tars = [member for member in sound if _is_class_tar(member)]
    # There may be a README beside class tars, and a stray tar among images.
    if not any(member.is_tar for member in tars) or 2 * len(tars) < len(sound):
        return _of_images(archives, members, labels)
    _check_no_labels(archives, labels)
    classes = _class_names(archives.paths[0], [member.name for member in tars])
    return _of_classes(archives, classes, _class_tar_members(archives, members))


def _class_tar_members(archives: _Archives, members: list[Member]) -> Iterator[Member]:
    """The images of the tars in a tar, each below its tar's name, and what else is in that."""
    path = archives.paths[0]
    damages: list[SourceError] = []
    with path.open("rb") as file:
        for outer in members:
            if not _is_class_tar(outer):
                yield outer._replace(fault=outer.fault or (_HIDDEN if _is_hidden(outer.name) else _NO_TAR))
                continue
            # An empty file is an archive without members to tar, too.
            inner = tar_headers.members(file, path, 0, outer.offset, outer.size_bytes) if outer.size_bytes else ()
            try:
                yield from _with_class_prefix(archives.kept(inner), _stem(outer.name), path)
            except SourceError as error:
                damages.append(SourceError(f"{error} (in {outer.name!r})", **fields_of(error)))
    _check_none_wrong(damages)


def _with_class_prefix(members: Iterable[Member], name: str, path: Path) -> Iterator[Member]:
    """The members of a class's tar, below the class's name. Raises SourceError where a .cls says another class."""
    for member in members:
        if not member.fault and _is_cls(member):
            raise SourceError(
                f"{path}: it holds {member.name!r}, as a WebDataset does, and not the images of a class alone: "
                "give a folder of a WebDataset's tars alone, or remove the file",
                path=path,
            )
        yield member._replace(name=f"{name}/{member.name}")


def _of_archives(archives: _Archives) -> Source:
    """The source of several archives: one for each class, or parts of a whole."""
    # The first shows the kind, and a few members of each other whether it is of the same.
    limits = [None, *[_PEEK_MEMBERS] * len(archives.paths)]
    peeked = [(path.name, members) for path, n in zip(archives.paths, limits) if (members := _first_members(path, n))]
    folder = archives.paths[0].parent
    if any(member.is_tar for _, members in peeked for member in members):
        raise SourceError(f"{folder}: archives of archives: give one of them alone", path=folder)
    deep = [name for name, members in peeked if 2 * sum("/" in member.name for member in members) >= len(members)]
    flat = [name for name, _ in peeked if name not in deep]
    if any(_is_cls(member) for _, members in peeked for member in members) or (deep and not flat):
        return _of_images(archives, list(archives.members()), None)
    if deep:
        raise SourceError(
            f"{folder}: {deep[0]} holds CLASS/IMAGE files, and {flat[0]} images alone, as a class's archive does: "
            "give a folder of archives of one kind",
            path=folder,
        )
    classes = _class_names(folder, [path.name for path in archives.paths])
    return _of_classes(archives, classes, archives.members(classes))


def _first_members(path: Path, count: int | None) -> list[Member]:
    """The first sound members of an archive, or all; none where it cannot be read, which shows when it is."""
    with suppress(OSError, SourceError), path.open("rb") as file:
        members = _Archives((path,)).kept(tar_headers.members(file, path, 0, 0))
        return list(islice((member for member in members if not member.fault), count))
    return []


def _of_images(archives: _Archives, members: list[Member], labels: Path | None) -> Source:
    """The source of images, however they lie in their archives."""
    sound = [member for member in members if not member.fault]
    if any(map(_is_cls, sound)):
        _check_no_labels(archives, labels)
        return _of_webdataset(archives, [member for member in members if member.fault != FOLDER])
    deep = [member for member in sound if "/" in member.name]
    if not deep:
        return _of_labelled(archives, [member for member in members if member.fault != FOLDER], labels)
    _check_no_labels(archives, labels)
    # A folder without images is a class, too, as it is on a disk.
    within = (m for m in members if m.fault not in (OUTSIDE, NO_NAME) and ("/" in m.name or m.fault == FOLDER))
    classes = {name for name in {m.name.split("/")[0] for m in within} if name and not name.startswith(".")}
    return _of_classes(archives, classes, members)


def _of_labelled(archives: _Archives, members: list[Member], labels: Path | None) -> Source:
    """The source of images whose labels lie apart."""
    if labels is None:
        if members:
            raise SourceError(
                f"{archives.paths[0]}: its images have no classes: give them with --labels FILE", path=archives.paths[0]
            )
        return archives.source((), ())
    sound = [member for member in members if not member.fault]
    classes, numbers, passed_over = labels_of(labels, [member.name for member in sound])
    archives.passed_over.update(passed_over)
    entries = [_entry(member, label, _UNLABELLED) for member, label in zip(sound, numbers)]
    return archives.source(classes, [*entries, *(_bad(member) for member in members if member.fault)])


def _of_classes(archives: _Archives, classes: Iterable[str], members: Iterable[Member]) -> Source:
    """The source of members that lie in the folder of their class."""
    labels = {name: label for label, name in enumerate(sorted(classes))}
    depths = set()

    def entries() -> Iterator[Entry]:
        for member in members:
            if member.fault != FOLDER:
                entry = _entry(member, labels.get(member.name.split("/")[0], NO_CLASS))
                if entry.label != NO_CLASS:
                    depths.add(entry.key.count("/"))
                yield entry

    source = archives.source(labels, entries())
    if depths and min(depths) > 1:
        raise SourceError(
            f"{archives.paths[0]}: its folders ({', '.join(source.classes[:3])}) hold folders, not images: "
            "pack an archive of CLASS/IMAGE files",
            path=archives.paths[0],
        )
    return source


def _of_webdataset(archives: _Archives, members: list[Member]) -> Source:
    """The source of samples, each an image, its .cls, and fields that are passed over.

    WebDataset has the first dot of a name end its key. Here an image belongs to the .cls that shares most of its name
    up to a dot: ``img_1.5x.jpg`` goes with ``img_1.5x.cls``, or else with ``img_1.cls``.
    """
    images, texts, bad = _partition(archives, members)
    samples = _samples(images, texts)
    bad += [image._replace(fault=_NO_LABEL) for image in samples.pop(None, [])]
    good: list[tuple[Member, str]] = []
    for key, cls_files in texts.items():
        if key not in samples:
            bad += [text._replace(fault=_NO_IMAGE) for text in cls_files]
            continue
        _count_fields(archives, ["cls"] * len(cls_files))
        chosen = _chosen(archives, key, samples[key])
        word = _read_cls(archives.paths[key[0]], cls_files[0])
        if len(chosen) == len(cls_files) == 1 and word:
            good.append((chosen[0], word))
        else:
            fault = _SEVERAL if len(chosen) > 1 or len(cls_files) > 1 else _NO_LABEL
            bad += [image._replace(fault=fault) for image in chosen]
    _check_not_mixed(archives, good)
    classes, labels = label_all([word for _, word in good])
    entries = [_entry(image, label, _NO_LABEL) for (image, _), label in zip(good, labels)]
    return archives.source(classes, _with_shards(archives, [*entries, *map(_bad, bad)]))


def _check_not_mixed(archives: _Archives, samples: list[tuple[Member, str]]) -> None:
    """Raise SourceError where some labels are numbers and others words: as words, numbers would have other labels."""
    examples = {label_number(word) is None: (image.name, word) for image, word in samples}
    if len(examples) > 1:
        (image, word), (other, number) = examples[True], examples[False]
        raise SourceError(
            f"{archives.paths[0]}: the .cls of {image!r} is a word ({word!r}), that of {other!r} a number "
            f"({number!r}): make all of them words, or all numbers",
            path=archives.paths[0],
        )


def _samples(images: list[Member], texts: dict[_Key, list[Member]]) -> dict[_Key | None, list[Member]]:
    """The images of each .cls; those of None have none."""
    samples: dict[_Key | None, list[Member]] = {}
    for image in images:
        samples.setdefault(next((key for key in _keys(image) if key in texts), None), []).append(image)
    return samples


def _partition(
    archives: _Archives, members: list[Member]
) -> tuple[list[Member], dict[_Key, list[Member]], list[Member]]:
    """A WebDataset's images, its .cls, and what is neither and cannot be passed over."""
    images: list[Member] = []
    texts: dict[_Key, list[Member]] = {}
    bad: list[Member] = []
    for member in members:
        stem, suffix = _stem_and_suffix(member.name)
        if member.fault or not stem:
            bad.append(member._replace(fault=member.fault or _NO_KEY))
        elif suffix == "cls":
            texts.setdefault((member.archive, stem), []).append(member)
        elif suffix in _IMAGE_SUFFIXES:
            images.append(member)
        else:
            _count_fields(archives, [suffix])
    return images, texts, bad


def _chosen(archives: _Archives, key: _Key, images: list[Member]) -> list[Member]:
    """Those of a sample's images that are named as its .cls is; all, where none is. What else it has is passed over."""
    own = [image for image in images if _stem_and_suffix(image.name)[0] == key[1]]
    if own:
        _count_fields(archives, [image.name[len(key[1]) + 1 :].lower() for image in images if image not in own])
    return own or images


def _read_cls(path: Path, text: Member) -> str:
    """The class that a .cls says; nothing where it says none."""
    if text.size_bytes > _CLS_BYTES:
        return ""
    word = _read(path, text.offset, text.size_bytes).decode("utf-8-sig", "replace").strip()
    return word if word.isprintable() and "\ufffd" not in word else ""


def _with_shards(archives: _Archives, entries: list[Entry]) -> list[Entry]:
    """The entries, with their archives' names before their keys where images' names start again in each archive."""
    images = [entry.key for entry in entries if _stem_and_suffix(entry.key)[1] in _IMAGE_SUFFIXES]
    if len(archives.paths) == 1 or len(set(images)) == len(images):
        return entries
    return [entry._replace(key=f"{_stem(archives.paths[entry.location[0]].name)}/{entry.key}") for entry in entries]


def _count_fields(archives: _Archives, suffixes: list[str]) -> None:
    for suffix in suffixes:
        rule = f"WebDataset .{suffix}"
        if not _PLAIN_FIELD.fullmatch(suffix) or (
            len(archives.passed_over) > _FIELDS and rule not in archives.passed_over
        ):
            rule = "WebDataset, other fields"
        archives.passed_over[rule] += 1


def _stem_and_suffix(name: str) -> tuple[str, str]:
    """A member's name before its last dot, and what follows that, in small letters; nothing where it has no dot."""
    stem, _, suffix = name.rpartition(".")
    first = stem.rpartition("/")[2]
    return ("", "") if "/" in suffix or not first or first.startswith(".") else (stem, suffix.lower())


def _keys(image: Member) -> Iterator[_Key]:
    """The keys that an image may have, the longest first."""
    stem, first = image.name, image.name.rfind("/") + 1
    while "." in stem[first:]:
        stem = stem[: stem.rindex(".")]
        yield image.archive, stem


def _entry(member: Member, label: int, fault: int = _NO_FOLDER) -> Entry:
    """The entry of a member; ``fault`` says what is wrong with one whose label is NO_CLASS."""
    if member.fault or label == NO_CLASS:
        return _bad(member._replace(fault=member.fault or fault))
    if member.size_bytes > _LARGEST_BYTES:
        return _bad(member._replace(fault=_TOO_LARGE))
    return Entry(member.name, label, member[1:5])


def _bad(member: Member) -> Entry:
    return Entry(member.name, NO_CLASS, member[1:5])


def _is_cls(member: Member) -> bool:
    return _stem_and_suffix(member.name)[1] == "cls"


def _is_class_tar(member: Member) -> bool:
    return not member.fault and not _is_hidden(member.name) and (member.is_tar or _is_named_tar(member.name))


def _is_hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".")


def _is_named_tar(name: str) -> bool:
    return name.lower().endswith(".tar")


def _is_tar(path: Path) -> bool:
    return tar_headers.is_header(paths.read(path, 0, tar_headers.BLOCK_BYTES))


def _class_names(path: Path, names: list[str]) -> list[str]:
    """The classes of class tars with these names."""
    stems = [_stem(name) for name in names]
    twice = [stem for stem, count in Counter(stems).items() if count > 1]
    if twice:
        raise SourceError(
            f"{path}: {len(twice)} classes have several archives each, such as {twice[0]!r}: rename them", path=path
        )
    return stems


def _stem(name: str) -> str:
    last = name.rpartition("/")[2]
    return last[: -len(".tar")] if _is_named_tar(last) else last


def _files_in(path: Path) -> list[Path]:
    """The files below a folder, or the file itself."""
    return [file for file in path.rglob("*") if not file.is_dir()] if path.is_dir() else [path]


def _read(path: Path, offset: int, size_bytes: int) -> bytes:
    try:
        data = paths.read(path, offset, size_bytes)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) < size_bytes:
        raise SourceError(f"{path}: cut short: it ends before byte {offset + size_bytes}: fetch it again", path=path)
    return data


def _unreadable(path: Path, error: OSError) -> SourceError:
    return SourceError(f"{path}: cannot be read ({error.strerror or error}): mend it, then start again", path=path)


def _check_none_wrong(wrong: list[SourceError]) -> None:
    """Raise SourceError where something is wrong, with all of it in one line, and the fields of the first."""
    if wrong:
        more = [f"and {len(wrong) - _MAX_NAMED} more archives"] if len(wrong) > _MAX_NAMED else []
        raise SourceError("; ".join([*map(str, wrong[:_MAX_NAMED]), *more]), **fields_of(wrong[0]))


def _check_no_labels(archives: _Archives, labels: Path | None) -> None:
    if labels is not None:
        raise SourceError(
            f"{archives.paths[0]}: labels are for images without folders, and it has folders, tars or .cls: classes",
            path=archives.paths[0],
        )


def _check_not_compressed(path: Path) -> None:
    is_one = paths.read(path, 0, 2) in tar_headers.COMPRESSED and tar_headers.is_compressed(paths.read(path, 0, 2**20))
    if is_one or _COMPRESSED.fullmatch(path.name):
        raise SourceError(f"{path}: compressed, and cannot be read at random: make a plain tar of it first", path=path)


def _check_members_not_compressed(path: Path, sound: list[Member]) -> None:
    """Raise SourceError where an archive holds class tars that are compressed."""
    compressed = [member.name for member in sound if _COMPRESSED.fullmatch(member.name)]
    if compressed and 2 * len(compressed) >= len(sound):
        raise SourceError(
            f"{path}: the archives in it, such as {compressed[0]!r}, are compressed, and cannot be read at random: "
            "make plain tars of them first",
            path=path,
        )
