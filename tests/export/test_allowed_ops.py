# SPDX-License-Identifier: Apache-2.0
"""A SavedModel is loaded only if none of its functions can reach files, processes or networks, whatever their names."""

import re

import keras
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from keras_dynfilter import export
from keras_dynfilter.export import allowed_ops, model_loading
from tests.support import export_models as models

pytestmark = pytest.mark.legacy


def save_file_writer(path, target):
    """Saves a model whose signature writes the file `target`. Returns the content of the SavedModel."""

    def serve(x):
        tf.io.write_file(str(target), "text")
        return {"y": x + 1.0}

    module = tf.Module()
    module.variable = tf.Variable(1.0)  # without a variable there is no saver
    serve = tf.function(serve).get_concrete_function(tf.TensorSpec((None, 2), name="x"))
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve})
    return saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())


def name_functions_like_the_saver(content):
    """Renames every function so that it seems to be a function of the saver."""
    serialized = content.SerializeToString()
    old, new = b"__inference_", b"traced_save_"  # of equal length, so the bytes stay a valid message
    return saved_model_pb2.SavedModel.FromString(serialized.replace(old, new))


def writing_function(graph):
    return next(f for f in graph.graph_def.library.function if any(node.op == "WriteFile" for node in f.node_def))


def restore_node(graph):
    return next(node for node in graph.graph_def.node if node.name == graph.saver_def.restore_op_name)


def let_the_saver_be_the_signature(content):
    """Makes the saver call the function of the signature."""
    (graph,) = content.meta_graphs
    restore_node(graph).attr["f"].func.name = writing_function(graph).signature.name
    return content


def let_the_saver_call_the_signature(content):
    """Makes the function that restores variables, which nothing else names, call the function of the signature."""
    (graph,) = content.meta_graphs
    restore = next(f for f in graph.graph_def.library.function if "traced_restore" in f.signature.name)
    call = restore.node_def.add(name="call", op="StatefulPartitionedCall")
    call.attr["f"].func.name = writing_function(graph).signature.name
    return content


def remove_the_object_graph(content):
    """Removes the object graph and all functions but one. TensorFlow then runs the restore node to load the file."""
    (graph,) = content.meta_graphs
    graph.ClearField("object_graph_def")
    restore = restore_node(graph)
    for function in [f for f in graph.graph_def.library.function if f.signature.name != restore.attr["f"].func.name]:
        graph.graph_def.library.function.remove(function)
    return content


def call_the_saver_in_the_graph(content):
    """Adds a node to the graph that calls the saver."""
    (graph,) = content.meta_graphs
    restore = restore_node(graph)
    graph.graph_def.node.add(name="other", op=restore.op).attr["f"].func.name = restore.attr["f"].func.name
    return content


def duplicate_the_graph(content):
    content.meta_graphs.add().CopyFrom(content.meta_graphs[0])
    return content


@pytest.mark.parametrize(
    "change, op",
    [
        (lambda content: content, "WriteFile"),
        (name_functions_like_the_saver, "WriteFile"),
        (let_the_saver_be_the_signature, "WriteFile"),
        (let_the_saver_call_the_signature, "WriteFile"),
        (remove_the_object_graph, "RestoreV2"),
        (call_the_saver_in_the_graph, "RestoreV2"),
        (duplicate_the_graph, "RestoreV2"),
    ],
)
def test_no_function_hides_its_ops(change, op, tmp_path):
    changed = change(save_file_writer(tmp_path / "m", tmp_path / "target"))
    (tmp_path / "m" / "saved_model.pb").write_bytes(changed.SerializeToString())
    with pytest.raises(export.ExportError, match=f"files, processes or networks: .*{op}.*--unsafe"):
        model_loading.load_model(tmp_path / "m")
    assert not (tmp_path / "target").exists()


def test_debugging_op_that_writes(tmp_path):
    @tf.function(input_signature=[tf.TensorSpec((None, 2), name="x")])
    def serve(x):
        return {"y": tf.raw_ops.DebugIdentity(input=x, debug_urls=[f"file://{tmp_path}/target"])}

    tf.saved_model.save(tf.Module(), str(tmp_path / "m"), signatures={"serving_default": serve})
    with pytest.raises(export.ExportError, match=r"networks: DebugIdentity\. --unsafe"):
        model_loading.load_model(tmp_path / "m")


def refused(*ops):
    """Returns the refused ops of a SavedModel with one function, whose nodes are `ops`."""
    content = saved_model_pb2.SavedModel()
    function = content.meta_graphs.add().graph_def.library.function.add()
    for op in ops:
        function.node_def.add(op=op)
    return set(allowed_ops.refused_ops(content))


WRITE = """WriteFile DebugIdentity DebugIdentityV2 DebugIdentityV3 DebugNanCount DebugNumericSummary DumpTensor SaveV2
    CalibrationStatisticsSaver DistributedSave PrintV2 WriteSummary"""
READ = """ReadFile ImmutableConst LoadAndRemapMatrix GenerateVocabRemapping FixedUnigramCandidateSampler RecordInput
    Skipgram DecodeProtoV2 EncodeProto RestoreV2 InitializeTableFromTextFileV2 MatchingFiles TFRecordDataset"""
OUTSIDE = "PyFunc EagerPyFunc XlaCustomCall XlaCustomCallV2 XlaLaunch Send Recv _Send _HostRecv XlaSend RpcCall Abort"
UNKNOWN = "OpOfAnotherLibrary conv2d Conv2D> Other>Conv2D"


@pytest.mark.parametrize("ops", [WRITE, READ, OUTSIDE, UNKNOWN], ids=["write", "read", "outside", "unknown"])
def test_refused_ops(ops):
    assert refused(*ops.split()) == set(ops.split())
    assert refused("Conv2D", "KerasDynfilter>DDF2D", *ops.split()) == set(ops.split())


def test_function_with_the_name_of_an_op():
    """TensorFlow runs the op even if the file has a function of the same name."""
    content = saved_model_pb2.SavedModel()
    library = content.meta_graphs.add().graph_def.library
    library.function.add().signature.name = "WriteFile"
    library.function.add().node_def.add(op="WriteFile")
    assert allowed_ops.refused_ops(content) == ["WriteFile"]


def test_allowed_ops_exist_and_open_no_files():
    """No allowed op has an argument that names a file, an address or a command."""
    resource = re.compile(
        r"file|path|url|dir(?!ection)|address|memory_region|vocab|descriptor_source|ckpt|protocol|command"
    )
    definitions = {op: op_def_registry.get(op) for op in allowed_ops.ALLOWED}
    known = {op: definition for op, definition in definitions.items() if definition is not None}
    assert len(known) > 0.95 * len(definitions)  # versions of TensorFlow differ
    for op, definition in known.items():
        assert not [arg.name for arg in (*definition.attr, *definition.input_arg) if resource.search(arg.name)], op


def test_ops_of_this_package_are_allowed(native_library, tmp_path):
    model = models.every_op()
    for ops in ("portable", "native"):
        report = export.export(model, tmp_path / ops, ops=ops, validate=False, verbose=False)
        assert refused(*report.nodes) == set()
        model_loading.load_model(tmp_path / ops)


@pytest.mark.parametrize("way", ["export", "save"])
def test_keras_models_load(way, tmp_path):
    inputs = keras.Input((4, 3), name="x")
    recurrent = keras.layers.Bidirectional(keras.layers.LSTM(2))(inputs)
    outputs = keras.layers.Dense(2)(keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(recurrent)))
    model = keras.Model(inputs, outputs)
    if way == "export":
        model.export(str(tmp_path / "m"))
    else:
        tf.saved_model.save(model, str(tmp_path / "m"))
    loaded, x = model_loading.load_model(tmp_path / "m"), tf.random.stateless_normal((2, 4, 3), (0, 1))
    (outputs,) = loaded(dict.fromkeys(loaded.input, x)).values()
    tf.debugging.assert_near(outputs, model(x))
