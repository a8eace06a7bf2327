# SPDX-License-Identifier: Apache-2.0
"""Starts the toy experiment in processes of its own: alone, or as the workers of a cluster."""

import contextlib
import json
import os
import socket
import subprocess
import sys

from tests.support.paths import ROOT

TOY = str(ROOT / "tests" / "support" / "toy_experiment.py")


def start(*command, **environment):
    """Starts Python with arguments and environment variables, and returns the process."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **environment}
    return subprocess.Popen(
        [sys.executable, *command], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def toy_process(out, *arguments, **environment):
    """Starts the toy experiment."""
    return start(TOY, *arguments, "--out", str(out), **environment)


def finish(process):
    """Waits for a process, which must succeed, and returns its output. The timeout ends only processes that hang."""
    output, errors = process.communicate(timeout=1800)
    assert process.returncode == 0, f"{output}\n{errors[-4000:]}"
    return output


def failed(process):
    """Waits for a process, which must end with status 1 and one line, and returns this line."""
    output, errors = process.communicate(timeout=1800)
    assert process.returncode == 1, f"{process.returncode}\n{output}\n{errors[-4000:]}"
    assert "Traceback" not in errors, errors[-4000:]
    return errors.strip().splitlines()[-1]


@contextlib.contextmanager
def cluster(workers):
    """Reserves a port for every worker, and yields the environment variables of each worker.

    A port stays reserved until the end of the block: only processes of this user that ask to share it can listen on it,
    as gRPC does with TF_GRPC_REUSE_PORT.
    """
    with contextlib.ExitStack() as reserved:
        addresses = [f"localhost:{reserved.enter_context(reserved_port())}" for _ in range(workers)]
        tasks = [{"type": "worker", "index": index} for index in range(workers)]
        configs = [json.dumps({"cluster": {"worker": addresses}, "task": task}) for task in tasks]
        yield [{"TF_CONFIG": config, "TF_GRPC_REUSE_PORT": "1"} for config in configs]


@contextlib.contextmanager
def reserved_port():
    """Reserves a port of this machine, and yields its number."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("localhost", 0))
        yield held.getsockname()[1]
