# SPDX-License-Identifier: Apache-2.0
"""The ablation of DDF as a user runs it: variants, runs that are kept and resumed, tables and claims."""

import json
import shutil

import filelock
import keras
import numpy as np
import pytest
import tensorflow as tf

from examples.experiments import data
from examples.experiments.core import training
from examples.experiments.ddf import ablation, ablation_tables, ablation_variants
from keras_dynfilter.layers import DDF2D

TINY = ["--iterations", "4", "--batch-size", "4", "--checkpoint-every", "2", "--width", "4", "--blocks", "1"]
TINY += ["--source", "generated", "--test-images", "30", "--no-deterministic"]


def run(out, *arguments):
    assert ablation.main([*TINY, "--out", str(out), *arguments]) == 0
    return json.loads((out / "results.json").read_text())


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


# Variants


def test_variants_differ_in_the_windows_only():
    networks = {name: ablation_variants.build(name, width=8, blocks=(1, 2)) for name in ablation_variants.VARIANTS}

    def shared(network):
        windows = ("_window", "_window_pad")
        return [(layer.name, layer.count_params()) for layer in network.layers if not layer.name.endswith(windows)]

    base = shared(networks["base"])
    for name, network in networks.items():
        assert shared(network) == base, name
        assert network.output_shape == (None, 10)
    windows = {
        name: [n.get_layer(f"stage{s}_window") for s in ("1_block1", "2_block1")] for name, n in networks.items()
    }
    assert [type(windows[name][0]).__name__ for name in ("base", "depthwise", "condconv")] == [
        "Conv2D",
        "DepthwiseConv2D",
        "CondConv2D",
    ]
    for name, expected in {
        "ddf": ("both", "filter", 0.2),
        "spatial": ("spatial", "filter", 0.2),
        "channel": ("channel", "filter", 0.2),
        "batch_norm": ("both", "batch", 0.2),
        "sigmoid": ("both", "sigmoid", 0.2),
        "no_norm": ("both", None, 0.2),
        "squeeze_0.3": ("both", "filter", 0.3),
        "squeeze_0.4": ("both", "filter", 0.4),
    }.items():
        for layer in windows[name]:
            assert isinstance(layer, DDF2D)
            assert (layer.branches, layer.spatial_norm.argument, layer.squeeze_ratio) == expected
            assert layer.channel_norm.argument == layer.spatial_norm.argument
    # Per sample: a convolution of 8 to 8 channels at 16 x 16, and two of 16 to 16 at 8 x 8.
    dense, sparse = (9 * sum((256 * 8 * c, 2 * 64 * 16 * d)) for c, d in ((8, 16), (1, 1)))
    flops = {name: ablation_variants.flops(network) for name, network in networks.items()}
    assert flops["base"] - flops["depthwise"] == dense - sparse
    layers = ((8, 256, 256), (16, 256, 64), (16, 64, 64))  # channels, positions before and after
    mixing = [sum(n * c + 8 * c + 8 * 9 * c * (c if full else 1) for c, n, _ in layers) for full in (True, False)]
    assert flops["condconv"] - flops["base"] == mixing[0]
    assert flops["depthwise_condconv"] - flops["depthwise"] == mixing[1]


@pytest.mark.parametrize("filters", [5, None])
def test_condconv(filters):
    images = np.random.default_rng(0).standard_normal((3, 7, 6, 4)).astype("float32")
    layer = ablation_variants.CondConv2D(filters, strides=2, experts=3)
    outputs = layer(images)
    assert tuple(outputs.shape) == layer.compute_output_shape(images.shape) == (3, 4, 3, filters or 4)
    weights = {weight.name.split("/")[-1].split(":")[0]: weight.numpy() for weight in layer.weights}
    logits = images.mean(axis=(1, 2)) @ weights["kernel"] + weights["bias"]
    shares = 1 / (1 + np.exp(-logits))
    padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)])
    for i, (image, share) in enumerate(zip(padded, shares)):
        shape = (3, 3, 4, 1) if filters is None else (3, 3, 4, filters)
        kernel = (share @ weights["kernels"]).reshape(shape)
        op = tf.nn.depthwise_conv2d if filters is None else tf.nn.conv2d
        expected = op(image[None], kernel, [1, 2, 2, 1], "VALID")[0]
        np.testing.assert_allclose(outputs[i], expected, rtol=1e-4, atol=1e-5)
    assert ablation_variants.CondConv2D.from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(filters=0), "Expected `filters` to be a positive integer.* filters=0"),
        (dict(filters=4, kernel_size=2), "Expected `kernel_size` to be odd"),
        (dict(filters=4, strides=0), "Expected `strides` to be a positive integer"),
        (dict(filters=None, experts=0.5), "Expected `experts` to be a positive integer.* experts=0.5"),
    ],
)
def test_bad_condconv(arguments, message):
    with pytest.raises(ValueError, match=message):
        ablation_variants.CondConv2D(**arguments)


def test_optimizer():
    args = ablation.parse(["--iterations", "100", "--warmup", "0.1", "--learning-rate", "0.4"])
    model = training.Trainer(ablation_variants.build("ddf", width=8, blocks=(1,)))
    ablation.compile_model(model, args)
    optimizer = model.optimizer
    optimizer.build(model.network.trainable_variables)
    rates = [float(optimizer._learning_rate(step)) for step in (0, 5, 10, 55, 100)]
    assert rates == pytest.approx([0, 0.2, 0.4, 0.2, 0], abs=1e-6)
    config = optimizer.get_config()
    assert (config["momentum"], config["nesterov"]) == (0.9, True)
    assert config["weight_decay"] == pytest.approx(5e-3)
    # Without a gradient, a step only decays kernels, not biases or parameters of normalisations.
    optimizer.iterations.assign(10)
    before = {id(v): v.numpy() for v in model.network.trainable_variables}
    variables = model.network.trainable_variables
    optimizer.apply_gradients([(tf.zeros(v.shape), v) for v in variables])
    decayed = {v.path for v in variables if not np.array_equal(v.numpy(), before[id(v)])}
    assert decayed == {v.path for v in variables if "kernel" in v.name}
    for v in variables:
        if "kernel" in v.name:
            np.testing.assert_allclose(v.numpy(), before[id(v)] * (1 - 0.4 * 5e-3), rtol=1e-6)


def test_evaluation():
    images = np.zeros((7, 2, 2, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(7)

    def network(values, training):
        number = tf.cast(tf.round((values[:, 0, 0, 0] * 0.2470 + 0.4914) * 255), tf.int32)
        return tf.one_hot(number % 3, 3, on_value=2.0)

    figures = ablation.evaluate(network, images, np.array([0, 1, 2, 0, 1, 0, 1]), batch_size=3)
    right, wrong = -np.log(np.exp([2, 0]) / (np.exp(2) + 2))
    assert figures == {
        "top1": pytest.approx(500 / 7),
        "loss": pytest.approx((5 * right + 2 * wrong) / 7, rel=1e-5),
        "images": 7,
    }


# The sweep


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Returns the folder of a finished sweep of one run."""
    out = tmp_path_factory.mktemp("sweep")
    results = run(out, "--only", "ddf", "--seeds", "3")
    assert results["missing"] == [] and results["variants"]["ddf"]["seeds"] == [3]
    return out


def test_files_of_a_sweep(finished):
    results = json.loads((finished / "results.json").read_text())
    run_of_ddf = json.loads((finished / "runs" / "ddf_seed3.json").read_text())
    network = keras.models.load_model(finished / "runs" / "ddf_seed3.keras")
    figures = results["variants"]["ddf"]
    assert run_of_ddf["iterations"] == 4 and [epoch["step"] for epoch in run_of_ddf["history"]] == [2, 4]
    assert run_of_ddf["parameters"] == figures["parameters"] == trainable(network)
    test = tuple(array[:30] for array in data.load_cifar10("test", source="generated")[:2])
    assert ablation.evaluate(network, *test) == pytest.approx(run_of_ddf["test"], rel=1e-4)
    assert figures["top1"]["values"] == [run_of_ddf["test"]["top1"]] and figures["test_images"] == 30
    assert results["source"] == "generated"
    assert (
        (finished / "tables.md")
        .read_text()
        .startswith("Data: generated; trained on 4,000 images of 32 x 32 x 3, tested on 30 images")
    )
    assert (finished / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_finished_and_locked_runs_are_skipped(finished, tmp_path, capsys):
    out = tmp_path / "sweep"
    shutil.copytree(finished, out)
    before = (out / "runs" / "ddf_seed3.json").read_bytes()
    with filelock.FileLock(out / "runs" / "base_seed3.lock"):
        results = run(out, "--only", "ddf", "base", "--seeds", "3")
    output = capsys.readouterr().out
    assert "base_seed3: locked by another process, skipped." in output and "ddf_seed3:" not in output
    assert "Not finished: base_seed3. The same command continues" in output
    assert results["missing"] == ["base_seed3"] and list(results["variants"]) == ["ddf"]
    assert (out / "runs" / "ddf_seed3.json").read_bytes() == before
    with pytest.raises(SystemExit, match=r"Expected --iterations 4, as in .* Received: 5"):
        ablation.main([*TINY, "--iterations", "5", "--out", str(out)])


def test_an_interrupted_run_continues(finished, tmp_path, monkeypatch, capsys):
    """A run that is interrupted after a checkpoint and resumed has the weights of an uninterrupted run."""
    only = ["--only", "ddf", "--seeds", "3"]
    save = training.Checkpointer.on_epoch_end

    def interrupt(self, epoch, logs=None):
        save(self, epoch, logs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Checkpointer, "on_epoch_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ablation.main([*TINY, "--out", str(tmp_path), *only])
    run(tmp_path, *only)
    assert "continues after step 2 of 4" in capsys.readouterr().out
    networks = [keras.models.load_model(out / "runs" / "ddf_seed3.keras") for out in (finished, tmp_path)]
    for value, expected in zip(*(network.get_weights() for network in networks)):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


# Tables


def runs(**accuracies):
    return [
        {
            "variant": variant,
            "seed": seed,
            "parameters": 1000,
            "flops": 2_000_000,
            "test": {"top1": top1, "images": 5000},
            "training_seconds": 60.0 * (seed + 1),
        }
        for variant, values in accuracies.items()
        for seed, top1 in reversed([*enumerate(values)])
    ]


def test_summary():
    summary = ablation_tables.summarize(runs(ddf=[80.0, 82.0, 81.0], base=[70.0]))
    assert list(summary) == ["base", "ddf"]  # in the order of the tables
    assert summary["ddf"]["top1"] == {"mean": 81.0, "deviation": 1.0, "values": [80.0, 82.0, 81.0]}
    assert summary["ddf"]["seeds"] == [0, 1, 2] and summary["ddf"]["minutes"] == 2.0
    assert summary["base"]["top1"]["deviation"] is None


def test_claims():
    noisy, exact = [73.0, 74.0, 75.0], [80.0, 80.1, 80.2]
    figures = {"ddf": exact, "base": noisy, "spatial": [81.0, 81.1, 81.2], "channel": [79.0]}
    figures |= {"squeeze_0.3": [80.05, 80.1, 80.15], "squeeze_0.4": [75.0, 75.1, 75.2]}
    summary = ablation_tables.summarize(runs(**figures, depthwise=exact, no_norm=exact))
    claims = {(claim["better"], claim["worse"]): claim for claim in ablation_tables.check_claims(summary)}
    verdicts = {pair: claim["verdict"] for pair, claim in claims.items()}
    assert verdicts == {
        ("ddf", "base"): "holds",
        ("base", "spatial"): "does not hold",  # the difference is significant in the other direction
        ("ddf", "spatial"): "does not hold",
        ("channel", "base"): "undecided",  # one seed
        ("channel", "spatial"): "undecided",
        ("ddf", "channel"): "undecided",
        ("ddf", "squeeze_0.3"): "holds",  # equal within a point
        ("squeeze_0.4", "ddf"): "does not hold",
        ("squeeze_0.4", "squeeze_0.3"): "does not hold",
    }
    claim = claims["ddf", "base"]
    assert claim["difference"] == pytest.approx(6.1) and claim["paper"] == 1.9
    assert claim["error"] == pytest.approx(np.sqrt((0.1**2 + 1**2) / 3))
    assert claims["ddf", "squeeze_0.3"]["claim"] == "DDF equals DDF, squeeze ratio 0.3"
    assert claims["channel", "base"]["error"] is None


def test_markdown():
    summary = ablation_tables.summarize(runs(ddf=[80.0, 82.0], base=[70.0, 71.0], no_norm=[50.0]))
    text = ablation_tables.markdown(summary, ablation_tables.check_claims(summary))
    assert "| DDF | 1,000 | 2.00M | 81.00 ± 1.41 | 2 | 79.1 |" in text
    assert "| DDF, not normalised | 1,000 | 2.00M | 50.00 | 1 |  |" in text
    assert "| DDF above 3x3 convolution | 3(a) | +1.9 | +10.50 ± 1.12 | holds |" in text
    assert "Table 3(c)" not in text  # a table of one row


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--only", "conv"], "--only: invalid choice: 'conv'"),
        (["--seeds", "-1"], "--seeds: expected an integer from 0"),
        (["--smoke", "--width", "0"], "--width: expected an integer above zero"),
        (["--processes", "0"], "--processes: expected an integer above zero"),
    ],
)
def test_bad_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        ablation.parse(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
