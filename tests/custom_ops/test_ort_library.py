# SPDX-License-Identifier: Apache-2.0
"""The ops for ONNX Runtime: results of every forward op in every type, threads, errors, and the search for headers."""

import hashlib
import io
import pathlib
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow as tf

from keras_dynfilter import export
from keras_dynfilter.custom_ops import build, cache, debian, ort_headers
from tests.support import raw_ops, reference

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

OPS = {
    "LocalFilter2D": ("spatial", {"inputs": "inputs", "filters": "spatial"}),
    "SoftmaxLocalFilter2D": ("softmax", {"inputs": "inputs", "filters": "spatial"}),
    "DynamicDepthwiseConv2D": ("channel", {"inputs": "inputs", "filters": "channel"}),
    "DDF2D": ("mul", {"inputs": "inputs", "channel_filters": "channel", "spatial_filters": "spatial"}),
}
VARIANTS = [(op, kind) for op, (kind, _) in OPS.items()] + [("DDF2D", "add")]
ROUNDING = {"float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}
CASE = raw_ops.CASE
VALUES = raw_ops.arrays(CASE)


@pytest.fixture(scope="module")
def session(ort_library):
    """Returns a function that makes a session with one node. The node has no function body, so only the library can run
    it."""

    def make(
        op="LocalFilter2D", dtype="float32", inputs=None, threads=1, edit=lambda graph: None, libraries=None, **changes
    ):
        inputs = list(OPS[op][1]) if inputs is None else inputs
        attributes = {"heads": CASE.heads, "padding": CASE.padding}
        for name, pair in (("kernel", CASE.kernel_size), ("stride", CASE.strides), ("dilation", CASE.dilation_rate)):
            attributes[f"{name}_h"], attributes[f"{name}_w"] = pair
        attributes = {name: value for name, value in {**attributes, **changes}.items() if value is not None}
        element_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        values = [onnx.helper.make_tensor_value_info(name, element_type, None) for name in (*inputs, "outputs")]
        node = onnx.helper.make_node(op, inputs, ["outputs"], domain="keras_dynfilter", **attributes)
        graph = onnx.helper.make_graph([node], "graph", values[:-1], values[-1:])
        edit(graph)
        opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("keras_dynfilter", 1)]
        options = onnxruntime.SessionOptions()
        for library in libraries or [ort_library]:
            options.register_custom_ops_library(library)
        options.intra_op_num_threads, options.log_severity_level = threads, 4
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    return make


def run(session, op="LocalFilter2D", dtype="float32", **changes):
    inputs = {name: VALUES[operand].astype(dtype) for name, operand in OPS[op][1].items()}
    (outputs,) = session.run(None, {**inputs, **changes})
    return outputs


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("op, kind", VARIANTS)
def test_values(op, kind, dtype, session):
    changes = {"combine": kind} if op == "DDF2D" else {}
    actual = run(session(op, dtype, heads=None if kind == "channel" else CASE.heads, **changes), op, dtype)
    operands = {name: value.astype(dtype).astype("float64") for name, value in VALUES.items()}
    spatial = None if kind == "channel" else operands["spatial"]
    channel = operands["channel"] if kind in ("channel", "mul", "add") else None
    expected = reference.filter2d(operands["inputs"], spatial, channel, kind, heads=CASE.heads, **CASE.geometry)
    assert actual.dtype == dtype and actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=64 * ROUNDING[dtype] * np.abs(expected).max())


@pytest.mark.parametrize("op, kind", VARIANTS)
def test_values_in_bfloat16(op, kind, session):
    """NumPy has no bfloat16, so casts surround the node."""

    def cast(graph):
        node = onnx.NodeProto.FromString(graph.node[0].SerializeToString())
        names, rounded = list(node.input), [f"{name}_bfloat16" for name in node.input]
        node.input[:], node.output[:] = rounded, ["outputs_bfloat16"]
        make, types = onnx.helper.make_node, onnx.TensorProto
        before = [make("Cast", [name], [inner], to=types.BFLOAT16) for name, inner in zip(names, rounded)]
        del graph.node[:]
        graph.node.extend([*before, node, make("Cast", ["outputs_bfloat16"], ["outputs"], to=types.FLOAT)])

    changes = {"combine": kind} if op == "DDF2D" else {}
    actual = run(session(op, heads=None if kind == "channel" else CASE.heads, edit=cast, **changes), op)
    operands = {name: tf.cast(tf.cast(value, tf.bfloat16), tf.float64).numpy() for name, value in VALUES.items()}
    spatial = None if kind == "channel" else operands["spatial"]
    channel = operands["channel"] if kind in ("channel", "mul", "add") else None
    expected = reference.filter2d(operands["inputs"], spatial, channel, kind, heads=CASE.heads, **CASE.geometry)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2.0**-7 * np.abs(expected).max())
    assert np.array_equal(tf.cast(tf.cast(actual, tf.bfloat16), tf.float32), actual)


@pytest.mark.parametrize(
    "op, changes, filters, expected",
    [
        ("LocalFilter2D", {}, None, ["n", "h", 9, 4]),
        ("LocalFilter2D", {"stride_h": 2}, ["n", 7, "w2", 18], ["n", 7, "w2", 4]),
        ("LocalFilter2D", {"stride_h": 2}, None, None),
        ("LocalFilter2D", {"padding": "valid"}, ["n", None, 7, 18], None),
        ("DDF2D", {"combine": "mul"}, None, ["n", "h", 9, 4]),
        ("DynamicDepthwiseConv2D", {"heads": None}, None, ["n", "h", 9, 4]),
        ("DynamicDepthwiseConv2D", {"heads": None, "stride_w": 2}, None, None),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_sessions_know_the_shape_of_the_result(op, changes, filters, expected, dtype, session):
    def sized(graph):
        for value in (graph.input[0], *([graph.input[-1]] if filters else [])):
            for size in ["n", "h", 9, 4] if value.name == "inputs" else filters:
                dim = value.type.tensor_type.shape.dim.add()
                if size is not None:
                    setattr(dim, "dim_param" if isinstance(size, str) else "dim_value", size)

    plain = {"kernel_h": 3, "kernel_w": 3, "stride_h": 1, "stride_w": 1, "dilation_w": 1, "padding": "same"}
    sized_session = session(op, dtype, edit=sized, **{**plain, **changes})
    (output,) = sized_session.get_outputs()
    assert (output.shape or None) == expected and output.type == f"tensor({dtype.replace('32', '')})"


def test_the_number_of_threads_changes_no_bit(session):
    rng = np.random.default_rng(0)
    inputs = {
        "inputs": rng.standard_normal((2, 90, 70, 2), "float32"),
        "filters": rng.standard_normal((2, 90, 70, 50), "float32"),
    }
    window = dict(kernel_h=5, kernel_w=5, stride_h=1, dilation_w=1, heads=2, padding="same")
    one, four = (session(threads=threads, **window).run(None, inputs)[0] for threads in (1, 4))
    np.testing.assert_array_equal(one, four)
    assert np.isfinite(one).all() and one.any()


def test_empty_batch(session):
    empty = {name: VALUES[operand][:0].astype("float32") for name, operand in OPS["LocalFilter2D"][1].items()}
    assert run(session(), **empty).shape == (0, *CASE.out_size, CASE.shape[3])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"heads": None}, "Attribute heads: "),
        ({"kernel_h": 2}, "`kernel_h` and `kernel_w` to be odd.*kernel_h=2, kernel_w=5"),
        ({"stride_w": 0}, "`stride_w` to be from 1 to.*stride_w=0"),
        ({"kernel_h": 2**62 + 3}, "`kernel_h` to be from 1 to"),
        ({"dilation_h": 2**31 - 1}, "fewer than 2\\^31 taps"),
        ({"padding": "full"}, "`padding` to be 'same' or 'valid'.*padding='full'"),
        ({"padding": 1}, "Attribute padding: "),
        ({"inputs": ["inputs"]}, "input size 1"),
        ({"op": "DDF2D", "combine": "max"}, "`combine` to be 'mul' or 'add'.*combine='max'"),
        ({"op": "LocalFilter3D", "inputs": ["inputs"]}, "LocalFilter3D"),
    ],
)
def test_bad_nodes_are_refused_by_the_session(changes, message, session):
    with pytest.raises(Exception, match=message):
        session(**changes)


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("inputs", lambda x: x[0], r"`inputs` to have rank 4. Received: inputs.shape=\[5,6,4\]"),
        ("inputs", lambda x: x[..., :3], "`heads` to divide the channels. Received: heads=2, channels=3"),
        ("filters", lambda x: x[..., 0], "`filters` to have rank 4"),
        ("filters", lambda x: x[:1], r"`filters` to have shape \[batch,out_height.*Received: filters.shape=\[1,"),
        ("filters", lambda x: x[:, :-1], "`filters` to have shape"),
        ("filters", lambda x: x[..., :-1], r"`filters` to have shape.*Received: filters.shape=\[.*,29\]"),
    ],
)
def test_bad_shapes_are_refused_by_the_run(name, change, message, session):
    value = VALUES[OPS["LocalFilter2D"][1][name]].astype("float32")
    with pytest.raises(Exception, match=f"keras_dynfilter: Expected {message}"):
        run(session(), **{name: change(value)})


def test_the_library_is_built_once(ort_library):
    before = pathlib.Path(ort_library).stat().st_mtime_ns
    assert export.ort_library() == ort_library and pathlib.Path(ort_library).stat().st_mtime_ns == before


def test_the_library_from_two_paths_in_one_process(session, ort_library, tmp_path):
    copy = shutil.copy(ort_library, tmp_path)
    expected = run(session())
    np.testing.assert_array_equal(run(session(libraries=[copy])), expected)
    for libraries in ([copy, ort_library], [ort_library, ort_library]):
        with pytest.raises(Exception, match="Domain already set in registry"):
            session(libraries=libraries)
    np.testing.assert_array_equal(run(session()), expected)


def test_headers_are_found_by_the_variable(ort_library, monkeypatch, tmp_path):
    monkeypatch.delenv(ort_headers.VARIABLE, raising=False)
    folder = ort_headers.find_headers(cache.cache_folder())
    assert (folder / ort_headers.HEADER).is_file()
    monkeypatch.setenv(ort_headers.VARIABLE, str(folder.parent))
    if folder.name == "onnxruntime":
        assert ort_headers.find_headers(tmp_path) == folder
    monkeypatch.setenv(ort_headers.VARIABLE, str(folder))
    assert ort_headers.find_headers(tmp_path) == folder
    monkeypatch.setenv(ort_headers.VARIABLE, str(tmp_path))
    with pytest.raises(ort_headers.HeadersError, match=f"a folder with {ort_headers.HEADER}. Received: .*{tmp_path}"):
        ort_headers.find_headers(tmp_path)


def package(folder):
    """Writes a Debian package with two header files to `folder`. Returns the address of the site and the SHA-256."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name in (ort_headers.HEADER, "onnxruntime_c_api.h"):
            entry = tarfile.TarInfo(f"./usr/include/onnxruntime/{name}")
            entry.size = len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
    content = b"!<arch>\n"
    for name, member in (("debian-binary", b"2.0"), ("data.tar.xz", data.getvalue())):
        content += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(member):<10}`\n".encode() + member
        content += b"\n" * (len(member) % 2)
    path = folder / ort_headers.PACKAGE
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return folder.as_uri(), hashlib.sha256(content).hexdigest()


@pytest.fixture
def nothing_installed(monkeypatch, tmp_path):
    """Simulates a machine without headers, and a download site that does not have the package."""
    monkeypatch.delenv(ort_headers.VARIABLE, raising=False)
    monkeypatch.setattr(ort_headers, "SYSTEM", ())
    monkeypatch.setattr(debian, "SITES", ((tmp_path / "missing").as_uri(),))


def test_headers_are_downloaded_once(nothing_installed, monkeypatch, tmp_path):
    site, digest = package(tmp_path / "site")
    monkeypatch.setattr(debian, "SITES", (*debian.SITES, site))  # the first site does not have the package
    monkeypatch.setattr(ort_headers, "SHA256", digest)
    messages = []
    folder = ort_headers.find_headers(tmp_path / "cache", messages.append)
    assert sorted(path.name for path in folder.iterdir()) == ["onnxruntime_c_api.h", ort_headers.HEADER]
    assert (folder / ort_headers.HEADER).read_text() == ort_headers.HEADER
    assert ort_headers.find_headers(tmp_path / "cache", messages.append) == folder
    assert len(messages) == 1 and "downloading the headers" in messages[0]


def test_a_changed_package_is_refused(nothing_installed, monkeypatch, tmp_path):
    site, digest = package(tmp_path / "site")
    monkeypatch.setattr(debian, "SITES", (site,))
    with pytest.raises(ort_headers.HeadersError, match=f"expected the SHA-256 {ort_headers.SHA256}, received {digest}"):
        ort_headers.find_headers(tmp_path / "cache")
    assert not list(tmp_path.glob("cache/**/*.h"))


def test_without_headers_the_error_says_what_to_do(nothing_installed, tmp_path):
    with pytest.raises(build.BuildError, match=f"libonnxruntime-dev.*{ort_headers.VARIABLE}.*{tmp_path}/missing"):
        build.build_ort(tmp_path / "cache")
