# SPDX-License-Identifier: Apache-2.0
"""Calls the package with random inputs, and finds inputs that it handles wrongly.

    python -m tests.fuzz --minutes 30          draws inputs for all targets
    python -m tests.fuzz --replay FILE         runs one input again
    make fuzz MINUTES=30

A *target* (`targets/`) draws inputs of one kind and runs them; an input is a JSON object. Inputs run in a worker, a
process of its own (`worker.py`), so that a crash, a hang or an absurd allocation costs one input only. A failing input
is made as small as possible (`shrink.py`) and written to a file that `--replay` runs.

The project has its own generators instead of Hypothesis or Atheris. Hypothesis draws and shrinks inside the process
that runs the input, which a crash ends, and it draws some hundred inputs per second. Atheris needs instrumented
bytecode and its own build of the C++ code, and does not know the exact result of an op.
"""
