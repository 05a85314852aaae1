"""The tasks of ``worker_pool.run`` on a dask.distributed cluster. The only module that imports distributed.

Nothing of ours schedules: dask hands out the tasks, and gives those of a worker that is lost to another.
"""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable, Generator, Iterable
from itertools import islice
from typing import Any

from ingest.errors import IngestError, OptionError, WorkerError
from ingest.system.worker_pool import Handler

_CONNECT_SECONDS = 15

_WAITING_A_THREAD = 2
"""Tasks that a thread of the cluster has at a time: the one it does and the next. All at once would fill our memory."""


def run_on_dask(
    address: str,
    make_handler: Callable[..., Handler],
    args: tuple[Any, ...],
    tasks: Iterable[Any],
    progress: Callable[[int], object],
) -> Generator[Any, None, None]:
    """Do ``tasks`` on the cluster whose scheduler is at ``address``, and give the results as they come.

    Paths in ``args`` must mean the same there. ``progress`` is called with a task's ``images`` when it is done. Raises
    what a handler raises; OptionError where there is no scheduler; WorkerError if a task's workers keep dying.
    """
    try:
        from distributed import Client, as_completed
        from distributed.comm import get_address_host_port
    except ImportError as error:
        raise OptionError("a scheduler needs dask: pip install 'ingest-toolkit[cluster]'") from error
    try:
        # A client that does not come about would wait for another half a minute when it is thrown away.
        with socket.create_connection(get_address_host_port(address, strict=True), _CONNECT_SECONDS):
            pass
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OptionError(f"no dask scheduler answers at {address} ({error}): start one") from error
    with client:
        threads = max(1, sum(client.nthreads().values()))
        waiting = iter(tasks)

        def submit(count: int) -> list[Any]:
            return [client.submit(_run_task, make_handler, args, task, pure=False) for task in islice(waiting, count)]

        under_way = as_completed(submit(_WAITING_A_THREAD * threads), loop=client.loop)
        for future in under_way:
            try:
                images, result = future.result()
            except IngestError:
                raise
            except Exception as error:  # of dask, such as KilledWorker, which names the task by its own key
                raise WorkerError(f"on the cluster at {address}: {type(error).__name__}: {error}") from error
            for more in submit(1):
                under_way.add(more)
            progress(images)
            yield result


def _run_task(make_handler: Callable[..., Handler], args: tuple[Any, ...], task: Any) -> tuple[int, Any]:
    """Do a task on a worker of the cluster."""
    try:
        return task.images, make_handler(*args)(task, _ignore_progress)
    except IngestError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise WorkerError(f"{task}: {type(error).__name__}: {error} (at {frame.filename}:{frame.lineno})") from None


def _ignore_progress(images: int) -> None:
    """Progress within a task stays there."""
