// Moments as points of a map of scores on CUDA: the functions of detection.h for the whole range,
// enqueued on a stream. Values are not trusted here: points out of range are ignored.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/detection_types.h"

namespace vmr::kernels::detection::cuda {

template <typename T>
cudaError_t row_errors(const VertexProblem<T>& problem, double* row_errors, cudaStream_t stream);
template <typename T>
cudaError_t sum_errors(const VertexProblem<T>& problem, const double* row_errors, T* losses,
                       cudaStream_t stream);
template <typename T>
cudaError_t row_error_gradients(const VertexProblem<T>& problem, const T* loss_gradients,
                                T* score_gradients, cudaStream_t stream);

// The k best points in the order of the rows, not yet of the scores. `row_counts` is scratch:
// [B, N, 2].
template <typename T>
cudaError_t select_points(const TopProblem<T>& problem, int64_t* row_counts, cudaStream_t stream);

}  // namespace vmr::kernels::detection::cuda
