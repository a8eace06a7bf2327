# SPDX-License-Identifier: Apache-2.0
"""A SavedModel that is loaded for export reaches no files, processes or networks, whatever its functions are called."""

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


def written(path, target):
    """A SavedModel whose signature writes the file `target`, and its content."""

    def serve(x):
        tf.io.write_file(str(target), "text")
        return {"y": x + 1.0}

    module = tf.Module()
    module.variable = tf.Variable(1.0)  # without one there is no saver
    serve = tf.function(serve).get_concrete_function(tf.TensorSpec((None, 2), name="x"))
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve})
    return saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())


def functions_renamed(content):
    """Every function is called like those of the saver."""
    text = content.SerializeToString()
    old, new = b"__inference_", b"traced_save_"  # of one length, so the bytes stay a message
    return saved_model_pb2.SavedModel.FromString(text.replace(old, new))


def writer_of(graph):
    return next(f for f in graph.graph_def.library.function if any(node.op == "WriteFile" for node in f.node_def))


def restoring(graph):
    return next(node for node in graph.graph_def.node if node.name == graph.saver_def.restore_op_name)


def saver_is_the_signature(content):
    """The saver calls the function that the signature does."""
    (graph,) = content.meta_graphs
    restoring(graph).attr["f"].func.name = writer_of(graph).signature.name
    return content


def saver_reaches_the_signature(content):
    """The function that restores, which nothing else names, calls the one of the signature."""
    (graph,) = content.meta_graphs
    restore = next(f for f in graph.graph_def.library.function if "traced_restore" in f.signature.name)
    call = restore.node_def.add(name="call", op="StatefulPartitionedCall")
    call.attr["f"].func.name = writer_of(graph).signature.name
    return content


def restored_by_the_graph(content):
    """Without an object graph TensorFlow runs the restoring node when it loads the file."""
    (graph,) = content.meta_graphs
    graph.ClearField("object_graph_def")
    restore = restoring(graph)
    for function in [f for f in graph.graph_def.library.function if f.signature.name != restore.attr["f"].func.name]:
        graph.graph_def.library.function.remove(function)
    return content


def called_outside_of_functions(content):
    """A node of the graph calls the saver."""
    (graph,) = content.meta_graphs
    restore = restoring(graph)
    graph.graph_def.node.add(name="other", op=restore.op).attr["f"].func.name = restore.attr["f"].func.name
    return content


def two_graphs(content):
    content.meta_graphs.add().CopyFrom(content.meta_graphs[0])
    return content


@pytest.mark.parametrize(
    "change, op",
    [
        (lambda content: content, "WriteFile"),
        (functions_renamed, "WriteFile"),
        (saver_is_the_signature, "WriteFile"),
        (saver_reaches_the_signature, "WriteFile"),
        (restored_by_the_graph, "RestoreV2"),
        (called_outside_of_functions, "RestoreV2"),
        (two_graphs, "RestoreV2"),
    ],
)
def test_no_function_hides_what_it_does(change, op, tmp_path):
    changed = change(written(tmp_path / "m", tmp_path / "target"))
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
    """The refused ops among `ops`, nodes of a function."""
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
    """TensorFlow runs the op, whatever functions the file has."""
    content = saved_model_pb2.SavedModel()
    library = content.meta_graphs.add().graph_def.library
    library.function.add().signature.name = "WriteFile"
    library.function.add().node_def.add(op="WriteFile")
    assert allowed_ops.refused_ops(content) == ["WriteFile"]


def test_allowed_ops_exist_and_open_nothing():
    """No allowed op has an argument that names a file, an address or a command."""
    opens = re.compile(
        r"file|path|url|dir(?!ection)|address|memory_region|vocab|descriptor_source|ckpt|protocol|command"
    )
    definitions = {op: op_def_registry.get(op) for op in allowed_ops.ALLOWED}
    known = {op: definition for op, definition in definitions.items() if definition is not None}
    assert len(known) > 0.95 * len(definitions)  # versions of TensorFlow differ
    for op, definition in known.items():
        assert not [arg.name for arg in (*definition.attr, *definition.input_arg) if opens.search(arg.name)], op


def test_ops_of_this_package_are_allowed(native_library, tmp_path):
    model = models.every_op()
    for ops in ("portable", "native"):
        report = export.export(model, tmp_path / ops, ops=ops, validate=False, verbose=False)
        assert refused(*report.nodes) == set()
        model_loading.load_model(tmp_path / ops)


@pytest.mark.parametrize("way", ["export", "save"])
def test_models_of_keras_load(way, tmp_path):
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
