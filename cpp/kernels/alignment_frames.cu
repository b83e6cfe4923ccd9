// Attention over a segment, relevance and alignment of the frames, and the aligned frames; the
// formulas of the gradients are derived in alignment_frames.cpp.
#include "kernels/alignment_cuda.h"
#include "kernels/alignment_device.cuh"

namespace vmr::kernels::alignment::cuda {
namespace {

using device::Plus;

struct Most {
  template <typename Acc>
  __device__ Acc operator()(Acc a, Acc b) const {
    return a > b ? a : b;
  }
};

// ---- attention over a segment ----

// Logits become their softmax; by a block.
template <typename Acc>
__device__ void softmax(const Rows& own, Acc* logits,
                        device::BlockReduction<Acc, kThreads>& block) {
  Acc most = -static_cast<Acc>(CUDART_INF);
  for (int64_t i = own.begin + threadIdx.x; i < own.end; i += kThreads) {
    most = Most()(most, logits[i]);
  }
  most = block.all(most, Most());
  Acc sum = 0;
  for (int64_t i = own.begin + threadIdx.x; i < own.end; i += kThreads) {
    logits[i] = exp(logits[i] - most);
    sum += logits[i];
  }
  sum = block.all(sum, Plus());
  for (int64_t i = own.begin + threadIdx.x; i < own.end; i += kThreads) logits[i] /= sum;
}

// A block a query.
template <typename T>
__global__ void __launch_bounds__(kThreads) pool_kernel(Pool<T> problem, accumulate_t<T>* weights) {
  using Acc = accumulate_t<T>;
  __shared__ device::BlockReduction<Acc, kThreads> block;
  const int64_t frames = problem.sizes.frames;
  const SegmentRows all = {problem.sizes, problem.segments, problem.videos};
  for (int64_t query = blockIdx.x; query < problem.sizes.queries; query += gridDim.x) {
    const Rows own = all.of(query);
    Acc* const logits = weights + query * frames;
    softmax(own, logits, block);
    for (int64_t i = threadIdx.x; i < frames; i += kThreads) {
      if (i < own.begin || i >= own.end) put(problem.weights + query * frames + i, Acc(0));
    }
    for (int64_t i = own.begin + threadIdx.x; i < own.end; i += kThreads) {
      put(problem.weights + query * frames + i, logits[i]);
    }
  }
}

// A block a query. The coefficients are the logits and the products with the pooled gradient, and
// become those of the pooled gradient and of the vector.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    pool_gradient_kernel(PoolGradient<T> problem, accumulate_t<T>* coefficients) {
  using Acc = accumulate_t<T>;
  __shared__ device::BlockReduction<Acc, kThreads> block;
  const Pool<T>& in = problem.inputs;
  const int64_t frames = in.sizes.frames;
  const SegmentRows all = {in.sizes, in.segments, in.videos};
  for (int64_t query = blockIdx.x; query < in.sizes.queries; query += gridDim.x) {
    const Rows own = all.of(query);
    Acc* const weights = coefficients + 2 * query * frames;
    Acc* const gradients = weights + frames;
    softmax(own, weights, block);
    Acc mean = 0;
    for (int64_t i = own.begin + threadIdx.x; i < own.end; i += kThreads) {
      gradients[i] += get(problem.weight_gradients + query * frames + i);
      mean += weights[i] * gradients[i];
    }
    mean = block.all(mean, Plus());
    for (int64_t i = own.begin + threadIdx.x; i < own.end; i += kThreads) {
      gradients[i] = weights[i] * (gradients[i] - mean);
    }
    for (int64_t i = threadIdx.x; i < frames; i += kThreads) {
      if (i >= own.begin && i < own.end) continue;
      weights[i] = 0;
      gradients[i] = 0;
    }
  }
}

// ---- relevance and alignment of the frames ----

template <typename Acc>
struct Frame {
  Acc relevance;
  Acc weight;
};

// r and alpha, from the frame's dot products with z and y.
template <typename T, typename Acc = accumulate_t<T>>
__device__ Frame<Acc> align_frame(const Alignment<T>& problem, int64_t query, int64_t i,
                                  Acc relevance_dot, Acc alignment_dot) {
  Frame<Acc> found = {1, 0};
  if (problem.reweight) {
    found.relevance = tanh(relevance_dot + get(problem.relevance_offsets + query));
  }
  const int64_t* const segment = problem.segments + 2 * query;
  if (problem.align && i >= segment[0] && i <= segment[1]) {
    const Acc logit = found.relevance * alignment_dot + get(problem.alignment_offsets + query);
    found.weight = 1 / (1 + exp(-logit));
  }
  return found;
}

// A thread a frame of a query.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    align_kernel(Alignment<T> problem, const accumulate_t<T>* dots) {
  using Acc = accumulate_t<T>;
  const int64_t frames = problem.sizes.frames;
  const VideoRows all = {problem.sizes, problem.lengths, problem.videos};
  for (int64_t r = device::thread_index(); r < problem.sizes.queries * frames;
       r += device::thread_count()) {
    const int64_t query = r / frames;
    const int64_t i = r % frames;
    Frame<Acc> frame = {0, 0};
    Acc dot = 0;
    if (i < all.of(query).end) {
      const Acc* const own = dots + 3 * query * frames + i;
      frame = align_frame(problem, query, i, own[0], own[frames]);
      dot = own[2 * frames];
    }
    put(problem.relevance + r, frame.relevance);
    put(problem.weights + r, frame.weight);
    put(problem.dots + r, dot);
  }
}

// A block a query. The coefficients are the dot products with z, y and q, and become those of z, y
// and q in a frame's gradient, and of a frame in theirs.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    align_gradient_kernel(AlignmentGradient<T> problem, accumulate_t<T>* coefficients) {
  using Acc = accumulate_t<T>;
  __shared__ device::BlockReduction<Acc, kThreads> block;
  const Alignment<T>& in = problem.inputs;
  const int64_t frames = in.sizes.frames;
  const VideoRows all = {in.sizes, in.lengths, in.videos};
  for (int64_t query = blockIdx.x; query < in.sizes.queries; query += gridDim.x) {
    const int64_t count = all.of(query).end;
    Acc* const for_z = coefficients + 3 * query * frames;
    Acc* const for_y = for_z + frames;
    Acc* const for_q = for_y + frames;
    Acc for_relevance_offset = 0;
    Acc for_alignment_offset = 0;
    for (int64_t i = threadIdx.x; i < frames; i += kThreads) {
      Acc argument = 0;
      Acc product = 0;
      Acc dot = 0;
      if (i < count) {
        const int64_t at = query * frames + i;
        const Frame<Acc> frame = align_frame(in, query, i, for_z[i], for_y[i]);
        const Acc slope = frame.weight * (1 - frame.weight);
        const Acc logit = get(problem.weight_gradients + at) * slope;
        const Acc relevance = get(problem.relevance_gradients + at) + logit * for_y[i];
        if (in.reweight) argument = relevance * (1 - frame.relevance * frame.relevance);
        product = logit * frame.relevance;
        dot = get(problem.dot_gradients + at);
        for_relevance_offset += argument;
        for_alignment_offset += logit;
      }
      for_z[i] = argument;
      for_y[i] = product;
      for_q[i] = dot;
    }
    for_relevance_offset = block.all(for_relevance_offset, Plus());
    for_alignment_offset = block.all(for_alignment_offset, Plus());
    if (threadIdx.x == 0) {
      put(problem.relevance_offset_gradients + query, for_relevance_offset);
      put(problem.alignment_offset_gradients + query, for_alignment_offset);
    }
  }
}

// ---- the aligned frames ----

// A warp a frame of a query.
template <typename T>
__global__ void __launch_bounds__(kThreads) aligned_kernel(AlignedFrames<T> problem) {
  using Acc = accumulate_t<T>;
  const Sizes& sizes = problem.sizes;
  const VideoRows all = {sizes, problem.lengths, problem.videos};
  for (int64_t r = warp_index(); r < sizes.queries * sizes.frames; r += warp_count()) {
    const int64_t query = r / sizes.frames;
    const int64_t i = r % sizes.frames;
    const Rows own = all.of(query);
    const bool valid = i < own.end;
    const Acc alpha = valid ? get(problem.weights + r) : Acc(0);
    const Acc rest = valid ? (1 - alpha) * get(problem.relevance + r) : Acc(0);
    const T* const frame = problem.frames + (own.offset + i) * sizes.dim;
    for (int64_t d = lane_index(); d < sizes.dim; d += kWarp) {
      Acc value = 0;
      if (valid)
        value = alpha * get(problem.queries + query * sizes.dim + d) + rest * get(frame + d);
      put(problem.aligned + r * sizes.dim + d, value);
    }
  }
}

// A warp a frame of a query: the gradients of alpha and r, and alpha as a weight for the sums.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    aligned_gradient_kernel(AlignedFramesGradient<T> problem, accumulate_t<T>* weights) {
  using Acc = accumulate_t<T>;
  const AlignedFrames<T>& in = problem.inputs;
  const Sizes& sizes = in.sizes;
  const VideoRows all = {sizes, in.lengths, in.videos};
  for (int64_t r = warp_index(); r < sizes.queries * sizes.frames; r += warp_count()) {
    const int64_t query = r / sizes.frames;
    const int64_t i = r % sizes.frames;
    const Rows own = all.of(query);
    Acc alpha = 0;
    Acc to_alpha = 0;
    Acc to_relevance = 0;
    if (i < own.end) {  // the same in all lanes
      const T* const gradient = problem.gradients + r * sizes.dim;
      const Acc along_frame =
          warp_dot<Acc>(gradient, in.frames + (own.offset + i) * sizes.dim, sizes.dim);
      const Acc along_query = warp_dot<Acc>(gradient, in.queries + query * sizes.dim, sizes.dim);
      alpha = get(in.weights + r);
      to_alpha = along_query - get(in.relevance + r) * along_frame;
      to_relevance = (1 - alpha) * along_frame;
    }
    if (lane_index() == 0) {
      weights[r] = alpha;
      put(problem.weight_gradients + r, to_alpha);
      put(problem.relevance_gradients + r, to_relevance);
    }
  }
}

// A block a frame: the sum over the queries about its video.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    aligned_frame_gradient_kernel(AlignedFramesGradient<T> problem) {
  using Acc = accumulate_t<T>;
  const AlignedFrames<T>& in = problem.inputs;
  const Sizes& sizes = in.sizes;
  for (int64_t row = blockIdx.x; row < sizes.videos * sizes.frames; row += gridDim.x) {
    const int64_t video = row / sizes.frames;
    const int64_t i = row % sizes.frames;
    const bool valid = i < frame_count(sizes, in.lengths, video);
    for (int64_t d = threadIdx.x; d < sizes.dim; d += kThreads) {
      Acc sum = 0;
      for (int64_t query = 0; valid && query < sizes.queries; ++query) {
        if (in.videos[query] != video) continue;
        const int64_t r = query * sizes.frames + i;
        const Acc rest = (1 - get(in.weights + r)) * get(in.relevance + r);
        sum += rest * get(problem.gradients + r * sizes.dim + d);
      }
      put(problem.frame_gradients + row * sizes.dim + d, sum);
    }
  }
}

}  // namespace

template <typename T>
cudaError_t pool(const Pool<T>& problem, accumulate_t<T>* weights, cudaStream_t stream) {
  const Sizes& sizes = problem.sizes;
  if (sizes.queries == 0) return cudaSuccess;
  const SegmentRows all = {sizes, problem.segments, problem.videos};
  dot_kernel<1, T><<<warps_for(sizes.queries * sizes.frames), kThreads, 0, stream>>>(
      all, sizes, problem.frames, Vectors<T, 1>{{problem.vectors}}, weights);
  pool_kernel<<<device::blocks_for(sizes.queries, 1), kThreads, 0, stream>>>(problem, weights);
  launch_sums<1, T>(all, sizes, problem.frames, weights, 1, Sums<1, T>{{problem.pooled}}, stream);
  return cudaGetLastError();
}

template <typename T>
cudaError_t pool_gradient(const PoolGradient<T>& problem, accumulate_t<T>* coefficients,
                          cudaStream_t stream) {
  const Pool<T>& in = problem.inputs;
  const Sizes& sizes = in.sizes;
  if (sizes.queries > 0) {
    const SegmentRows all = {sizes, in.segments, in.videos};
    dot_kernel<2, T><<<warps_for(sizes.queries * sizes.frames), kThreads, 0, stream>>>(
        all, sizes, in.frames, Vectors<T, 2>{{in.vectors, problem.pooled_gradients}}, coefficients);
    pool_gradient_kernel<<<device::blocks_for(sizes.queries, 1), kThreads, 0, stream>>>(
        problem, coefficients);
    launch_sums<1, T>(all, sizes, in.frames, coefficients + sizes.frames, 2,
                      Sums<1, T>{{problem.vector_gradients}}, stream);
  }
  launch_frame_gradients<2, T>(sizes, in.videos,
                               Vectors<T, 2>{{problem.pooled_gradients, in.vectors}}, coefficients,
                               problem.frame_gradients, stream);
  return cudaGetLastError();
}

template <typename T>
cudaError_t alignment(const Alignment<T>& problem, accumulate_t<T>* dots, cudaStream_t stream) {
  const Sizes& sizes = problem.sizes;
  if (sizes.queries == 0) return cudaSuccess;
  const VideoRows all = {sizes, problem.lengths, problem.videos};
  const Vectors<T, 3> vectors = {
      {problem.relevance_vectors, problem.alignment_vectors, problem.queries}};
  dot_kernel<3, T><<<warps_for(sizes.queries * sizes.frames), kThreads, 0, stream>>>(
      all, sizes, problem.frames, vectors, dots);
  align_kernel<<<threads_for(sizes.queries * sizes.frames), kThreads, 0, stream>>>(problem, dots);
  return cudaGetLastError();
}

template <typename T>
cudaError_t alignment_gradient(const AlignmentGradient<T>& problem, accumulate_t<T>* coefficients,
                               cudaStream_t stream) {
  const Alignment<T>& in = problem.inputs;
  const Sizes& sizes = in.sizes;
  const Vectors<T, 3> vectors = {{in.relevance_vectors, in.alignment_vectors, in.queries}};
  if (sizes.queries > 0) {
    const VideoRows all = {sizes, in.lengths, in.videos};
    dot_kernel<3, T><<<warps_for(sizes.queries * sizes.frames), kThreads, 0, stream>>>(
        all, sizes, in.frames, vectors, coefficients);
    align_gradient_kernel<<<device::blocks_for(sizes.queries, 1), kThreads, 0, stream>>>(
        problem, coefficients);
    const Sums<3, T> sums = {{problem.relevance_vector_gradients,
                              problem.alignment_vector_gradients, problem.query_gradients}};
    launch_sums<3, T>(all, sizes, in.frames, coefficients, 3, sums, stream);
  }
  launch_frame_gradients<3, T>(sizes, in.videos, vectors, coefficients, problem.frame_gradients,
                               stream);
  return cudaGetLastError();
}

template <typename T>
cudaError_t aligned_frames(const AlignedFrames<T>& problem, cudaStream_t stream) {
  const Sizes& sizes = problem.sizes;
  if (sizes.queries == 0) return cudaSuccess;
  aligned_kernel<<<warps_for(sizes.queries * sizes.frames), kThreads, 0, stream>>>(problem);
  return cudaGetLastError();
}

template <typename T>
cudaError_t aligned_frames_gradient(const AlignedFramesGradient<T>& problem,
                                    accumulate_t<T>* weights, cudaStream_t stream) {
  const AlignedFrames<T>& in = problem.inputs;
  const Sizes& sizes = in.sizes;
  if (sizes.queries > 0) {
    aligned_gradient_kernel<<<warps_for(sizes.queries * sizes.frames), kThreads, 0, stream>>>(
        problem, weights);
    const OwnRows all = {{sizes, in.lengths, in.videos}};
    launch_sums<1, T>(all, sizes, problem.gradients, weights, 1,
                      Sums<1, T>{{problem.query_gradients}}, stream);
  }
  if (problem.frame_gradients != nullptr && sizes.videos > 0) {
    aligned_frame_gradient_kernel<<<device::blocks_for(sizes.videos * sizes.frames, 1), kThreads, 0,
                                    stream>>>(problem);
  }
  return cudaGetLastError();
}

#define VMR_INSTANTIATE(T)                                                                        \
  template cudaError_t pool(const Pool<T>&, accumulate_t<T>*, cudaStream_t);                      \
  template cudaError_t pool_gradient(const PoolGradient<T>&, accumulate_t<T>*, cudaStream_t);     \
  template cudaError_t alignment(const Alignment<T>&, accumulate_t<T>*, cudaStream_t);            \
  template cudaError_t alignment_gradient(const AlignmentGradient<T>&, accumulate_t<T>*,          \
                                          cudaStream_t);                                          \
  template cudaError_t aligned_frames(const AlignedFrames<T>&, cudaStream_t);                     \
  template cudaError_t aligned_frames_gradient(const AlignedFramesGradient<T>&, accumulate_t<T>*, \
                                               cudaStream_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::alignment::cuda
