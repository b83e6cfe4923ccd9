// Each thread computes elements that are as far apart as there are threads; the seed's two keys are
// computed by each, which takes less than waiting for the host to have read it.
#include "kernels/cuda_block.cuh"
#include "kernels/cuda_common.cuh"
#include "kernels/dropout_cuda.h"

namespace vmr::kernels::dropout::cuda {
namespace {

using device::get;
using device::put;
using device::thread_count;
using device::thread_index;

constexpr int kThreads = 256;

template <typename Acc>
struct Drop {
  Keys keys;
  uint32_t threshold;
  Acc scale;

  __device__ explicit Drop(const Mask& mask)
      : keys(mask.threshold != 0 ? keys_of(*mask.seed) : Keys{0, 0}),
        threshold(mask.threshold),
        scale(static_cast<Acc>(mask.scale)) {}

  // The element at a place: 0, also of NaN, where it is dropped.
  __device__ Acc of(Acc value, int64_t place) const {
    if (threshold == 0) return value;
    return hash_of(keys, static_cast<uint32_t>(place)) < threshold ? Acc(0) : value * scale;
  }
};

template <typename T>
__global__ void __launch_bounds__(kThreads) activate_kernel(Activation<T> problem, int64_t count) {
  using Acc = accumulate_t<T>;
  const Drop<Acc> drop(problem.mask);
  const bool sloped = problem.slope != nullptr;
  const Acc slope = sloped ? get(problem.slope) : Acc(0);
  for (int64_t i = thread_index(); i < count; i += thread_count()) {
    const Acc x = get(problem.rows + i);
    const Acc below = sloped ? x * slope : Acc(0);
    put(problem.results + i, drop.of(x < 0 ? below : x, i));
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    activate_gradient_kernel(ActivationGradient<T> problem, int64_t count) {
  using Acc = accumulate_t<T>;
  __shared__ device::BlockReduction<double, kThreads> summing;
  const Activation<T>& in = problem.inputs;
  const Drop<Acc> drop(in.mask);
  const bool sloped = in.slope != nullptr;
  const Acc slope = sloped ? get(in.slope) : Acc(0);
  double sum = 0;
  for (int64_t i = thread_index(); i < count; i += thread_count()) {
    const Acc x = get(in.rows + i);
    const Acc kept = drop.of(get(problem.output_gradients + i), i);
    if (sloped) {
      put(problem.row_gradients + i, x > 0 ? kept : kept * slope);
      sum += x > 0 ? 0.0 : static_cast<double>(kept * x);
    } else {
      put(problem.row_gradients + i, x <= 0 ? Acc(0) : kept);
    }
  }
  if (!sloped) return;
  sum = summing.all(sum, device::Plus());
  if (threadIdx.x == 0) problem.slope_parts[blockIdx.x] = sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) sum_kernel(const double* parts, int64_t count, T* sum) {
  __shared__ device::BlockReduction<double, kThreads> summing;
  double own = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) own += parts[i];
  own = summing.all(own, device::Plus());
  if (threadIdx.x == 0) put(sum, static_cast<accumulate_t<T>>(own));
}

template <typename T>
__global__ void __launch_bounds__(kThreads) add_kernel(Residual<T> problem, int64_t count) {
  using Acc = accumulate_t<T>;
  const Drop<Acc> drop(problem.mask);
  for (int64_t i = thread_index(); i < count; i += thread_count()) {
    const Acc kept = drop.of(get(problem.found + i), i);
    put(problem.results + i, problem.rows == nullptr ? kept : get(problem.rows + i) + kept);
  }
}

}  // namespace

template <typename T>
cudaError_t activate(const Activation<T>& problem, int64_t count, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  activate_kernel<<<device::blocks_for(count, kThreads), kThreads, 0, stream>>>(problem, count);
  return cudaGetLastError();
}

template <typename T>
cudaError_t activate_gradient(const ActivationGradient<T>& problem, int64_t count,
                              T* slope_gradient, cudaStream_t stream) {
  const bool sloped = problem.inputs.slope != nullptr;
  const unsigned all = device::blocks_for(count, kThreads);
  const unsigned blocks = sloped ? std::min(all, static_cast<unsigned>(kSumBlocks)) : all;
  if (blocks > 0) {
    activate_gradient_kernel<<<blocks, kThreads, 0, stream>>>(problem, count);
  }
  if (sloped) sum_kernel<<<1, kThreads, 0, stream>>>(problem.slope_parts, blocks, slope_gradient);
  return cudaGetLastError();
}

template <typename T>
cudaError_t add_dropped(const Residual<T>& problem, int64_t count, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  add_kernel<<<device::blocks_for(count, kThreads), kThreads, 0, stream>>>(problem, count);
  return cudaGetLastError();
}

#define VMR_INSTANTIATE(T)                                                                         \
  template cudaError_t activate(const Activation<T>&, int64_t, cudaStream_t);                      \
  template cudaError_t activate_gradient(const ActivationGradient<T>&, int64_t, T*, cudaStream_t); \
  template cudaError_t add_dropped(const Residual<T>&, int64_t, cudaStream_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::dropout::cuda
