# SPDX-License-Identifier: Apache-2.0
"""A second implementation of DDF-ResNet: NumPy in float64, channels first, straight from a PyTorch state by name."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def random_state(shapes, generator):
    """Draws values for the entries of a state that keep the maps of a deep network near unit scale."""
    state = {}
    for name, shape in shapes.items():
        values = generator.standard_normal(shape)
        if name.endswith("running_var"):
            values = generator.uniform(0.5, 1.5, shape)
        elif ".bn" in name or name.startswith("bn") or ".downsample.1" in name:
            values = 0.2 * values + (0.5 if name.endswith("weight") else 0.0)
        elif name.endswith("weight"):
            values *= np.sqrt(2 / np.prod(shape[1:]))
        else:
            values *= 0.3
        state[name] = values
    return state


def state_shapes(blocks, width, classes):
    """Returns a dict from the names of a state to shapes, for bottleneck blocks and 3x3 windows."""
    shapes = {"conv1.weight": (width, 3, 7, 7), **_norm("bn1", width)}
    channels = width
    for stage, count in enumerate(blocks):
        inner = width * 2**stage
        squeezed = max(int(0.2 * inner), 1)
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            shapes |= {f"{name}.conv1.weight": (inner, channels, 1, 1), **_norm(f"{name}.bn1", inner)}
            shapes |= {
                f"{name}.conv2.spatial_branch.0.weight": (9, inner, 1, 1),
                f"{name}.conv2.spatial_branch.0.bias": (9,),
                f"{name}.conv2.channel_branch.1.weight": (squeezed, inner, 1, 1),
                f"{name}.conv2.channel_branch.1.bias": (squeezed,),
                f"{name}.conv2.channel_branch.3.weight": (inner * 9, squeezed, 1, 1),
                f"{name}.conv2.channel_branch.3.bias": (inner * 9,),
                f"{name}.conv2.channel_branch.4.std": (inner * 9,),
            }
            shapes |= _norm(f"{name}.bn2", inner)
            shapes |= {f"{name}.conv3.weight": (4 * inner, inner, 1, 1), **_norm(f"{name}.bn3", 4 * inner)}
            if block == 0:
                shapes |= {f"{name}.downsample.0.weight": (4 * inner, channels, 1, 1)}
                shapes |= _norm(f"{name}.downsample.1", 4 * inner)
            channels = 4 * inner
    return shapes | {"fc.weight": (classes, channels), "fc.bias": (classes,)}


def logits(state, images, blocks, combine):
    """Computes the logits of channels-first `images`."""
    maps = np.maximum(_batch_norm(state, "bn1", _conv(images, state["conv1.weight"], 2, 3)), 0)
    maps = _windows(maps, 3, 2, 1).max(axis=(-2, -1))
    for stage, count in enumerate(blocks):
        for block in range(count):
            name, stride = f"layer{stage + 1}.{block}", 2 if stage > 0 and block == 0 else 1
            inner = np.maximum(_batch_norm(state, f"{name}.bn1", _conv(maps, state[f"{name}.conv1.weight"])), 0)
            inner = _ddf(state, f"{name}.conv2", inner, stride, combine)
            inner = np.maximum(_batch_norm(state, f"{name}.bn2", inner), 0)
            inner = _batch_norm(state, f"{name}.bn3", _conv(inner, state[f"{name}.conv3.weight"]))
            if block == 0:
                maps = _conv(maps, state[f"{name}.downsample.0.weight"], stride)
                maps = _batch_norm(state, f"{name}.downsample.1", maps)
            maps = np.maximum(maps + inner, 0)
    return maps.mean(axis=(2, 3)) @ state["fc.weight"].T + state["fc.bias"]


def _norm(name, channels):
    return {f"{name}.{entry}": (channels,) for entry in ("weight", "bias", "running_mean", "running_var")}


def _windows(maps, size, stride, padding):
    padded = np.pad(maps, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    return sliding_window_view(padded, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]


def _conv(maps, kernel, stride=1, padding=0):
    windows = _windows(maps, kernel.shape[-1], stride, padding)
    return np.einsum("nchwuv,fcuv->nfhw", windows, kernel, optimize=True)


def _batch_norm(state, name, maps):
    weight, bias, mean, variance = (
        state[f"{name}.{entry}"][:, None, None] for entry in ("weight", "bias", "running_mean", "running_var")
    )
    return (maps - mean) / np.sqrt(variance + 1e-5) * weight + bias


def _filter_norm(filters, axis, scale):
    centred = filters - filters.mean(axis, keepdims=True)
    return centred / (filters.std(axis, ddof=1, keepdims=True) + 1e-10) * scale


def _ddf(state, name, maps, stride, combine):
    batch, channels, *_ = maps.shape
    kernel, bias = state[f"{name}.spatial_branch.0.weight"], state[f"{name}.spatial_branch.0.bias"]
    spatial = _conv(maps[:, :, ::stride, ::stride], kernel) + bias[:, None, None]
    spatial = _filter_norm(spatial, 1, np.sqrt(2) / 3)
    values = maps.mean(axis=(2, 3))
    for layer in (1, 3):
        kernel, bias = state[f"{name}.channel_branch.{layer}.weight"], state[f"{name}.channel_branch.{layer}.bias"]
        values = values @ kernel[:, :, 0, 0].T + bias
        values = np.maximum(values, 0) if layer == 1 else values
    scale = state[f"{name}.channel_branch.4.std"].reshape(channels, 9)
    channel = _filter_norm(values.reshape(batch, channels, 9), 2, scale)
    windows = _windows(maps, 3, stride, 1).reshape(batch, channels, *spatial.shape[2:], 9)
    spatial = spatial.transpose(0, 2, 3, 1)
    if combine == "mul":
        return np.einsum("nchwt,nhwt,nct->nchw", windows, spatial, channel, optimize=True)
    return np.einsum("nchwt,nhwt->nchw", windows, spatial) + np.einsum("nchwt,nct->nchw", windows, channel)
