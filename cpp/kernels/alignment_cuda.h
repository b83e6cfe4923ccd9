// Anchor-aware feature alignment on CUDA: the problems of alignment_types.h, enqueued on a stream;
// the functions return what cudaGetLastError says of their launches. Values that the CPU's ops
// check are not trusted here: a query about a video that is not there has no frames, and lengths
// and segments are cut to what is there. Scratch memory is an argument, with its shape.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/alignment_types.h"

namespace vmr::kernels::alignment::cuda {

// ---- around torch's products of matrices ----

// rows [U, N, D] with zeros for the padding.
template <typename T>
cudaError_t mask_rows(const Sizes& sizes, const T* rows, const int64_t* lengths, T* to,
                      cudaStream_t stream);
// gram [U, N, N] with zeros for the padding.
template <typename T>
cudaError_t mask_gram(const Sizes& sizes, const T* gram, const int64_t* lengths, T* to,
                      cudaStream_t stream);
// gradients [U, N, N] and their transposes, added, with zeros for the padding.
template <typename T>
cudaError_t add_transposed(const Sizes& sizes, const T* gradients, const int64_t* lengths, T* to,
                           cudaStream_t stream);

// ---- the ops ----

constexpr int64_t kAnchorRows = 7;
template <typename T>
cudaError_t anchors(const Anchors<T>& problem, double* scratch /* [B, kAnchorRows, N] */,
                    cudaStream_t stream);

template <typename T>
cudaError_t pool(const Pool<T>& problem, accumulate_t<T>* weights /* [B, N] */,
                 cudaStream_t stream);
template <typename T>
cudaError_t pool_gradient(const PoolGradient<T>& problem,
                          accumulate_t<T>* coefficients /* [B, 2, N] */, cudaStream_t stream);

template <typename T>
cudaError_t alignment(const Alignment<T>& problem, accumulate_t<T>* dots /* [B, 3, N] */,
                      cudaStream_t stream);
template <typename T>
cudaError_t alignment_gradient(const AlignmentGradient<T>& problem,
                               accumulate_t<T>* coefficients /* [B, 3, N] */, cudaStream_t stream);

template <typename T>
cudaError_t aligned_frames(const AlignedFrames<T>& problem, cudaStream_t stream);
template <typename T>
cudaError_t aligned_frames_gradient(const AlignedFramesGradient<T>& problem,
                                    accumulate_t<T>* weights /* [B, N] */, cudaStream_t stream);

constexpr int64_t kFactorRows = 5;
constexpr int64_t kSumRows = 3;
template <typename T>
cudaError_t similarity(const Similarity<T>& problem,
                       accumulate_t<T>* factors /* [B, kFactorRows, N] */, cudaStream_t stream);
template <typename T>
cudaError_t similarity_gradient(const SimilarityGradient<T>& problem,
                                accumulate_t<T>* factors /* [B, kFactorRows, N] */,
                                accumulate_t<T>* sums /* [B, kSumRows, N] */, cudaStream_t stream);

}  // namespace vmr::kernels::alignment::cuda
