#include "kernels/cuda_common.cuh"
#include "kernels/detection_cuda.h"

namespace vmr::kernels::detection::cuda {
namespace {

using device::get;
using device::kAllLanes;
using device::kWarp;
using device::lane_index;
using device::put;
using device::warp_count;
using device::warp_index;
using device::warp_sum;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// P and its derivative; the exponential does not overflow.
template <typename Acc>
struct Prediction {
  Acc value;
  Acc slope;
};

template <typename Acc>
__device__ Prediction<Acc> predict(bool sigmoid, Acc score) {
  if (!sigmoid) return {score, Acc(1)};
  constexpr Acc kMost = sizeof(Acc) == sizeof(double) ? Acc(600) : Acc(80);
  const Acc above = score < -kMost ? -kMost : score;
  const Acc e = exp(above > kMost ? -kMost : -above);
  const Acc value = 1 / (1 + e);
  return {value, e * value * value};
}

// A row of a map, by a warp, and its query's points.
struct Row {
  int64_t query;
  int64_t i;
  Columns columns;
  const int64_t* points;
  int64_t point_count;
  bool has_points;  // in this row; the same in all lanes

  template <typename T>
  __device__ Row(const VertexProblem<T>& problem, int64_t row)
      : query(row / problem.frames), i(row % problem.frames) {
    const int64_t length = min(problem.lengths[query], problem.frames);
    columns = columns_of_row(i, length, problem.whole);
    const int64_t begin = max(problem.splits[query], int64_t{0});
    points = problem.points + 2 * begin;
    point_count = min(problem.splits[query + 1], problem.point_count) - begin;
    bool found = false;
    for (int64_t p = lane_index(); p < point_count; p += kWarp) found |= points[2 * p] == i;
    has_points = __any_sync(kAllLanes, found) != 0;
  }

  template <typename Acc>
  __device__ Acc truth(int64_t j) const {
    if (!has_points) return 0;
    for (int64_t p = 0; p < point_count; ++p) {
      if (points[2 * p] == i && points[2 * p + 1] == j) return 1;
    }
    return 0;
  }
};

// A warp a row.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    error_kernel(VertexProblem<T> problem, double* row_errors) {
  using Acc = accumulate_t<T>;
  for (int64_t r = warp_index(); r < problem.batch * problem.frames; r += warp_count()) {
    const Row row(problem, r);
    Acc sum = 0;
    for (int64_t j = row.columns.begin + lane_index(); j < row.columns.end; j += kWarp) {
      const Acc score = get(problem.scores + r * problem.frames + j);
      const Acc error = predict(problem.sigmoid, score).value - row.truth<Acc>(j);
      sum += error * error;
    }
    const double total = warp_sum(static_cast<double>(sum));
    if (lane_index() == 0) row_errors[r] = total;
  }
}

// A warp a query.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    sum_kernel(VertexProblem<T> problem, const double* row_errors, T* losses) {
  for (int64_t q = warp_index(); q < problem.batch; q += warp_count()) {
    const int64_t length = min(problem.lengths[q], problem.frames);
    double sum = 0;
    for (int64_t i = lane_index(); i < length; i += kWarp) {
      sum += row_errors[q * problem.frames + i];
    }
    sum = warp_sum(sum);
    if (lane_index() == 0) put(losses + q, static_cast<accumulate_t<T>>(sum));
  }
}

// A warp a row.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    error_gradient_kernel(VertexProblem<T> problem, const T* loss_gradients, T* score_gradients) {
  using Acc = accumulate_t<T>;
  for (int64_t r = warp_index(); r < problem.batch * problem.frames; r += warp_count()) {
    const Row row(problem, r);
    const Acc factor = 2 * get(loss_gradients + row.query);
    for (int64_t j = lane_index(); j < problem.frames; j += kWarp) {
      Acc gradient = 0;
      if (j >= row.columns.begin && j < row.columns.end) {
        const auto found =
            predict(problem.sigmoid, Acc(get(problem.scores + r * problem.frames + j)));
        gradient = factor * (found.value - row.truth<Acc>(j)) * found.slope;
      }
      put(score_gradients + r * problem.frames + j, gradient);
    }
  }
}

template <typename T>
unsigned row_blocks(const VertexProblem<T>& problem) {
  return device::blocks_for(problem.batch * problem.frames, kWarps);
}

}  // namespace

template <typename T>
cudaError_t row_errors(const VertexProblem<T>& problem, double* row_errors, cudaStream_t stream) {
  if (problem.batch == 0) return cudaSuccess;
  error_kernel<<<row_blocks(problem), kThreads, 0, stream>>>(problem, row_errors);
  return cudaGetLastError();
}

template <typename T>
cudaError_t sum_errors(const VertexProblem<T>& problem, const double* row_errors, T* losses,
                       cudaStream_t stream) {
  if (problem.batch == 0) return cudaSuccess;
  sum_kernel<<<device::blocks_for(problem.batch, kWarps), kThreads, 0, stream>>>(
      problem, row_errors, losses);
  return cudaGetLastError();
}

template <typename T>
cudaError_t row_error_gradients(const VertexProblem<T>& problem, const T* loss_gradients,
                                T* score_gradients, cudaStream_t stream) {
  if (problem.batch == 0) return cudaSuccess;
  error_gradient_kernel<<<row_blocks(problem), kThreads, 0, stream>>>(problem, loss_gradients,
                                                                      score_gradients);
  return cudaGetLastError();
}

#define VMR_INSTANTIATE(T)                                                                   \
  template cudaError_t row_errors(const VertexProblem<T>&, double*, cudaStream_t);           \
  template cudaError_t sum_errors(const VertexProblem<T>&, const double*, T*, cudaStream_t); \
  template cudaError_t row_error_gradients(const VertexProblem<T>&, const T*, T*, cudaStream_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::detection::cuda
