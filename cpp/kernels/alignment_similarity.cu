// The similarity of the aligned frames, from the Gram matrix of the frames; the formulas of the
// gradients are derived in alignment_similarity.cpp.
#include "kernels/alignment_cuda.h"
#include "kernels/alignment_device.cuh"

namespace vmr::kernels::alignment::cuda {
namespace {

using device::Plus;

// One aligned frame x q + y v, with x = alpha and y = (1 - alpha) r.
template <typename Acc>
struct AlignedFrame {
  Acc x;
  Acc y;
  Acc dot;      // v . q
  Acc squared;  // |v|^2
  Acc inverse;  // 1 / its norm, or its floor
  bool floored;
};

// Rounded in one way wherever it is inlined: the forward and the gradient decide alike.
__device__ inline float fused(float a, float b, float c) {
  return fmaf(a, b, c);
}
__device__ inline double fused(double a, double b, double c) {
  return fma(a, b, c);
}

template <typename T, typename Acc = accumulate_t<T>>
__device__ AlignedFrame<Acc> aligned_frame(const Similarity<T>& problem, int64_t query,
                                           const Rows& own, int64_t i) {
  const int64_t frames = problem.sizes.frames;
  const int64_t at = query * frames + i;
  const Acc norm = get(problem.query_norms + query);
  const Acc x = get(problem.weights + at);
  const Acc y = (1 - x) * get(problem.relevance + at);
  const Acc dot = get(problem.query_dots + at);
  const Acc squared = get(problem.gram + (own.offset + i) * frames + i);
  const Acc terms = fused(norm * x, x, y * y * squared);
  const Acc of_sum = fused(2 * (x * y), dot, terms);
  const Acc floor =
      fused(static_cast<Acc>(kRelativeFloor), terms, static_cast<Acc>(kAbsoluteFloor));
  const bool floored = of_sum < floor;
  return {x, y, dot, squared, 1 / sqrt(floored ? floor : of_sum), floored};
}

// What a frame of a query has of the cosines C_ij = a_i t_j + e_i a_j + b_i b_j G_ij, and the
// gradient of the diagonal.
template <typename Acc>
struct Factors {
  Acc* a;  // x / |v^a|
  Acc* b;  // y / |v^a|
  Acc* e;  // b (v . q)
  Acc* t;  // |q|^2 a + e
  Acc* diagonal;

  __device__ Factors(Acc* factors, int64_t frames, int64_t query) {
    Acc* const own = factors + query * kFactorRows * frames;
    a = own;
    b = own + frames;
    e = own + 2 * frames;
    t = own + 3 * frames;
    diagonal = own + 4 * frames;
  }

  __device__ Acc cosine(int64_t i, int64_t j, Acc gram) const {
    return fused(a[i], t[j], fused(e[i], a[j], b[i] * b[j] * gram));
  }
  // Where C_ij and C_ji are within [-1, 1]: a pair counts in the sums of both frames or of none.
  __device__ bool inside(int64_t i, int64_t j, Acc gram) const {
    const Acc one = cosine(i, j, gram);
    const Acc other = cosine(j, i, gram);
    return one >= -1 && one <= 1 && other >= -1 && other <= 1;
  }
};

// A thread a frame of a query.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    factor_kernel(Similarity<T> problem, accumulate_t<T>* all_factors) {
  using Acc = accumulate_t<T>;
  const int64_t frames = problem.sizes.frames;
  const VideoRows all = {problem.sizes, problem.lengths, problem.videos};
  for (int64_t r = device::thread_index(); r < problem.sizes.queries * frames;
       r += device::thread_count()) {
    const int64_t query = r / frames;
    const int64_t i = r % frames;
    const Rows own = all.of(query);
    if (i >= own.end) continue;
    const Factors<Acc> factors(all_factors, frames, query);
    const AlignedFrame<Acc> frame = aligned_frame(problem, query, own, i);
    const Acc a = frame.x * frame.inverse;
    const Acc b = frame.y * frame.inverse;
    const Acc e = frame.dot * b;
    factors.a[i] = a;
    factors.b[i] = b;
    factors.e[i] = e;
    factors.t[i] = get(problem.query_norms + query) * a + e;
  }
}

// A warp a row.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    similarity_kernel(Similarity<T> problem, accumulate_t<T>* all_factors) {
  using Acc = accumulate_t<T>;
  const int64_t frames = problem.sizes.frames;
  const VideoRows all = {problem.sizes, problem.lengths, problem.videos};
  for (int64_t r = warp_index(); r < problem.sizes.queries * frames; r += warp_count()) {
    const int64_t query = r / frames;
    const int64_t i = r % frames;
    const Rows own = all.of(query);
    const Factors<Acc> factors(all_factors, frames, query);
    const T* const gram = problem.gram + (own.offset + i) * frames;
    for (int64_t j = lane_index(); j < frames; j += kWarp) {
      Acc cosine = 0;
      if (i < own.end && j < own.end) {
        cosine = factors.cosine(i, j, get(gram + j));
        cosine = cosine < -1 ? Acc(-1) : (cosine > 1 ? Acc(1) : cosine);
      }
      put(problem.similarity + r * frames + j, cosine);
    }
  }
}

// sums [B, kSumRows, N]: of (E_ij + E_ji) a_j, of the same with t_j, and with b_j G_ij. A block
// takes kWarp rows of a query, a warp kRowsOfWarp of them; E_ji comes through shared memory.
constexpr int kRowsOfWarp = kWarp / kWarps;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    similarity_sum_kernel(SimilarityGradient<T> problem, accumulate_t<T>* all_factors,
                          accumulate_t<T>* sums) {
  using Acc = accumulate_t<T>;
  __shared__ Acc tile[kWarp][kWarp + 1];
  const Similarity<T>& in = problem.inputs;
  const int64_t frames = in.sizes.frames;
  const int64_t blocks = (frames + kWarp - 1) / kWarp;
  const VideoRows all = {in.sizes, in.lengths, in.videos};
  const auto warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = lane_index();
  for (int64_t part = blockIdx.x; part < in.sizes.queries * blocks; part += gridDim.x) {
    const int64_t query = part / blocks;
    const int64_t first = part % blocks * kWarp;
    const Rows own = all.of(query);
    const Factors<Acc> factors(all_factors, frames, query);
    const T* const gradients = problem.gradients + query * frames * frames;
    Acc by_a[kRowsOfWarp] = {};
    Acc by_t[kRowsOfWarp] = {};
    Acc by_g[kRowsOfWarp] = {};
    for (int64_t first_column = 0; first_column < own.end; first_column += kWarp) {
      __syncthreads();  // the previous tile has been read by all
      for (int r = warp; r < kWarp; r += kWarps) {
        const int64_t j = first_column + r;
        const int64_t i = first + lane;
        tile[r][lane] = j < own.end && i < own.end ? get(gradients + j * frames + i) : Acc(0);
      }
      __syncthreads();
      const int64_t j = first_column + lane;
#pragma unroll
      for (int k = 0; k < kRowsOfWarp; ++k) {
        const int r = warp + k * kWarps;
        const int64_t i = first + r;
        if (i >= own.end || j >= own.end) continue;
        const Acc gram = get(in.gram + (own.offset + i) * frames + j);
        if (!factors.inside(i, j, gram)) continue;
        const Acc gradient = get(gradients + i * frames + j) + tile[lane][r];
        by_a[k] += gradient * factors.a[j];
        by_t[k] += gradient * factors.t[j];
        by_g[k] += gradient * factors.b[j] * gram;
      }
    }
#pragma unroll
    for (int k = 0; k < kRowsOfWarp; ++k) {
      const int64_t i = first + warp + k * kWarps;
      const Acc a = warp_sum(by_a[k]);
      const Acc t = warp_sum(by_t[k]);
      const Acc g = warp_sum(by_g[k]);
      if (lane == 0 && i < own.end) {
        Acc* const to = sums + query * kSumRows * frames + i;
        to[0] = a;
        to[frames] = t;
        to[2 * frames] = g;
      }
    }
  }
}

// A block a query: all gradients but that of the Gram matrix, of which the diagonal's is kept.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    similarity_gradient_kernel(SimilarityGradient<T> problem, accumulate_t<T>* all_factors,
                               const accumulate_t<T>* sums) {
  using Acc = accumulate_t<T>;
  __shared__ device::BlockReduction<Acc, kThreads> block;
  const Similarity<T>& in = problem.inputs;
  const int64_t frames = in.sizes.frames;
  const VideoRows all = {in.sizes, in.lengths, in.videos};
  for (int64_t query = blockIdx.x; query < in.sizes.queries; query += gridDim.x) {
    const Rows own = all.of(query);
    const Factors<Acc> factors(all_factors, frames, query);
    const Acc* const by_a = sums + query * kSumRows * frames;
    const Acc* const by_t = by_a + frames;
    const Acc* const by_g = by_t + frames;
    const Acc norm = get(in.query_norms + query);
    Acc for_norm = 0;
    for (int64_t i = threadIdx.x; i < frames; i += kThreads) {
      Acc to_dot = 0;
      Acc to_weight = 0;
      Acc to_relevance = 0;
      const int64_t at = query * frames + i;
      if (i < own.end) {
        const AlignedFrame<Acc> frame = aligned_frame(in, query, own, i);
        const Acc along = factors.a[i] * by_t[i] + factors.e[i] * by_a[i] + factors.b[i] * by_g[i];
        const Acc for_squared = -along * frame.inverse * frame.inverse / 2;
        // Of |q|^2 x^2 + |v|^2 y^2, and of 2 x y (v . q).
        const Acc for_terms =
            frame.floored ? static_cast<Acc>(kRelativeFloor) * for_squared : for_squared;
        const Acc for_cross = frame.floored ? Acc(0) : for_squared;
        const Acc for_x = frame.inverse * by_t[i] +
                          2 * (for_terms * norm * frame.x + for_cross * frame.y * frame.dot);
        const Acc for_c = frame.inverse * by_a[i] + 2 * for_cross * frame.x;
        const Acc for_y =
            frame.inverse * by_g[i] + 2 * for_terms * frame.y * frame.squared + for_c * frame.dot;
        to_dot = for_c * frame.y;
        to_weight = for_x - for_y * get(in.relevance + at);
        to_relevance = for_y * (1 - frame.x);
        for_norm += factors.a[i] * by_a[i] / 2 + for_terms * frame.x * frame.x;
        factors.diagonal[i] = for_terms * frame.y * frame.y;
      }
      put(problem.dot_gradients + at, to_dot);
      put(problem.weight_gradients + at, to_weight);
      put(problem.relevance_gradients + at, to_relevance);
    }
    for_norm = block.all(for_norm, Plus());
    if (threadIdx.x == 0) put(problem.norm_gradients + query, for_norm);
  }
}

// A block a row of a Gram matrix: the sum over the queries about its video.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    gram_gradient_kernel(SimilarityGradient<T> problem, accumulate_t<T>* all_factors) {
  using Acc = accumulate_t<T>;
  const Similarity<T>& in = problem.inputs;
  const Sizes& sizes = in.sizes;
  const int64_t frames = sizes.frames;
  for (int64_t row = blockIdx.x; row < sizes.videos * frames; row += gridDim.x) {
    const int64_t video = row / frames;
    const int64_t i = row % frames;
    const int64_t count = frame_count(sizes, in.lengths, video);
    for (int64_t j = threadIdx.x; j < frames; j += kThreads) {
      Acc sum = 0;
      if (i < count && j < count) {
        const Acc gram = get(in.gram + row * frames + j);
        for (int64_t query = 0; query < sizes.queries; ++query) {
          if (in.videos[query] != video) continue;
          const Factors<Acc> factors(all_factors, frames, query);
          if (factors.inside(i, j, gram)) {
            sum += get(problem.gradients + (query * frames + i) * frames + j) * factors.b[i] *
                   factors.b[j];
          }
          if (i == j) sum += factors.diagonal[i];
        }
      }
      put(problem.gram_gradients + row * frames + j, sum);
    }
  }
}

template <typename T>
void launch_factors(const Similarity<T>& problem, accumulate_t<T>* factors, cudaStream_t stream) {
  factor_kernel<<<threads_for(problem.sizes.queries * problem.sizes.frames), kThreads, 0, stream>>>(
      problem, factors);
}

}  // namespace

template <typename T>
cudaError_t similarity(const Similarity<T>& problem, accumulate_t<T>* factors,
                       cudaStream_t stream) {
  const Sizes& sizes = problem.sizes;
  if (sizes.queries == 0) return cudaSuccess;
  launch_factors(problem, factors, stream);
  similarity_kernel<<<warps_for(sizes.queries * sizes.frames), kThreads, 0, stream>>>(problem,
                                                                                      factors);
  return cudaGetLastError();
}

template <typename T>
cudaError_t similarity_gradient(const SimilarityGradient<T>& problem, accumulate_t<T>* factors,
                                accumulate_t<T>* sums, cudaStream_t stream) {
  const Similarity<T>& in = problem.inputs;
  const Sizes& sizes = in.sizes;
  if (sizes.queries > 0) {
    launch_factors(in, factors, stream);
    const int64_t blocks = (sizes.frames + kWarp - 1) / kWarp;
    similarity_sum_kernel<<<device::blocks_for(sizes.queries * blocks, 1), kThreads, 0, stream>>>(
        problem, factors, sums);
    similarity_gradient_kernel<<<device::blocks_for(sizes.queries, 1), kThreads, 0, stream>>>(
        problem, factors, sums);
  }
  if (problem.gram_gradients != nullptr && sizes.videos > 0) {
    gram_gradient_kernel<<<device::blocks_for(sizes.videos * sizes.frames, 1), kThreads, 0,
                           stream>>>(problem, factors);
  }
  return cudaGetLastError();
}

#define VMR_INSTANTIATE(T)                                                                 \
  template cudaError_t similarity(const Similarity<T>&, accumulate_t<T>*, cudaStream_t);   \
  template cudaError_t similarity_gradient(const SimilarityGradient<T>&, accumulate_t<T>*, \
                                           accumulate_t<T>*, cudaStream_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::alignment::cuda
