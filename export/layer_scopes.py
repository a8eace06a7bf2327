# SPDX-License-Identifier: Apache-2.0
"""Finds the layers that the ops of a traced graph belong to, so that errors can name them."""

import collections
import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

_PATCHING = threading.RLock()  # held while `Layer.__call__` is replaced, because several threads may export


class LayerScopes:
    """The layers of a traced model, by the ops that they added to its graph."""

    def __init__(self) -> None:
        self._layers: dict[str, str] = {}  # by name of the op

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Records which ops every layer adds to the current graph, inside a function that is being traced."""
        graph = tf.compat.v1.get_default_graph()
        path: list[str] = []

        def recorded_call(layer, *args, **kwargs):
            if tf.compat.v1.get_default_graph() is not graph:  # such as the body of a loop; the loop itself is recorded
                return call(layer, *args, **kwargs)
            path.append(layer.name)
            before = len(graph.get_operations())
            try:
                return call(layer, *args, **kwargs)
            finally:
                # The model itself has no part of the path, unless an op belongs to no layer of it.
                name = f"{'/'.join(path[1:] or path)!r} ({type(layer).__name__})"
                for op in graph.get_operations()[before:]:
                    self._layers.setdefault(op.name, name)  # an inner layer comes first
                path.pop()

        with _PATCHING:
            call = keras.layers.Layer.__call__
            keras.layers.Layer.__call__ = recorded_call
            try:
                yield
            finally:
                keras.layers.Layer.__call__ = call

    def layer(self, node: str) -> str | None:
        """Returns the path and the class of the layer that a node belongs to, or None if this is not certain.

        Args:
            node: Name of a node of the graph, or of a node that a converter made from it, in the same scope.
        """
        while node:
            if node in self._layers:
                return self._layers[node]
            layers = {layer for name, layer in self._layers.items() if name.startswith(f"{node}/")}
            if layers:
                return layers.pop() if len(layers) == 1 else None
            node = node.rpartition("/")[0]
        return None

    def layers_of_ops(self, graph: Any, ops: Iterable[str]) -> dict[str, list[str]]:
        """Returns the layers that hold each of the ops, by op.

        Args:
            graph: The `GraphDef` of the graph.
            ops: Types of ops.
        """
        bodies = ((function.signature.name, function.node_def) for function in graph.library.function)
        # Of each function: the nodes that call it, and the functions they are in.
        callers: dict[str, list[tuple[str, str]]] = collections.defaultdict(list)
        wanted, places = set(ops), collections.defaultdict(list)
        for function, nodes in (("", graph.node), *bodies):
            for node in nodes:
                for value in node.attr.values():
                    for called in (value.func, *value.list.func):
                        callers[called.name].append((node.name, function))
                if node.op in wanted:
                    places[node.op].append((node.name, function))
        return {op: self._layers_of_nodes(nodes, callers) for op, nodes in places.items()}

    def _layers_of_nodes(self, nodes: list[tuple[str, str]], callers: dict[str, list[tuple[str, str]]]) -> list[str]:
        """Returns the layers of nodes. A node inside a function belongs to the layers that call the function."""
        layers: dict[str, None] = {}
        waiting, seen = list(nodes), set()
        while waiting:
            name, function = waiting.pop(0)
            if not function:
                layers.update({self._layers[name]: None} if name in self._layers else {})
            elif function not in seen:
                seen.add(function)
                waiting += callers[function]
        return list(layers)
