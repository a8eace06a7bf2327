# SPDX-License-Identifier: Apache-2.0
"""The workflow that publishes a release agrees with the scripts that it runs."""

import re

import pytest

from tests.support.paths import ROOT

wheels = pytest.importorskip("release.wheels", reason="needs the package wheel")
yaml = pytest.importorskip("yaml", reason="needs PyYAML")


@pytest.fixture(scope="module")
def jobs():
    return yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]


def commands(job):
    return "\n".join(step.get("run", "") for step in job["steps"])


def test_nothing_is_published_untested(jobs):
    assert jobs["test"]["needs"] == "build" and jobs["publish"]["needs"] == "test"
    assert jobs["publish"]["if"] == "github.ref_type == 'tag'"
    assert [name for name, job in jobs.items() if "id-token" in job.get("permissions", {})] == ["publish"]


def test_every_version_of_tensorflow_is_tested(jobs):
    tested = jobs["test"]["strategy"]["matrix"]["include"]
    assert tuple(row["tensorflow"] for row in tested) == wheels.TENSORFLOW
    from custom_ops import units

    for row in tested:
        tensorflow = units.TensorFlow(row["tensorflow"], "", "", "", ())
        assert ("--xla" in row.get("options", "")) == tensorflow.has_xla, row


def test_the_commands_exist(jobs):
    assert "make wheels" in commands(jobs["build"])
    assert re.search("^wheels:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    scripts = re.findall(r"python (\S+\.py)((?: --\S+)*)", commands(jobs["test"]))
    assert len(scripts) == 3
    for script, options in scripts:
        text = (ROOT / script).read_text()
        assert all(f'"{option}"' in text for option in options.split() if option.startswith("--"))
