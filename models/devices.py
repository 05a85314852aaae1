"""The devices and hosts that a training uses. TensorFlow distributes; this only says what there is.

one CPU               no strategy
one GPU               OneDeviceStrategy, which prefetches to it
several devices       MirroredStrategy
TF_CONFIG             MultiWorkerMirroredStrategy, with all devices of each host
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf import rewriter_config_pb2
from tensorflow.python.eager import context as eager

from models import ModelError

_PATTERN = re.compile(r"(cpu|gpu):(\d{1,3})", re.ASCII)
_ADDRESS = re.compile(r"[!-~]+:(\d{1,5})", re.ASCII)

_REWRITE = {"CPU": "auto_mixed_precision_onednn_bfloat16", "GPU": "auto_mixed_precision"}
"""What has TensorFlow compute in 16 bits where that is safe."""

_HALF_PRECISION = (*_REWRITE.values(), "auto_mixed_precision_mkl", "auto_mixed_precision_cpu")
"""All of TensorFlow's rewrites of a graph that change what it computes."""

_PEER_SECONDS = 2.0
"""Between two looks at whether the other hosts are there."""


@dataclass(frozen=True)
class Devices:
    """What this host trains on; ``kind`` is CPU or GPU. ``hosts`` counts those that train, of which it is ``host``."""

    kind: str
    count: int
    host: int = 0
    hosts: int = 1

    @property
    def replicas(self) -> int:
        """Copies of the network in all; a batch is divided among them."""
        return self.count * self.hosts

    @property
    def is_chief(self) -> bool:
        """Whether this host saves, evaluates and reports."""
        return self.host == 0


def find(wanted: str | None, tf_config: str | None) -> Devices:
    """The devices ``wanted``, such as ``cpu:2`` or ``gpu:4``, or all GPUs, or else the CPU; hosts as TF_CONFIG says.

    Raises ModelError where there are not so many, or TF_CONFIG cannot be used, or a host cannot have so many.
    """
    gpus = tf.config.list_physical_devices("GPU")
    host, hosts = _task_index(tf_config)
    if wanted is None:
        return Devices("GPU", len(gpus), host, hosts) if gpus else Devices("CPU", 1, host, hosts)
    match = _PATTERN.fullmatch(wanted)
    if not match or not 1 <= int(match[2]) <= 64:
        raise ModelError(f"--devices {wanted}: give cpu:N, for N logical devices, or gpu:N")
    if match[1] == "gpu" and int(match[2]) > len(gpus):
        raise ModelError(f"--devices {wanted}: TensorFlow finds {len(gpus)} GPUs")
    if hosts > 1 and match[1] == "cpu" and int(match[2]) > 1:
        # MultiWorkerMirroredStrategy takes all GPUs of a host, or else its one CPU.
        raise ModelError(f"--devices {wanted}: of several hosts (TF_CONFIG) each trains on one CPU: give cpu:1")
    return Devices(match[1].upper(), int(match[2]), host, hosts)


def strategy(devices: Devices) -> Any:
    """The strategy for ``devices``, None where none is needed."""
    gpus = tf.config.list_physical_devices("GPU")
    tf.config.set_visible_devices(gpus[: devices.count] if devices.kind == "GPU" else [], "GPU")
    if devices.kind == "CPU" and devices.count > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices.count)
    if devices.hosts > 1:
        several = tf.distribute.experimental.MultiWorkerMirroredStrategy()
        # TensorFlow catches it, to hear of machines that are to be taken away; then nothing would end this process.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return several
    if devices.count > 1:
        return tf.distribute.MirroredStrategy([f"/{devices.kind}:{i}" for i in range(devices.count)])
    return tf.distribute.OneDeviceStrategy("/GPU:0") if devices.kind == "GPU" else None


def session_config(devices: Devices | None = None, half_precision: bool = False) -> tf.ConfigProto:
    """How sessions run: on ``devices``, or whatever there is, and in float32.

    If ``half_precision``, in 16 bits where that is safe: bfloat16 on a CPU, float16 on a GPU, whose losses must be
    scaled (classifier.Params). What is not asked for is explicitly off: else a switch of the whole process counts.
    """
    config = tf.ConfigProto(allow_soft_placement=True)
    rewrites = config.graph_options.rewrite_options
    for name in _HALF_PRECISION:
        setattr(rewrites, name, rewriter_config_pb2.RewriterConfig.OFF)
    if devices and half_precision:
        setattr(rewrites, _REWRITE[devices.kind], rewriter_config_pb2.RewriterConfig.ON)
    if devices and devices.kind == "CPU":
        config.device_count.update({"CPU": devices.count, "GPU": 0})
    elif devices:
        # A session knows nothing of set_visible_devices: it would take memory of all GPUs.
        config.gpu_options.visible_device_list = ",".join(map(str, range(devices.count)))
    return config


class Peers:
    """Looks after the other hosts: if one is lost, this process starts again, from the last checkpoint.

    Sessions wait for ever for a host that is gone, and cannot be ended from without; nor would the process's place in
    the cluster be usable again. A fresh process waits for the lost one to come back, and all go on together.
    """

    def __init__(self, devices: Devices):
        self._others = [host for host in range(devices.hosts) if host != devices.host]
        self._done = threading.Event()

    def watch(self) -> None:
        """Begin to look after them."""
        if self._others:
            threading.Thread(target=self._look, daemon=True).start()

    def release(self) -> None:
        """The last step is done: others may leave now."""
        self._done.set()

    def _look(self) -> None:
        while not self._done.wait(_PEER_SECONDS):
            for host in self._others:
                try:
                    # It knows a host that was started again from the one that it was.
                    eager.context().check_collective_ops_peer_health(f"/job:worker/replica:0/task:{host}", 5000)
                except tf.errors.OpError:
                    if not self._done.is_set():
                        restart(f"host {host} is lost")


def restart(reason: str) -> None:
    """Begin this process anew, with the same arguments: training goes on from the last checkpoint."""
    with suppress(OSError):  # of a stderr that is full or closed: it must not keep this process from going on
        os.write(2, f"\ntrain.py: {reason}: starting again from the last checkpoint\n".encode())
    time.sleep(1)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


@contextmanager
def without_cluster() -> Iterator[None]:
    """Within, this process is no part of a cluster."""
    cluster = os.environ.pop("TF_CONFIG", None)
    try:
        yield
    finally:
        if cluster is not None:
            os.environ["TF_CONFIG"] = cluster


def _task_index(tf_config: str | None) -> tuple[int, int]:
    """Number of this host, and of all."""
    if not tf_config:
        return 0, 1
    try:
        content = json.loads(tf_config)
        cluster, task = content["cluster"], content["task"]
        if set(cluster) != {"worker"} or task["type"] != "worker" or not isinstance(cluster["worker"], list):
            raise ValueError("all hosts must be of the type worker")
        addresses, host = cluster["worker"], _index(task["index"])
        for address in addresses:
            if not isinstance(address, str) or not _is_address(address):
                raise ValueError(f"worker {address!r:.80}")
        hosts = len(addresses)
        if len(set(addresses)) < hosts:
            raise ValueError("a worker is there twice")
        if not 0 <= host < hosts:
            raise ValueError(f"worker {host} of {hosts}")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ModelError(
            f'TF_CONFIG: cannot be used ({error}): give {{"cluster": {{"worker": ["HOST:PORT", ...]}}, '
            '"task": {"type": "worker", "index": N}}'
        ) from error
    return host, hosts


def _index(content: Any) -> int:
    # Some schedulers write it as a string, which TensorFlow takes, too.
    if isinstance(content, bool) or not isinstance(content, int | str):
        raise ValueError(f"index {content!r:.80}")
    return int(content)


def _is_address(text: str) -> bool:
    match = _ADDRESS.fullmatch(text)
    return match is not None and 1 <= int(match[1]) <= 65535
