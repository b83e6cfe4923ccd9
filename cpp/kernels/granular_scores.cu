#include "kernels/cuda_block.cuh"
#include "kernels/cuda_common.cuh"
#include "kernels/granular_cuda.h"

namespace vmr::kernels::granular::cuda {
namespace {

using device::get;
using device::Plus;
using device::put;
using device::thread_count;
using device::thread_index;

constexpr int kThreads = 256;

template <typename Acc>
using BlockReduction = device::BlockReduction<Acc, kThreads>;

// The extremes of two parts of a channel. NaN wins, as in amin and amax.
struct Lower {
  template <typename Acc>
  __device__ Acc operator()(Acc a, Acc b) const {
    return (b < a || b != b) ? b : a;
  }
};
struct Higher {
  template <typename Acc>
  __device__ Acc operator()(Acc a, Acc b) const {
    return (b > a || b != b) ? b : a;
  }
};

// low and 1 / (high - low) of a channel; see Extremes in granular.cpp.
template <typename Acc>
__device__ void block_extremes(const Acc* channel, int64_t frames, BlockReduction<Acc>& block,
                               Acc* low, Acc* high, Acc* scale) {
  Acc least = channel[0];
  Acc most = channel[0];
  for (int64_t f = threadIdx.x; f < frames; f += kThreads) {
    least = Lower()(least, channel[f]);
    most = Higher()(most, channel[f]);
  }
  *low = block.all(least, Lower());
  *high = block.all(most, Higher());
  const Acc range = *high - *low;
  *scale = range <= constant_range<Acc>() ? Acc(0) : 1 / range;
}

// extremes [channel_count, 2]: low and scale of each channel.
template <typename Acc>
__global__ void __launch_bounds__(kThreads)
    extremes_kernel(int64_t frames, const Acc* cosines, Acc* extremes) {
  __shared__ BlockReduction<Acc> block;
  const int64_t k = blockIdx.x;
  Acc low;
  Acc high;
  Acc scale;
  block_extremes(cosines + k * frames, frames, block, &low, &high, &scale);
  if (threadIdx.x == 0) {
    extremes[2 * k] = low;
    extremes[2 * k + 1] = scale;
  }
}

template <typename T, typename Acc>
__global__ void finish_kernel(Sizes sizes, Weights weights, const Acc* cosines, const Acc* extremes,
                              T* scores) {
  const int64_t side_channels = sizes.queries * sizes.channels;
  for (int64_t i = thread_index(); i < sizes.queries * sizes.frames; i += thread_count()) {
    const int64_t q = i / sizes.frames;
    const int64_t f = i % sizes.frames;
    Acc sum = 0;
    for (int side = 0; side < 2; ++side) {
      const auto weight = static_cast<Acc>(side == 0 ? weights.agnostic : weights.aware) /
                          static_cast<Acc>(sizes.channels);
      for (int64_t c = 0; c < sizes.channels; ++c) {
        const int64_t k = side * side_channels + q * sizes.channels + c;
        const bool min_max = weights.normalization == Normalization::kMinMax;
        const Acc low = min_max ? extremes[2 * k] : Acc(-1);
        const Acc scale = min_max ? extremes[2 * k + 1] : Acc(0.5);
        sum += weight * scale * (cosines[k * sizes.frames + f] - low);
      }
    }
    put(scores + i, sum);
  }
}

// A block a channel; see cosine_gradients in granular.cpp.
template <typename T, typename Acc>
__global__ void __launch_bounds__(kThreads)
    cosine_gradient_kernel(Sizes sizes, Weights weights, const T* score_gradients,
                           const Acc* cosines, Acc* gradients) {
  __shared__ BlockReduction<Acc> block;
  const int64_t side_channels = sizes.queries * sizes.channels;
  const int64_t k = blockIdx.x;
  const T* from = score_gradients + k % side_channels / sizes.channels * sizes.frames;
  const Acc* channel = cosines + k * sizes.frames;
  Acc* to = gradients + k * sizes.frames;
  const auto weight = static_cast<Acc>(k < side_channels ? weights.agnostic : weights.aware) /
                      static_cast<Acc>(sizes.channels);
  if (weights.normalization == Normalization::kCosine) {
    for (int64_t f = threadIdx.x; f < sizes.frames; f += kThreads) {
      to[f] = weight * Acc(0.5) * get(from + f);
    }
    return;
  }
  Acc low;
  Acc high;
  Acc scale;
  block_extremes(channel, sizes.frames, block, &low, &high, &scale);
  Acc to_low = 0;
  Acc to_high = 0;
  Acc lows = 0;
  Acc highs = 0;
  for (int64_t f = threadIdx.x; f < sizes.frames; f += kThreads) {
    const Acc g = scale * (channel[f] - low);
    const Acc slope = weight * scale * get(from + f);
    to_low += slope * (g - 1);
    to_high -= slope * g;
    lows += channel[f] == low ? Acc(1) : Acc(0);
    highs += channel[f] == high ? Acc(1) : Acc(0);
  }
  to_low = block.all(to_low, Plus());
  to_high = block.all(to_high, Plus());
  lows = block.all(lows, Plus());
  highs = block.all(highs, Plus());
  for (int64_t f = threadIdx.x; f < sizes.frames; f += kThreads) {
    Acc gradient = weight * scale * get(from + f);
    if (channel[f] == low) gradient += to_low / lows;
    if (channel[f] == high) gradient += to_high / highs;
    to[f] = gradient;
  }
}

}  // namespace

template <typename T>
cudaError_t finish_scores(const Sizes& sizes, const Weights& weights,
                          const accumulate_t<T>* cosines, accumulate_t<T>* extremes, T* scores,
                          cudaStream_t stream) {
  if (weights.normalization == Normalization::kMinMax) {
    const auto channels = static_cast<unsigned>(2 * sizes.queries * sizes.channels);
    extremes_kernel<<<channels, kThreads, 0, stream>>>(sizes.frames, cosines, extremes);
  }
  finish_kernel<<<device::blocks_for(sizes.queries * sizes.frames, kThreads), kThreads, 0,
                  stream>>>(sizes, weights, cosines, extremes, scores);
  return cudaGetLastError();
}

template <typename T>
cudaError_t cosine_gradients(const Sizes& sizes, const Weights& weights, const T* score_gradients,
                             const accumulate_t<T>* cosines, accumulate_t<T>* gradients,
                             cudaStream_t stream) {
  const auto channels = static_cast<unsigned>(2 * sizes.queries * sizes.channels);
  cosine_gradient_kernel<<<channels, kThreads, 0, stream>>>(sizes, weights, score_gradients,
                                                            cosines, gradients);
  return cudaGetLastError();
}

#define VMR_INSTANTIATE(T)                                                                 \
  template cudaError_t finish_scores(const Sizes&, const Weights&, const accumulate_t<T>*, \
                                     accumulate_t<T>*, T*, cudaStream_t);                  \
  template cudaError_t cosine_gradients(const Sizes&, const Weights&, const T*,            \
                                        const accumulate_t<T>*, accumulate_t<T>*, cudaStream_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::granular::cuda
