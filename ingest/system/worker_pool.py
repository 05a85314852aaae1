"""Worker processes that outlive nobody.

A worker is a fresh Python that imports only what its handler needs: neither a fork, which would copy TensorFlow's locks
without its threads, nor multiprocessing's spawn, which would run the user's script again in every worker. Parent and
worker talk over a pair of sockets that nobody else holds, so each knows at once when the other is gone, however it
ended: the worker then ends itself, the parent raises WorkerError.

    parent                                            worker
    Worker(make_handler, *args)  -- start -->         handler = make_handler(*args)
    send(task)                   -- task -->          result = handler(task, progress)
    receive() -> progress        <-- a number, any number of times
    receive() -> result or error <-- the result, or the exception, which receive() raises
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, closing, suppress
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from ingest.errors import IngestError, OptionError, WorkerError, fields_of
from ingest.system import terminal
from ingest.system.validation import typed

terminal.open_descriptors()  # before this package opens a file

Handler = Callable[[Any, Callable[[int], object]], Any]
"""Does a task; may call its second argument with the number of images done since the last call."""


_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Variables for a worker that shares the cores with others: its libraries start no threads of their own."""

_CRASHED = ": if that happens again, leave out what it was at"
_HINTS = {
    signal.SIGKILL: ": out of memory? use fewer workers",
    **dict.fromkeys((signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL), _CRASHED),
}


class Progress(NamedTuple):
    """A worker's report that so many more images are done."""

    images: int


class Worker:
    """A child process with the handler ``make_handler(*args)``; both must be importable by name or picklable.

    It holds ``descriptors`` open, and has the variables ``environment`` besides those of its parent. What it prints
    goes to stderr, or nowhere if it ``is_quiet``.
    """

    def __init__(
        self,
        make_handler: Callable[..., Handler],
        *args: Any,
        descriptors: tuple[int, ...] = (),
        environment: Mapping[str, str] = _ONE_THREAD,
        is_quiet: bool = False,
    ):
        ours, theirs = socket.socketpair()
        output = subprocess.DEVNULL if is_quiet else _stderr()  # the parent's stdout is for results
        self._is_quiet = is_quiet
        with theirs:
            self._process = subprocess.Popen(
                python(f"from ingest.system.worker_pool import serve; serve({theirs.fileno()})"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(theirs.fileno(), *descriptors),
                # Ctrl-C in a terminal is for the parent alone, which then ends its workers.
                start_new_session=True,
                env={**os.environ, **environment},
            )
        self._connection = Connection(ours.detach())
        with suppress(OSError):
            # A worker that died at once is met by receive(), which says so.
            self._connection.send((make_handler, args))

    def fileno(self) -> int:
        """For multiprocessing.connection.wait: readable when receive() has something, or the worker is gone."""
        return self._connection.fileno()

    def send(self, task: Any) -> None:
        """Hand a task to the worker; tasks are done in turn."""
        with suppress(OSError):
            self._connection.send(task)

    def receive(self) -> Any:
        """The next Progress or result, in order. Raises what the handler raised, or WorkerError if the worker died."""
        try:
            reply = self._connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerError(f"worker process {self._process.pid} {self._ending()}") from error
        if isinstance(reply, Exception):
            raise reply
        return reply

    def close(self) -> None:
        """End the worker at once."""
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def _ending(self) -> str:
        status = self._process.wait()
        if status < 0:
            killer = signal.Signals(-status)
            return f"was killed by {killer.name}{_HINTS.get(killer, '')}"
        printed = "" if self._is_quiet else "; what it printed stands above"
        return f"ended with status {status}{printed}"


def run(
    make_handler: Callable[..., Handler],
    args: tuple[Any, ...],
    tasks: Iterable[Any],
    workers: int,
    progress: Callable[[int], object],
    descriptors: tuple[int, ...] = (),
) -> Generator[Any, None, None]:
    """Do ``tasks`` in ``workers`` processes, or in this one if 0, and give the results as they come.

    ``progress`` is called with numbers of images done; workers hold ``descriptors`` open. Raises what a handler raises;
    if a worker dies or breaks, WorkerError with the task's str(), and with the key of the image that it was at, if the
    task has a method ``at`` that gives it by the number of those before it.
    """
    if workers == 0:
        handler = make_handler(*args)
        for task in tasks:
            yield handler(task, progress)
        return
    waiting = iter(tasks)
    busy: dict[Worker, Any] = {}
    done: Counter[Worker] = Counter()  # images of the task that each is at
    with ExitStack() as stack:
        for _, task in zip(range(workers), waiting):
            worker = stack.enter_context(closing(Worker(make_handler, *args, descriptors=descriptors)))
            worker.send(task)
            busy[worker] = task
        while busy:
            ready: list[Worker] = wait(list(busy))  # type: ignore  # all that it asks for is fileno()
            for worker in ready:
                reply = _receive(worker, busy[worker], done[worker])
                if isinstance(reply, Progress):
                    done[worker] += reply.images
                    progress(reply.images)
                    continue
                del busy[worker], done[worker]
                for task in waiting:
                    worker.send(task)
                    busy[worker] = task
                    break
                yield reply


def python(code: str) -> list[str]:
    """The command by which a fresh Python runs ``code`` with our own modules.

    The paths are set before anything else is imported, so that a file in the current folder cannot stand in for one.
    """
    path = [str(Path(entry).absolute()) for entry in sys.path]
    return [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}; {code}"]


def _stderr() -> int:
    """The descriptor of this process's stderr, or nowhere if it was started without one or has closed it."""
    try:
        os.fstat(2)
    except OSError:
        return subprocess.DEVNULL
    return subprocess.DEVNULL if sys.__stderr__ is None else 2


HELP = "processes (default: one a core; 0: none but this)"
"""Of an option ``workers``."""


def num_workers(workers: int | None) -> int:
    """``workers``, or where it is None the number of cores that this process may use."""
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = typed("workers", workers, int)
    if not 0 <= workers <= 1024:
        raise OptionError(f"{workers} workers: give 0 (all in this process) to 1024")
    return workers


def serve(descriptor: int) -> None:
    """A worker's whole life; ``descriptor`` is its end of the sockets."""
    threading.Thread(target=_end_with_parent, args=(descriptor,), daemon=True).start()
    connection = Connection(descriptor)
    with suppress(EOFError, ConnectionError):  # the parent is gone
        make_handler, args = connection.recv()
        # Made with the first task, so that what goes wrong in it is answered like any other failure.
        handler = cache(lambda: make_handler(*args))
        # What is loaded by now lives as long as the worker: the collector need not look at it again and again.
        gc.freeze()
        while True:
            task = connection.recv()
            connection.send(_attempt(handler, task, lambda images: connection.send(Progress(images))))


def _attempt(handler: Callable[[], Handler], task: Any, progress: Callable[[int], object]) -> Any:
    try:
        return handler()(task, progress)
    except IngestError as error:
        return error
    except ConnectionError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return WorkerError(f"{type(error).__name__}: {error} (at {frame.filename}:{frame.lineno})")


def _end_with_parent(descriptor: int) -> None:
    # In a thread, because a handler can be busy for longer than a worker may outlive its parent.
    poll = select.poll()
    poll.register(descriptor, 0)  # no events asked for: only the hang-up is reported
    poll.poll()
    os._exit(1)


def _receive(worker: Worker, task: Any, done: int) -> Any:
    try:
        return worker.receive()
    except WorkerError as error:
        # All that the worker had said was read before its end was.
        image = task.key_after(done) if hasattr(task, "key_after") else ""
        message = f"{task}: {f'at {image}: ' if image else ''}{error}"
        raise WorkerError(message, **fields_of(error, key=image or None)) from error
