// Temporal spans on CUDA: the functions of spans.h for the whole range, enqueued on a stream.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/spans_types.h"

namespace vmr::kernels::spans::cuda {

template <typename T, Overlap kind>
cudaError_t pair_overlaps(const PairSizes& sizes, const T* a, const T* b, T* overlaps,
                          cudaStream_t stream);
template <typename T, Overlap kind>
cudaError_t pair_overlap_gradients(const PairSizes& sizes, const T* gradients, bool transposed,
                                   const T* a, const T* b, T* a_gradients, cudaStream_t stream);

// `alive` is scratch: [Q, P] bytes.
template <typename T>
cudaError_t suppress(const NmsProblem<T>& problem, uint8_t* alive, cudaStream_t stream);

// `scratch` is assignment_scratch(problem) doubles: none where shared memory does.
template <typename T>
int64_t assignment_scratch(const AssignmentProblem<T>& problem);
template <typename T>
cudaError_t assign(const AssignmentProblem<T>& problem, double* scratch, cudaStream_t stream);

}  // namespace vmr::kernels::spans::cuda
