"""Files of a bucket or a web server, as paths: every request has a time limit, is made again where it fails, and ends
in one error of this package. By universal-pathlib and fsspec.

A request fails where the server says that it cannot answer now (HTTP 5xx, 408, 429), cannot be reached, ends its answer
early, or sends nothing, or next to nothing, for TIMEOUT_VARIABLE seconds. It is made again five times, after growing
pauses. What the server refuses, such as access without credentials, is not asked for again.
"""

from __future__ import annotations

import asyncio
import errno
import http
import io
import math
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

import aiohttp
from fsspec.asyn import sync
from upath import UPath
from upath.extensions import ProxyUPath

from ingest.errors import IngestError, OptionError, RemoteError

T = TypeVar("T")

TIMEOUT_VARIABLE, _TIMEOUT_SECONDS = "INGEST_TIMEOUT", 30.0

_PAUSES = (1 / 60, 1 / 30, 1 / 15, 2 / 15, 4 / 15)
"""Between tries, in time limits: 0.5, 1, 2, 4 and 8 s of 30 s."""

_BLOCK_BYTES = 2**23
"""What a request asks for at most: all of it is lost where the request fails. Each try asks for a quarter of that."""

_LEAST_BYTES = 2**18
"""What must arrive within the time limit, and what the last tries ask for."""

_MOST_BYTES = 2**27
"""What is taken at once of a server that sends whole files whatever it is asked for."""

_BUSY = (408, 425, 429)
"""HTTP statuses below 500 by which a server asks to be asked later."""

_REFUSALS = (PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError, ValueError, TypeError,
             NotImplementedError, ImportError, ssl.SSLCertVerificationError)  # fmt: skip


class Stat(NamedTuple):
    """Of os.stat_result what a remote file has; its size is None where the server does not say it."""

    st_size: int | None


class _Block(NamedTuple):
    data: bytes
    is_last: bool


class RemotePath(ProxyUPath):
    """A place in a bucket or on a web server, to be used like a pathlib.Path.

    What is not there raises FileNotFoundError; all else that fails raises RemoteError.
    """

    @classmethod
    def of(cls, path: str | UPath) -> RemotePath:
        """The place that a URL, or a UPath, says.

        Raises ValueError or ImportError where nothing can read such places, OptionError for TIMEOUT_VARIABLE.
        """
        seconds()
        return cast(RemotePath, cls._from_upath(UPath(path)))

    def stat(self, **options: Any) -> Stat:
        """The size."""
        return Stat(self._info()["size"])

    def exists(self, **options: Any) -> bool:
        """Whether there is a file or a folder."""
        try:
            self._info()
        except FileNotFoundError:
            return False
        return True

    def is_file(self) -> bool:
        """Whether there is a file; on a web server a folder is one, too."""
        try:
            return self._info()["type"] == "file"
        except FileNotFoundError:
            return False

    def is_dir(self) -> bool:
        """Whether there is a folder; on a web server, a page with links to what lies in it."""
        try:
            return bool(self.ask("ls", self.path)) if self._is_web() else self._info()["type"] == "directory"
        except FileNotFoundError:
            return False

    def is_symlink(self) -> bool:
        """False."""
        return False

    def iterdir(self) -> Iterator[RemotePath]:
        """What is in the folder."""
        for name in self.ask("ls", self.path, detail=False):
            if name.rstrip("/") != self.path.rstrip("/"):
                yield self / name.rstrip("/").rsplit("/", 1)[-1]

    def rglob(self, pattern: str, **options: Any) -> Iterator[RemotePath]:
        """The files below the folder whose names match."""
        for name in self.names_below():
            if (path := self / name).match(pattern):
                yield path

    def names_below(self) -> list[str]:
        """All files below the folder, as paths relative to it."""
        root = self.path.rstrip("/")
        return [name[len(root) + 1 :] for name in self.ask("find", root)]

    def forget_listings(self) -> None:
        """Have what is in folders asked for anew: fsspec keeps what it has once been told."""
        self.fs.invalidate_cache()

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file."""
        try:
            self.ask("rm", self.path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def put(self, local: str) -> None:
        """Put a file of this machine in its place, whole or not at all: so buckets have it."""
        self.ask("put_file", local, self.path)

    def open(self, mode: str = "rb", *options: Any, **more: Any) -> BinaryIO:
        """The file, to read bytes of it."""
        if mode != "rb":
            raise ValueError(f"mode {mode!r}")
        size_bytes = self.stat().st_size
        if size_bytes is None:
            return io.BytesIO(self.read_bytes())
        return io.BufferedReader(_Reader(self, size_bytes), _BLOCK_BYTES)

    def read_bytes(self) -> bytes:
        """The whole file."""
        return self.read()

    def read(self, start: int = 0, size_bytes: int | None = None) -> bytes:
        """Bytes from byte ``start`` on, ``size_bytes`` of them or all; fewer where the file ends."""
        return b"".join(self.blocks(start, size_bytes))

    def blocks(self, start: int = 0, size_bytes: int | None = None) -> Iterator[bytes]:
        """The same, block by block."""
        left = math.inf if size_bytes is None else size_bytes
        while left > 0:
            data, is_last = self._block(start, left)
            yield data
            if is_last or not data:
                return
            start, left = start + len(data), left - len(data)

    def ask(self, method: str, *args: Any, within: float | None = None, **options: Any) -> Any:
        """What the method of fsspec's file system gives, within so many seconds if that is said."""

        def once(fs: Any, tried: int) -> Any:
            if not fs.async_impl:
                return getattr(fs, method)(*args, **options)
            return sync(fs.loop, partial(_limited, getattr(fs, f"_{method}"), *args, **options), timeout=within)

        return self._persistently(once)

    def _info(self) -> dict[str, Any]:
        return cast(dict[str, Any], self.ask("info", self.path, within=seconds()))

    def _is_web(self) -> bool:
        return self.protocol in ("http", "https")

    def _block(self, start: int, left: float) -> _Block:
        def once(fs: Any, tried: int) -> _Block:
            size_bytes = int(min(left, max(_BLOCK_BYTES >> 2 * tried, _LEAST_BYTES)))
            if self._is_web():
                most_bytes = int(min(left, _MOST_BYTES))
                return cast(_Block, sync(fs.loop, _web_block, fs, self.path, start, size_bytes, most_bytes))
            try:
                data = self._cat(fs, start, start + size_bytes)
            except Exception as error:
                if _status(error) != 416:  # the file ends before
                    raise
                data = b""
            return _Block(data, len(data) < size_bytes)

        return self._persistently(once)

    def _cat(self, fs: Any, start: int, end: int) -> bytes:
        if not fs.async_impl:
            return cast(bytes, fs.cat_file(self.path, start=start, end=end))
        return cast(bytes, sync(fs.loop, fs._cat_file, self.path, start=start, end=end, timeout=seconds()))

    def _persistently(self, once: Callable[[Any, int], T]) -> T:
        """What ``once(file system, tries before)`` gives, tried six times. Raises RemoteError or FileNotFoundError."""
        limit = seconds()
        for tried in range(len(_PAUSES) + 1):
            try:
                return once(_tuned(self.fs, limit), tried)
            except IngestError:
                raise
            except Exception as error:
                if _is_missing(error):
                    raise FileNotFoundError(errno.ENOENT, "No such file", str(self)) from error
                if not _is_passing(error):
                    raise RemoteError(f"{self}: {_problem(error, limit)}: {_remedy(error)}", path=str(self)) from error
                if tried == len(_PAUSES):
                    raise RemoteError(
                        f"{self}: {_problem(error, limit)}, {tried + 1} times: start again when it can be reached",
                        path=str(self),
                    ) from error
            time.sleep(limit * _PAUSES[tried])
        raise AssertionError  # the last try returns or raises


class _Reader(io.RawIOBase):
    """A remote file, of which only what is asked for is fetched."""

    def __init__(self, path: RemotePath, size_bytes: int):
        super().__init__()
        self._path, self._size_bytes, self._offset = path, size_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._offset = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._size_bytes}[whence]
        return self._offset

    def tell(self) -> int:
        return self._offset

    def readinto(self, buffer: Any) -> int:
        size_bytes = max(0, min(len(buffer), self._size_bytes - self._offset))
        data = self._path.read(self._offset, size_bytes)
        buffer[: len(data)] = data
        self._offset += len(data)
        return len(data)


def seconds() -> float:
    """The time limit of a request that makes no progress. Raises OptionError."""
    given = os.environ.get(TIMEOUT_VARIABLE)
    try:
        limit = float(given) if given is not None else _TIMEOUT_SECONDS
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise OptionError(f"{TIMEOUT_VARIABLE} is {given!r}: give a number of seconds above 0")
    return limit


def pauses() -> list[float]:
    """Seconds to wait after each try but the last."""
    return [seconds() * pause for pause in _PAUSES]


async def _limited(call: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
    return await call(*args, **options)


async def _web_block(fs: Any, url: str, start: int, size_bytes: int, most_bytes: int) -> _Block:
    """``size_bytes`` of a URL from byte ``start`` on; up to ``most_bytes`` of a server that knows no ranges."""
    options = {**fs.kwargs}
    options["headers"] = {
        **options.get("headers", {}),
        "Range": f"bytes={start}-{start + size_bytes - 1}",
        "Accept-Encoding": "identity",
    }
    limit, clock = seconds(), asyncio.get_running_loop().time
    end = clock() + limit
    session = await fs.set_session()
    response = await asyncio.wait_for(session.get(fs.encode_url(url), **options), limit)
    async with response:
        if response.status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _Block(b"", True)
        response.raise_for_status()
        is_part = response.status == http.HTTPStatus.PARTIAL_CONTENT
        skipped, wanted = (0, size_bytes) if is_part else (start, most_bytes)
        data, arrived = bytearray(), 0
        while chunk := await asyncio.wait_for(response.content.readany(), max(0.001, end - clock())):
            arrived += len(chunk)
            if arrived >= _LEAST_BYTES:
                end, arrived = clock() + limit, 0
            data += chunk[skipped:]
            skipped = max(0, skipped - len(chunk))
            if len(data) > wanted:
                return _Block(bytes(data[:wanted]), False)
        total = response.headers.get("Content-Range", "").rpartition("/")[2] if is_part else ""
        is_last = start + len(data) >= int(total) if total.isdecimal() else not is_part or len(data) < size_bytes
        return _Block(bytes(data), is_last)


def _tuned(fs: Any, limit: float) -> Any:
    """A file system that waits no longer than ``limit`` seconds for the next byte, and does not itself try again."""
    # What listings and uploads need in all cannot be told beforehand, so they have but these limits.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=limit, sock_read=limit)
    kind = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    if kind == "http":
        fs.client_kwargs.setdefault("timeout", timeout)
    elif kind == "s3":
        fs.connect_timeout = fs.read_timeout = limit
        fs.retries = 1
        fs.config_kwargs.setdefault("retries", {"max_attempts": 0})
    elif kind == "gs":
        fs.requests_timeout = timeout
        # Below its own decorator, which tries again six times.
        fs._request = partial(getattr(type(fs)._request, "__wrapped__", type(fs)._request), fs)
    return fs


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _status(error: Exception) -> int | None:
    """The HTTP status that an error of aiohttp, botocore or gcsfs, or what it was made of, tells."""
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        status = None
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        elif isinstance(cause, aiohttp.ClientResponseError):
            status = cause.status
        elif type(cause).__module__.startswith("gcsfs"):
            status = getattr(cause, "code", None)
        if status is not None and str(status).isdecimal() and 400 <= int(status) < 600:
            return int(status)
    return None


def _is_missing(error: Exception) -> bool:
    """Whether the server says that there is no such file. fsspec says that of a web server's other errors, too."""
    status = _status(error)
    first = list(_causes(error))[-1]
    return status in (404, 410) or (status is None and isinstance(first, FileNotFoundError))


def _is_passing(error: Exception) -> bool:
    """Whether a request that failed so may succeed when it is made again."""
    status = _status(error)
    if status is not None:
        return status >= 500 or status in _BUSY
    causes = list(_causes(error))
    names = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    if "BotoCoreError" in names and not names & {"HTTPClientError", "ConnectionError"}:  # such as no credentials
        return False
    if "GoogleAuthError" in names and "TransportError" not in names:
        return False
    # gcsfs tells of a refusal by an error without a number.
    is_told = any(type(cause) is OSError and cause.errno is None for cause in causes)
    return not is_told and not any(isinstance(cause, _REFUSALS) for cause in causes)


def _problem(error: Exception, limit: float) -> str:
    status = _status(error)
    if status is not None:
        names = {member.value: member.phrase for member in http.HTTPStatus}
        return f"HTTP {status} {names.get(status, '')}".rstrip()
    if any(isinstance(cause, asyncio.TimeoutError | TimeoutError) for cause in _causes(error)):
        return f"no answer, or next to none, within {limit:g} s"
    first = list(_causes(error))[-1]
    return f"cannot be used ({' '.join(str(first).split()) or type(first).__name__})"


def _remedy(error: Exception) -> str:
    if _status(error) in (401, 403) or isinstance(error, PermissionError):
        return "give credentials that allow it"
    return "check the address, and what it needs, such as credentials"
