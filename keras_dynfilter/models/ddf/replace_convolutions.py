# SPDX-License-Identifier: Apache-2.0
"""DDF as a drop-in: an existing model with decoupled dynamic filters in place of its convolutions."""

import dataclasses

import keras

from keras_dynfilter.layers import DDF2D
from keras_dynfilter.models.model_graph import graph

CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)


@dataclasses.dataclass(frozen=True)
class Replacements:
    """What `replace_convolutions` did.

    Attributes:
        replaced: Names of the convolutions that are now DDF.
        kept: Dict of the names of the other ones, 1x1 convolutions apart, to the reason. Layers of a model inside the
            model are named `model/layer`.
    """

    replaced: tuple
    kept: dict

    def __str__(self):
        lines = [f"replaced {len(self.replaced)} convolutions, kept {len(self.kept)}"]
        lines += [f"  {name}: replaced" for name in self.replaced]
        return "\n".join(lines + [f"  {name}: kept, {reason}" for name, reason in self.kept.items()])


def replace_convolutions(model, select=None, squeeze_ratio=0.2, heads=1, combine="mul", **arguments):
    """Makes a copy of a model with `DDF2D` in place of its k x k convolutions.

    Replaced are the `Conv2D` layers with an odd window of more than one tap, one group, and as many channels out as in.
    The new layers have their names, strides and dilation rates. They start from random weights, so that the model has
    to be trained; they can be trained also where the convolution was frozen. All other weights of the model keep their
    values, bit for bit: also the biases of the convolutions, which are added to what DDF returns, followed by the
    activations of the convolutions.

    DDF centres its windows on the pixels `i * strides` and pads both sides alike. With padding `"same"` and strides,
    a convolution of TensorFlow may centre them one pixel further; shapes agree. Padding `"valid"` is possible where a
    `ZeroPadding2D` of just that size comes before the convolution, as in `keras.applications`, and nothing else uses
    what it returns: that layer then does nothing any more.

    Args:
        model: Functional or sequential model, built; it stays as it is. Models inside it are treated alike.
        select: Function of a layer that returns whether to replace it; asked for those that could be. None: all.
        squeeze_ratio: Of `DDF2D`, as are the next two.
        heads: Number of groups of channels that have spatial filters of their own.
        combine: `"mul"` or `"add"`.
        **arguments: Further arguments of `DDF2D`, but for those that come from the convolutions.

    Returns:
        The new model, and `Replacements`, which can be printed.

    Raises:
        ValueError: `model` is neither functional nor sequential, or no convolution can be replaced.

    Example:

    >>> model = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3))
    >>> ddf_model, report = replace_convolutions(model)
    >>> len(report.replaced), report.kept
    (16, {'conv1_conv': 'it has 3 channels in and 64 out'})

    Reference:
        [Decoupled Dynamic Filter Networks](https://arxiv.org/abs/2104.14107) (Zhou et al., CVPR 2021), section 4.1.
    """
    arguments = dict(squeeze_ratio=squeeze_ratio, heads=heads, combine=combine, **arguments)
    copy, replaced, kept = _replace(model, select, arguments)
    report = Replacements(tuple(replaced), kept)
    if not replaced:
        raise ValueError(
            f"Expected `model` to have a convolution that DDF can replace. Received: {model.name}: {report}"
        )
    return copy, report


def _replace(model, select, arguments):
    reasons, paddings = _plan(model, select)
    replaced, kept, copied, biases = [], {}, [], []
    for name, reason in reasons.items():
        if reason is None:
            replaced.append(name)
        else:
            kept[name] = reason

    def clone(layer):
        if isinstance(layer, keras.Model):
            inner, names, others = _replace(layer, select, arguments)
            replaced.extend(f"{layer.name}/{name}" for name in names)
            kept.update((f"{layer.name}/{name}", reason) for name, reason in others.items())
            return inner
        if reasons.get(layer.name, "") is None:
            new = _ddf(layer, arguments)
            biases.append((layer, new))
        else:
            new = layer.__class__.from_config({**layer.get_config(), **paddings.get(layer.name, {})})
            if isinstance(layer, keras.layers.Layer):  # Keras 3 has operations beside layers, which have no weights
                copied.append((layer, new))
        return new

    copy = keras.models.clone_model(model, clone_function=clone)
    for old, new in copied:
        new.set_weights(old.get_weights())
        if hasattr(new, "finalize_state"):  # preprocessing layers compute from their weights what they work with
            new.finalize_state()
    for old, new in biases:
        if old.use_bias:
            new.bias.assign(old.bias)
    return copy, replaced, kept


def _plan(model, select):
    """For each k x k convolution its name and why it is kept, or None; and what changes of the padding layers."""
    layers = {layer.name: layer for layer in model.layers}
    found = {name: layer for name, layer in layers.items() if _is_spatial(layer)}
    reasons = {name: _reason(layer) for name, layer in found.items()}
    for name, layer in found.items():
        if reasons[name] is None and select is not None and not select(layer):
            reasons[name] = "it was not selected"
    structure = graph(model)
    consumers, outputs = structure.consumers(), {tensor.layer for tensor in structure.outputs}
    sources = {name: set() for name in found}
    for call in structure.calls:
        if call.layer in found:
            sources[call.layer].update(source.layer for source in call.sources)

    changed, pads = True, set()
    while changed:  # a convolution that is kept needs its padding, and so may others that share it
        changed, pads = False, set()
        for name, layer in found.items():
            if reasons[name] is not None or layer.padding != "valid":
                continue
            if not all(_pads(layers.get(pad), layer) for pad in sources[name]):
                reasons[name] = "it has padding 'valid' and no ZeroPadding2D of its size before it"
                changed = True
                continue
            for pad in sorted(sources[name]):  # in one order in every process, as the report names the pad
                if pad in outputs or any(reasons.get(user, "") is not None for user in consumers[pad]):
                    reasons[name] = f"its padding layer {pad!r} is used elsewhere"
                    break
            pads |= sources[name]
            changed |= reasons[name] is not None
    return reasons, {pad: {"padding": 0} for pad in pads}


def _is_spatial(layer):
    return isinstance(layer, CONVOLUTIONS) and max(layer.kernel_size) > 1


def _reason(layer):
    """Why DDF cannot take the place of `layer`, whatever is around it; or None."""
    if type(layer) is not keras.layers.Conv2D:
        return f"it is a {type(layer).__name__}, not a Conv2D"
    channels = layer.kernel.shape[2] * layer.groups
    if layer.groups != 1:
        return f"it has {layer.groups} groups"
    if channels != layer.filters:
        return f"it has {channels} channels in and {layer.filters} out"
    if any(size % 2 == 0 for size in layer.kernel_size):
        return f"its window {tuple(layer.kernel_size)} is even"
    return None


def _pads(padding, layer):
    """Whether `padding` is the layer that makes padding "valid" of the convolution `layer` symmetric."""
    if type(padding) is not keras.layers.ZeroPadding2D or padding.data_format != layer.data_format:
        return False
    pixels = [(size // 2) * rate for size, rate in zip(layer.kernel_size, layer.dilation_rate)]
    return tuple(map(tuple, padding.padding)) == tuple((pixel, pixel) for pixel in pixels)


def _ddf(layer, arguments):
    return DDF2D(
        tuple(layer.kernel_size),
        strides=tuple(layer.strides),
        dilation_rate=tuple(layer.dilation_rate),
        activation=layer.activation,
        use_bias=layer.use_bias,
        data_format=layer.data_format,
        generator_regularizer=layer.kernel_regularizer,
        bias_regularizer=layer.bias_regularizer,
        name=layer.name,
        dtype=layer.dtype_policy,
        **arguments,
    )
