// What stands around the Gram matrices, and the anchors with their segments.
#include "kernels/alignment_cuda.h"
#include "kernels/alignment_device.cuh"

namespace vmr::kernels::alignment::cuda {
namespace {

// A warp a row.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    mask_rows_kernel(Sizes sizes, const T* rows, const int64_t* lengths, T* to) {
  for (int64_t row = warp_index(); row < sizes.videos * sizes.frames; row += warp_count()) {
    const bool valid = row % sizes.frames < lengths[row / sizes.frames];
    for (int64_t d = lane_index(); d < sizes.dim; d += kWarp) {
      const int64_t at = row * sizes.dim + d;
      to[at] = valid ? rows[at] : T{};
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    mask_gram_kernel(Sizes sizes, const T* gram, const int64_t* lengths, T* to) {
  for (int64_t row = warp_index(); row < sizes.videos * sizes.frames; row += warp_count()) {
    const int64_t length = lengths[row / sizes.frames];
    for (int64_t j = lane_index(); j < sizes.frames; j += kWarp) {
      const int64_t at = row * sizes.frames + j;
      to[at] = row % sizes.frames < length && j < length ? gram[at] : T{};
    }
  }
}

// A block a tile of kWarp x kWarp, whose transpose it has in shared memory.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    add_transposed_kernel(Sizes sizes, const T* gradients, const int64_t* lengths, T* to) {
  using Acc = accumulate_t<T>;
  __shared__ Acc tile[kWarp][kWarp + 1];
  const int64_t side = (sizes.frames + kWarp - 1) / kWarp;
  const auto warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = lane_index();
  for (int64_t part = blockIdx.x; part < sizes.videos * side * side; part += gridDim.x) {
    const int64_t video = part / (side * side);
    const int64_t first_row = part / side % side * kWarp;
    const int64_t first_column = part % side * kWarp;
    const int64_t count = frame_count(sizes, lengths, video);
    const int64_t offset = video * sizes.frames * sizes.frames;
    for (int r = warp; r < kWarp; r += kWarps) {
      const int64_t i = first_column + r;
      const int64_t j = first_row + lane;
      tile[r][lane] = i < count && j < count ? get(gradients + offset + i * sizes.frames + j) : 0;
    }
    __syncthreads();
    for (int r = warp; r < kWarp; r += kWarps) {
      const int64_t i = first_row + r;
      const int64_t j = first_column + lane;
      if (i >= sizes.frames || j >= sizes.frames) continue;
      const int64_t at = offset + i * sizes.frames + j;
      put(to + at, i < count && j < count ? get(gradients + at) + tile[lane][r] : Acc(0));
    }
    __syncthreads();
  }
}

// ---- anchors ----

// The scratch of a query: rows of N numbers.
struct AnchorScratch {
  double* query_dots;   // v_i . q, then x_i: see embed
  double* norms;        // |v_i|^2, then y_i
  double* first_dots;   // v_i . v_1
  double* last_dots;    // v_i . v_N
  double* anchor_dots;  // v_i . v_A
  double* inverse;      // 1 / |v^e_i|
  double* with_query;   // v_i . q

  __device__ AnchorScratch(double* scratch, const Sizes& sizes, int64_t query) {
    double* const own = scratch + query * kAnchorRows * sizes.frames;
    query_dots = own;
    norms = own + sizes.frames;
    first_dots = own + 2 * sizes.frames;
    last_dots = own + 3 * sizes.frames;
    anchor_dots = own + 4 * sizes.frames;
    inverse = own + 5 * sizes.frames;
    with_query = own + 6 * sizes.frames;
  }
};

// A warp a frame of a query.
template <typename T>
__global__ void __launch_bounds__(kThreads) anchor_dot_kernel(Anchors<T> problem, double* scratch) {
  const Sizes& sizes = problem.sizes;
  const VideoRows all = {sizes, problem.lengths, problem.videos};
  for (int64_t r = warp_index(); r < sizes.queries * sizes.frames; r += warp_count()) {
    const int64_t query = r / sizes.frames;
    const int64_t i = r % sizes.frames;
    const Rows own = all.of(query);
    if (i >= own.end) continue;
    const T* const rows = problem.frames + own.offset * sizes.dim;
    const T* const row = rows + i * sizes.dim;
    const T* const last = rows + (own.end - 1) * sizes.dim;
    const auto query_dot = warp_dot<double>(row, problem.queries + query * sizes.dim, sizes.dim);
    const auto norm = warp_dot<double>(row, row, sizes.dim);
    const auto first_dot = warp_dot<double>(row, rows, sizes.dim);
    const auto last_dot = warp_dot<double>(row, last, sizes.dim);
    if (lane_index() == 0) {
      const AnchorScratch to(scratch, sizes, query);
      to.query_dots[i] = query_dot;
      to.norms[i] = norm;
      to.first_dots[i] = first_dot;
      to.last_dots[i] = last_dot;
    }
  }
}

__device__ double inverse_norm(double squared) {
  return squared > 0 ? 1 / sqrt(squared) : 0;
}

struct Place {
  double value;
  int64_t index;  // -1: none
};

// The largest value, of equal ones the first.
struct Larger {
  __device__ Place operator()(const Place& a, const Place& b) const {
    if (a.index < 0 || b.index < 0) return a.index < 0 ? b : a;
    if (a.value != b.value) return a.value > b.value ? a : b;
    return a.index < b.index ? a : b;
  }
};

// v^e_i = x_i q + y_i v_i, of eq. 1; see Embedded in alignment.cpp.
struct Embedded {
  AnchorScratch of;
  double query_norm;

  __device__ void embed(int64_t i, bool normalize) const {
    const double of_query = inverse_norm(query_norm);
    const double of_frame = inverse_norm(of.norms[i]);
    const double dot = of.query_dots[i];
    const double squared = of.norms[i];
    const double cosine = dot * of_query * of_frame;
    const double x = cosine * (normalize ? of_query : 1);
    const double y = (1 - cosine) * (normalize ? of_frame : 1);
    of.inverse[i] = inverse_norm(x * x * query_norm + 2 * x * y * dot + y * y * squared);
    of.with_query[i] = dot;
    of.query_dots[i] = x;
    of.norms[i] = y;
  }
  __device__ double relevance(int64_t i) const {
    return (of.query_dots[i] * query_norm + of.norms[i] * of.with_query[i]) * of.inverse[i];
  }
  // Of v^e_one and v^e_i, with v_one . v_i.
  __device__ double cosine(int64_t one, int64_t i, double dot) const {
    const double on_query = of.query_dots[one] * query_norm + of.norms[one] * of.with_query[one];
    const double product =
        of.query_dots[i] * on_query +
        of.norms[i] * (of.query_dots[one] * of.with_query[i] + of.norms[one] * dot);
    return product * of.inverse[i] * of.inverse[one];
  }
};

// A block a query.
template <typename T>
__global__ void __launch_bounds__(kThreads) anchor_kernel(Anchors<T> problem, double* scratch) {
  __shared__ device::BlockReduction<Place, kThreads> block;
  const Sizes& sizes = problem.sizes;
  const VideoRows all = {sizes, problem.lengths, problem.videos};
  const auto warp = static_cast<int64_t>(threadIdx.x / kWarp);
  for (int64_t query = blockIdx.x; query < sizes.queries; query += gridDim.x) {
    const Rows own = all.of(query);
    const int64_t count = own.end;
    const T* const vector = problem.queries + query * sizes.dim;
    const Embedded embedded = {AnchorScratch(scratch, sizes, query),
                               warp_dot<double>(vector, vector, sizes.dim)};
    const AnchorScratch& of = embedded.of;
    Place best = {0, -1};
    for (int64_t i = threadIdx.x; i < count; i += kThreads) {
      embedded.embed(i, problem.normalize);
      const double relevance = embedded.relevance(i);
      if (relevance == relevance) best = Larger()(best, Place{relevance, i});
    }
    best = block.all(best, Larger());
    const int64_t anchor = max(best.index, int64_t{0});
    const T* const rows = problem.frames + own.offset * sizes.dim;
    for (int64_t i = warp; i < count; i += kWarps) {
      const auto dot = warp_dot<double>(rows + anchor * sizes.dim, rows + i * sizes.dim, sizes.dim);
      if (lane_index() == 0) of.anchor_dots[i] = dot;
    }
    __syncthreads();
    // Eqs. 3 and 4: what a sum gains from b - 1 to b.
    for (int64_t b = threadIdx.x; b < count; b += kThreads) {
      const double to_anchor = embedded.cosine(anchor, b, of.anchor_dots[b]);
      const double to_first = embedded.cosine(0, b, of.first_dots[b]);
      const bool left_out = problem.reach_end && b == count - 1;
      const double to_last = left_out ? 0 : embedded.cosine(count - 1, b, of.last_dots[b]);
      of.anchor_dots[b] = b <= anchor ? to_first - to_anchor : to_anchor - to_last;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int64_t first = 0;
      int64_t last = anchor;
      double sum = 0;
      double most = 0;
      for (int64_t b = 1; b < count; ++b) {
        if (b == anchor + 1) {
          sum = 0;
          most = 0;
        }
        sum += of.anchor_dots[b];
        if (sum > most) {
          most = sum;
          (b <= anchor ? first : last) = b;
        }
      }
      problem.anchors[query] = anchor;
      problem.segments[2 * query] = first;
      problem.segments[2 * query + 1] = last;
    }
    __syncthreads();
  }
}

}  // namespace

template <typename T>
cudaError_t mask_rows(const Sizes& sizes, const T* rows, const int64_t* lengths, T* to,
                      cudaStream_t stream) {
  if (sizes.videos == 0) return cudaSuccess;
  mask_rows_kernel<<<warps_for(sizes.videos * sizes.frames), kThreads, 0, stream>>>(sizes, rows,
                                                                                    lengths, to);
  return cudaGetLastError();
}

template <typename T>
cudaError_t mask_gram(const Sizes& sizes, const T* gram, const int64_t* lengths, T* to,
                      cudaStream_t stream) {
  if (sizes.videos == 0) return cudaSuccess;
  mask_gram_kernel<<<warps_for(sizes.videos * sizes.frames), kThreads, 0, stream>>>(sizes, gram,
                                                                                    lengths, to);
  return cudaGetLastError();
}

template <typename T>
cudaError_t add_transposed(const Sizes& sizes, const T* gradients, const int64_t* lengths, T* to,
                           cudaStream_t stream) {
  if (sizes.videos == 0) return cudaSuccess;
  const int64_t side = (sizes.frames + kWarp - 1) / kWarp;
  add_transposed_kernel<<<device::blocks_for(sizes.videos * side * side, 1), kThreads, 0, stream>>>(
      sizes, gradients, lengths, to);
  return cudaGetLastError();
}

template <typename T>
cudaError_t anchors(const Anchors<T>& problem, double* scratch, cudaStream_t stream) {
  const Sizes& sizes = problem.sizes;
  if (sizes.queries == 0) return cudaSuccess;
  anchor_dot_kernel<<<warps_for(sizes.queries * sizes.frames), kThreads, 0, stream>>>(problem,
                                                                                      scratch);
  anchor_kernel<<<device::blocks_for(sizes.queries, 1), kThreads, 0, stream>>>(problem, scratch);
  return cudaGetLastError();
}

#define VMR_INSTANTIATE(T)                                                                       \
  template cudaError_t mask_rows(const Sizes&, const T*, const int64_t*, T*, cudaStream_t);      \
  template cudaError_t mask_gram(const Sizes&, const T*, const int64_t*, T*, cudaStream_t);      \
  template cudaError_t add_transposed(const Sizes&, const T*, const int64_t*, T*, cudaStream_t); \
  template cudaError_t anchors(const Anchors<T>&, double*, cudaStream_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::alignment::cuda
