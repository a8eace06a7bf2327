# SPDX-License-Identifier: Apache-2.0
"""Replaces the convolutions of an existing model by `DDF2D` layers."""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import keras

from keras_dynfilter.layers import DDF2D
from keras_dynfilter.models.model_graph import graph

CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)


# Argument of `DDF2D` -> its value, read from the convolution that it replaces.
FROM_CONVOLUTION = {
    "activation": lambda convolution: convolution.activation,
    "bias_regularizer": lambda convolution: convolution.bias_regularizer,
    "data_format": lambda convolution: convolution.data_format,
    "dilation_rate": lambda convolution: tuple(convolution.dilation_rate),
    "dtype": lambda convolution: convolution.dtype_policy,
    "generator_regularizer": lambda convolution: (
        convolution.depthwise_regularizer if _is_depthwise(convolution) else convolution.kernel_regularizer
    ),
    "kernel_size": lambda convolution: tuple(convolution.kernel_size),
    "name": lambda convolution: convolution.name,
    "strides": lambda convolution: tuple(convolution.strides),
    "use_bias": lambda convolution: convolution.use_bias,
}


@dataclasses.dataclass(frozen=True)
class Replacements:
    """Lists which convolutions `replace_convolutions` replaced, and why it kept the others. `print` formats it.

    Attributes:
        replaced: Names of the convolutions that are now `DDF2D` layers.
        kept: A dict from the name of each convolution that was kept to the reason; 1x1 convolutions are left out.

    The layers of a nested model are named `model/layer`.
    """

    replaced: tuple[str, ...]
    kept: dict[str, str]

    def __str__(self):
        lines = [f"replaced {len(self.replaced)} convolutions, kept {len(self.kept)}"]
        lines += [f"  {name}: replaced" for name in self.replaced]
        return "\n".join(lines + [f"  {name}: kept, {reason}" for name, reason in self.kept.items()])


def replace_convolutions(
    model: keras.Model,
    select: Callable[[keras.layers.Layer], bool] | Collection[str] | None = None,
    squeeze_ratio: float = 0.2,
    heads: int = 1,
    combine: str = "mul",
    **arguments: Any,
) -> tuple[keras.Model, Replacements]:
    """Copies a model and replaces its k x k convolutions by `DDF2D`.

    The function replaces every `Conv2D` that has an odd window of more than one tap and equal numbers of input and
    output channels, with one group or with a group per channel, and every `DepthwiseConv2D` with such a window and the
    depth multiplier 1. The new layer has the name, strides, dilation rate, bias and activation of the convolution.

    The new layers start from random weights, so the model has to be trained. They are trainable even if the convolution
    was frozen. All other weights of the model keep their values, including the biases of the replaced convolutions.

    `DDF2D` centres its windows on the pixels `i * strides` and pads both sides alike. A TensorFlow convolution with
    padding `"same"` and strides may centre its windows one pixel further; the shapes agree.

    A convolution with padding `"valid"` is replaced only if a `ZeroPadding2D` precedes it, as in `keras.applications`.
    `DDF2D` pads by itself, so this layer pads nothing in the new model. Therefore nothing else may use the padded
    images, except other convolutions with padding `"valid"` that are replaced. The `ZeroPadding2D` must pad half the
    window on all sides. Before strides, it may pad one pixel less at the top and left if the outputs keep their size.

    Args:
        model: Built functional or sequential model; it is not changed. The convolutions of nested models are replaced
            as well.
        select: Which convolutions to replace: a collection of names as in the report, or a function of a convolution
            that returns whether to replace it. The function is called for each convolution whose type, window and
            channels allow a replacement. None: replace all.
        squeeze_ratio: Argument of `DDF2D`.
        heads: Argument of `DDF2D`.
        combine: Argument of `DDF2D`: `"mul"` or `"add"`.
        **arguments: Further arguments of `DDF2D`, except the arguments that come from the convolutions.

    Returns:
        The new model, and a printable report.

    Raises:
        ValueError: `model` is not built, or is neither functional nor sequential; `select` is neither a function nor a
            collection of names of k x k convolutions; an argument comes from the convolutions; or no convolution is
            replaced.

    Example:

    >>> model = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3))
    >>> ddf_model, report = replace_convolutions(model)
    >>> len(report.replaced), report.kept
    (16, {'conv1_conv': 'it has 3 channels in and 64 out'})

    Reference:
        [Decoupled Dynamic Filter Networks](https://arxiv.org/abs/2104.14107) (Zhou et al., CVPR 2021), section 4.1.
    """
    graph(model)  # raises for other models
    if not (select is None or callable(select) or _is_collection_of_names(select)):
        expected = "Expected `select` to be callable with a convolution, a collection of names, or None"
        raise ValueError(f"{expected}. Received: select={select!r}")
    refused = sorted(set(arguments).intersection(FROM_CONVOLUTION))
    if refused:
        raise ValueError(
            f"Expected `arguments` without {', '.join(FROM_CONVOLUTION)}: they come from the convolutions. "
            f"Received: {', '.join(refused)}"
        )
    arguments = dict(squeeze_ratio=squeeze_ratio, heads=heads, combine=combine, **arguments)
    copy, replaced, kept = _replace(model, _selector(select), arguments)
    unknown = [] if select is None or callable(select) else sorted(set(select).difference(replaced, kept))
    if unknown:
        names = ", ".join([*replaced, *kept])
        raise ValueError(f"Expected `select` to name k x k convolutions of {model.name}: {names}. Received: {unknown}")
    report = Replacements(tuple(replaced), kept)
    if not replaced:
        raise ValueError(
            f"Expected `model` to have a convolution that DDF can replace. Received: {model.name}: {report}"
        )
    return copy, report


def _is_collection_of_names(value):
    return isinstance(value, Collection) and not isinstance(value, str) and all(isinstance(name, str) for name in value)


def _selector(select):
    """Returns `select` as a function of a convolution and its name in the report."""
    if select is None:
        return lambda layer, name: True
    if callable(select):
        return lambda layer, name: select(layer)
    return lambda layer, name: name in select


def _replace(model, select, arguments, prefix=""):
    """Returns the copy of `model`, the names of the replaced convolutions, and the reasons to keep the others.

    `prefix` is what precedes the names of the layers of `model` in the report.
    """
    reasons, unused_pads = _plan(model, lambda layer: select(layer, prefix + layer.name))
    to_replace = {name for name, reason in reasons.items() if reason is None}
    replaced = [name for name in reasons if name in to_replace]
    kept = {name: reason for name, reason in reasons.items() if reason is not None}
    copies, ddf_layers = [], []  # pairs of the old and the new layer

    def clone(layer):
        if isinstance(layer, keras.Model):
            inner, inner_replaced, inner_kept = _replace(layer, select, arguments, f"{prefix}{layer.name}/")
            replaced.extend(f"{layer.name}/{name}" for name in inner_replaced)
            kept.update((f"{layer.name}/{name}", reason) for name, reason in inner_kept.items())
            return inner
        if layer.name in to_replace:
            new = _ddf_layer(layer, arguments)
            ddf_layers.append((layer, new))
            return new
        changes = {"padding": 0} if layer.name in unused_pads else {}
        new = layer.__class__.from_config({**layer.get_config(), **changes})
        if isinstance(layer, keras.layers.Layer):  # Keras 3 graphs also have operations, which have no weights
            copies.append((layer, new))
        return new

    copy = keras.models.clone_model(model, clone_function=clone)
    for old, new in copies:
        new.set_weights(old.get_weights())
        if hasattr(new, "finalize_state"):  # preprocessing layers derive their state from their weights
            new.finalize_state()
    for old, new in ddf_layers:
        if old.use_bias:
            new.bias.assign(old.bias)
    return copy, replaced, kept


def _plan(model, select):
    """Decides which convolutions to replace.

    Returns:
        A dict from the name of each k x k convolution to the reason to keep it, or None to replace it; and the names of
        the padding layers that must no longer pad.
    """
    layers = {layer.name: layer for layer in model.layers}
    convolutions = {name: layer for name, layer in layers.items() if _is_spatial(layer)}
    reasons = {name: _reason_to_keep(layer) for name, layer in convolutions.items()}
    for name, layer in convolutions.items():
        if reasons[name] is None and not select(layer):
            reasons[name] = "it was not selected"
    structure = graph(model)
    consumers, outputs = structure.consumers(), {tensor.layer for tensor in structure.outputs}
    sources: dict[str, set[str]] = {name: set() for name in convolutions}
    for call in structure.calls:
        if call.layer in convolutions:
            sources[call.layer].update(source.layer for source in call.sources)

    def needs_padding(user):
        """Returns whether the layer with this name needs padded images: it is kept, or does its own padding."""
        return reasons.get(user, "") is not None or convolutions[user].padding != "valid"

    def padding_reason(name, layer):
        """Returns the reason why the padding before `layer` prevents its replacement; None if there is no reason."""
        if not all(_is_padding_of(layer, layers.get(source)) for source in sources[name]):
            return "it has padding 'valid' and no ZeroPadding2D of its size before it"
        for pad in sorted(sources[name]):  # sorted: every process reports the same pad
            if pad in outputs or any(needs_padding(user) for user in consumers[pad]):
                return f"its padding layer {pad!r} is used elsewhere"
        return None

    # A convolution that is kept needs its padding layer. Keep all other convolutions that share the padding layer as
    # well; repeat until nothing changes.
    changed = True
    while changed:
        changed = False
        for name, layer in convolutions.items():
            if reasons[name] is None and layer.padding == "valid":
                reasons[name] = padding_reason(name, layer)
                changed |= reasons[name] is not None
    unpadded = [name for name, layer in convolutions.items() if reasons[name] is None and layer.padding == "valid"]
    return reasons, set().union(*(sources[name] for name in unpadded))


def _is_spatial(layer):
    return isinstance(layer, CONVOLUTIONS) and max(layer.kernel_size) > 1


def _is_depthwise(layer):
    return type(layer) is keras.layers.DepthwiseConv2D


def _reason_to_keep(layer):
    """Returns the reason why DDF cannot replace `layer`, whatever layer precedes it; None if there is no reason."""
    if any(size % 2 == 0 for size in layer.kernel_size):
        return f"its window {tuple(layer.kernel_size)} is even"
    if _is_depthwise(layer):
        multiplier = layer.depth_multiplier
        return None if multiplier == 1 else f"its depth multiplier is {multiplier}"
    if type(layer) is not keras.layers.Conv2D:
        return f"it is a {type(layer).__name__}, not a Conv2D or DepthwiseConv2D"
    channels = layer.kernel.shape[2] * layer.groups
    if layer.groups not in (1, channels):
        return f"it has {layer.groups} groups of {layer.kernel.shape[2]} channels"
    if channels != layer.filters:
        return f"it has {channels} channels in and {layer.filters} out"
    return None


def _is_padding_of(convolution, padding):
    """Returns whether `padding` is a layer without which `DDF2D` returns outputs of the size of `convolution`."""
    if type(padding) is not keras.layers.ZeroPadding2D or padding.data_format != convolution.data_format:
        return False
    sizes = _image_size(padding)
    for axis in (0, 1):
        half = convolution.kernel_size[axis] // 2 * convolution.dilation_rate[axis]
        # A window that is centred one pixel further has as many positions, unless a position falls on the last pixel.
        size, stride = sizes[axis], convolution.strides[axis]
        centred_further = size is not None and (size - 1) % stride != 0
        allowed = [(half, half)] + [(half - 1, half)] * centred_further
        if tuple(padding.padding[axis]) not in allowed:
            return False
    return True


def _image_size(layer):
    """Returns the height and width of the images that `layer` is called on; None where they are not known."""
    try:
        shape = layer.input.shape
    except (AttributeError, ValueError):  # the layer is called several times
        return None, None
    return tuple(shape[2:4] if layer.data_format == "channels_first" else shape[1:3])


def _ddf_layer(convolution, arguments):
    """Returns the `DDF2D` that replaces `convolution`."""
    return DDF2D(**{name: read(convolution) for name, read in FROM_CONVOLUTION.items()}, **arguments)
