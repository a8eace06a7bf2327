# SPDX-License-Identifier: Apache-2.0
"""Lists the targets. A target is a module with these functions:

* `setup()` loads what the inputs need, in the worker.
* `draw(random, repeated, mode)` returns an input, a JSON object. `repeated` is a second source of random numbers, which
  gives the same numbers to many inputs: for what takes long if it is new.
* `run(value)` runs an input. It returns whether the input was accepted, or raises a `Failure`.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Mode:
    """A way in which a target runs its inputs.

    Attributes:
        target: Name of the module.
        name: Name of the mode.
        share: Share of the time of a run.
        chunk: Inputs per request to the worker.
        calls: Inputs of the short run of the test suite.
        restart: Inputs after which the worker is started again, because TensorFlow keeps what it has compiled.
        growth: Bytes of memory per input that the worker may keep, beyond a fixed amount.
    """

    target: str
    name: str
    share: float
    chunk: int
    calls: int
    restart: int = 1_000_000
    growth: int = 0

    @property
    def module(self) -> str:
        return f"{__name__}.{self.target}"

    @property
    def label(self) -> str:
        return f"{self.target}.{self.name}"


MODES = (
    Mode("raw_ops", "eager", 0.3, 1000, 10_000, 100_000, growth=2_000),
    Mode("raw_ops", "graph", 0.1, 100, 400, 20_000, growth=20_000),
    Mode("raw_ops", "unknown_shapes", 0.1, 100, 400, 20_000, growth=20_000),
    Mode("raw_ops", "jit", 0.14, 50, 100, 1_500, growth=1_000_000),
    Mode("projection", "eager", 0.03, 500, 500, growth=2_000),
    Mode("projection", "jit", 0.03, 20, 20, 1_500, growth=1_000_000),
    Mode("graphs", "graph_defs", 0.08, 100, 400, 20_000, growth=20_000),
    Mode("graphs", "saved_models", 0.06, 20, 60, 2_000, growth=500_000),
    Mode("onnx_files", "nodes", 0.08, 200, 1_000, growth=5_000),
    Mode("onnx_files", "bytes", 0.03, 200, 600, growth=5_000),
    Mode("data_files", "archives", 0.04, 200, 1_500, growth=2_000),
    Mode("data_files", "images", 0.03, 100, 400, growth=5_000),
    Mode("export_inputs", "models", 0.02, 20, 40, growth=200_000),
    Mode("export_inputs", "arguments", 0.02, 50, 100, growth=50_000),
)
