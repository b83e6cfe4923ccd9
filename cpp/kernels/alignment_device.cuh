// What the CUDA kernels of the feature alignment share: a query's frames, their dot products with
// its vectors, their weighted sums, and what a frame's gradient has of all queries about its video.
// None of them adds in an order that depends on how threads run.
#pragma once

#include "kernels/alignment_types.h"
#include "kernels/cuda_block.cuh"
#include "kernels/cuda_common.cuh"

namespace vmr::kernels::alignment::cuda {

using device::get;
using device::kWarp;
using device::lane_index;
using device::put;
using device::warp_count;
using device::warp_index;
using device::warp_sum;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kColumns = 32;   // of a weighted sum in a block, and
constexpr int kRowLanes = 32;  // rows that it reads at a time

inline unsigned warps_for(int64_t count) {
  return device::blocks_for(count, kWarps);
}
inline unsigned threads_for(int64_t count) {
  return device::blocks_for(count, kThreads);
}

// The rows [begin, end) of N that concern a query, after `offset` rows; none where the query's
// video is out of range.
struct Rows {
  int64_t offset;
  int64_t begin;
  int64_t end;
};

__device__ inline int64_t frame_count(const Sizes& sizes, const int64_t* lengths, int64_t video) {
  return min(max(lengths[video], int64_t{0}), sizes.frames);
}
__device__ inline bool is_video(const Sizes& sizes, int64_t video) {
  return video >= 0 && video < sizes.videos;
}

// All frames of a query's video.
struct VideoRows {
  Sizes sizes;
  const int64_t* lengths;
  const int64_t* videos;

  __device__ Rows of(int64_t query) const {
    const int64_t video = videos[query];
    if (!is_video(sizes, video)) return {0, 0, 0};
    return {video * sizes.frames, 0, frame_count(sizes, lengths, video)};
  }
};

// The frames of a query's segment.
struct SegmentRows {
  Sizes sizes;
  const int64_t* segments;
  const int64_t* videos;

  __device__ Rows of(int64_t query) const {
    const int64_t video = videos[query];
    if (!is_video(sizes, video)) return {0, 0, 0};
    return {video * sizes.frames, max(segments[2 * query], int64_t{0}),
            min(segments[2 * query + 1], sizes.frames - 1) + 1};
  }
};

// As many rows as a query's video has frames, of rows of the query's own.
struct OwnRows {
  VideoRows video;

  __device__ Rows of(int64_t query) const {
    return {query * video.sizes.frames, 0, video.of(query).end};
  }
};

// The dot product of a row and a vector, in all lanes of a warp.
template <typename Acc, typename T, typename S>
__device__ Acc warp_dot(const T* row, const S* vector, int64_t dim) {
  Acc sum = 0;
  for (int64_t d = lane_index(); d < dim; d += kWarp) {
    sum += static_cast<Acc>(get(row + d)) * static_cast<Acc>(get(vector + d));
  }
  return warp_sum(sum);
}

template <typename T, int kCount>
struct Vectors {
  const T* of[kCount];  // each [B, D]
};

// dots [B, kCount, N]: each query's vectors with its rows; others are left as they are. A warp a
// row.
template <int kCount, typename T, typename AllRows>
__global__ void __launch_bounds__(kThreads)
    dot_kernel(AllRows all, Sizes sizes, const T* rows, Vectors<T, kCount> vectors,
               accumulate_t<T>* dots) {
  using Acc = accumulate_t<T>;
  for (int64_t r = warp_index(); r < sizes.queries * sizes.frames; r += warp_count()) {
    const int64_t query = r / sizes.frames;
    const int64_t i = r % sizes.frames;
    const Rows own = all.of(query);
    if (i < own.begin || i >= own.end) continue;
    const T* const row = rows + (own.offset + i) * sizes.dim;
    Acc sums[kCount] = {};
    for (int64_t d = lane_index(); d < sizes.dim; d += kWarp) {
      const Acc value = get(row + d);
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        sums[k] += value * get(vectors.of[k] + query * sizes.dim + d);
      }
    }
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      const Acc dot = warp_sum(sums[k]);
      if (lane_index() == 0) dots[(query * kCount + k) * sizes.frames + i] = dot;
    }
  }
}

// The sums of each query's rows by its `sets` sets of weights, [B, sets, N]: set k goes to to[k],
// [B, D], unless that is null. A block takes kColumns columns of a query.
template <int kCount, typename T>
struct Sums {
  T* to[kCount];
};

template <int kCount, typename T, typename AllRows>
__global__ void __launch_bounds__(kColumns* kRowLanes)
    sum_kernel(AllRows all, Sizes sizes, const T* rows, const accumulate_t<T>* weights,
               int64_t sets, Sums<kCount, T> out) {
  using Acc = accumulate_t<T>;
  __shared__ Acc partial[kCount][kRowLanes][kColumns + 1];
  const int64_t chunks = (sizes.dim + kColumns - 1) / kColumns;
  for (int64_t part = blockIdx.x; part < sizes.queries * chunks; part += gridDim.x) {
    const int64_t query = part / chunks;
    const int64_t d = part % chunks * kColumns + threadIdx.x;
    const Rows own = all.of(query);
    Acc sums[kCount] = {};
    if (d < sizes.dim) {
      for (int64_t i = own.begin + threadIdx.y; i < own.end; i += kRowLanes) {
        const Acc value = get(rows + (own.offset + i) * sizes.dim + d);
#pragma unroll
        for (int k = 0; k < kCount; ++k) {
          sums[k] += weights[(query * sets + k) * sizes.frames + i] * value;
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kCount; ++k) partial[k][threadIdx.y][threadIdx.x] = sums[k];
    __syncthreads();
    if (threadIdx.y < kCount && d < sizes.dim) {
      const auto k = static_cast<int>(threadIdx.y);
      Acc sum = 0;
      for (int lane = 0; lane < kRowLanes; ++lane) sum += partial[k][lane][threadIdx.x];
      if (out.to[k] != nullptr) put(out.to[k] + query * sizes.dim + d, sum);
    }
    __syncthreads();
  }
}

template <int kCount, typename T, typename AllRows>
void launch_sums(const AllRows& all, const Sizes& sizes, const T* rows,
                 const accumulate_t<T>* weights, int64_t sets, const Sums<kCount, T>& out,
                 cudaStream_t stream) {
  const int64_t chunks = (sizes.dim + kColumns - 1) / kColumns;
  sum_kernel<kCount, T>
      <<<device::blocks_for(sizes.queries * chunks, 1), dim3(kColumns, kRowLanes), 0, stream>>>(
          all, sizes, rows, weights, sets, out);
}

// The frames' gradient, [U, N, D]: of all queries about a frame's video, their vectors by its
// coefficients [B, kCount, N], which are 0 where a frame does not concern the query. A block a
// frame.
template <int kCount, typename T>
__global__ void __launch_bounds__(kThreads)
    frame_gradient_kernel(Sizes sizes, const int64_t* videos, Vectors<T, kCount> vectors,
                          const accumulate_t<T>* coefficients, T* gradients) {
  using Acc = accumulate_t<T>;
  for (int64_t row = blockIdx.x; row < sizes.videos * sizes.frames; row += gridDim.x) {
    const int64_t video = row / sizes.frames;
    const int64_t i = row % sizes.frames;
    for (int64_t d = threadIdx.x; d < sizes.dim; d += kThreads) {
      Acc sum = 0;
      for (int64_t query = 0; query < sizes.queries; ++query) {
        if (videos[query] != video) continue;
#pragma unroll
        for (int k = 0; k < kCount; ++k) {
          const Acc weight = coefficients[(query * kCount + k) * sizes.frames + i];
          if (weight != 0) sum += weight * get(vectors.of[k] + query * sizes.dim + d);
        }
      }
      put(gradients + row * sizes.dim + d, sum);
    }
  }
}

template <int kCount, typename T>
void launch_frame_gradients(const Sizes& sizes, const int64_t* videos,
                            const Vectors<T, kCount>& vectors, const accumulate_t<T>* coefficients,
                            T* gradients, cudaStream_t stream) {
  if (gradients == nullptr || sizes.videos == 0) return;
  frame_gradient_kernel<kCount, T>
      <<<device::blocks_for(sizes.videos * sizes.frames, 1), kThreads, 0, stream>>>(
          sizes, videos, vectors, coefficients, gradients);
}

}  // namespace vmr::kernels::alignment::cuda
