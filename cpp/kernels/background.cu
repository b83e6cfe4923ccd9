// Frame attention and attentive pooling; the formulas of the gradients are in background.cpp.
#include "kernels/background_device.cuh"

namespace vmr::kernels::background::cuda {
namespace {

using device::get;
using device::kWarp;
using device::lane_index;
using device::put;
using device::warp_count;
using device::warp_index;
using device::warp_sum;

struct Most {
  template <typename Acc>
  __device__ Acc operator()(Acc a, Acc b) const {
    return a > b ? a : b;
  }
};

template <typename Acc>
using Reduction = device::BlockReduction<Acc, kThreads>;

template <typename Acc>
__device__ Acc sigmoid(Acc score) {
  return 1 / (1 + exp(-score));
}

template <typename T, typename S>
__device__ accumulate_t<T> dot(const T* a, const S* b, int64_t size) {
  accumulate_t<T> sum = 0;
  for (int64_t d = lane_index(); d < size; d += kWarp) sum += get(a + d) * get(b + d);
  return warp_sum(sum);
}

// The first `count` of the scores become their softmax; by a block.
template <typename Acc>
__device__ void softmax(Acc* scores, int64_t count, Reduction<Acc>& block) {
  Acc most = -static_cast<Acc>(CUDART_INF);
  for (int64_t i = threadIdx.x; i < count; i += kThreads) most = Most()(most, scores[i]);
  most = block.all(most, Most());
  Acc sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    scores[i] = exp(scores[i] - most);
    sum += scores[i];
  }
  sum = block.all(sum, device::Plus());
  for (int64_t i = threadIdx.x; i < count; i += kThreads) scores[i] /= sum;
}

// A warp a row.
template <typename Acc>
__global__ void __launch_bounds__(kThreads) match_kernel(Match<Acc> problem) {
  const Sizes& sizes = problem.sizes;
  for (int64_t row = warp_index(); row < sizes.batch * sizes.frames; row += warp_count()) {
    const bool valid = row % sizes.frames < problem.lengths[row / sizes.frames];
    Acc* const hidden = problem.hidden + row * sizes.hidden;
    Acc score = 0;
    for (int64_t h = lane_index(); h < sizes.hidden; h += kWarp) {
      hidden[h] = valid ? tanh(hidden[h]) : Acc(0);
      score += hidden[h] * problem.score_weight[h];
    }
    score = warp_sum(score);
    if (lane_index() == 0) problem.probabilities[row] = valid ? sigmoid(score) : Acc(0);
  }
}

// A block a video.
template <typename T>
__global__ void __launch_bounds__(kThreads) attend_kernel(Attend<T> problem) {
  using Acc = accumulate_t<T>;
  __shared__ Reduction<Acc> block;
  const int64_t frames = problem.sizes.frames;
  for (int64_t b = blockIdx.x; b < problem.sizes.batch; b += gridDim.x) {
    const int64_t at = b * frames;
    const int64_t length = row_count(problem.lengths, b, frames);
    const int64_t count = problem.official_padding ? frames : length;
    Acc* const weights = problem.weights + at;
    for (int64_t i = threadIdx.x; i < frames; i += kThreads) {
      const Acc positive = problem.matched[at + i];
      const Acc against = problem.against == nullptr ? Acc(0) : problem.against[at + i];
      weights[i] = positive * (1 - against);
      put(problem.positive + at + i, positive);
      put(problem.joint + at + i, weights[i]);
    }
    softmax(weights, count, block);
    for (int64_t i = threadIdx.x; i < frames; i += kThreads) {
      if (i >= count) weights[i] = 0;
      put(problem.attention + at + i, weights[i]);
    }
  }
}

// A warp a row.
template <typename T>
__global__ void __launch_bounds__(kThreads) weigh_kernel(Attend<T> problem) {
  using Acc = accumulate_t<T>;
  const Sizes& sizes = problem.sizes;
  for (int64_t row = warp_index(); row < sizes.batch * sizes.frames; row += warp_count()) {
    const int64_t b = row / sizes.frames;
    const int64_t i = row % sizes.frames;
    const bool counts = problem.official_padding || i < problem.lengths[b];
    const T* const from = problem.frames.row(b, i, sizes.dim);
    for (int64_t d = lane_index(); d < sizes.dim; d += kWarp) {
      put(problem.attended + row * sizes.dim + d,
          counts ? problem.weights[row] * get(from + d) : Acc(0));
    }
  }
}

// A warp a row: both probabilities, and what comes to its attention, which stands in `numbers`
// where the positive score's gradient will.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    incoming_kernel(AttendGradient<T> problem, accumulate_t<T>* matches) {
  using Acc = accumulate_t<T>;
  const Sizes& sizes = problem.sizes;
  for (int64_t row = warp_index(); row < sizes.batch * sizes.frames; row += warp_count()) {
    const int64_t b = row / sizes.frames;
    const int64_t i = row % sizes.frames;
    const bool valid = i < problem.lengths[b];
    Acc matched = 0;
    Acc against = 0;
    Acc incoming = 0;
    if (valid) {
      matched =
          sigmoid(dot(problem.hidden + row * sizes.hidden, problem.score_weight, sizes.hidden));
      if (problem.negative_hidden != nullptr) {
        against = sigmoid(
            dot(problem.negative_hidden + row * sizes.hidden, problem.score_weight, sizes.hidden));
      }
    }
    if (valid || problem.official_padding) {
      incoming = dot(problem.frames.row(b, i, sizes.dim),
                     problem.attended_gradients + row * sizes.dim, sizes.dim) +
                 get(problem.attention_gradients + row);
    }
    if (lane_index() == 0) {
      Acc* const own = matches + b * kMatches * sizes.frames + i;
      own[0] = matched;
      own[sizes.frames] = against;
      Acc* const numbers = problem.numbers + b * kNumbers * sizes.frames + i;
      numbers[0] = matched * (1 - against);
      numbers[sizes.frames] = incoming;
    }
  }
}

// A block a video.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    score_gradient_kernel(AttendGradient<T> problem, const accumulate_t<T>* matches) {
  using Acc = accumulate_t<T>;
  __shared__ Reduction<Acc> block;
  const int64_t frames = problem.sizes.frames;
  for (int64_t b = blockIdx.x; b < problem.sizes.batch; b += gridDim.x) {
    const int64_t at = b * frames;
    const int64_t length = row_count(problem.lengths, b, frames);
    const int64_t count = problem.official_padding ? frames : length;
    Acc* const weights = problem.numbers + kNumbers * at;
    Acc* const to_positive = weights + frames;
    Acc* const to_negative = to_positive + frames;
    softmax(weights, count, block);
    Acc mean = 0;
    for (int64_t i = threadIdx.x; i < count; i += kThreads) mean += weights[i] * to_positive[i];
    mean = block.all(mean, device::Plus());
    for (int64_t i = threadIdx.x; i < frames; i += kThreads) {
      Acc positive = 0;
      Acc negative = 0;
      if (i < length) {
        const Acc matched = matches[kMatches * at + i];
        const Acc against = matches[kMatches * at + frames + i];
        const Acc joint =
            weights[i] * (to_positive[i] - mean) + get(problem.joint_gradients + at + i);
        positive = (joint * (1 - against) + get(problem.positive_gradients + at + i)) * matched *
                   (1 - matched);
        negative = -joint * matched * against * (1 - against);
      }
      if (i >= count) weights[i] = 0;
      to_positive[i] = positive;
      to_negative[i] = negative;
    }
  }
}

// A thread a place of the hidden layer of a video, for all its rows.
template <typename T>
__global__ void __launch_bounds__(kThreads) hidden_gradient_kernel(AttendGradient<T> problem) {
  using Acc = accumulate_t<T>;
  const Sizes& sizes = problem.sizes;
  for (int64_t place = device::thread_index(); place < sizes.batch * sizes.hidden;
       place += device::thread_count()) {
    const int64_t b = place / sizes.hidden;
    const int64_t h = place % sizes.hidden;
    const Acc weight = problem.score_weight[h];
    const Acc* const factors = problem.numbers + (b * kNumbers + 1) * sizes.frames;
    Acc sum = 0;
    for (int64_t i = 0; i < sizes.frames; ++i) {
      const int64_t at = (b * sizes.frames + i) * sizes.hidden + h;
      // Both factors and both layers are 0 in the padding.
      const Acc x = problem.hidden[at];
      problem.hidden_gradients[at] = factors[i] * weight * (1 - x * x);
      sum += factors[i] * x;
      if (problem.negative_hidden == nullptr) continue;
      const Acc factor = factors[sizes.frames + i];
      const Acc y = problem.negative_hidden[at];
      problem.negative_hidden_gradients[at] = factor * weight * (1 - y * y);
      sum += factor * y;
    }
    problem.weight_gradients[place] = sum;
  }
}

// A warp a row.
template <typename T>
__global__ void __launch_bounds__(kThreads) add_attended_kernel(AddAttended<T> problem) {
  using Acc = accumulate_t<T>;
  const Sizes& sizes = problem.sizes;
  for (int64_t row = warp_index(); row < sizes.batch * sizes.frames; row += warp_count()) {
    const int64_t b = row / sizes.frames;
    const int64_t i = row % sizes.frames;
    const bool counts = problem.official_padding || i < problem.lengths[b];
    const Acc weight = problem.numbers[b * kNumbers * sizes.frames + i];
    for (int64_t d = lane_index(); d < sizes.dim; d += kWarp) {
      const int64_t at = row * sizes.dim + d;
      put(problem.to + at,
          counts ? problem.from[at] + weight * get(problem.attended_gradients + at) : Acc(0));
    }
  }
}

// A warp a row.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    mask_kernel(Sizes sizes, Videos<T> videos, const int64_t* lengths, accumulate_t<T>* to) {
  for (int64_t row = warp_index(); row < sizes.batch * sizes.frames; row += warp_count()) {
    const int64_t b = row / sizes.frames;
    const int64_t i = row % sizes.frames;
    const T* const from = videos.row(b, i, sizes.dim);
    for (int64_t d = lane_index(); d < sizes.dim; d += kWarp) {
      to[row * sizes.dim + d] = i < lengths[b] ? get(from + d) : accumulate_t<T>(0);
    }
  }
}

// ---- attentive pooling ----

// The scores' softmax in weights [B, stride], 0 in the padding. A block a video.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    pool_weight_kernel(Pool<T> problem, accumulate_t<T>* weights, int64_t stride) {
  __shared__ Reduction<accumulate_t<T>> block;
  const int64_t frames = problem.sizes.frames;
  for (int64_t b = blockIdx.x; b < problem.sizes.batch; b += gridDim.x) {
    const int64_t count = row_count(problem.lengths, b, frames);
    accumulate_t<T>* const own = weights + b * stride;
    for (int64_t i = threadIdx.x; i < frames; i += kThreads) {
      own[i] = i < count ? get(problem.scores + b * frames + i) : accumulate_t<T>(0);
    }
    softmax(own, count, block);
    __syncthreads();
  }
}

// A thread a column of a video.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    pool_kernel(Pool<T> problem, const accumulate_t<T>* weights) {
  const Sizes& sizes = problem.sizes;
  for (int64_t place = device::thread_index(); place < sizes.batch * sizes.dim;
       place += device::thread_count()) {
    const int64_t b = place / sizes.dim;
    const int64_t count = row_count(problem.lengths, b, sizes.frames);
    const T* const column = problem.features.row(b, 0, sizes.dim) + place % sizes.dim;
    accumulate_t<T> sum = 0;
    for (int64_t i = 0; i < count; ++i) {
      sum += weights[b * sizes.frames + i] * get(column + i * sizes.dim);
    }
    put(problem.pooled + place, sum);
  }
}

// A warp a row: its features' gradient, and its product with the pooled gradient behind the
// weights.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    pool_row_gradient_kernel(PoolGradient<T> problem, accumulate_t<T>* weights) {
  using Acc = accumulate_t<T>;
  const Sizes& sizes = problem.inputs.sizes;
  for (int64_t row = warp_index(); row < sizes.batch * sizes.frames; row += warp_count()) {
    const int64_t b = row / sizes.frames;
    const int64_t i = row % sizes.frames;
    const T* const from = problem.pooled_gradients + b * sizes.dim;
    Acc* const own = weights + 2 * b * sizes.frames + i;
    const bool valid = i < problem.inputs.lengths[b];
    for (int64_t d = lane_index(); d < sizes.dim; d += kWarp) {
      put(problem.feature_gradients + row * sizes.dim + d, valid ? own[0] * get(from + d) : Acc(0));
    }
    const Acc product =
        valid ? dot(problem.inputs.features.row(b, i, sizes.dim), from, sizes.dim) : Acc(0);
    if (lane_index() == 0) own[sizes.frames] = product;
  }
}

// A block a video.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    pool_score_gradient_kernel(PoolGradient<T> problem, const accumulate_t<T>* weights) {
  using Acc = accumulate_t<T>;
  __shared__ Reduction<Acc> block;
  const int64_t frames = problem.inputs.sizes.frames;
  for (int64_t b = blockIdx.x; b < problem.inputs.sizes.batch; b += gridDim.x) {
    // Both are 0 in the padding.
    const Acc* const own = weights + 2 * b * frames;
    const Acc* const products = own + frames;
    Acc mean = 0;
    for (int64_t i = threadIdx.x; i < frames; i += kThreads) mean += own[i] * products[i];
    mean = block.all(mean, device::Plus());
    for (int64_t i = threadIdx.x; i < frames; i += kThreads) {
      put(problem.score_gradients + b * frames + i, own[i] * (products[i] - mean));
    }
  }
}

unsigned row_warps(const Sizes& sizes) {
  return warps(sizes.batch * sizes.frames);
}

}  // namespace

template <typename Acc>
cudaError_t match(const Match<Acc>& problem, cudaStream_t stream) {
  if (problem.sizes.batch == 0) return cudaSuccess;
  match_kernel<<<row_warps(problem.sizes), kThreads, 0, stream>>>(problem);
  return cudaGetLastError();
}

template <typename T>
cudaError_t attend(const Attend<T>& problem, cudaStream_t stream) {
  if (problem.sizes.batch == 0) return cudaSuccess;
  attend_kernel<<<blocks(problem.sizes.batch), kThreads, 0, stream>>>(problem);
  weigh_kernel<<<row_warps(problem.sizes), kThreads, 0, stream>>>(problem);
  return cudaGetLastError();
}

template <typename T>
cudaError_t attend_gradient(const AttendGradient<T>& problem, accumulate_t<T>* matches,
                            cudaStream_t stream) {
  const Sizes& sizes = problem.sizes;
  if (sizes.batch == 0) return cudaSuccess;
  incoming_kernel<<<row_warps(sizes), kThreads, 0, stream>>>(problem, matches);
  score_gradient_kernel<<<blocks(sizes.batch), kThreads, 0, stream>>>(problem, matches);
  hidden_gradient_kernel<<<device::blocks_for(sizes.batch * sizes.hidden, kThreads), kThreads, 0,
                           stream>>>(problem);
  return cudaGetLastError();
}

template <typename T>
cudaError_t add_attended(const AddAttended<T>& problem, cudaStream_t stream) {
  if (problem.sizes.batch == 0) return cudaSuccess;
  add_attended_kernel<<<row_warps(problem.sizes), kThreads, 0, stream>>>(problem);
  return cudaGetLastError();
}

template <typename T>
cudaError_t mask_rows(const Sizes& sizes, const Videos<T>& videos, const int64_t* lengths,
                      accumulate_t<T>* to, cudaStream_t stream) {
  if (sizes.batch == 0) return cudaSuccess;
  mask_kernel<<<row_warps(sizes), kThreads, 0, stream>>>(sizes, videos, lengths, to);
  return cudaGetLastError();
}

template <typename T>
cudaError_t pool(const Pool<T>& problem, accumulate_t<T>* weights, cudaStream_t stream) {
  const Sizes& sizes = problem.sizes;
  if (sizes.batch == 0) return cudaSuccess;
  pool_weight_kernel<<<blocks(sizes.batch), kThreads, 0, stream>>>(problem, weights, sizes.frames);
  pool_kernel<<<device::blocks_for(sizes.batch * sizes.dim, kThreads), kThreads, 0, stream>>>(
      problem, weights);
  return cudaGetLastError();
}

template <typename T>
cudaError_t pool_gradient(const PoolGradient<T>& problem, accumulate_t<T>* weights,
                          cudaStream_t stream) {
  const Sizes& sizes = problem.inputs.sizes;
  if (sizes.batch == 0) return cudaSuccess;
  pool_weight_kernel<<<blocks(sizes.batch), kThreads, 0, stream>>>(problem.inputs, weights,
                                                                   2 * sizes.frames);
  pool_row_gradient_kernel<<<row_warps(sizes), kThreads, 0, stream>>>(problem, weights);
  pool_score_gradient_kernel<<<blocks(sizes.batch), kThreads, 0, stream>>>(problem, weights);
  return cudaGetLastError();
}

template cudaError_t match(const Match<float>&, cudaStream_t);
template cudaError_t match(const Match<double>&, cudaStream_t);
#define VMR_INSTANTIATE(T)                                                                         \
  template cudaError_t attend(const Attend<T>&, cudaStream_t);                                     \
  template cudaError_t attend_gradient(const AttendGradient<T>&, accumulate_t<T>*, cudaStream_t);  \
  template cudaError_t add_attended(const AddAttended<T>&, cudaStream_t);                          \
  template cudaError_t mask_rows(const Sizes&, const Videos<T>&, const int64_t*, accumulate_t<T>*, \
                                 cudaStream_t);                                                    \
  template cudaError_t pool(const Pool<T>&, accumulate_t<T>*, cudaStream_t);                       \
  template cudaError_t pool_gradient(const PoolGradient<T>&, accumulate_t<T>*, cudaStream_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::background::cuda
