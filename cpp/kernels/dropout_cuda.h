// Dropout on CUDA: the problems of dropout_types.h on `count` elements, enqueued on a stream; the
// functions return what cudaGetLastError says of their launches. The seed lies on the GPU.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/dropout_types.h"

namespace vmr::kernels::dropout::cuda {

template <typename T>
cudaError_t activate(const Activation<T>& problem, int64_t count, cudaStream_t stream);

// The problem's slope_parts are here one number for each of kSumBlocks blocks of threads.
template <typename T>
cudaError_t activate_gradient(const ActivationGradient<T>& problem, int64_t count,
                              T* slope_gradient, cudaStream_t stream);
constexpr int64_t kSumBlocks = 1024;

template <typename T>
cudaError_t add_dropped(const Residual<T>& problem, int64_t count, cudaStream_t stream);

}  // namespace vmr::kernels::dropout::cuda
