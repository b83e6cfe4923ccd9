// Granular moment scores on CUDA. The functions, arguments and contracts are those of granular.h,
// for the whole range, enqueued on a stream; they return what cudaGetLastError says of their
// launches. Values that the CPU's ops check are not trusted here: rows of frames out of range are
// ignored.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/granular_sizes.h"
#include "kernels/scalar_types.h"

namespace vmr::kernels::granular::cuda {

template <typename T>
cudaError_t query_channels(const Sizes& sizes, const T* rewrites, accumulate_t<T>* units,
                           accumulate_t<T>* inverse_norms, accumulate_t<T>* channels,
                           cudaStream_t stream);
template <typename T>
cudaError_t query_gradients(const Sizes& sizes, const accumulate_t<T>* units,
                            const accumulate_t<T>* inverse_norms,
                            const accumulate_t<T>* channel_gradients, T* gradients,
                            cudaStream_t stream);
template <typename T>
cudaError_t frame_cosines(const Sizes& sizes, const T* captions, const accumulate_t<T>* vectors,
                          int64_t channel_count, accumulate_t<T>* cosines,
                          accumulate_t<T>* inverse_norms, cudaStream_t stream);
template <typename T>
cudaError_t aware_cosines(const Sizes& sizes, const T* captions, const AwareRows& rows,
                          const accumulate_t<T>* vectors, accumulate_t<T>* cosines,
                          accumulate_t<T>* inverse_norms, cudaStream_t stream);
template <typename T>
cudaError_t frame_gradients(const Sizes& sizes, const T* captions, const accumulate_t<T>* vectors,
                            int64_t channel_count, const accumulate_t<T>* cosines,
                            const accumulate_t<T>* inverse_norms,
                            const accumulate_t<T>* cosine_gradients, T* gradients,
                            cudaStream_t stream);
template <typename T>
cudaError_t aware_gradients(const Sizes& sizes, const T* captions, const AwareRows& rows,
                            const accumulate_t<T>* vectors, const accumulate_t<T>* cosines,
                            const accumulate_t<T>* inverse_norms,
                            const accumulate_t<T>* cosine_gradients, T* gradients,
                            cudaStream_t stream);
template <typename T>
cudaError_t add_frame_channel_gradients(const Sizes& sizes, const T* captions,
                                        int64_t channel_count, const accumulate_t<T>* inverse_norms,
                                        const accumulate_t<T>* cosine_gradients,
                                        accumulate_t<T>* channel_gradients, cudaStream_t stream);
template <typename T>
cudaError_t add_aware_channel_gradients(const Sizes& sizes, const T* captions,
                                        const AwareRows& rows, const accumulate_t<T>* inverse_norms,
                                        accumulate_t<T>* cosine_gradients,
                                        accumulate_t<T>* channel_gradients, cudaStream_t stream);

// `extremes` is scratch of two elements a channel: [2, Q * channels, 2].
template <typename T>
cudaError_t finish_scores(const Sizes& sizes, const Weights& weights,
                          const accumulate_t<T>* cosines, accumulate_t<T>* extremes, T* scores,
                          cudaStream_t stream);
template <typename T>
cudaError_t cosine_gradients(const Sizes& sizes, const Weights& weights, const T* score_gradients,
                             const accumulate_t<T>* cosines, accumulate_t<T>* gradients,
                             cudaStream_t stream);

// `means` is scratch: [Q, slots].
template <typename T>
cudaError_t proposals(const ProposalRule& rule, const ProposalInput<T>& in,
                      const ProposalOutput<T>& out, double* means, cudaStream_t stream);

}  // namespace vmr::kernels::granular::cuda
