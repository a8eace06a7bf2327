# SPDX-License-Identifier: Apache-2.0
"""Derives bounds of rounding errors, step by step along a formula.

A computation in floating-point arithmetic rounds every product to `x * y * (1 + d)` with `|d| <= u`, the unit roundoff,
and a sum of `n` terms to a value whose error is at most `n * u / (1 - n * u)` times the sum of the absolute values, in
whatever order the terms are added (Higham, Accuracy and Stability of Numerical Algorithms, sections 3.1 and 4.2). Fused
multiply-adds round less often. So one bound holds for all implementations that compute the same terms.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Format:
    """A floating-point format.

    Attributes:
        unit: The unit roundoff.
        underflow: The largest error of a result below the normal numbers. Threads may flush such a float32, bfloat16 or
            float64 result to zero; float16 is converted by integer arithmetic and keeps its subnormal numbers.
        overflow: The smallest number that rounds to infinity.
    """

    unit: float
    underflow: float
    overflow: float


FORMATS = {
    "float16": Format(2.0**-11, 2.0**-25, 65520.0),
    "bfloat16": Format(2.0**-8, 2.0**-126, (2 - 2.0**-8) * 2.0**127),
    "float32": Format(2.0**-24, 2.0**-126, (2 - 2.0**-24) * 2.0**127),
    # Twice the unit roundoff: the true results are themselves computed in float64.
    "float64": Format(2.0**-52, 2.0**-1022, np.inf),
}
# Roundings in one exponential: the kernels round the reduced argument, and add a series. The bound covers the
# exponentials of TensorFlow, XLA and onnxruntime too, whose errors are documented as at most 4 units in the last place.
EXPONENTIAL = 12


def accumulator(dtype):
    """Returns the format in which values of a dtype are multiplied and added."""
    return FORMATS["float64" if dtype == "float64" else "float32"]


class Approximate:
    """True values, and a bound of the error with which arithmetic in a format computes them."""

    def __init__(self, value, form, error=0.0):
        self.value, self.form, self.error = value, form, error

    @classmethod
    def operand(cls, value, form):
        """An exact operand. Threads may treat subnormal numbers of the format as zero."""
        magnitude = np.abs(value)
        subnormal = (magnitude > 0) & (magnitude < form.underflow)
        return cls(value, form, np.where(subnormal, magnitude, 0.0) if subnormal.any() else 0.0)

    def map(self, function):
        """Applies a function that only moves elements."""
        error = self.error if np.isscalar(self.error) else function(self.error)
        return Approximate(function(self.value), self.form, error)

    def _rounded(self, value, error):
        return Approximate(value, self.form, error + self.form.unit * (np.abs(value) + error) + self.form.underflow)

    def __mul__(self, other):
        error = np.abs(self.value) * other.error + self.error * (np.abs(other.value) + other.error)
        return self._rounded(self.value * other.value, error)

    def __add__(self, other):
        return self._rounded(self.value + other.value, self.error + other.error)

    def __sub__(self, other):
        return self._rounded(self.value - other.value, self.error + other.error)

    def over(self, number):
        """Divides by an exact number."""
        return self._rounded(self.value / number, self.error / number)

    def sum(self, axis, terms=None, keepdims=False):
        """Adds along an axis or axes, in any order. `terms` is the number of terms; by default, the sizes say it."""
        error = np.broadcast_to(self.error, self.value.shape).sum(axis=axis, keepdims=keepdims)
        value = self.value.sum(axis=axis, keepdims=keepdims)
        magnitude = np.abs(self.value).sum(axis=axis, keepdims=keepdims)
        terms = terms or self.value.size // max(value.size, 1)
        return Approximate(value, self.form, error + self.accumulation(terms, magnitude + error))

    def accumulation(self, terms, magnitude):
        """Returns the error bound of a sum of `terms` terms, whose absolute values add up to `magnitude`."""
        product = terms * self.form.unit
        return product / (1 - product) * magnitude + terms * self.form.underflow

    def softmax(self, axis):
        """Normalises operands along an axis."""
        difference = self - Approximate(self.value.max(axis=axis, keepdims=True), self.form)
        value = np.exp(difference.value)
        relative = np.expm1(np.minimum(difference.error, 700.0)) + EXPONENTIAL * self.form.unit
        powers = Approximate(value, self.form, value * relative + self.form.underflow)
        total = powers.sum(axis, keepdims=True)  # at least 1
        scale = 1 / total.value
        return powers * self._rounded(scale, scale * total.error / np.maximum(total.value - total.error, 0.5))

    @classmethod
    def add(cls, terms, form):
        """Adds tensors that are stored in a format, in any order. If a sum of some may overflow, no bound holds."""
        error, magnitude = (
            sum(part(term) for term in terms) for part in (lambda term: term.error, lambda term: np.abs(term.value))
        )
        total = cls(sum(term.value for term in terms), form)
        error = error + total.accumulation(len(terms) - 1, magnitude + error)
        total.error = np.where(magnitude + error < form.overflow, error, np.inf)
        return total

    def stored(self, form):
        """Rounds to another format, in which the computation goes on. Beyond its range, no bound holds."""
        if form is self.form:
            return self
        magnitude = np.abs(self.value) + self.error
        error = self.error + form.unit * magnitude + form.underflow
        return Approximate(self.value, self.form, np.where(magnitude < form.overflow, error, np.inf))


def compare(actual, truth, form):
    """Compares stored results with the truth.

    Infinities and NaN must be where the truth has them, and where a result is beyond the range of the format. Where the
    bound does not decide whether a result overflows, everything is allowed.

    Args:
        actual: Results, converted to float64.
        truth: `Approximate`, before the results are rounded to the format.
        form: The `Format` in which the results are stored.

    Returns:
        The largest error divided by its bound, and the number of results that are wrong.
    """
    with np.errstate(all="ignore"):
        return _compare(actual, truth, form)


def _compare(actual, truth, form):
    magnitude = np.abs(truth.value)
    error = np.broadcast_to(truth.error, magnitude.shape)
    exact = np.isfinite(truth.value)
    wrong = ~exact & ~((actual == truth.value) | (np.isnan(actual) & np.isnan(truth.value)))
    beyond = exact & (magnitude - error >= form.overflow)
    wrong |= beyond & (actual != np.sign(truth.value) * np.inf)
    within = exact & (magnitude + error < form.overflow)
    wrong |= within & ~np.isfinite(actual)
    bound = error if form is truth.form else error + form.unit * (magnitude + error) + form.underflow
    usable = within & np.isfinite(actual)
    difference = np.abs(actual - truth.value)[usable]
    ratio = difference / np.maximum(bound[usable], 5e-324)
    return float(ratio.max(initial=0.0)), int(wrong.sum() + (ratio > 1).sum())
