#include "kernels/cuda_common.cuh"
#include "kernels/granular_cuda.h"

namespace vmr::kernels::granular::cuda {
namespace {

using device::get;
using device::kWarp;
using device::lane_index;
using device::put;
using device::thread_count;
using device::thread_index;
using device::warp_count;
using device::warp_index;
using device::warp_sum;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kRowTile = 4;     // rows and
constexpr int kVectorTile = 8;  // vectors whose dot products a warp has in registers
constexpr int kColumns = 32;    // of a channel's gradient in a block
constexpr int kRowLanes = 32;   // rows that a block reads at a time for them

// A zero vector has no direction: its cosine with anything is 0.
template <typename Acc>
__device__ Acc inverse_norm(Acc squared) {
  return squared == 0 ? Acc(0) : 1 / sqrt(squared);
}

__device__ int64_t query_of_row(const Sizes& sizes, const AwareRows& rows, int64_t row) {
  int64_t low = 0;
  int64_t high = sizes.queries;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (rows.splits[middle] <= row ? low : high) = middle;
  }
  return low;
}

__device__ bool in_video(const Sizes& sizes, int64_t frame) {
  return frame >= 0 && frame < sizes.frames;
}

// ---- query side: a warp a rewrite ----

template <typename T, typename Acc>
__global__ void unit_kernel(Sizes sizes, const T* rewrites, Acc* units, Acc* inverse_norms) {
  const int64_t count = sizes.queries * sizes.rewrites;
  for (int64_t row = warp_index(); row < count; row += warp_count()) {
    const T* from = rewrites + row * sizes.dim;
    Acc* unit = units + row * sizes.padded_dim;
    Acc squared = 0;
    for (int64_t d = lane_index(); d < sizes.dim; d += kWarp) {
      squared += get(from + d) * get(from + d);
    }
    const Acc inverse = inverse_norm(warp_sum(squared));
    for (int64_t d = lane_index(); d < sizes.padded_dim; d += kWarp) {
      unit[d] = d < sizes.dim ? get(from + d) * inverse : Acc(0);
    }
    if (lane_index() == 0) inverse_norms[row] = inverse;
  }
}

template <typename Acc>
__global__ void fold_kernel(Sizes sizes, const Acc* units, Acc* channels) {
  const int64_t count = sizes.queries * sizes.padded_dim;
  for (int64_t i = thread_index(); i < count; i += thread_count()) {
    const int64_t q = i / sizes.padded_dim;
    const int64_t d = i % sizes.padded_dim;
    Acc sum = 0;
    for (int64_t r = 0; r < sizes.rewrites; ++r) {
      sum += units[(q * sizes.rewrites + r) * sizes.padded_dim + d];
    }
    channels[i] = sum / static_cast<Acc>(sizes.rewrites);
  }
}

template <typename T, typename Acc>
__global__ void query_gradient_kernel(Sizes sizes, const Acc* units, const Acc* inverse_norms,
                                      const Acc* channel_gradients, T* gradients) {
  const int64_t count = sizes.queries * sizes.rewrites;
  const int64_t per_channel = sizes.rewrites / sizes.channels;
  for (int64_t row = warp_index(); row < count; row += warp_count()) {
    const Acc* gradient = channel_gradients + row / per_channel * sizes.padded_dim;
    const Acc* unit = units + row * sizes.padded_dim;
    Acc along = 0;
    for (int64_t d = lane_index(); d < sizes.dim; d += kWarp) along += gradient[d] * unit[d];
    along = warp_sum(along);
    const Acc scale = inverse_norms[row] / static_cast<Acc>(per_channel);
    for (int64_t d = lane_index(); d < sizes.dim; d += kWarp) {
      put(gradients + row * sizes.dim + d, scale * (gradient[d] - along * unit[d]));
    }
  }
}

// ---- caption side ----

// A warp takes kRowTile captions at a time, and the vectors by kVectorTile: a caption comes from
// memory once, after that from the cache.
template <typename T, typename Acc>
__global__ void __launch_bounds__(kThreads)
    frame_cosine_kernel(Sizes sizes, const T* captions, const Acc* vectors, int64_t channel_count,
                        Acc* cosines, Acc* inverse_norms) {
  const int lane = lane_index();
  for (int64_t first = warp_index() * kRowTile; first < sizes.frames;
       first += warp_count() * kRowTile) {
    const T* rows[kRowTile];
    Acc inverse[kRowTile];
    for (int r = 0; r < kRowTile; ++r) {
      rows[r] = captions + min(first + r, sizes.frames - 1) * sizes.dim;
    }
    for (int64_t k = 0; k < channel_count; k += kVectorTile) {
      Acc sums[kRowTile][kVectorTile] = {};
      Acc squares[kRowTile] = {};
      for (int64_t d = lane; d < sizes.dim; d += kWarp) {
        Acc row[kRowTile];
#pragma unroll
        for (int r = 0; r < kRowTile; ++r) {
          row[r] = get(rows[r] + d);
          squares[r] += row[r] * row[r];
        }
#pragma unroll
        for (int v = 0; v < kVectorTile; ++v) {
          const Acc other = vectors[min(k + v, channel_count - 1) * sizes.padded_dim + d];
#pragma unroll
          for (int r = 0; r < kRowTile; ++r) sums[r][v] += row[r] * other;
        }
      }
#pragma unroll
      for (int r = 0; r < kRowTile; ++r) {
        if (k == 0) inverse[r] = inverse_norm(warp_sum(squares[r]));
        const bool real_row = first + r < sizes.frames;
#pragma unroll
        for (int v = 0; v < kVectorTile; ++v) {
          const Acc dot = warp_sum(sums[r][v]);
          if (lane == v && real_row && k + v < channel_count) {
            cosines[(k + v) * sizes.frames + first + r] = dot * inverse[r];
          }
        }
        if (k == 0 && lane == 0 && real_row) inverse_norms[first + r] = inverse[r];
      }
    }
  }
}

template <typename T, typename Acc>
__global__ void aware_cosine_kernel(Sizes sizes, const T* captions, AwareRows rows,
                                    const Acc* vectors, Acc* cosines, Acc* inverse_norms) {
  for (int64_t r = warp_index(); r < sizes.aware_rows; r += warp_count()) {
    const T* caption = captions + r * sizes.dim;
    const int64_t channel = query_of_row(sizes, rows, r) * sizes.channels;
    const int64_t frame = rows.frames[r];
    Acc squared = 0;
    for (int64_t d = lane_index(); d < sizes.dim; d += kWarp) {
      squared += get(caption + d) * get(caption + d);
    }
    const Acc inverse = inverse_norm(warp_sum(squared));
    for (int64_t k = channel; k < channel + sizes.channels; ++k) {
      Acc dot = 0;
      for (int64_t d = lane_index(); d < sizes.dim; d += kWarp) {
        dot += get(caption + d) * vectors[k * sizes.padded_dim + d];
      }
      dot = warp_sum(dot);
      if (lane_index() == 0 && in_video(sizes, frame)) {
        cosines[k * sizes.frames + frame] = dot * inverse;
      }
    }
    if (lane_index() == 0) inverse_norms[r] = inverse;
  }
}

// Gradient of one caption, by a warp; see caption_gradient in granular.cpp.
template <typename T, typename Acc>
__device__ void caption_gradient(const Sizes& sizes, const T* caption, const Acc* vectors,
                                 int64_t count, const Acc* cosines, const Acc* gradients,
                                 Acc inverse, T* to) {
  Acc along = 0;
  for (int64_t k = lane_index(); k < count; k += kWarp) {
    along += gradients[k * sizes.frames] * cosines[k * sizes.frames];
  }
  along = warp_sum(along) * inverse;
  for (int64_t d = lane_index(); d < sizes.dim; d += kWarp) {
    Acc sum = 0;
    for (int64_t k = 0; k < count; ++k) {
      sum += gradients[k * sizes.frames] * vectors[k * sizes.padded_dim + d];
    }
    put(to + d, inverse * (sum - along * get(caption + d)));
  }
}

template <typename T, typename Acc>
__global__ void frame_gradient_kernel(Sizes sizes, const T* captions, const Acc* vectors,
                                      int64_t channel_count, const Acc* cosines,
                                      const Acc* inverse_norms, const Acc* cosine_gradients,
                                      T* gradients) {
  for (int64_t f = warp_index(); f < sizes.frames; f += warp_count()) {
    caption_gradient(sizes, captions + f * sizes.dim, vectors, channel_count, cosines + f,
                     cosine_gradients + f, inverse_norms[f], gradients + f * sizes.dim);
  }
}

template <typename T, typename Acc>
__global__ void aware_gradient_kernel(Sizes sizes, const T* captions, AwareRows rows,
                                      const Acc* vectors, const Acc* cosines,
                                      const Acc* inverse_norms, const Acc* cosine_gradients,
                                      T* gradients) {
  for (int64_t r = warp_index(); r < sizes.aware_rows; r += warp_count()) {
    const int64_t channel = query_of_row(sizes, rows, r) * sizes.channels;
    const int64_t frame = rows.frames[r];
    const bool real = in_video(sizes, frame);
    const int64_t at = channel * sizes.frames + (real ? frame : 0);
    caption_gradient(sizes, captions + r * sizes.dim, vectors + channel * sizes.padded_dim,
                     real ? sizes.channels : 0, cosines + at, cosine_gradients + at,
                     inverse_norms[r], gradients + r * sizes.dim);
  }
}

// A block sums kColumns columns of one channel over the frames, or over the rows of the channel's
// query where `rows` are given.
template <typename T, typename Acc>
__global__ void __launch_bounds__(kColumns* kRowLanes)
    channel_gradient_kernel(Sizes sizes, const T* captions, AwareRows rows,
                            const Acc* inverse_norms, const Acc* cosine_gradients,
                            Acc* channel_gradients) {
  __shared__ Acc partial[kRowLanes][kColumns + 1];
  const int64_t k = blockIdx.x;
  const int64_t d = static_cast<int64_t>(blockIdx.y) * kColumns + threadIdx.x;
  const bool aware = rows.frames != nullptr;
  const int64_t q = k / sizes.channels;
  const int64_t begin = aware ? max(rows.splits[q], int64_t{0}) : 0;
  const int64_t end = aware ? min(rows.splits[q + 1], sizes.aware_rows) : sizes.frames;
  Acc sum = 0;
  if (d < sizes.dim) {
    for (int64_t r = begin + threadIdx.y; r < end; r += kRowLanes) {
      const int64_t frame = aware ? rows.frames[r] : r;
      if (!in_video(sizes, frame)) continue;
      sum += cosine_gradients[k * sizes.frames + frame] * inverse_norms[r] *
             get(captions + r * sizes.dim + d);
    }
  }
  partial[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && d < sizes.dim) {
    for (int lane = 1; lane < kRowLanes; ++lane) sum += partial[lane][threadIdx.x];
    channel_gradients[k * sizes.padded_dim + d] += sum;
  }
}

template <typename Acc>
__global__ void clear_aware_kernel(Sizes sizes, AwareRows rows, Acc* cosine_gradients) {
  for (int64_t r = thread_index(); r < sizes.aware_rows; r += thread_count()) {
    const int64_t channel = query_of_row(sizes, rows, r) * sizes.channels;
    if (!in_video(sizes, rows.frames[r])) continue;
    for (int64_t k = channel; k < channel + sizes.channels; ++k) {
      cosine_gradients[k * sizes.frames + rows.frames[r]] = 0;
    }
  }
}

}  // namespace

template <typename T>
cudaError_t query_channels(const Sizes& sizes, const T* rewrites, accumulate_t<T>* units,
                           accumulate_t<T>* inverse_norms, accumulate_t<T>* channels,
                           cudaStream_t stream) {
  const unsigned blocks = device::blocks_for(sizes.queries * sizes.rewrites, kWarps);
  unit_kernel<<<blocks, kThreads, 0, stream>>>(sizes, rewrites, units, inverse_norms);
  if (channels != nullptr) {
    fold_kernel<<<device::blocks_for(sizes.queries * sizes.padded_dim, kThreads), kThreads, 0,
                  stream>>>(sizes, units, channels);
  }
  return cudaGetLastError();
}

template <typename T>
cudaError_t query_gradients(const Sizes& sizes, const accumulate_t<T>* units,
                            const accumulate_t<T>* inverse_norms,
                            const accumulate_t<T>* channel_gradients, T* gradients,
                            cudaStream_t stream) {
  const unsigned blocks = device::blocks_for(sizes.queries * sizes.rewrites, kWarps);
  query_gradient_kernel<<<blocks, kThreads, 0, stream>>>(sizes, units, inverse_norms,
                                                         channel_gradients, gradients);
  return cudaGetLastError();
}

template <typename T>
cudaError_t frame_cosines(const Sizes& sizes, const T* captions, const accumulate_t<T>* vectors,
                          int64_t channel_count, accumulate_t<T>* cosines,
                          accumulate_t<T>* inverse_norms, cudaStream_t stream) {
  const unsigned blocks = device::blocks_for(sizes.frames, kWarps * kRowTile);
  frame_cosine_kernel<<<blocks, kThreads, 0, stream>>>(sizes, captions, vectors, channel_count,
                                                       cosines, inverse_norms);
  return cudaGetLastError();
}

template <typename T>
cudaError_t aware_cosines(const Sizes& sizes, const T* captions, const AwareRows& rows,
                          const accumulate_t<T>* vectors, accumulate_t<T>* cosines,
                          accumulate_t<T>* inverse_norms, cudaStream_t stream) {
  if (sizes.aware_rows == 0) return cudaSuccess;
  aware_cosine_kernel<<<device::blocks_for(sizes.aware_rows, kWarps), kThreads, 0, stream>>>(
      sizes, captions, rows, vectors, cosines, inverse_norms);
  return cudaGetLastError();
}

template <typename T>
cudaError_t frame_gradients(const Sizes& sizes, const T* captions, const accumulate_t<T>* vectors,
                            int64_t channel_count, const accumulate_t<T>* cosines,
                            const accumulate_t<T>* inverse_norms,
                            const accumulate_t<T>* cosine_gradients, T* gradients,
                            cudaStream_t stream) {
  frame_gradient_kernel<<<device::blocks_for(sizes.frames, kWarps), kThreads, 0, stream>>>(
      sizes, captions, vectors, channel_count, cosines, inverse_norms, cosine_gradients, gradients);
  return cudaGetLastError();
}

template <typename T>
cudaError_t aware_gradients(const Sizes& sizes, const T* captions, const AwareRows& rows,
                            const accumulate_t<T>* vectors, const accumulate_t<T>* cosines,
                            const accumulate_t<T>* inverse_norms,
                            const accumulate_t<T>* cosine_gradients, T* gradients,
                            cudaStream_t stream) {
  if (sizes.aware_rows == 0) return cudaSuccess;
  aware_gradient_kernel<<<device::blocks_for(sizes.aware_rows, kWarps), kThreads, 0, stream>>>(
      sizes, captions, rows, vectors, cosines, inverse_norms, cosine_gradients, gradients);
  return cudaGetLastError();
}

namespace {

template <typename T, typename Acc>
cudaError_t add_channel_gradients(const Sizes& sizes, const T* captions, const AwareRows& rows,
                                  int64_t channel_count, const Acc* inverse_norms,
                                  const Acc* cosine_gradients, Acc* channel_gradients,
                                  cudaStream_t stream) {
  const dim3 blocks(static_cast<unsigned>(channel_count),
                    static_cast<unsigned>((sizes.dim + kColumns - 1) / kColumns));
  channel_gradient_kernel<<<blocks, dim3(kColumns, kRowLanes), 0, stream>>>(
      sizes, captions, rows, inverse_norms, cosine_gradients, channel_gradients);
  return cudaGetLastError();
}

}  // namespace

template <typename T>
cudaError_t add_frame_channel_gradients(const Sizes& sizes, const T* captions,
                                        int64_t channel_count, const accumulate_t<T>* inverse_norms,
                                        const accumulate_t<T>* cosine_gradients,
                                        accumulate_t<T>* channel_gradients, cudaStream_t stream) {
  return add_channel_gradients(sizes, captions, {nullptr, nullptr}, channel_count, inverse_norms,
                               cosine_gradients, channel_gradients, stream);
}

template <typename T>
cudaError_t add_aware_channel_gradients(const Sizes& sizes, const T* captions,
                                        const AwareRows& rows, const accumulate_t<T>* inverse_norms,
                                        accumulate_t<T>* cosine_gradients,
                                        accumulate_t<T>* channel_gradients, cudaStream_t stream) {
  if (sizes.aware_rows == 0) return cudaSuccess;
  const cudaError_t added =
      add_channel_gradients(sizes, captions, rows, sizes.queries * sizes.channels, inverse_norms,
                            cosine_gradients, channel_gradients, stream);
  if (added != cudaSuccess) return added;
  clear_aware_kernel<<<device::blocks_for(sizes.aware_rows, kThreads), kThreads, 0, stream>>>(
      sizes, rows, cosine_gradients);
  return cudaGetLastError();
}

#define VMR_INSTANTIATE(T)                                                                         \
  template cudaError_t query_channels(const Sizes&, const T*, accumulate_t<T>*, accumulate_t<T>*,  \
                                      accumulate_t<T>*, cudaStream_t);                             \
  template cudaError_t query_gradients(const Sizes&, const accumulate_t<T>*,                       \
                                       const accumulate_t<T>*, const accumulate_t<T>*, T*,         \
                                       cudaStream_t);                                              \
  template cudaError_t frame_cosines(const Sizes&, const T*, const accumulate_t<T>*, int64_t,      \
                                     accumulate_t<T>*, accumulate_t<T>*, cudaStream_t);            \
  template cudaError_t aware_cosines(const Sizes&, const T*, const AwareRows&,                     \
                                     const accumulate_t<T>*, accumulate_t<T>*, accumulate_t<T>*,   \
                                     cudaStream_t);                                                \
  template cudaError_t frame_gradients(const Sizes&, const T*, const accumulate_t<T>*, int64_t,    \
                                       const accumulate_t<T>*, const accumulate_t<T>*,             \
                                       const accumulate_t<T>*, T*, cudaStream_t);                  \
  template cudaError_t aware_gradients(                                                            \
      const Sizes&, const T*, const AwareRows&, const accumulate_t<T>*, const accumulate_t<T>*,    \
      const accumulate_t<T>*, const accumulate_t<T>*, T*, cudaStream_t);                           \
  template cudaError_t add_frame_channel_gradients(const Sizes&, const T*, int64_t,                \
                                                   const accumulate_t<T>*, const accumulate_t<T>*, \
                                                   accumulate_t<T>*, cudaStream_t);                \
  template cudaError_t add_aware_channel_gradients(const Sizes&, const T*, const AwareRows&,       \
                                                   const accumulate_t<T>*, accumulate_t<T>*,       \
                                                   accumulate_t<T>*, cudaStream_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::granular::cuda
