#include <cub/block/block_reduce.cuh>

#include "kernels/cuda_common.cuh"
#include "kernels/spans_cuda.h"

namespace vmr::kernels::spans::cuda {
namespace {

using device::get;
using device::put;
using device::thread_count;
using device::thread_index;

constexpr int kThreads = 256;
constexpr int kNmsThreads = 1024;

template <typename T>
__device__ Span<accumulate_t<T>> get_span(const T* from) {
  return {get(from), get(from + 1)};
}

// A thread a pair.
template <typename T, Overlap kind>
__global__ void __launch_bounds__(kThreads)
    overlap_kernel(PairSizes sizes, const T* a, const T* b, T* overlaps) {
  const int64_t count = sizes.batch * sizes.n * sizes.m;
  for (int64_t i = thread_index(); i < count; i += thread_count()) {
    const int64_t row = i / sizes.m;
    const T* others = b + row / sizes.n * sizes.m * 2;
    put(overlaps + i, overlap<kind>(get_span(a + 2 * row), get_span(others + i % sizes.m * 2)));
  }
}

// A thread a row where the rows are short (aligned pairs), else a warp.
template <typename T, Overlap kind, int kLanes>
__global__ void __launch_bounds__(kThreads)
    overlap_gradient_kernel(PairSizes sizes, const T* gradients, bool transposed, const T* a,
                            const T* b, T* a_gradients) {
  const int64_t stride = transposed ? sizes.n : 1;
  const auto lane = static_cast<int64_t>(threadIdx.x % kLanes);
  for (int64_t row = thread_index() / kLanes; row < sizes.batch * sizes.n;
       row += thread_count() / kLanes) {
    const int64_t batch = row / sizes.n;
    const auto span = get_span(a + 2 * row);
    const T* others = b + batch * sizes.m * 2;
    const T* from =
        gradients + (transposed ? batch * sizes.n * sizes.m + row % sizes.n : row * sizes.m);
    Span<accumulate_t<T>> sum = {0, 0};
    for (int64_t j = lane; j < sizes.m; j += kLanes) {
      const auto part =
          overlap_gradient<kind>(get(from + j * stride), span, get_span(others + 2 * j));
      sum.start += part.start;
      sum.end += part.end;
    }
    if (kLanes > 1) {
      sum.start = device::warp_sum(sum.start);
      sum.end = device::warp_sum(sum.end);
    }
    if (lane == 0) {
      put(a_gradients + 2 * row, sum.start);
      put(a_gradients + 2 * row + 1, sum.end);
    }
  }
}

template <typename Acc>
struct Candidate {
  Acc score;
  int64_t index;  // -1: none
};

struct Better {
  template <typename Acc>
  __device__ Candidate<Acc> operator()(const Candidate<Acc>& a, const Candidate<Acc>& b) const {
    if (a.index < 0 || b.index < 0) return a.index < 0 ? b : a;
    if (a.score != b.score) return a.score > b.score ? a : b;
    return a.index < b.index ? a : b;
  }
};

// A block a query. Each round is one sweep that takes out what the last kept span suppresses and
// finds the best of the rest; a thread looks after the same candidates in every round.
template <typename T>
__global__ void __launch_bounds__(kNmsThreads) nms_kernel(NmsProblem<T> problem, uint8_t* alive) {
  using Acc = accumulate_t<T>;
  using Reduce = cub::BlockReduce<Candidate<Acc>, kNmsThreads>;
  __shared__ typename Reduce::TempStorage storage;
  __shared__ Candidate<Acc> shared_best;
  const auto threshold = static_cast<Acc>(problem.iou_threshold);
  for (int64_t q = blockIdx.x; q < problem.queries; q += gridDim.x) {
    const T* spans = problem.spans + q * problem.candidates * 2;
    const T* scores = problem.scores + q * problem.candidates;
    uint8_t* query_alive = alive + q * problem.candidates;
    const int64_t length = min(max(problem.lengths[q], int64_t{0}), problem.candidates);
    int64_t kept = 0;
    int64_t last = -1;
    Span<Acc> last_span = {0, 0};
    while (kept < problem.top_k) {
      Candidate<Acc> best = {0, -1};
      for (int64_t p = threadIdx.x; p < length; p += kNmsThreads) {
        const Acc score = get(scores + p);
        bool lives = last < 0 ? score == score : query_alive[p] != 0;
        if (lives && last >= 0) {
          lives = p != last &&
                  !(overlap<Overlap::kIou>(last_span, get_span(spans + 2 * p)) > threshold);
        }
        query_alive[p] = lives ? 1 : 0;
        if (lives) best = Better()(best, Candidate<Acc>{score, p});
      }
      best = Reduce(storage).Reduce(best, Better());
      if (threadIdx.x == 0) shared_best = best;
      __syncthreads();
      best = shared_best;
      __syncthreads();
      if (best.index < 0) break;
      if (threadIdx.x == 0) problem.indices[q * problem.top_k + kept] = best.index;
      last = best.index;
      last_span = get_span(spans + 2 * last);
      ++kept;
    }
    for (int64_t k = kept + threadIdx.x; k < problem.top_k; k += kNmsThreads) {
      problem.indices[q * problem.top_k + k] = -1;
    }
    if (threadIdx.x == 0) problem.counts[q] = kept;
  }
}

}  // namespace

template <typename T, Overlap kind>
cudaError_t pair_overlaps(const PairSizes& sizes, const T* a, const T* b, T* overlaps,
                          cudaStream_t stream) {
  const int64_t count = sizes.batch * sizes.n * sizes.m;
  if (count == 0) return cudaSuccess;
  overlap_kernel<T, kind>
      <<<device::blocks_for(count, kThreads), kThreads, 0, stream>>>(sizes, a, b, overlaps);
  return cudaGetLastError();
}

template <typename T, Overlap kind>
cudaError_t pair_overlap_gradients(const PairSizes& sizes, const T* gradients, bool transposed,
                                   const T* a, const T* b, T* a_gradients, cudaStream_t stream) {
  const int64_t rows = sizes.batch * sizes.n;
  if (rows == 0) return cudaSuccess;
  if (sizes.m < device::kWarp) {
    overlap_gradient_kernel<T, kind, 1>
        <<<device::blocks_for(rows, kThreads), kThreads, 0, stream>>>(sizes, gradients, transposed,
                                                                      a, b, a_gradients);
  } else {
    constexpr int kRows = kThreads / device::kWarp;
    overlap_gradient_kernel<T, kind, device::kWarp>
        <<<device::blocks_for(rows, kRows), kThreads, 0, stream>>>(sizes, gradients, transposed, a,
                                                                   b, a_gradients);
  }
  return cudaGetLastError();
}

template <typename T>
cudaError_t suppress(const NmsProblem<T>& problem, uint8_t* alive, cudaStream_t stream) {
  if (problem.queries == 0) return cudaSuccess;
  nms_kernel<<<device::blocks_for(problem.queries, 1), kNmsThreads, 0, stream>>>(problem, alive);
  return cudaGetLastError();
}

#define VMR_INSTANTIATE_OVERLAP(T, kind)                                                           \
  template cudaError_t pair_overlaps<T, kind>(const PairSizes&, const T*, const T*, T*,            \
                                              cudaStream_t);                                       \
  template cudaError_t pair_overlap_gradients<T, kind>(const PairSizes&, const T*, bool, const T*, \
                                                       const T*, T*, cudaStream_t);
#define VMR_INSTANTIATE(T)                   \
  VMR_INSTANTIATE_OVERLAP(T, Overlap::kIou)  \
  VMR_INSTANTIATE_OVERLAP(T, Overlap::kGiou) \
  template cudaError_t suppress(const NmsProblem<T>&, uint8_t*, cudaStream_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE
#undef VMR_INSTANTIATE_OVERLAP

}  // namespace vmr::kernels::spans::cuda
