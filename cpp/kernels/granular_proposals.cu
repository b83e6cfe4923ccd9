#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>

#include "kernels/cuda_common.cuh"
#include "kernels/granular_cuda.h"

namespace vmr::kernels::granular::cuda {
namespace {

using device::get;
using device::kWarp;
using device::lane_index;
using device::put;

constexpr int kThreads = 512;

struct Maximum {
  __device__ int64_t operator()(int64_t a, int64_t b) const { return a < b ? b : a; }
};
struct Plus {
  __device__ int64_t operator()(int64_t a, int64_t b) const { return a + b; }
};

// One block's scans and reductions. All threads must take part, and all get the total.
struct Block {
  using Scan = cub::BlockScan<int64_t, kThreads>;
  using Reduce = cub::BlockReduce<int64_t, kThreads>;
  union {
    typename Scan::TempStorage scan;
    typename Reduce::TempStorage reduce;
  } storage;
  int64_t shared;

  // Combines `first` and the values of the threads before this one; *total, all of them and
  // `first`.
  template <typename Operator>
  __device__ int64_t scan(int64_t value, int64_t first, Operator combine, int64_t* total) {
    int64_t before;
    int64_t all;
    __syncthreads();
    Scan(storage.scan).ExclusiveScan(value, before, first, combine, all);
    *total = combine(first, all);
    return before;
  }

  template <typename Operator>
  __device__ int64_t reduce(int64_t value, Operator combine) {
    __syncthreads();
    value = Reduce(storage.reduce).Reduce(value, combine);
    if (threadIdx.x == 0) shared = value;
    __syncthreads();
    return shared;
  }
};

// A query's proposals while they are found: first and last frames in the spans that will be
// returned.
struct Found {
  int64_t* spans;
  double* means;
};

// First and last frame of each proposal; returns how many there are. A frame begins a proposal if
// it is high and the high frame before it is too far; that one then ends the proposal before.
template <typename T>
__device__ int64_t merge(const T* scores, int64_t length, accumulate_t<T> threshold,
                         int64_t max_gap, Block& block, const Found& found) {
  int64_t count = 0;
  int64_t last_high = -1;
  for (int64_t base = 0; base < length; base += kThreads) {
    const int64_t f = base + threadIdx.x;
    const bool high = f < length && get(scores + f) >= threshold;
    int64_t next_last_high;
    const int64_t before = block.scan(high ? f : -1, last_high, Maximum(), &next_last_high);
    const bool begins = high && (before < 0 || f - before - 1 > max_gap);
    int64_t next_count;
    const int64_t place = block.scan(begins ? 1 : 0, count, Plus(), &next_count);
    if (begins) {
      found.spans[2 * place] = f;
      if (place > 0) found.spans[2 * place - 1] = before;
    }
    last_high = next_last_high;
    count = next_count;
  }
  if (threadIdx.x == 0 && count > 0) found.spans[2 * count - 1] = last_high;
  __syncthreads();
  return count;
}

// The mean score of each proposal, by a warp; NaN is left out.
template <typename T>
__device__ void average(const T* scores, int64_t count, const Found& found) {
  for (int64_t p = threadIdx.x / kWarp; p < count; p += kThreads / kWarp) {
    double sum = 0;
    double counted = 0;
    for (int64_t f = found.spans[2 * p] + lane_index(); f <= found.spans[2 * p + 1]; f += kWarp) {
      const double score = get(scores + f);
      if (score == score) {
        sum += score;
        counted += 1;
      }
    }
    sum = device::warp_sum(sum);
    counted = device::warp_sum(counted);
    if (lane_index() == 0) found.means[p] = sum / counted;
  }
  __syncthreads();
}

// A number that is ordered as the mean is. NaN is as low as minus infinity, and -0 is 0.
__device__ uint64_t order_of(double mean) {
  const double known = mean == mean ? mean + 0.0 : -CUDART_INF;
  const auto bits = static_cast<uint64_t>(__double_as_longlong(known));
  return bits >> 63 ? ~bits : bits | uint64_t{1} << 63;
}

__device__ int64_t count_below(uint64_t cut, int64_t count, Block& block, const Found& found) {
  int64_t below = 0;
  for (int64_t p = threadIdx.x; p < count; p += kThreads) below += order_of(found.means[p]) < cut;
  return block.reduce(below, Plus());
}

// Takes out the `dropped` proposals with the lowest means, of equal ones the later; returns how
// many are left. The cut is found bit by bit: the highest number with at most `dropped` below it.
__device__ int64_t drop_lowest(int64_t dropped, int64_t count, Block& block, const Found& found) {
  if (dropped == 0) return count;
  uint64_t cut = 0;
  for (int bit = 63; bit >= 0; --bit) {
    const uint64_t higher = cut | uint64_t{1} << bit;
    if (count_below(higher, count, block, found) <= dropped) cut = higher;
  }
  const int64_t below = count_below(cut, count, block, found);
  const int64_t equal = count_below(cut + 1, count, block, found) - below;
  const int64_t kept_equal = equal - (dropped - below);
  int64_t kept = 0;
  int64_t seen_equal = 0;
  for (int64_t base = 0; base < count; base += kThreads) {
    const int64_t p = base + threadIdx.x;
    const bool real = p < count;
    const int64_t first = real ? found.spans[2 * p] : 0;
    const int64_t last = real ? found.spans[2 * p + 1] : 0;
    const double mean = real ? found.means[p] : 0;
    const bool is_equal = real && order_of(mean) == cut;
    int64_t next;
    const int64_t equal_before = block.scan(is_equal ? 1 : 0, seen_equal, Plus(), &next);
    seen_equal = next;
    const bool keep = real && (order_of(mean) > cut || (is_equal && equal_before < kept_equal));
    const int64_t place = block.scan(keep ? 1 : 0, kept, Plus(), &next);
    kept = next;
    // All threads have read theirs before the scans; what is written lies no further on.
    if (keep) {
      found.spans[2 * place] = first;
      found.spans[2 * place + 1] = last;
      found.means[place] = mean;
    }
  }
  __syncthreads();
  return kept;
}

// A block a query.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    proposal_kernel(ProposalRule rule, ProposalInput<T> in, ProposalOutput<T> out, double* means) {
  using Acc = accumulate_t<T>;
  __shared__ Block block;
  for (int64_t q = blockIdx.x; q < in.queries; q += gridDim.x) {
    const Found found = {out.spans + q * out.slots * 2, means + q * out.slots};
    const T* scores = in.scores + q * in.frames;
    const int64_t length = min(max(in.lengths[q], int64_t{0}), in.frames);
    int64_t count = merge(scores, length, get(in.thresholds + q), rule.max_gap, block, found);
    average(scores, count, found);
    count = drop_lowest(dropped_count(rule, count), count, block, found);

    int64_t longest = 1;
    for (int64_t p = threadIdx.x; p < count; p += kThreads) {
      longest = max(longest, found.spans[2 * p + 1] - found.spans[2 * p] + 1);
    }
    longest = block.reduce(longest, Maximum());
    if (!rule.by_longest) longest = length;
    for (int64_t p = threadIdx.x; p < out.slots; p += kThreads) {
      double mean = -CUDART_INF;
      double score = -CUDART_INF;
      if (p < count) {
        const auto size = static_cast<double>(found.spans[2 * p + 1] - found.spans[2 * p] + 1);
        mean = found.means[p];
        score = (1 - rule.length_weight) * mean +
                rule.length_weight * (size / static_cast<double>(longest));
      } else {
        found.spans[2 * p] = -1;
        found.spans[2 * p + 1] = -1;
      }
      put(out.means + q * out.slots + p, static_cast<Acc>(mean));
      put(out.scores + q * out.slots + p, static_cast<Acc>(score));
    }
    if (threadIdx.x == 0) out.counts[q] = count;
    __syncthreads();
  }
}

}  // namespace

template <typename T>
cudaError_t proposals(const ProposalRule& rule, const ProposalInput<T>& in,
                      const ProposalOutput<T>& out, double* means, cudaStream_t stream) {
  if (in.queries == 0) return cudaSuccess;
  proposal_kernel<<<device::blocks_for(in.queries, 1), kThreads, 0, stream>>>(rule, in, out, means);
  return cudaGetLastError();
}

#define VMR_INSTANTIATE(T)                                                     \
  template cudaError_t proposals(const ProposalRule&, const ProposalInput<T>&, \
                                 const ProposalOutput<T>&, double*, cudaStream_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::granular::cuda
