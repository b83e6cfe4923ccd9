// Losses on the rows inside and outside of the moments. A block a video.
#include "kernels/background_device.cuh"

namespace vmr::kernels::background::cuda {
namespace {

using device::get;
using device::put;

constexpr int64_t kFore = 1;
constexpr int64_t kBack = -1;

struct Counts {
  int64_t fore;
  int64_t back;
  __device__ bool both() const { return fore > 0 && back > 0; }
};

// The side of each row, 0 in the padding; by a block.
template <typename T>
__device__ Counts split(const Sides<T>& problem, int64_t video, int64_t* sides,
                        device::BlockReduction<int64_t, kThreads>& block) {
  const int64_t frames = problem.frames;
  const int64_t length = row_count(problem.lengths, video, frames);
  const int64_t count = min(max(problem.counts[video], int64_t{0}), problem.most_windows);
  const int64_t* const windows = problem.windows + 2 * video * problem.most_windows;
  Counts counts = {0, 0};
  for (int64_t i = threadIdx.x; i < frames; i += kThreads) {
    int64_t side = i < length ? kBack : 0;
    for (int64_t m = 0; m < count && i < length; ++m) {
      if (i >= windows[2 * m] && i <= windows[2 * m + 1]) side = kFore;
    }
    sides[i] = side;
    counts.fore += side == kFore ? 1 : 0;
    counts.back += side == kBack ? 1 : 0;
  }
  // After which all sides are there to be read.
  counts.fore = block.all(counts.fore, device::Plus());
  counts.back = block.all(counts.back, device::Plus());
  return counts;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    margin_kernel(Sides<T> problem, accumulate_t<T> margin, int64_t* all_sides, T* losses) {
  using Acc = accumulate_t<T>;
  __shared__ device::BlockReduction<int64_t, kThreads> counting;
  __shared__ device::BlockReduction<double, kThreads> summing;
  for (int64_t b = blockIdx.x; b < problem.batch; b += gridDim.x) {
    int64_t* const sides = all_sides + b * problem.frames;
    const T* const scores = problem.scores + b * problem.frames;
    const Counts counts = split(problem, b, sides, counting);
    double sum = 0;
    for (int64_t i = threadIdx.x; i < problem.frames && counts.both(); i += kThreads) {
      if (sides[i] != kFore) continue;
      const Acc score = get(scores + i);
      Acc own = 0;
      for (int64_t j = 0; j < problem.frames; ++j) {
        if (sides[j] != kBack) continue;
        const Acc error = margin + get(scores + j) - score;
        own += error < 0 ? Acc(0) : error;  // NaN stays NaN
      }
      sum += static_cast<double>(own);
    }
    sum = summing.all(sum, device::Plus());
    if (threadIdx.x == 0) {
      const double pairs = static_cast<double>(counts.fore) * static_cast<double>(counts.back);
      put(losses + b, static_cast<Acc>(counts.both() ? sum / pairs : 0));
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    margin_gradient_kernel(SideGradients<T> problem, accumulate_t<T> margin, int64_t* all_sides) {
  using Acc = accumulate_t<T>;
  __shared__ device::BlockReduction<int64_t, kThreads> counting;
  const Sides<T>& in = problem.inputs;
  for (int64_t b = blockIdx.x; b < in.batch; b += gridDim.x) {
    int64_t* const sides = all_sides + b * in.frames;
    const T* const scores = in.scores + b * in.frames;
    const Counts counts = split(in, b, sides, counting);
    const double pairs = static_cast<double>(counts.fore) * static_cast<double>(counts.back);
    const Acc loss_gradient = get(problem.loss_gradients + b);
    const auto factor = static_cast<Acc>(static_cast<double>(loss_gradient) / pairs);
    for (int64_t i = threadIdx.x; i < in.frames; i += kThreads) {
      const int64_t side = counts.both() ? sides[i] : 0;
      const Acc score = get(scores + i);
      Acc active = 0;
      for (int64_t j = 0; j < in.frames && side != 0; ++j) {
        if (sides[j] != -side) continue;
        const Acc other = get(scores + j);
        const Acc error = side == kFore ? margin + other - score : margin + score - other;
        active += error > 0 ? Acc(1) : Acc(0);
      }
      put(problem.gradients + b * in.frames + i,
          side == 0 ? Acc(0) : (side == kFore ? -factor : factor) * active);
    }
    __syncthreads();
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    probability_kernel(Sides<T> problem, int64_t* all_sides, T* losses) {
  __shared__ device::BlockReduction<int64_t, kThreads> counting;
  __shared__ device::BlockReduction<double, kThreads> summing;
  for (int64_t b = blockIdx.x; b < problem.batch; b += gridDim.x) {
    int64_t* const sides = all_sides + b * problem.frames;
    const Counts counts = split(problem, b, sides, counting);
    double fore = 0;
    double back = 0;
    for (int64_t i = threadIdx.x; i < problem.frames; i += kThreads) {
      if (sides[i] == 0) continue;
      const auto score = static_cast<double>(get(problem.scores + b * problem.frames + i));
      (sides[i] == kFore ? fore : back) += score;
    }
    fore = summing.all(fore, device::Plus());
    back = summing.all(back, device::Plus());
    if (threadIdx.x == 0) {
      const double background = counts.back > 0 ? back / static_cast<double>(counts.back) : 0;
      const double loss =
          counts.fore > 0 ? 1 - fore / static_cast<double>(counts.fore) + background : 0;
      put(losses + b, static_cast<accumulate_t<T>>(loss));
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    probability_gradient_kernel(SideGradients<T> problem, int64_t* all_sides) {
  using Acc = accumulate_t<T>;
  __shared__ device::BlockReduction<int64_t, kThreads> counting;
  const Sides<T>& in = problem.inputs;
  for (int64_t b = blockIdx.x; b < in.batch; b += gridDim.x) {
    int64_t* const sides = all_sides + b * in.frames;
    const Counts counts = split(in, b, sides, counting);
    const Acc gradient = get(problem.loss_gradients + b);
    for (int64_t i = threadIdx.x; i < in.frames; i += kThreads) {
      Acc own = 0;
      if (counts.fore > 0 && sides[i] == kFore) own = -gradient / static_cast<Acc>(counts.fore);
      if (counts.fore > 0 && sides[i] == kBack) own = gradient / static_cast<Acc>(counts.back);
      put(problem.gradients + b * in.frames + i, own);
    }
  }
}

}  // namespace

template <typename T>
cudaError_t margin_loss(const Sides<T>& problem, double margin, int64_t* sides, T* losses,
                        cudaStream_t stream) {
  if (problem.batch == 0) return cudaSuccess;
  margin_kernel<<<blocks(problem.batch), kThreads, 0, stream>>>(
      problem, static_cast<accumulate_t<T>>(margin), sides, losses);
  return cudaGetLastError();
}

template <typename T>
cudaError_t margin_loss_gradient(const SideGradients<T>& problem, double margin, int64_t* sides,
                                 cudaStream_t stream) {
  if (problem.inputs.batch == 0) return cudaSuccess;
  margin_gradient_kernel<<<blocks(problem.inputs.batch), kThreads, 0, stream>>>(
      problem, static_cast<accumulate_t<T>>(margin), sides);
  return cudaGetLastError();
}

template <typename T>
cudaError_t probability_loss(const Sides<T>& problem, int64_t* sides, T* losses,
                             cudaStream_t stream) {
  if (problem.batch == 0) return cudaSuccess;
  probability_kernel<<<blocks(problem.batch), kThreads, 0, stream>>>(problem, sides, losses);
  return cudaGetLastError();
}

template <typename T>
cudaError_t probability_loss_gradient(const SideGradients<T>& problem, int64_t* sides,
                                      cudaStream_t stream) {
  if (problem.inputs.batch == 0) return cudaSuccess;
  probability_gradient_kernel<<<blocks(problem.inputs.batch), kThreads, 0, stream>>>(problem,
                                                                                     sides);
  return cudaGetLastError();
}

#define VMR_INSTANTIATE(T)                                                               \
  template cudaError_t margin_loss(const Sides<T>&, double, int64_t*, T*, cudaStream_t); \
  template cudaError_t margin_loss_gradient(const SideGradients<T>&, double, int64_t*,   \
                                            cudaStream_t);                               \
  template cudaError_t probability_loss(const Sides<T>&, int64_t*, T*, cudaStream_t);    \
  template cudaError_t probability_loss_gradient(const SideGradients<T>&, int64_t*, cudaStream_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::background::cuda
