// The ops on moments as points of a map of scores on CUDA.
#include "kernels/detection_cuda.h"

#include <optional>

#include "ops/cuda.h"
#include "ops/detection.h"

namespace vmr::ops {
namespace {

struct Cuda : CudaDevice {
  explicit Cuda(const Tensor& tensor) : CudaDevice(tensor), like(tensor) {}

  static void check_points(const char*, const VertexInputs&) {}

  template <typename T>
  void row_errors(const detection::VertexProblem<T>& problem, double* errors) const {
    launched(detection::cuda::row_errors(problem, errors, stream));
  }

  template <typename T>
  void sum_errors(const detection::VertexProblem<T>& problem, const double* errors,
                  T* losses) const {
    launched(detection::cuda::sum_errors(problem, errors, losses, stream));
  }

  template <typename T>
  void row_error_gradients(const detection::VertexProblem<T>& problem, const T* loss_gradients,
                           T* gradients) const {
    launched(detection::cuda::row_error_gradients(problem, loss_gradients, gradients, stream));
  }

  template <typename T>
  void top_points(const detection::TopProblem<T>& problem) const {
    const Tensor row_counts = empty_on(like, {problem.batch, problem.frames, 2}, ScalarType::Long);
    launched(detection::cuda::select_points(problem, out<int64_t>(row_counts), stream));
  }

  // The kernel left the points in the order of the rows, which a stable sort keeps among equals.
  static TopPoints ranked(const TopPoints& found) {
    const auto [values, order] =
        call<2>("aten::sort", "stable", found.values, std::optional<bool>(true), int64_t{1}, true);
    const auto [points] = call<1>("aten::take_along_dim", "", found.points,
                                  torch::stable::unsqueeze(order, -1), std::optional<int64_t>(1));
    return {points, values};
  }

  const Tensor& like;
};

}  // namespace
}  // namespace vmr::ops

STABLE_TORCH_LIBRARY_IMPL(vmr, CUDA, library) {
  using vmr::ops::Cuda;
  library.impl("vertex_loss", TORCH_BOX(&vmr::ops::vertex_loss<Cuda>));
  library.impl("vertex_loss_backward", TORCH_BOX(&vmr::ops::vertex_loss_backward<Cuda>));
  library.impl("top_points", TORCH_BOX(&vmr::ops::top_points<Cuda>));
}
