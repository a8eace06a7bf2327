// SPDX-License-Identifier: Apache-2.0
#include "cuda/members.cuh"

template cudaError_t keras_dynfilter::cuda::run_type<float>(const Call&, const Buffers&, Weight, Member);
