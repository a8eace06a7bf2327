# SPDX-License-Identifier: Apache-2.0
"""The true results of a problem in float64, up to gradients of the second order, with bounds of rounding errors.

All filter ops are sums of products over the index (n, i, j, tap, head, channel of the head, output map): of the pixel
under a tap, of factors of the filter and, in gradients, of the upstream gradient. Every tensor is expanded to this
index, and a derivative adds the products up to the shape of the tensor that it is taken with respect to.

The gradients of second order differentiate `sum_k <first_k, direction_k>`, where `first_k` are the gradients of first
order. As these are linear in the operands, so are their gradients, with a direction in the place of an operand. Each
term is computed alone and stored in the dtype; then the terms are added.
"""

import numpy as np

from tests.support import reference
from tests.support.numerics.rounding import FORMATS, Approximate, accumulator


def results(problem):
    """Returns `(outputs, first, second)`, lists of `Approximate`, in the order of `implementations.results`.

    `first` are the gradients with respect to the operands, `second` the gradients with respect to the operands and the
    upstream gradients.
    """
    with np.errstate(all="ignore"):
        return (_Projection if problem.kind == "projection" else _Filter)(problem).results()


class _Filter:
    def __init__(self, problem):
        self.case, self.kind, self.roles = problem.case, problem.kind, problem.roles
        self.stored = FORMATS[problem.dtype]
        form = accumulator(problem.dtype)
        to_operands = lambda arrays: [Approximate.operand(array, form) for array in arrays]  # noqa: E731
        self.operands = dict(zip((*self.roles, "upstream"), to_operands([*problem.operands, *problem.upstreams])))
        self.directions = dict(zip(self.roles, to_operands(problem.directions)))
        # The matrix products of ops that mix channels multiply the padding, and all other ops skip taps outside.
        sizes = (self.case.shape[3], self.case.maps)
        self.multiplies_padding = (self.kind == "bank" and 1 not in sizes) or (self.kind == "banks" and sizes != (1, 1))
        if self.kind == "softmax":
            self.p = self._per_filter(self.operands["spatial"]).softmax(-1).map(self._flat)

    def results(self):
        first = {role: self._first(role, self.operands) for role in self.roles}
        second = {role: self._add(self._second(role)) for role in (*self.roles, "upstream")}
        return [self._derivative("upstream", self._factors(self.operands))], list(first.values()), list(second.values())

    # --- Orders

    def _factors(self, operands, without=None):
        """The factors of a product, by role, except one. A sum of factors is one factor, the role "filter"."""
        factors = {role: self._expand(role, value) for role, value in operands.items()}
        if self.kind == "softmax" and "spatial" in operands and without != "spatial":
            factors["spatial"] = self._expand("spatial", self.p)
        factors.pop(without, None)
        factors.pop("upstream", None) if without is None else None
        if self.kind == "add":
            spatial, channel = factors.pop("spatial", None), factors.pop("channel", None)
            if without not in ("spatial", "channel"):
                factors["filter"] = spatial + channel
        return list(factors.values())

    def _first(self, role, operands):
        gradient = self._derivative(role, self._factors(operands, role))
        return self._to_logits(gradient) if (self.kind, role) == ("softmax", "spatial") else gradient

    def _second(self, wrt):
        """Yields the terms of the gradient of second order with respect to a role."""
        for role, direction in self.directions.items():
            if (self.kind, role) == ("softmax", "spatial"):
                yield from self._second_by_logits(wrt, direction)
            elif role != wrt and not (self.kind == "add" and {role, wrt} == {"spatial", "channel"}):
                yield self._term(wrt, role, direction)

    def _term(self, wrt, role, direction):
        """The derivative with respect to `wrt`, with a direction in the place of the operand `role`."""
        if self.kind == "add" and role in ("spatial", "channel"):  # linear in this factor alone
            others = {"inputs": self.operands["inputs"], "upstream": self.operands["upstream"], role: direction}
            factors = [self._expand(name, value) for name, value in others.items() if name != wrt]
            return self._derivative(wrt, factors)
        operands = dict(self.operands, **{role: direction})
        if wrt == "upstream":
            return self._derivative(wrt, self._factors(operands))
        return self._first(wrt, operands)

    def _second_by_logits(self, wrt, direction):
        """The terms with the direction of the logits: the gradient is p * (q - sum(p * q)), and q does not depend on
        the logits."""
        filters = lambda value: self._per_filter(value)  # noqa: E731
        p, y = filters(self.p), filters(direction)
        p_y = (p * y).sum(-1, keepdims=True)
        if wrt != "spatial":
            linear = (p * (y - p_y)).map(self._flat).stored(self.stored)
            others = {"inputs": self.operands["inputs"], "upstream": self.operands["upstream"], "spatial": linear}
            yield self._derivative(wrt, [self._expand(role, value) for role, value in others.items() if role != wrt])
            return
        q = filters(self._derivative("spatial", self._factors(self.operands, "spatial")).stored(self.stored))
        p_q = (p * q).sum(-1, keepdims=True)
        of_p = y * (q - p_q) - q * p_y
        # Other forms of this sum add its three terms, and the term of `inputs`, in another order.
        of_p = Approximate(of_p.value, of_p.form, 2 * of_p.error)
        yield (p * (of_p - (p * of_p).sum(-1, keepdims=True))).map(self._flat)

    def _add(self, terms):
        terms = [*terms]
        return (
            terms[0] if len(terms) == 1 else Approximate.add([term.stored(self.stored) for term in terms], self.stored)
        )

    # --- Sums of products

    def _derivative(self, role, factors):
        product = factors[0]
        for factor in factors[1:]:
            product = product * factor
        if self.multiplies_padding:
            return self._reduce(role, product)
        shape = np.broadcast_shapes(product.value.shape, self.inside.shape)
        full = lambda value: np.where(self.inside, np.broadcast_to(value, shape), 0.0)  # noqa: E731
        product = Approximate(full(product.value), product.form, full(product.error))
        return self._reduce(role, product)

    @property
    def inside(self):
        """Whether a tap is inside the image, `[1, i, j, tap, 1, 1, 1]`."""
        if not hasattr(self, "_inside"):
            ones = np.ones((1, *self.case.shape[1:3], self.case.heads))
            self._inside = self._windows(ones)[..., :1, :1, :] > 0
        return self._inside

    def _expand(self, role, value):
        batch, (rows, columns), taps = self.case.shape[0], self.case.out_size, np.prod(self.case.kernel_size)
        heads = self.case.heads if self.kind not in ("bank", "banks") else 1
        shape = {
            "spatial": (batch, rows, columns, heads, taps, 1, 1),
            "channel": (batch, 1, 1, taps, heads, -1, 1),
            "bank": (batch, 1, 1, taps, 1, self.case.shape[3], -1),
            "banks": (batch, rows, columns, taps, 1, self.case.shape[3], -1),
            "upstream": (batch, rows, columns, 1, heads, -1, 1),
        }
        if role == "inputs":
            return value.map(self._windows)
        if role == "upstream" and self.kind in ("bank", "banks"):
            return value.map(lambda array: array.reshape(batch, rows, columns, 1, 1, 1, -1))
        if role == "spatial":
            return value.map(lambda array: array.reshape(shape["spatial"]).swapaxes(3, 4))
        return value.map(lambda array: array.reshape(shape[role]))

    def _reduce(self, role, product):
        axes = {"spatial": (5, 6), "channel": (1, 2, 6), "bank": (1, 2, 4), "banks": (4,), "upstream": (3, 6)}
        if role == "inputs":
            return self._scattered(product)
        if role == "upstream" and self.kind in ("bank", "banks"):
            axes["upstream"] = (3, 4, 5)
        total = product.sum(axes[role])
        if role == "spatial":
            total = total.map(lambda array: array.swapaxes(3, 4))
        shape = self.case.operand_shape(role) if role != "upstream" else (*total.value.shape[:3], -1)
        return total.map(lambda array: array.reshape(shape))

    def _tap_slices(self):
        """Yields `(tap, output slices, image slices)`: a tap reads the image slices of the padded image."""
        case = self.case
        for u in range(case.kernel_size[0]):
            for v in range(case.kernel_size[1]):
                begins = [tap * dilation for tap, dilation in zip((u, v), case.dilation_rate)]
                yield tuple(
                    slice(begin, begin + size * stride, stride)
                    for begin, size, stride in zip(begins, case.out_size, case.strides)
                )

    def _padded(self, shape):
        """Zeros for images with their padding and, at the end, space for whole strides; and the slices of the image."""
        case = self.case
        pads = [reference.pad_before(k, d, case.padding) for k, d in zip(case.kernel_size, case.dilation_rate)]
        sizes = [
            max(size + 2 * pad, (kernel - 1) * dilation + out * stride)
            for size, pad, kernel, dilation, out, stride in zip(
                shape[1:3], pads, case.kernel_size, case.dilation_rate, case.out_size, case.strides
            )
        ]
        image = tuple(slice(pad, pad + size) for pad, size in zip(pads, shape[1:3]))
        return np.zeros((shape[0], *sizes, *shape[3:])), image

    def _windows(self, images):
        """Gathers the pixels under the taps: `[n, i, j, tap, head, channel of the head, 1]`."""
        padded, (rows, columns) = self._padded(images.shape)
        padded[:, rows, columns] = images
        windows = np.stack([padded[:, y, x] for y, x in self._tap_slices()], axis=3)
        heads = self.case.heads if self.kind not in ("bank", "banks") else 1
        return windows.reshape(*windows.shape[:4], heads, windows.shape[4] // heads, 1)

    def _scattered(self, product):
        """Adds the products of every pixel."""
        taps, maps = product.value.shape[3], product.value.shape[6]

        def scatter(array):
            array = array.sum(6).reshape(*array.shape[:4], -1)
            padded, (rows, columns) = self._padded(self.case.shape)
            for tap, (y, x) in enumerate(self._tap_slices()):
                padded[:, y, x] += array[:, :, :, tap]
            return padded[:, rows, columns]

        error = scatter(product.error)
        magnitude = scatter(np.abs(product.value)) + error
        total = Approximate(scatter(product.value), product.form)
        total.error = error + total.accumulation(taps * maps, magnitude)
        return total

    # --- Softmax

    def _per_filter(self, value):
        taps = int(np.prod(self.case.kernel_size))
        return value.map(lambda array: array.reshape(*array.shape[:3], self.case.heads, taps))

    def _flat(self, array):
        return array.reshape(*array.shape[:3], -1)

    def _to_logits(self, gradient):
        p, q = self._per_filter(self.p), self._per_filter(gradient)
        return (p * (q - (p * q).sum(-1, keepdims=True))).map(self._flat)


class _Projection:
    """`project_and_pool`: projected = inputs @ kernel + bias, and the means of the pixels."""

    def __init__(self, problem):
        self.stored = FORMATS[problem.dtype]
        self.form = accumulator(problem.dtype)
        exact = lambda arrays: [Approximate.operand(array, self.form) for array in arrays]  # noqa: E731
        self.inputs, self.kernel, self.bias = exact(problem.operands)
        self.upstream, self.upstream_means = exact(problem.upstreams)
        self.directions = exact(problem.directions)
        self.pixels = self.inputs.value.shape[1] * self.inputs.value.shape[2]

    def results(self):
        d_inputs, d_kernel, d_bias = self.directions
        projected = self._matmul(self.inputs, self.kernel) + self.bias
        first = [
            self._add(self._matmul(self.upstream, self._transposed(self.kernel)), self._mean_gradient()),
            self._kernel_gradient(self.inputs),
            self.upstream.sum((0, 1, 2)),
        ]
        second = [
            self._matmul(self.upstream, self._transposed(d_kernel)),
            self._kernel_gradient(d_inputs),
            None,
            self._add(self._matmul(d_inputs, self.kernel), self._matmul(self.inputs, d_kernel), d_bias),
            self._means(d_inputs),
        ]
        return [projected, self._means(self.inputs)], first, second

    def _matmul(self, left, right):
        product = left.map(lambda array: array[..., None]) * right
        return product.sum(-2).stored(self.stored)

    def _add(self, *terms):
        return Approximate.add([term.stored(self.stored) for term in terms], self.stored)

    def _transposed(self, value):
        return value.map(np.transpose)

    def _kernel_gradient(self, inputs):
        product = inputs.map(lambda array: array[..., None]) * self.upstream.map(lambda array: array[..., None, :])
        samples = product.sum((1, 2))
        return self._add(*(samples.map(lambda array, n=n: array[n]) for n in range(len(samples.value))))

    def _mean_gradient(self):
        return self.upstream_means.over(self.pixels).stored(self.stored).map(lambda array: array[:, None, None])

    def _means(self, inputs):
        return inputs.sum((1, 2)).stored(self.stored).over(self.pixels).over(1)
