# SPDX-License-Identifier: Apache-2.0
"""Ops of a SavedModel that reach files, processes or networks: loading or calling it may run any of its functions."""

import re

# By name, those that do; beside them, every op with an argument that names what it opens.
REACHES_OUT = re.compile(
    r"File|PyFunc|Dataset|Reader|Summary|Rpc|Worker|Collective|Nccl|Checkpoint|RemoteCall|ImportEvent|CustomCall|"
    r"DumpTensor|CalibrationStatisticsSaver|DistributedSave|ImmutableConst|LoadAndRemapMatrix|GenerateVocabRemapping|"
    r"FixedUnigramCandidateSampler|RecordInput|Skipgram|DecodeProto|EncodeProto|Xla(Launch|CallModule|Run|Compile)|"
    r"^_?(Xla)?(Host)?(Send|Recv)|^_?Debug(Identity|Nan|Numeric)|^Save|^Restore|^Print|^Abort$"
)
OPENS = re.compile(
    r"file|path|url|dir(?!ection)|address|memory_region|vocab|descriptor_source|ckpt|protocol|command"  # not of an RNN
)


def reaching_ops(saved_model):
    """Ops of a `SavedModel` that reach out of it, sorted. Those of its saver do, but exporting never runs the saver."""
    nodes = []
    for meta_graph in saved_model.meta_graphs:
        # TensorFlow runs the graph of a file without an object graph when it loads it, the saver included.
        graph, by_objects = meta_graph.graph_def, meta_graph.HasField("object_graph_def")
        saver = _saver(meta_graph) if by_objects and len(saved_model.meta_graphs) == 1 else set()
        functions = [function for function in graph.library.function if function.signature.name not in saver]
        nodes += [*graph.node, *(node for function in functions for node in function.node_def)]
    return sorted(op for op in {node.op for node in nodes} if REACHES_OUT.search(op) or _opens(op))


def _opens(op):
    """Whether an input or an attribute of the op is called like something that it opens."""
    from tensorflow.python.framework import op_def_registry

    definition = op_def_registry.get(op)
    if definition is None:  # a function that is called by its name: its nodes are looked at by themselves
        return False
    return any(OPENS.search(argument.name) for argument in (*definition.attr, *definition.input_arg))


def _saver(meta_graph):
    """Names of the functions that save and restore variables; none where anything else in the file names one."""
    graph, saver = meta_graph.graph_def, meta_graph.saver_def
    entries = {saver.save_tensor_name.partition(":")[0], saver.restore_op_name} - {""}
    functions = {function.signature.name: function for function in graph.library.function}
    called = {value.func.name for node in graph.node if node.name in entries for value in node.attr.values()}
    found = called & set(functions)
    rest = [meta_graph.object_graph_def, *graph.library.gradient]
    rest += [node for node in graph.node if node.name not in entries]
    rest += [function for name, function in functions.items() if name not in found]
    # The bytes of a message hold every name in it: as an op, in an attribute, in a list of functions.
    texts = [message.SerializeToString() for message in rest]
    named = {name for name in found if any(name.encode() in text for text in texts)}
    consumed = {_node(value) for node in graph.node for value in node.input}
    consumed |= {_node(info.name) for value in meta_graph.signature_def.values() for info in value.outputs.values()}
    return set() if named or entries & consumed else found


def _node(tensor):
    return tensor.lstrip("^").partition(":")[0]
