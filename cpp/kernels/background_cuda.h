// Background-aware moment detection on CUDA: the problems of background_types.h, enqueued on a
// stream; the functions return what cudaGetLastError says of their launches. Values that the CPU's
// ops check are not trusted here: lengths, counts and windows are cut to what is there. Scratch
// memory is an argument, with its shape.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/background_types.h"

namespace vmr::kernels::background::cuda {

template <typename Acc>
cudaError_t match(const Match<Acc>& problem, cudaStream_t stream);
template <typename T>
cudaError_t attend(const Attend<T>& problem, cudaStream_t stream);
template <typename T>
cudaError_t attend_gradient(const AttendGradient<T>& problem,
                            accumulate_t<T>* matches /* [B, kMatches, N] */, cudaStream_t stream);
constexpr int64_t kMatches = 2;
template <typename T>
cudaError_t add_attended(const AddAttended<T>& problem, cudaStream_t stream);

// The rows [B, N, D] with zeros for the padding.
template <typename T>
cudaError_t mask_rows(const Sizes& sizes, const Videos<T>& videos, const int64_t* lengths,
                      accumulate_t<T>* to, cudaStream_t stream);

template <typename T>
cudaError_t pool(const Pool<T>& problem, accumulate_t<T>* weights /* [B, N] */,
                 cudaStream_t stream);
template <typename T>
cudaError_t pool_gradient(const PoolGradient<T>& problem, accumulate_t<T>* weights /* [B, 2, N] */,
                          cudaStream_t stream);

template <typename T>
cudaError_t margin_loss(const Sides<T>& problem, double margin, int64_t* sides /* [B, N] */,
                        T* losses, cudaStream_t stream);
template <typename T>
cudaError_t margin_loss_gradient(const SideGradients<T>& problem, double margin,
                                 int64_t* sides /* [B, N] */, cudaStream_t stream);
template <typename T>
cudaError_t probability_loss(const Sides<T>& problem, int64_t* sides /* [B, N] */, T* losses,
                             cudaStream_t stream);
template <typename T>
cudaError_t probability_loss_gradient(const SideGradients<T>& problem, int64_t* sides /* [B, N] */,
                                      cudaStream_t stream);

}  // namespace vmr::kernels::background::cuda
