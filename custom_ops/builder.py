# SPDX-License-Identifier: Apache-2.0
"""Provides a library: finds it in the cache, or compiles and links it there."""

import concurrent.futures
import contextlib
import os
import pathlib
import threading
from collections.abc import Callable

from . import cache, cleanup, compilers, sources, units
from .commands import Commands
from .errors import BuildError, CompilerError, CompilerStopped


class Builder:
    """Provides libraries from one cache."""

    def __init__(self, folder: cache.Cache, progress: Callable[[str], object]):
        self.cache = folder
        self._progress = progress

    def finished(self, plan: units.LibraryPlan) -> pathlib.Path | None:
        """Returns the path of a library if the cache has it. Needs no lock, no compiler and no write access."""
        path = self.cache.folder / plan.file_name
        return None if self.cache.reason_against(path, plan.symbol) else path

    def provide(
        self,
        plan: units.LibraryPlan,
        complete: Callable[[units.LibraryPlan], units.LibraryPlan] = lambda plan: plan,
    ) -> pathlib.Path:
        """Returns the path of a library, and builds it if the cache does not have it.

        Args:
            plan: What the library consists of.
            complete: Adds to the plan what only a build needs.

        Raises:
            BuildError: There is no compiler, it failed now or in an earlier build, or the cache cannot be used.
        """
        path = self.cache.folder / plan.file_name
        if not self.cache.reason_against(path, plan.symbol):
            # Builders write to their partial files all the time. Days protect those of builders whose locks this
            # process does not see, such as on some network file systems.
            cleanup.remove_partial(self.cache, days=1)
            return path
        compiler = compilers.Compilers.installed()
        try:
            self.cache.prepare()
            cleanup.remove_partial(self.cache)
            plan = complete(plan)
            with self.cache.lock(path, lambda: self._say_waiting(f"builds {path}")):
                if self.cache.reason_against(path, plan.symbol):  # no other process has built it in the meantime
                    self._build(plan, path, compiler)
        except OSError as error:
            raise BuildError(
                f"the cache folder {self.cache.folder} cannot be used to build {path.name}: {error}"
            ) from error
        cleanup.remove_unused(self.cache)
        return path

    def _say_waiting(self, work):
        self._progress(f"keras_dynfilter: waiting for another process that {work}")

    def _build(self, plan, path, compiler):
        objects = {unit: self.cache.objects / f"{compiler.object_key(unit)[:32]}.o" for unit in plan.units}
        missing = [unit for unit in plan.units if self.cache.reason_against(objects[unit])]
        for unit in missing:
            self._raise_recorded_failure(objects[unit])
        commands = Commands(path.with_suffix(".log"))
        if missing:
            self._progress(
                f"keras_dynfilter: compiling {len(missing)} files ({plan.description}). This takes minutes, once. "
                f"Log: {commands.log}"
            )
        self._compile_all({unit: objects[unit] for unit in missing}, compiler, commands)
        with self.cache.writing(path) as partial:
            commands.run(compiler.link_command(plan, [objects[unit] for unit in plan.units], partial), path.name)
            _check_result(partial, plan.symbol, commands)

    def _raise_recorded_failure(self, path):
        with contextlib.suppress(OSError):
            text = cache.failure_file(path).read_text(errors="replace") if cache.failure_file(path).is_file() else ""
            if text:
                raise CompilerError(f"{text} (to try again: python -m keras_dynfilter.custom_ops.build)")

    def _compile_all(self, objects, compiler, commands):
        """Compiles units in parallel. If one fails, the others that have started are finished."""
        say_waiting = _once(lambda: self._say_waiting("compiles the same files"))

        def compile_one(unit):
            path = objects[unit]
            with self.cache.lock(path, say_waiting, commands.stopped) as locked:
                if not locked:
                    raise CompilerStopped("the build was interrupted")
                if not self.cache.reason_against(path):
                    return
                self._raise_recorded_failure(path)
                try:
                    with self.cache.writing(path) as partial:
                        subject = str(unit.source.relative_to(sources.FOLDER))
                        commands.run(compiler.compile_command(unit, partial), subject)
                        _check_result(partial, "", commands)
                except CompilerError as error:
                    with contextlib.suppress(OSError):
                        self.cache.write_text(cache.failure_file(path), str(error))
                    raise

        pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
        try:
            tasks = [pool.submit(compile_one, unit) for unit in objects]
            for task in concurrent.futures.wait(tasks, return_when=concurrent.futures.FIRST_EXCEPTION).done:
                task.result()
        except BuildError:
            raise
        except BaseException:  # Ctrl-C: the rest of the files would take minutes.
            commands.stop()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _check_result(path, symbol, commands):
    """Checks what a compiler has written that reports success."""
    content = path.read_bytes() if path.exists() else b""
    if not content.startswith(cache.BINARY) or symbol.encode() not in content:
        what = f"a library with the function {symbol}" if symbol else "an object file"
        raise CompilerStopped(f"the compiler reported success but did not write {what}; see the log {commands.log}")


def _once(function):
    """Returns a function for several threads that calls `function` the first time only."""
    lock = threading.Lock()
    called: list[bool] = []

    def call():
        with lock:
            if not called:
                called.append(True)
                function()

    return call
