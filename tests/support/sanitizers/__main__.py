# SPDX-License-Identifier: Apache-2.0
"""Runs the C++ code under sanitizers, and prints the command and the tests that ran: `make sanitize`."""

import subprocess
import sys

from tests.support.paths import ROOT

# The kernels, the thread pools and the code of TensorFlow and XLA; the CUDA kernels on the emulated device.
FILES = ("tests/custom_ops/test_sanitizers.py", "tests/custom_ops/test_cuda_emulation.py")


def main():
    command = [sys.executable, "-m", "pytest", "-v", "-k", "sanitizers", *FILES]
    print(" ".join(command), flush=True)
    sys.exit(subprocess.run(command, cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main()
