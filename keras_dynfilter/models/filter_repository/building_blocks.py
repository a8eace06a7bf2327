# SPDX-License-Identifier: Apache-2.0
"""What the filter repository networks are made of: an autoencoder, and what makes features of its layers."""

import keras

from keras_dynfilter.layers import RepositoryConv2D
from keras_dynfilter.layers.upsampling_conv2d import UpConv2D
from keras_dynfilter.ops.checks import choice, positive

TAPS = ("normalized", "convolution")
RECONSTRUCTION = "reconstruction"
FEATURES = "features_"


def autoencoder(images, encoder, decoder, kernel_size=3, encoder_slope=0.0, decoder_slope=0.0, tap="normalized"):
    """An autoencoder whose encoder can be tapped.

        images -> [convolution, batch normalisation, (leaky) ReLU] per encoder layer -> code
        code -> [double the size, the same] per decoder layer -> convolution, sigmoid -> reconstruction

    Padding is the same on both sides, also with strides.

    Args:
        images: Tensor of a Keras model, `[batch, height, width, channels]`, in [0, 1].
        encoder: `(channels, strides)` of each layer.
        decoder: Channels of each layer. None: the size is doubled without a convolution; if it is the last one, the
            convolution that makes the reconstruction doubles it.
        kernel_size: Positive odd integer, rows and columns of all windows.
        encoder_slope: Slope of the leaky ReLUs of the encoder below zero; 0 for ReLU.
        decoder_slope: That of the decoder.
        tap: What is tapped of an encoder layer: `"normalized"`, its values before the ReLU; or `"convolution"`, those
            before batch normalisation.

    Returns:
        A list of the tapped tensors, `[batch, height, width, channels]`, one per encoder layer; and the reconstruction,
        in the shape of `images`. Names of layers are fixed, so a model can have one autoencoder; a second one goes
        into a model inside it.

    Raises:
        ValueError: `kernel_size` or `tap` is none of these, or the decoder does not end at the size of `images`.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), section 3 and tables 5, 9 and 16.
    """
    if positive(kernel_size, "kernel_size") % 2 == 0:
        raise ValueError(f"Expected `kernel_size` to be odd. Received: {kernel_size=}")
    choice(tap, "tap", TAPS)
    taps, outputs = [], images
    for index, (channels, strides) in enumerate(encoder, 1):
        name = f"encoder_{index}"
        convolved = conv2d(outputs, channels, kernel_size, strides, kernel_size // 2, name)
        normalized = normalize(convolved, f"{name}_bn")
        taps.append(normalized if tap == "normalized" else convolved)
        outputs = activate(normalized, encoder_slope, f"{name}_relu")
    enlarging = bool(decoder) and decoder[-1] is None  # the last convolution doubles the size, too
    for index, channels in enumerate(decoder[:-1] if enlarging else decoder, 1):
        name = f"decoder_{index}"
        outputs = keras.layers.UpSampling2D(2, data_format="channels_last", name=f"{name}_up")(outputs)
        if channels is not None:
            outputs = conv_block(outputs, channels, kernel_size, 1, kernel_size // 2, decoder_slope, name)
    if enlarging:
        outputs = UpConv2D(images.shape[-1], kernel_size, name="decoder_out")(outputs)
    else:
        outputs = conv2d(outputs, images.shape[-1], kernel_size, 1, kernel_size // 2, "decoder_out")
    if tuple(outputs.shape[1:3]) != tuple(images.shape[1:3]):
        expected = f"Expected the decoder to end at the size of the images, {tuple(images.shape[1:3])}"
        raise ValueError(
            f"{expected}. Received: {tuple(outputs.shape[1:3])}, with encoder={encoder}, decoder={decoder}"
        )
    # In float32 also under mixed precision: the cross-entropy takes logarithms.
    return taps, keras.layers.Activation("sigmoid", dtype="float32", name=RECONSTRUCTION)(outputs)


def dimension_reduction(inputs, windows, slope=0.01, name="features"):
    """Makes features of a map: convolutions that shrink it to one position, then a dense layer of the same width.

    Args:
        inputs: Tensor of a Keras model, `[batch, height, width, channels]`.
        windows: `(kernel_size, strides, padding)` of each convolution, with the padding in pixels on each side.
        slope: Slope of the leaky ReLUs below zero.
        name: Name of the last layer, and how those of the others begin.

    Returns:
        `[batch, channels]`.

    Raises:
        ValueError: The map has another size than one position after the convolutions.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), tables 6 and 7, 10 to 14 and 17 to 20.
    """
    outputs, channels = inputs, inputs.shape[-1]
    for index, (kernel_size, strides, padding) in enumerate(windows, 1):
        outputs = conv_block(outputs, channels, kernel_size, strides, padding, slope, f"{name}_{index}")
    if tuple(outputs.shape[1:3]) != (1, 1):
        expected = f"Expected `windows` to shrink {tuple(inputs.shape[1:3])} to one position"
        raise ValueError(f"{expected}. Received: {windows}, which end at {tuple(outputs.shape[1:3])}")
    outputs = keras.layers.Flatten(data_format="channels_last", name=f"{name}_flat")(outputs)
    outputs = keras.layers.Dense(channels, name=f"{name}_dense")(outputs)
    return activate(outputs, slope, name)


def feature_generator(image_shape, encoder, decoder, windows, slope=0.01, name="generator", **arguments):
    """An `autoencoder` whose encoder layers are tapped for features, through a `dimension_reduction` each.

        images -> autoencoder -> reconstruction
        encoder layer i -> dimension reduction -> features i

    Args:
        image_shape: `(height, width, channels)`.
        encoder: `(channels, strides)` of each encoder layer.
        decoder: Channels of each decoder layer, or None, as in `autoencoder`.
        windows: For each encoder layer those of `dimension_reduction`, or None if it is not tapped.
        slope: Slope of the leaky ReLUs of the dimension reduction.
        name: Name of the model.
        **arguments: Further ones of `autoencoder`.

    Returns:
        A model of `[batch, height, width, channels]`, in [0, 1], to a dict of `"features_1"`, `"features_2"`, ... of
        the tapped layers, each `[batch, channels of the layer]`, and `"reconstruction"`, in the shape of the images.

    Raises:
        ValueError: There are not as many `windows` as encoder layers, or an argument is not as `autoencoder` and
            `dimension_reduction` expect it.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), section 3.
    """
    if len(windows) != len(encoder):
        raise ValueError(f"Expected `windows` for each encoder layer, or None. Received: {windows=}, {encoder=}")
    images = keras.Input(image_shape, name="images")
    taps, reconstruction = autoencoder(images, encoder, decoder, **arguments)
    outputs = {
        key(index): dimension_reduction(tap, each, slope, key(index))
        for index, (tap, each) in enumerate(zip(taps, windows), 1)
        if each is not None
    }
    return keras.Model(images, {**outputs, RECONSTRUCTION: reconstruction}, name=name)


def generated_network(generator, build, output, name):
    """Joins a `feature_generator` and a network whose convolutions it generates.

        images -> generator -> features, reconstruction
        images, features -> prediction -> result

    Args:
        generator: What `feature_generator` returned.
        build: Function of the images, `[batch, height, width, channels]`, and of the features, a dict of `[batch,
            channels]` by the number of the encoder layer, that returns the result: all are tensors of a Keras model.
            `layers.RepositoryConv2D` takes features.
        output: Name of the result.
        name: Name of the model.

    Returns:
        A model of images to a dict of the result, named `output`, and the `"reconstruction"`. Its layers are two
        models: `generator`, and `"prediction"`, of a dict of `"images"`, `"features_1"`, ... to the result. If the
        generator has its default name, `repository_swap` and `inspect_repository` take the model.

    Raises:
        ValueError: `generator` returns no features, or no reconstruction.

    Reference:
        [Learning to Generate Filters for Convolutional Neural Networks](https://arxiv.org/abs/1812.01894)
        (Shen and Liu, 2018), section 3.
    """
    found = dict(generator.output) if isinstance(generator.output, dict) else {}
    numbers = {each: each.removeprefix(FEATURES) for each in found if each != RECONSTRUCTION}
    if RECONSTRUCTION not in found or not numbers or not all(number.isdecimal() for number in numbers.values()):
        expected = "Expected `generator` to be a model of images to 'features_1', ... and their 'reconstruction'"
        raise ValueError(f"{expected}. Received: {generator!r}, with outputs {list(found)}")
    del found[RECONSTRUCTION]
    shape = generator.input_shape[1:]
    images = keras.Input(shape, name="images")
    vectors = {each: keras.Input(value.shape[1:], name=each) for each, value in found.items()}
    result = build(images, {int(numbers[each]): vector for each, vector in vectors.items()})
    prediction = keras.Model({"images": images, **vectors}, result, name="prediction")

    images = keras.Input(shape, name="images")
    found = dict(generator(images))
    outputs = {RECONSTRUCTION: found.pop(RECONSTRUCTION), output: prediction({"images": images, **found})}
    # Losses are reported under the names of layers by Keras 2, under the keys by Keras 3: here both are the same.
    outputs = {
        each: keras.layers.Activation("linear", dtype="float32", name=each)(value) for each, value in outputs.items()
    }
    return keras.Model(images, outputs, name=name)


def key(index):
    """Name of the features of the encoder layer of this number, from 1."""
    return f"{FEATURES}{index}"


def conv_block(inputs, channels, kernel_size, strides, padding, slope, name):
    """Convolution, batch normalisation, (leaky) ReLU."""
    outputs = conv2d(inputs, channels, kernel_size, strides, padding, name)
    return activate(normalize(outputs, f"{name}_bn"), slope, f"{name}_relu")


def conv2d(inputs, channels, kernel_size, strides, padding, name, use_bias=True):
    """A convolution with `padding` pixels of zeros on each side, where TensorFlow's SAME pads one side with strides."""
    same = strides == 1 and 2 * padding == kernel_size - 1
    if padding and not same:
        inputs = keras.layers.ZeroPadding2D(padding, data_format="channels_last", name=f"{name}_pad")(inputs)
    return keras.layers.Conv2D(
        channels,
        kernel_size,
        strides,
        "same" if same else "valid",
        data_format="channels_last",
        use_bias=use_bias,
        name=name,
    )(inputs)


def generated_conv2d(inputs, features, filters, kernel_size, s, strides, name, **arguments):
    """A convolution whose filters are mixed from `s` base filters, by what is made of `features`."""
    if s is not None:
        positive(s, "s")
    if arguments.get("data_format", "channels_last") != "channels_last":
        expected = "Expected `data_format` to be 'channels_last', which these networks are throughout"
        raise ValueError(f"{expected}. Received: data_format={arguments['data_format']!r}")
    arguments = {"name": name, **arguments, "data_format": "channels_last"}
    return RepositoryConv2D(filters, kernel_size, s, strides, **arguments)([inputs, features])


def normalize(inputs, name):
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(inputs)


def activate(inputs, slope, name):
    # The slope by an argument that Keras 2 and Keras 3 both take first.
    return (keras.layers.LeakyReLU(slope, name=name) if slope else keras.layers.ReLU(name=name))(inputs)
