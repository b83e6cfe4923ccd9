#include <cub/block/block_scan.cuh>

#include "kernels/cuda_common.cuh"
#include "kernels/detection_cuda.h"

namespace vmr::kernels::detection::cuda {
namespace {

using device::get;
using device::kAllLanes;
using device::kWarp;
using device::lane_index;
using device::put;

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarp;
constexpr int kDigitBits = 8;
constexpr int kDigits = 1 << kDigitBits;

// Numbers that are ordered as the scores are, above 0, which stands for what is never taken (NaN).
// 0 and -0 are equal.
__device__ uint32_t order_key(float score) {
  if (score != score) return 0;
  const uint32_t bits = __float_as_uint(score == 0 ? 0.0f : score);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ uint64_t order_key(double score) {
  if (score != score) return 0;
  const auto bits = static_cast<uint64_t>(__double_as_longlong(score == 0 ? 0.0 : score));
  return (bits >> 63) != 0 ? ~bits : bits | 0x8000000000000000ull;
}

template <typename Acc>
struct Key {
  using type = uint32_t;
};
template <>
struct Key<double> {
  using type = uint64_t;
};

// How many keys of a row are above the threshold, or equal to it.
struct RowCounts {
  int64_t above;
  int64_t equal;
};

struct Add {
  __device__ RowCounts operator()(const RowCounts& a, const RowCounts& b) const {
    return {a.above + b.above, a.equal + b.equal};
  }
};

__device__ int count_lanes(bool holds) {
  return __popc(__ballot_sync(kAllLanes, holds));
}
__device__ int count_lanes_before(bool holds) {
  return __popc(__ballot_sync(kAllLanes, holds) & ((1u << lane_index()) - 1));
}

// A map whose rows the warps of a block share.
template <typename T>
struct Map {
  using K = typename Key<accumulate_t<T>>::type;
  const T* scores;
  int64_t frames;
  int64_t length;

  // Calls function(j, key) for row i's columns from i on, in all lanes at once; the key is 0 where
  // j is beyond the end.
  template <typename Function>
  __device__ void over_row(int64_t i, const Function& function) const {
    for (int64_t first = i; first < length; first += kWarp) {
      const int64_t j = first + lane_index();
      function(j, j < length ? order_key(get(scores + i * frames + j)) : K(0));
    }
  }
};

// A block a query, in sweeps over its map. The first find the k-th best key, a digit a sweep: how
// many keys have each digit, of those that begin with the digits found so far. Then the rows count
// what they have above it and equal to it, from which follows where each row's points go.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    select_kernel(TopProblem<T> problem, RowCounts* all_row_counts) {
  using K = typename Map<T>::K;
  using Scan = cub::BlockScan<RowCounts, kThreads>;
  constexpr int kKeyBits = 8 * static_cast<int>(sizeof(K));
  __shared__ unsigned long long histogram[kDigits];
  __shared__ K shared_prefix;
  __shared__ int64_t shared_wanted;
  __shared__ typename Scan::TempStorage storage;
  const int64_t warp = threadIdx.x / kWarp;
  for (int64_t q = blockIdx.x; q < problem.batch; q += gridDim.x) {
    const int64_t length = min(max(problem.lengths[q], int64_t{0}), problem.frames);
    const Map<T> map = {problem.scores + q * problem.frames * problem.frames, problem.frames,
                        length};
    RowCounts* const row_counts = all_row_counts + q * problem.frames;

    K prefix = 0;
    int64_t wanted = problem.k;  // of the keys that begin with the prefix
    bool all = false;            // there are no more than k
    for (int shift = kKeyBits - kDigitBits; shift >= 0 && !all; shift -= kDigitBits) {
      for (int digit = threadIdx.x; digit < kDigits; digit += kThreads) histogram[digit] = 0;
      __syncthreads();
      const bool top_digit = shift == kKeyBits - kDigitBits;
      for (int64_t i = warp; i < length; i += kWarps) {
        map.over_row(i, [&](int64_t, K key) {
          const bool counts =
              key != 0 && (top_digit || (key ^ prefix) >> (shift + kDigitBits) == 0);
          const unsigned digit = counts ? static_cast<unsigned>(key >> shift) % kDigits : kDigits;
          // Scores are much alike: one lane adds for all that have its digit.
          const unsigned same = __match_any_sync(kAllLanes, digit);
          if (counts && (same & ((1u << lane_index()) - 1)) == 0) {
            atomicAdd(&histogram[digit], static_cast<unsigned long long>(__popc(same)));
          }
        });
      }
      __syncthreads();
      if (threadIdx.x == 0) {
        int64_t left = wanted;
        int digit = kDigits - 1;
        for (; digit >= 0; --digit) {
          const auto count = static_cast<int64_t>(histogram[digit]);
          if (count >= left) break;
          left -= count;
        }
        shared_wanted = digit < 0 ? 0 : left;
        shared_prefix = digit < 0 ? prefix : prefix | static_cast<K>(digit) << shift;
      }
      __syncthreads();
      wanted = shared_wanted;
      prefix = shared_prefix;
      all = wanted == 0;
    }

    // Without k of them all are taken: above 0.
    const K threshold = all ? K(0) : prefix;
    for (int64_t i = warp; i < length; i += kWarps) {
      RowCounts counts = {0, 0};
      map.over_row(i, [&](int64_t, K key) {
        counts.above += count_lanes(key > threshold);
        counts.equal += count_lanes(key == threshold && key != 0);
      });
      if (lane_index() == 0) row_counts[i] = counts;
    }
    __syncthreads();
    RowCounts total = {0, 0};
    for (int64_t first = 0; first < length; first += kThreads) {
      const int64_t i = first + threadIdx.x;
      RowCounts before = i < length ? row_counts[i] : RowCounts{0, 0};
      RowCounts sum;
      Scan(storage).ExclusiveScan(before, before, RowCounts{0, 0}, Add(), sum);
      if (i < length) row_counts[i] = Add()(total, before);
      total = Add()(total, sum);
      __syncthreads();
    }

    int64_t* const points = problem.points + q * problem.k * 2;
    T* const values = problem.values + q * problem.k;
    for (int64_t i = warp; i < length; i += kWarps) {
      RowCounts before = row_counts[i];
      map.over_row(i, [&](int64_t j, K key) {
        const bool above = key > threshold;
        const bool equal = key == threshold && key != 0;
        const int64_t above_before = before.above + count_lanes_before(above);
        const int64_t equal_before = before.equal + count_lanes_before(equal);
        if (above || (equal && equal_before < wanted)) {
          const int64_t place = above_before + min(equal_before, wanted);
          points[2 * place] = i;
          points[2 * place + 1] = j;
          values[place] = map.scores[i * map.frames + j];
        }
        before.above += count_lanes(above);
        before.equal += count_lanes(equal);
      });
    }
    const int64_t count = total.above + min(total.equal, wanted);
    for (int64_t place = count + threadIdx.x; place < problem.k; place += kThreads) {
      points[2 * place] = -1;
      points[2 * place + 1] = -1;
      put(values + place, -static_cast<accumulate_t<T>>(CUDART_INF));
    }
    if (threadIdx.x == 0) problem.counts[q] = count;
    __syncthreads();
  }
}

}  // namespace

template <typename T>
cudaError_t select_points(const TopProblem<T>& problem, int64_t* row_counts, cudaStream_t stream) {
  if (problem.batch == 0) return cudaSuccess;
  select_kernel<<<device::blocks_for(problem.batch, 1), kThreads, 0, stream>>>(
      problem, reinterpret_cast<RowCounts*>(row_counts));
  return cudaGetLastError();
}

#define VMR_INSTANTIATE(T) \
  template cudaError_t select_points(const TopProblem<T>&, int64_t*, cudaStream_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::detection::cuda
