# SPDX-License-Identifier: Apache-2.0
"""Ends a script with one sentence, and without a traceback, if the reason is outside the program."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator

from examples.experiments.core import files
from examples.experiments.core.checkpoint import SetupError
from examples.experiments.core.distribution import LostWorkerError
from examples.experiments.core.divergence import DivergedError
from keras_dynfilter.export import ExportError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def one_sentence(again: str) -> Iterator[None]:
    """Ends the process with status 1 and one sentence if the block fails for a reason outside the program.

    The reasons are a state or settings that do not fit, a training that diverges, a file or a folder that cannot be
    written, a network that cannot be exported, the loss of another worker, and an interruption. Every other error keeps
    its traceback.

    Args:
        again: What continues the run, at the start of a sentence.
    """
    try:
        yield
    except (SetupError, DivergedError) as error:
        sys.exit(f"{error}")
    except ExportError as error:
        sys.exit(f"{error} {again} exports again, without training.")
    except LostWorkerError as error:
        sys.exit(f"{error} {again}, in all workers, continues after the last checkpoint.")
    except KeyboardInterrupt:
        sys.exit(f"\nInterrupted. {again} continues after the last checkpoint.")
    except Exception as error:
        reason = f"{error}" if isinstance(error, files.WriteError) else full_disk(error)
        if reason is None:
            raise
        sys.exit(f"{reason}. Complete files stay. {again} continues after the last checkpoint.")


def full_disk(error: BaseException) -> str | None:
    """Returns a sentence if a full disk is the reason for an error; otherwise None.

    Libraries report it with exceptions of several types, whose texts contain the text of the operating system.
    """
    chain: BaseException | None = error
    while chain is not None:
        for code in FULL:
            if getattr(chain, "errno", None) == code or os.strerror(code) in str(chain):
                file = f" ({chain.filename})" if getattr(chain, "filename", None) else ""
                return f"Expected room for all files on the disk. Received: {os.strerror(code)}{file}"
        chain = chain.__cause__ or chain.__context__
    return None
