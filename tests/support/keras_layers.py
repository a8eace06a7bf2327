# SPDX-License-Identifier: Apache-2.0
"""Lists the layers of `keras.layers`, and builds small models that hold them next to a DDF2D."""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from keras_dynfilter.layers import DDF2D

IMAGE, INTEGERS = (8, 12, 4), 6  # shape of the images, and number of integers, of one sample

Call = Callable[[Any], Any]

# What a layer is called on: the output of a DDF2D in some shape, or another input of the model.
KINDS: dict[str, Call] = {
    "image": lambda inputs: inputs["filtered"],
    "photograph": lambda inputs: layers.Rescaling(127.5, 127.5)(layers.Activation("tanh")(inputs["filtered"])),
    "sequence": lambda inputs: layers.Reshape((8, 48))(inputs["filtered"]),
    "volume": lambda inputs: layers.Reshape((4, 4, 6, 4))(inputs["filtered"]),
    "volumes": lambda inputs: layers.Reshape((2, 4, 4, 3, 4))(inputs["filtered"]),
    "vector": lambda inputs: layers.GlobalAveragePooling2D()(inputs["filtered"]),
    "signal": lambda inputs: layers.Flatten()(inputs["filtered"]),
    "integers": lambda inputs: inputs["integers"],
    "texts": lambda inputs: inputs["texts"],
}


def examples() -> dict[str, dict[str, Call]]:
    """Returns a new layer, or a call of new layers, for each name in `keras.layers`, by kind of input."""
    return {
        "image": {
            "Activation": layers.Activation("gelu"),
            "ActivityRegularization": layers.ActivityRegularization(1e-3),
            "AdaptiveAveragePooling2D": layers.AdaptiveAveragePooling2D((3, 5)),
            "AdaptiveMaxPooling2D": layers.AdaptiveMaxPooling2D((3, 5)),
            "Add": lambda x: layers.Add()([x, x]),
            "AlphaDropout": layers.AlphaDropout(0.5),
            "Average": lambda x: layers.Average()([x, layers.ReLU()(x)]),
            "AveragePooling2D": layers.AveragePooling2D(2),
            "BatchNormalization": layers.BatchNormalization(),
            "CenterCrop": layers.CenterCrop(5, 7),
            "Concatenate": lambda x: layers.Concatenate()([x, x]),
            "Conv2D": layers.Conv2D(4, 3, groups=2),
            "Conv2DTranspose": layers.Conv2DTranspose(3, 3, strides=2, padding="same"),
            "ConvLSTM1D": layers.ConvLSTM1D(3, 3),
            "Cropping2D": layers.Cropping2D(2),
            "Dense": layers.Dense(3),
            "DepthwiseConv2D": layers.DepthwiseConv2D(3, depth_multiplier=2),
            "Dropout": layers.Dropout(0.5),
            "ELU": layers.ELU(),
            "EinsumDense": layers.EinsumDense("abcd,de->abce", (8, 12, 5)),
            "Flatten": layers.Flatten(),
            "GaussianDropout": layers.GaussianDropout(0.5),
            "GaussianNoise": layers.GaussianNoise(0.5),
            "GlobalAveragePooling2D": layers.GlobalAveragePooling2D(),
            "GlobalMaxPooling2D": layers.GlobalMaxPooling2D(),
            "GroupNormalization": layers.GroupNormalization(2),
            "Identity": layers.Identity(),
            "Lambda": layers.Lambda(lambda x: keras.ops.square(x)),
            "LayerNormalization": layers.LayerNormalization(),
            "LeakyReLU": layers.LeakyReLU(),
            "MaxPooling2D": layers.MaxPooling2D(2),
            "Maximum": lambda x: layers.Maximum()([x, layers.ReLU()(x)]),
            "Minimum": lambda x: layers.Minimum()([x, layers.ReLU()(x)]),
            "Multiply": lambda x: layers.Multiply()([x, x]),
            "Normalization": layers.Normalization(mean=0.5, variance=2.0),
            "PReLU": layers.PReLU("ones"),
            "Permute": layers.Permute((2, 3, 1)),
            "Pipeline": layers.Pipeline([layers.Rescaling(0.75), layers.Resizing(5, 7)]),
            "RMSNormalization": layers.RMSNormalization(),
            "ReLU": layers.ReLU(),
            "Rescaling": layers.Rescaling(0.25, 0.1),
            "Reshape": layers.Reshape((-1, 6)),
            "Resizing": layers.Resizing(11, 9),
            "SeparableConv2D": layers.SeparableConv2D(3, 3),
            "Softmax": layers.Softmax(),
            "SpatialDropout2D": layers.SpatialDropout2D(0.5),
            "SpectralNormalization": layers.SpectralNormalization(layers.Conv2D(3, 3)),
            "Subtract": lambda x: layers.Subtract()([x, layers.ReLU()(x)]),
            "TFSMLayer": lambda x: _from_saved_model()(x),
            "TimeDistributed": layers.TimeDistributed(layers.Conv1D(3, 3)),
            "UnitNormalization": layers.UnitNormalization(),
            "UpSampling2D": layers.UpSampling2D(2, interpolation="bilinear"),
            "ZeroPadding2D": layers.ZeroPadding2D(2),
        },
        "photograph": {
            "AugMix": lambda x: layers.AugMix()(_coloured(x)),
            "AutoContrast": layers.AutoContrast(),
            "ContrastLimitedAdaptiveHistogramEqualization": lambda x: (
                layers.ContrastLimitedAdaptiveHistogramEqualization(tile_grid_size=(2, 2))(_coloured(x))
            ),
            "CutMix": layers.CutMix(),
            "Equalization": lambda x: layers.Pipeline([layers.Equalization()])(_coloured(x)),
            "MaxNumBoundingBoxes": layers.MaxNumBoundingBoxes(3),
            "MixUp": layers.MixUp(),
            "RandAugment": lambda x: layers.RandAugment()(_coloured(x)),
            "RandomBrightness": layers.RandomBrightness(0.2),
            "RandomColorDegeneration": lambda x: layers.RandomColorDegeneration(0.5)(_coloured(x)),
            "RandomColorJitter": lambda x: layers.RandomColorJitter(brightness_factor=0.5)(_coloured(x)),
            "RandomContrast": layers.RandomContrast(0.2),
            "RandomCrop": layers.RandomCrop(5, 7),
            "RandomElasticTransform": layers.RandomElasticTransform(),
            "RandomErasing": layers.RandomErasing(),
            "RandomFlip": layers.RandomFlip(),
            "RandomGaussianBlur": layers.RandomGaussianBlur(),
            "RandomGrayscale": lambda x: layers.RandomGrayscale()(_coloured(x)),
            "RandomHue": lambda x: layers.RandomHue(0.5)(_coloured(x)),
            "RandomInvert": layers.RandomInvert(),
            "RandomPerspective": layers.RandomPerspective(),
            "RandomPosterization": layers.RandomPosterization(3),
            "RandomRotation": layers.RandomRotation(0.2),
            "RandomSaturation": lambda x: layers.RandomSaturation(0.5)(_coloured(x)),
            "RandomSharpness": layers.RandomSharpness(0.5),
            "RandomShear": layers.RandomShear(0.5),
            "RandomTranslation": layers.RandomTranslation(0.2, 0.2),
            "RandomZoom": layers.RandomZoom(0.2),
            "Solarization": layers.Solarization(0.5),
        },
        "sequence": {
            "AdaptiveAveragePooling1D": layers.AdaptiveAveragePooling1D(3),
            "AdaptiveMaxPooling1D": layers.AdaptiveMaxPooling1D(3),
            "AdditiveAttention": lambda x: layers.AdditiveAttention()([x, x]),
            "Attention": lambda x: layers.Attention()([x, x]),
            "AveragePooling1D": layers.AveragePooling1D(2),
            "Bidirectional": layers.Bidirectional(layers.LSTM(3)),
            "Conv1D": layers.Conv1D(3, 3),
            "Conv1DTranspose": layers.Conv1DTranspose(3, 3, strides=2),
            "Cropping1D": layers.Cropping1D(2),
            "DepthwiseConv1D": layers.DepthwiseConv1D(3),
            "Dot": lambda x: layers.Dot(2)([x, x]),
            "GRU": layers.GRU(3, return_sequences=True),
            "GRUCell": layers.RNN(layers.GRUCell(3)),
            "GlobalAveragePooling1D": layers.GlobalAveragePooling1D(),
            "GlobalMaxPooling1D": layers.GlobalMaxPooling1D(),
            "GroupQueryAttention": lambda x: layers.GroupQueryAttention(3, 4, 2)(x, x),
            "LSTM": layers.LSTM(3, return_sequences=True),
            "LSTMCell": layers.RNN(layers.LSTMCell(3)),
            "Masking": lambda x: layers.LSTM(3)(layers.Masking()(layers.ReLU(threshold=9.0)(x))),
            "MaxPooling1D": layers.MaxPooling1D(2),
            "MultiHeadAttention": lambda x: layers.MultiHeadAttention(2, 3)(x, x),
            "RNN": layers.RNN([layers.SimpleRNNCell(3), layers.LSTMCell(2)], return_sequences=True),
            "SeparableConv1D": layers.SeparableConv1D(3, 3),
            "SimpleRNN": layers.SimpleRNN(3, go_backwards=True),
            "SimpleRNNCell": layers.RNN(layers.SimpleRNNCell(3)),
            "SpatialDropout1D": layers.SpatialDropout1D(0.5),
            "StackedRNNCells": layers.RNN(layers.StackedRNNCells([layers.GRUCell(3), layers.GRUCell(2)])),
            "UpSampling1D": layers.UpSampling1D(2),
            "ZeroPadding1D": layers.ZeroPadding1D(2),
        },
        "volume": {
            "AdaptiveAveragePooling3D": layers.AdaptiveAveragePooling3D((2, 3, 4)),
            "AdaptiveMaxPooling3D": layers.AdaptiveMaxPooling3D((2, 3, 4)),
            "AveragePooling3D": layers.AveragePooling3D(2),
            "Conv3D": layers.Conv3D(3, 3),
            "Conv3DTranspose": layers.Conv3DTranspose(3, 3, strides=2),
            "ConvLSTM2D": layers.ConvLSTM2D(3, 3),
            "Cropping3D": layers.Cropping3D(1),
            "GlobalAveragePooling3D": layers.GlobalAveragePooling3D(),
            "GlobalMaxPooling3D": layers.GlobalMaxPooling3D(),
            "MaxPooling3D": layers.MaxPooling3D(2),
            "SpatialDropout3D": layers.SpatialDropout3D(0.5),
            "UpSampling3D": layers.UpSampling3D(2),
            "ZeroPadding3D": layers.ZeroPadding3D(1),
        },
        "volumes": {"ConvLSTM3D": layers.ConvLSTM3D(3, 3)},
        "vector": {
            "Discretization": layers.Discretization(bin_boundaries=[-0.5, 0.0, 0.5]),
            "RepeatVector": layers.RepeatVector(3),
        },
        "signal": {
            "MelSpectrogram": layers.MelSpectrogram(64, 32, num_mel_bins=8, sampling_rate=1000),
            "STFTSpectrogram": lambda x: layers.STFTSpectrogram(frame_length=32, frame_step=16, fft_length=64)(
                layers.Reshape((-1, 1))(x)
            ),
        },
        "integers": {
            "CategoryEncoding": layers.CategoryEncoding(4),
            "Embedding": layers.Embedding(4, 3),
            "HashedCrossing": lambda x: layers.HashedCrossing(5)([layers.Flatten()(x[:, :1]), x[:, 1:2]]),
            "Hashing": layers.Hashing(5),
            "IntegerLookup": lambda x: layers.IntegerLookup(vocabulary=[1, 5, 7])(x),
            "ReversibleEmbedding": lambda x: _reversed(layers.ReversibleEmbedding(4, 3), x),
        },
        "texts": {
            "StringLookup": lambda x: layers.StringLookup(vocabulary=["a", "b"])(x),
            "TextVectorization": lambda x: layers.TextVectorization(vocabulary=["a", "b"])(x[:, :1]),
        },
    }


# Layers that no model of this list holds, and why.
NOT_LISTED = {
    "FlaxLayer": "needs JAX",
    "InputLayer": "every model has one",
    "JaxLayer": "needs JAX",
    "Layer": "a base class",
    "TorchModuleWrapper": "needs the PyTorch backend of Keras",
    "Wrapper": "a base class",
}


def public_layers() -> set[type]:
    """Returns all layer classes of `keras.layers`. Some of them have several names."""
    return {value for value in vars(layers).values() if isinstance(value, type) and issubclass(value, layers.Layer)}


def kinds() -> dict[str, str]:
    """Returns the kind of input of each layer, by name."""
    return {name: kind for kind, of_kind in examples().items() for name in of_kind}


def model(names: Iterable[str]) -> keras.Model:
    """Returns a model of a DDF2D and the named layers next to it, with one output for each, under its name."""
    keras.backend.clear_session()  # so that the names of the layers do not depend on earlier models
    calls = examples()
    kind_of = {name: kind for kind, of_kind in calls.items() for name in of_kind}
    inputs = {"image": keras.Input(IMAGE, name="image")}
    for kind, dtype in (("integers", "int32"), ("texts", "string")):
        if any(kind_of[name] == kind for name in names):
            inputs[kind] = keras.Input((INTEGERS,), dtype=dtype, name=kind)
    available: Mapping[str, Any] = {**inputs, "filtered": DDF2D(3)(inputs["image"])}
    outputs = {"DDF2D": layers.GlobalAveragePooling2D()(available["filtered"])}
    for kind in dict.fromkeys(kind_of[name] for name in names):
        value = KINDS[kind](available)
        outputs.update({name: calls[kind][name](value) for name in names if kind_of[name] == kind})
    return keras.Model(inputs, outputs)


def _coloured(image: Any) -> Any:
    """Returns the first three channels of an image."""
    return image[..., :3]


def _reversed(embedding: layers.Layer, integers: Any) -> Any:
    return embedding(embedding(integers), reverse=True)


def _from_saved_model() -> layers.Layer:
    """Returns a layer that calls a SavedModel."""
    module = tf.Module()
    module.serve = tf.function(lambda x: {"outputs": 2.0 * x}, [tf.TensorSpec((None, *IMAGE))])
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"serve": module.serve})
        return layers.TFSMLayer(folder, call_endpoint="serve")
