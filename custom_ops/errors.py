# SPDX-License-Identifier: Apache-2.0
"""Defines the errors of the builder."""


class BuildError(RuntimeError):
    """The ops could not be built. If the compiler failed, the message names the log file."""


class CompilerError(BuildError):
    """The compiler refused a source file. It will refuse the same file again."""


class CompilerStopped(BuildError):
    """The compiler ended without a judgement of the source: by a signal, without memory or without disk space.

    It may succeed the next time, so the cache does not record this error.
    """
