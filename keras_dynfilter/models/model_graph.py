# SPDX-License-Identifier: Apache-2.0
"""Reads the graph of a functional or sequential model: which layer is called on the outputs of which."""

import collections
import dataclasses
import graphlib
import itertools

import keras

from keras_dynfilter.ops.checks import integer


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One output of one call of a layer."""

    layer: str
    call: int  # number of the call among those of the layer
    output: int  # number of the output of this call


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer of the model, and the tensors that it receives."""

    layer: str
    number: int
    sources: tuple[Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Graph:
    """The inputs, the calls in an order in which they can be executed, and the outputs. Input layers have no calls."""

    inputs: tuple[Tensor, ...]
    calls: tuple[Call, ...]
    outputs: tuple[Tensor, ...]

    def consumers(self) -> dict[str, set[str]]:
        """Returns the names of the layers that are called on outputs of a layer, by the name of that layer."""
        consumers = collections.defaultdict(set)
        for call in self.calls:
            for source in call.sources:
                consumers[source.layer].add(call.layer)
        return consumers


def graph(model: keras.Model) -> Graph:
    """Reads the `Graph` of `model` from its configuration, the only description that Keras 2 and Keras 3 both publish.

    Raises:
        ValueError: `model` is neither functional nor sequential, or is not built.
    """
    error = f"Expected `model` to be a functional or sequential keras.Model that is built. Received: model={model!r}"
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(error)
    if isinstance(model, keras.Sequential):
        tensors = [Tensor("", 0, 0), *(Tensor(layer.name, 0, 0) for layer in model.layers)]
        chain = tuple(Call(output.layer, 0, (source,)) for source, output in itertools.pairwise(tensors))
        return Graph((tensors[0],), chain, (tensors[-1],))
    try:
        config = model.get_config()
    except NotImplementedError:  # a subclass of keras.Model has its graph in its code
        config = {}
    if not {"layers", "input_layers", "output_layers"} <= set(config):
        raise ValueError(error)

    names = {layer["name"] for layer in config["layers"]}
    nodes = [
        (layer["name"], number, list(_tensors(node, names)))
        for layer in config["layers"]
        for number, node in enumerate(layer["inbound_nodes"])
    ]
    inputs, outputs = (list(_tensors(config[key], names)) for key in ("input_layers", "output_layers"))
    all_sources = itertools.chain(*(sources for _, _, sources in nodes))
    first_in_sources, first_in_outputs = _first_calls(model, [*outputs, *all_sources])
    calls = {
        (name, number): Call(name, number, _renumbered(sources, first_in_sources)) for name, number, sources in nodes
    }
    predecessors = {key: [(source.layer, source.call) for source in call.sources] for key, call in calls.items()}
    order = graphlib.TopologicalSorter(predecessors).static_order()
    return Graph(
        tuple(inputs), tuple(calls[key] for key in order if key in calls), _renumbered(outputs, first_in_outputs)
    )


def _tensors(data, names):
    """Yields the tensors in a part of a configuration, `[name of the layer, call, output, ...]`, in Keras's order."""
    if isinstance(data, dict):
        data = [data[key] for key in sorted(data)]
    if not isinstance(data, (list, tuple)):
        return
    if len(data) >= 3 and isinstance(data[0], str) and data[0] in names and integer(data[1]) and integer(data[2]):
        yield Tensor(*data[:3])
        data = data[3:]
    for item in data:
        yield from _tensors(item, names)


def _first_calls(model, tensors):
    """Returns the number of the first call of each layer, as sources and as outputs count it; 0 if not listed.

    The calls of nested models are counted from 1 in some places, because functional models once started with a node of
    their own: in both places in Keras 2, in the outputs alone in Keras 3.
    """
    if keras.__version__.startswith("2."):
        first = {}
        for tensor in tensors:  # together they mention every call
            first[tensor.layer] = min(tensor.call, first.get(tensor.layer, tensor.call))
        return first, first
    nested = [layer for layer in model.layers if any(kind.__name__ == "Functional" for kind in type(layer).__mro__)]
    return {}, {layer.name: 1 for layer in nested}


def _renumbered(tensors, first):
    return tuple(dataclasses.replace(tensor, call=tensor.call - first.get(tensor.layer, 0)) for tensor in tensors)
