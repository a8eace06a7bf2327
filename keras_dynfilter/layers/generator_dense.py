# SPDX-License-Identifier: Apache-2.0
"""The dense layers inside generators of filters."""

import keras
import tensorflow as tf

from keras_dynfilter.ops.backends import scope


class GeneratorDense(keras.layers.Dense):
    """Computes `keras.layers.Dense`, and keeps its weights when `Model.quantize` quantizes the rest of a model.

    Keras saves a quantized layer inside another layer without the information that it is quantized, so that the file
    cannot be loaded.
    """

    def quantize(self, mode: str | None = None, type_check: bool = True, config: object = None) -> None:
        raise NotImplementedError(f"Dense layer {self.path!r} generates filters and is not quantized")


class ManyOutputDense(GeneratorDense):
    """Computes `keras.layers.Dense` on `(batch, features)`, with a bias and without an activation.

    On a CPU with 65,536 outputs, TensorFlow's own gradient with respect to the features takes two to three times as
    long as the forward product, and its gradient with respect to the bias takes half as long as the forward product.
    This layer computes both gradients with faster kernels.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return _product(inputs, tf.convert_to_tensor(self.kernel), tf.convert_to_tensor(self.bias))


@scope.custom_gradient
def _product(features, kernel, bias):
    def gradients(upstream):
        ones = tf.ones_like(upstream[:, 0])
        return (
            # The same values as tf.matmul, from a faster kernel of TensorFlow.
            tf.einsum("nk,lk->nl", upstream, kernel),
            tf.matmul(features, upstream, transpose_a=True),
            tf.einsum("n,nk->k", ones, upstream),
        )

    return tf.nn.bias_add(tf.matmul(features, kernel), bias), gradients
