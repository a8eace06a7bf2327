// SPDX-License-Identifier: Apache-2.0
#include "cuda/launch.cuh"

template cudaError_t keras_dynfilter::cuda::run_type<double>(const Call&, const Buffers&, FilterKind, Derivative);
