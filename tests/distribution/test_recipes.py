# SPDX-License-Identifier: Apache-2.0
"""Runs the shell parts of the launch recipes in the documentation, with stand-ins for the cluster and for Python."""

import json
import os
import subprocess

import pytest

from examples.experiments.dfn import moving_mnist
from tests.support import pages

PAGE = pages.DOCS / "guide/distribution.md"
STANDINS = {
    "srun": 'while [[ $1 == --* ]]; do shift; done\nfor SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@"; done',
    "scontrol": 'test "$*" = "show hostnames node[1-2]" && printf "node1\\nnode2\\n"',
    "python": 'printf "%s\\n" "$TF_CONFIG" "$*"',
}


@pytest.fixture
def shell(tmp_path):
    """Returns a function that runs a script with the stand-ins, and returns TF_CONFIG and the arguments per worker."""
    for name, script in STANDINS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)

    def run(script, **variables):
        environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", **variables}
        done = subprocess.run(["bash", "-ec", script], env=environment, capture_output=True, text=True, check=True)
        lines = done.stdout.splitlines()
        return [(json.loads(config), arguments.split()) for config, arguments in zip(lines[::2], lines[1::2])]

    return run


def recipe(start):
    (text,) = [block.text for block in pages.blocks(PAGE, "text") if block.text.startswith(start)]
    return text


def check(workers, hosts):
    for index, (config, arguments) in enumerate(workers):
        assert config == {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
        assert arguments[:2] == ["-m", moving_mnist.__name__]
        options = moving_mnist.parse(arguments[2:])
        assert options.strategy == "multi-worker" and options.resume


def test_slurm(shell):
    workers = shell(recipe("#!/bin/bash"), SLURM_JOB_NODELIST="node[1-2]")
    assert len(workers) == 2
    check(workers, ["node1:12345", "node2:12345"])


def test_kubernetes(shell):
    yaml = pytest.importorskip("yaml")
    service, job = yaml.safe_load_all(recipe("apiVersion"))
    name, spec = job["metadata"]["name"], job["spec"]
    pod = spec["template"]["spec"]
    assert service["spec"]["selector"] == {"job-name": name} and service["metadata"]["name"] == pod["subdomain"]
    assert spec["completions"] == spec["parallelism"] == 2 and spec["completionMode"] == "Indexed"
    (container,) = pod["containers"]
    assert container["command"] == ["bash", "-c"]
    (script,) = container["args"]
    workers = [worker for index in "01" for worker in shell(script, JOB_COMPLETION_INDEX=index)]
    assert len(workers) == 2
    check(workers, [f"{name}-{index}.{pod['subdomain']}:12345" for index in range(2)])
