# SPDX-License-Identifier: Apache-2.0
"""`load_authors_state` and `weights=` give networks that compute what the authors' PyTorch networks compute."""

import doctest
import importlib.util
import io
import math
import pickle
import re
import struct
import zipfile

import keras
import numpy as np
import pytest

from keras_dynfilter import models
from keras_dynfilter.models.ddf import authors_state, preprocess, state_files
from keras_dynfilter.models.ddf.resnet import DEPTHS
from keras_dynfilter.untrusted import memory
from tests.support import ddf_resnet_reference as reference

BLOCKS = DEPTHS[50]["blocks"]
WIDTH, CLASSES = 8, 5
SHAPES = reference.state_shapes(BLOCKS, WIDTH, CLASSES)


def small_resnet(**arguments):
    return models.ddf_resnet50(
        (33, 46, 3), width=WIDTH, classifier_activation=None, **{"classes": CLASSES, **arguments}
    )


@pytest.fixture(scope="module")
def state():
    return reference.random_state(SHAPES, np.random.default_rng(0))


def images(batch=2, height=33, width=46):
    return np.random.default_rng(1).standard_normal((batch, height, width, 3)).astype("float32")


def assert_close(outputs, expected):
    np.testing.assert_allclose(outputs, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("combine", ["mul", "add"])
def test_loaded_networks_compute_the_logits_of_the_state(state, combine):
    """Odd sizes, all blocks, and an independent implementation that reads the state by name."""
    model = small_resnet(combine=combine, weights=state)
    expected = reference.logits(state, images().transpose(0, 3, 1, 2).astype("float64"), BLOCKS, combine)
    assert np.abs(expected).max() > 0.1
    assert_close(model(images(), training=False), expected)


def test_every_weight_is_loaded(state):
    model = small_resnet()
    before = [weight.numpy() for weight in model.weights]
    models.load_authors_state(model, state)
    assert all(np.all(old != new.numpy()) for old, new in zip(before, model.weights))


def test_states_may_be_nested_and_prefixed(state):
    nested = {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 120}
    nested["state_dict"]["module.bn1.num_batches_tracked"] = np.array(7)
    first, second = small_resnet(weights=state), small_resnet(weights=nested)
    for one, other in zip(first.weights, second.weights):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("names", [("bn1.bias", "module.bn1.bias"), ("module.module.bn1.bias", "module.bn1.bias")])
def test_entries_that_occur_twice_are_refused(names, state):
    """Neither of the two values may win silently."""
    twice = {name: value for name, value in state.items() if name != "bn1.bias"} | dict.fromkeys(
        names, state["bn1.bias"]
    )
    message = rf"Expected `state` to hold every entry once.* Received: '{names[0]}' and '{names[1]}'"
    with pytest.raises(ValueError, match=message):
        models.load_authors_state(small_resnet(), twice)
    counts = {"bn1.num_batches_tracked": np.array(7), "module.bn1.num_batches_tracked": np.array(8)}
    small_resnet(weights=state | counts)  # which no layer of Keras uses


def test_other_heads_are_kept(state):
    model = small_resnet(classes=10)
    head = model.get_layer("predictions").get_weights()
    models.load_authors_state(model, state)
    for before, after in zip(head, model.get_layer("predictions").get_weights()):
        np.testing.assert_array_equal(before, after)
    headless = small_resnet(include_top=False, pooling="avg", weights=state)
    np.testing.assert_array_equal(headless.get_layer("stem").kernel, model.get_layer("stem").kernel)


def test_all_problems_are_listed_and_no_weight_changes(state):
    model = small_resnet()
    before = [weight.numpy() for weight in model.weights]
    damaged = dict(state)
    del damaged["layer2.0.bn1.weight"]
    damaged["layer9.conv1.weight"] = np.zeros((2, 2))
    damaged["conv1.weight"] = np.zeros((8, 3, 3, 3))
    damaged["layer1.0.conv2.channel_branch.4.std"] = np.zeros(5)
    damaged["bn1.bias"] = np.full(WIDTH, np.nan)
    with pytest.raises(ValueError) as error:
        models.load_authors_state(model, damaged)
    for line in (
        "Expected `state` to fit the weights of ddf_resnet50. Received:",
        "layer2.0.bn1.weight: missing, expected shape (16,)",
        "layer9.conv1.weight: left over, shape (2, 2)",
        "conv1.weight: shape (8, 3, 3, 3), expected (8, 3, 7, 7)",
        "layer1.0.conv2.channel_branch.4.std: shape (5,), expected (8, 9)",
        "bn1.bias: values that are not finite",
    ):
        assert line in str(error.value)
    for old, new in zip(before, model.weights):
        np.testing.assert_array_equal(old, new)
    with pytest.raises(ValueError, match=r"hold arrays of numbers\. Received: fc\.bias='x'"):
        models.load_authors_state(model, {**state, "fc.bias": "x"})


def test_models_that_are_refused(state):
    inputs = keras.Input((8, 8, 3))
    plain = keras.Model(inputs, keras.layers.Conv2D(3, 3, name="stem")(inputs))
    with pytest.raises(ValueError, match=r"Expected `model` to be a keras\.Model"):
        models.load_authors_state(None, state)
    for model in (
        models.ddf_resnet50_baseline((32, 32, 3)),
        models.ddf_resnet18((32, 32, 3)),
        plain,
        small_resnet(channel_norm="batch"),
        small_resnet(branches="channel"),
    ):
        with pytest.raises(ValueError, match="Expected `model` to be a network of ddf_resnet50"):
            models.load_authors_state(model, state)


def test_files(state, tmp_path):
    model = small_resnet(weights=state)
    np.savez(tmp_path / "state.npz", **state)
    from_file = small_resnet(weights=tmp_path / "state.npz")
    model.save_weights(tmp_path / "model.weights.h5")
    from_keras = small_resnet(weights=str(tmp_path / "model.weights.h5"))
    for one, other, third in zip(model.weights, from_file.weights, from_keras.weights):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, third)


def test_files_that_are_refused(tmp_path):
    model = small_resnet()
    with pytest.raises(ValueError, match=r"a dict or a file \.pth, .*, \.npz\. Received: .*txt"):
        models.load_authors_state(model, tmp_path / "state.txt")
    with pytest.raises(FileNotFoundError, match="Expected `state` to be a file that exists"):
        models.load_authors_state(model, tmp_path / "state.npz")
    np.savez(tmp_path / "objects.npz", value=np.array([object()]))
    huge, nested = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({2**50},)}}", "[" * 200
    for name, header in {"huge.npz": huge, "nested.npz": nested}.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("value.npy", b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode())
    damaged = ["objects.npz", "huge.npz", "nested.npz"]
    for name, contents in {**dict.fromkeys(damaged), "text.npz": b"text", "empty.npz": b""}.items():
        if contents is not None:
            (tmp_path / name).write_bytes(contents)
        with pytest.raises(ValueError, match=r"Expected .* to be a file of arrays of numbers only"):
            models.load_authors_state(model, tmp_path / name)
    for other in (None, 3, ["state.npz"], b"state.npz"):
        with pytest.raises(ValueError, match="Expected `state` to be a dict or the path of a file"):
            models.load_authors_state(model, other)


def npz(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return bytearray(file.getvalue())


def npz_with_bytes(positions):
    """Returns an archive with bytes changed: `(signature of a record, distance from it): value`."""
    content = npz(a=np.arange(1000.0))
    for (signature, distance), value in positions.items():
        content[content.find(signature) + distance] = value
    return content


LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"
HOSTILE = {
    "damaged": npz_with_bytes({(LOCAL, distance): 85 for distance in range(60, 90)}),
    "method": npz_with_bytes({(LOCAL, 8): 99, (CENTRAL, 10): 99}),
    "encrypted": npz_with_bytes({(LOCAL, 6): 1, (CENTRAL, 8): 1}),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_archives_for_which_numpy_raises_other_errors(content, tmp_path):
    (tmp_path / "state.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"Expected .*state\.npz to be a file of arrays of numbers only\. Received: "):
        state_files.read_state(tmp_path / "state.npz")


def test_a_single_array_is_no_state(tmp_path):
    with open(tmp_path / "state.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"only\. Received: .* to be a ZIP archive"):
        state_files.read_state(tmp_path / "state.npz")


@pytest.mark.parametrize(
    "value", [10**400, np.zeros(5, complex), np.array(["1"] * 5), {"a": 1}], ids=["huge", "complex", "text", "dict"]
)
def test_values_that_are_no_real_numbers(value, state):
    with pytest.raises(ValueError, match=r"hold arrays of numbers\. Received: fc\.bias="):
        models.load_authors_state(small_resnet(), {**state, "fc.bias": value})


def npz_that_declares(path, entries):
    """Writes an archive of arrays without values. Its headers and its list of members declare all of them."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, (shape, dtype) in entries.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array_header_1_0(member, dict(descr=dtype, fortran_order=False, shape=shape))
    content = bytearray(path.read_bytes())
    position = content.find(CENTRAL)
    for shape, dtype in entries.values():
        (size,) = struct.unpack_from("<I", content, position + 24)
        struct.pack_into("<I", content, position + 24, size + math.prod(shape) * np.dtype(dtype).itemsize)
        position = content.find(CENTRAL, position + 1)
    path.write_bytes(content)


def test_arrays_that_the_model_does_not_need_are_not_read(state, monkeypatch, tmp_path):
    """A few bytes can declare gigabytes: arrays of other names, shapes and dtypes are refused by their headers."""
    gigabytes = 3 * 2**30
    monkeypatch.setattr(memory, "available", lambda: 100 * gigabytes)
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("an array was read"))
    entries = {
        "layer9.conv1.weight": ((gigabytes,), "|u1"),
        "conv1.weight": ((gigabytes // 8,), "<f8"),
        "module.bn1.num_batches_tracked": ((gigabytes // 8,), "<i8"),
        "fc.weight": ((3, 2**30), "|u1"),
    }
    npz_that_declares(tmp_path / "state.npz", entries)
    assert (tmp_path / "state.npz").stat().st_size < 2000
    with pytest.raises(ValueError, match="to fit the weights of ddf_resnet50") as error:
        models.load_authors_state(small_resnet(), tmp_path / "state.npz")
    assert "layer9.conv1.weight: left over, shape (3221225472,)" in str(error.value)
    assert "conv1.weight: shape (402653184,), expected (8, 3, 7, 7)" in str(error.value)
    npz_that_declares(tmp_path / "text.npz", {"bn1.weight": ((WIDTH,), f"|V{gigabytes // WIDTH}")})
    with pytest.raises(ValueError, match=r"hold arrays of numbers\. Received: bn1\.weight=StoredArray"):
        models.load_authors_state(small_resnet(), tmp_path / "text.npz")


def test_files_that_declare_more_than_the_memory(monkeypatch, tmp_path):
    npz_that_declares(tmp_path / "state.npz", {"conv1.weight": ((2**30,), "|u1")})
    monkeypatch.setattr(memory, "available", lambda: 2**30)
    with pytest.raises(
        ValueError, match=r"state\.npz, unpacked, to need at most 537 MB of memory.* Received: 1\.07 GB"
    ):
        models.load_authors_state(small_resnet(), tmp_path / "state.npz")


def test_values_that_would_be_infinite_in_the_model(state):
    with pytest.raises(ValueError, match=r"bn1\.bias: values that are not finite in float32"):
        models.load_authors_state(small_resnet(), {**state, "bn1.bias": np.full(WIDTH, 1e300)})


def test_packages_that_are_missing(monkeypatch, tmp_path):
    model = small_resnet()
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    for name, package in (("state.pth.tar", "PyTorch"), ("state.safetensors", "safetensors")):
        (tmp_path / name).write_bytes(b"text")
        with pytest.raises(ImportError, match=rf"{package} is needed .*keras_dynfilter\[pytorch\]"):
            models.load_authors_state(model, tmp_path / name)


needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


class RunsCode:
    def __reduce__(self):
        return (open, ("/proc/self/status",))


@needs_torch
def test_pytorch_files(state, tmp_path):
    import torch

    tensors = {name: torch.tensor(value) for name, value in state.items()}
    torch.save({"state_dict": tensors, "arch": "ddf"}, tmp_path / "state.pth.tar")
    torch.save(tensors["fc.bias"], tmp_path / "tensor.pth")
    (tmp_path / "code.pth").write_bytes(pickle.dumps({"fc.bias": RunsCode()}, protocol=2))
    (tmp_path / "text.pth").write_bytes(b"text")
    model, from_file = small_resnet(weights=state), small_resnet(weights=tmp_path / "state.pth.tar")
    for one, other in zip(model.weights, from_file.weights):
        np.testing.assert_array_equal(one, other)
    for name in ("code.pth", "text.pth"):
        with pytest.raises(ValueError, match="to be a file of arrays of numbers only"):
            models.load_authors_state(model, tmp_path / name)
    with pytest.raises(ValueError, match=r"to hold a dict of tensors\. Received: Tensor"):
        models.load_authors_state(model, tmp_path / "tensor.pth")


@needs_torch
def test_pytorch_files_that_declare_more_than_they_hold(state, monkeypatch, tmp_path):
    """An expanded tensor has any shape and one value. The members of a file may be compressed."""
    import torch

    tensors = {name: torch.tensor(value) for name, value in state.items()}
    torch.save({**tensors, "conv1.weight": torch.zeros(1).expand(2**40)}, tmp_path / "expanded.pth")
    with pytest.raises(ValueError, match=r"conv1\.weight: shape \(1099511627776,\), expected \(8, 3, 7, 7\)"):
        models.load_authors_state(small_resnet(), tmp_path / "expanded.pth")
    monkeypatch.setattr(memory, "available", lambda: 2_000_000)
    with zipfile.ZipFile(tmp_path / "compressed.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(4_000_000))
    for name in ("compressed.pth", "old.pth", "state.safetensors"):
        if name != "compressed.pth":
            (tmp_path / name).write_bytes(bytes(1_100_000))
        with pytest.raises(ValueError, match=f"numbers only. Received: Expected .*{name}.* to need at most 1 MB"):
            models.load_authors_state(small_resnet(), tmp_path / name)


@needs_torch
@pytest.mark.skipif(importlib.util.find_spec("safetensors") is None, reason="safetensors is not installed")
def test_safetensors_files(state, tmp_path):
    import safetensors.numpy

    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(value) for name, value in state.items()}, tmp_path / "state.safetensors"
    )
    model, from_file = small_resnet(weights=state), small_resnet(weights=tmp_path / "state.safetensors")
    for one, other in zip(model.weights, from_file.weights):
        np.testing.assert_array_equal(one, other)
    (tmp_path / "text.safetensors").write_bytes(b"text")
    with pytest.raises(ValueError, match="to be a file of arrays of numbers only"):
        models.load_authors_state(model, tmp_path / "text.safetensors")


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("depth, combine", [(50, "mul"), (50, "add"), (101, "mul"), (101, "add")])
def test_pytorch_networks(depth, combine):
    """A PyTorch module with the authors' names, in full size."""
    import torch

    from tests.support.torch_ddf_resnet import ResNet

    torch.manual_seed(0)
    module = ResNet(DEPTHS[depth]["blocks"], combine)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if re.search(r"running_var$", name):
                value.uniform_(0.5, 1.5)
            elif re.search(r"(bn\d|downsample\.1)\.", name) and value.dtype.is_floating_point:
                value.normal_(0.5 if name.endswith("weight") else 0.0, 0.2)
        module.eval()
        expected = module(torch.from_numpy(images(2, 97, 130).transpose(0, 3, 1, 2).copy())).softmax(-1).numpy()
    model = getattr(models, f"ddf_resnet{depth}")((97, 130, 3), combine=combine, weights=module.state_dict())
    np.testing.assert_allclose(model(images(2, 97, 130), training=False), expected, rtol=1e-3, atol=1e-6)


def test_preprocessing_agrees_with_pillow():
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pixels = np.random.default_rng(2).integers(0, 256, (37, 50, 3), np.uint8)
    pixels = np.asarray(image.fromarray(pixels).resize((500, 370), image.Resampling.BILINEAR))
    photograph = image.fromarray(pixels).resize((345, 256), image.Resampling.BICUBIC)  # 256 * 500 // 370
    crop = np.asarray(photograph)[16:240, 60:284] / 255
    expected = (crop - preprocess.MEAN) / preprocess.DEVIATION
    outputs = models.preprocess_imagenet(pixels)
    assert tuple(outputs.shape) == (224, 224, 3)
    assert np.abs(outputs - expected).max() < 2.01 / 255 / 0.224  # rounded twice
    assert np.mean(np.abs(outputs - expected) > 1e-6) < 0.02
    batch = models.preprocess_imagenet(pixels[None], size=112)
    assert tuple(batch.shape) == (1, 112, 112, 3)
    for wrong in (np.zeros((4, 4)), np.zeros((0, 4, 3)), np.zeros((4, 4, 1))):
        with pytest.raises(ValueError, match="Expected `images` to have shape"):
            models.preprocess_imagenet(wrong)


@pytest.mark.parametrize("module", [authors_state, preprocess])
def test_docstring_examples(module):
    names = dict(np=np, ddf_resnet50=models.ddf_resnet50)
    assert doctest.testmod(module, extraglobs=names, raise_on_error=True).attempted >= 1
