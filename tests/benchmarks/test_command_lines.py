# SPDX-License-Identifier: Apache-2.0
"""Every benchmark prints its `--help`, and refuses numbers that are not above zero."""

import importlib
import pathlib
import pkgutil

import pytest

import benchmarks
from benchmarks import command_line

MODULES = [
    module.name
    for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")
    if not module.ispkg and hasattr(importlib.import_module(module.name), "main")
]
OPTIONS = {
    "benchmarks.layers.ddf": ["--shape", "1", "0", "3", "4"],
    "benchmarks.layers.filter_norm": ["--seconds", "0"],
    "benchmarks.layers.repository_conv2d": ["--batch-size", "0"],
    "benchmarks.layers.training_step": ["--width", "0"],
    "benchmarks.layers.upsampling_conv2d": ["--batch-size", "0"],
    "benchmarks.export.ddf_resnet": ["--size", "0"],
    "benchmarks.export.filter_repository": ["--threads", "0"],
    "benchmarks.export.networks": ["--seconds", "0"],
    "benchmarks.export.onnxruntime": ["--shrink", "0"],
    "benchmarks.export.portable_forms": ["--rounds", "0"],
}


def test_all_benchmarks_are_tested():
    assert set(MODULES) == {"benchmarks.__main__", *OPTIONS}


@pytest.mark.parametrize("module", MODULES)
def test_help(module, capsys):
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(module).main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: python -m {module.removesuffix('.__main__')} [-h]")


@pytest.mark.parametrize("module, arguments", OPTIONS.items())
def test_numbers_must_be_above_zero(module, arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(module).main(arguments)
    assert stop.value.code == 2
    assert "above zero, received '0'" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["portable_forms", "onnxruntime"])
def test_a_file_that_cannot_be_written(module):
    with pytest.raises(SystemExit, match=r"Expected --json to be a file that can be written\. Received: /proc/x/b"):
        importlib.import_module(f"benchmarks.export.{module}").main(["--json", "/proc/x/b"])


def test_results_that_cannot_be_written_end_the_program_with_a_sentence(tmp_path):
    expected = "Expected --json to be a file that can be written. Received: "
    with pytest.raises(SystemExit) as stop, command_line.json_lines(tmp_path):
        pass
    assert stop.value.code == f"{expected}{tmp_path} (Is a directory)"
    with pytest.raises(SystemExit) as stop, command_line.json_lines(pathlib.Path("/dev/full")) as write:
        write({"ms": 1.0})
    assert stop.value.code == f"{expected}/dev/full (No space left on device)"
    with command_line.json_lines(tmp_path / "rows") as write:
        write({"ms": 1.0})
        write({"ms": 2.0})
    assert (tmp_path / "rows").read_text() == '{"ms": 1.0}\n{"ms": 2.0}\n'


def test_even_window(capsys):
    with pytest.raises(SystemExit):
        importlib.import_module("benchmarks.layers.training_step").main(["--kernel-size", "4"])
    assert "Expected --kernel-size to be odd. Received: 4" in capsys.readouterr().err
