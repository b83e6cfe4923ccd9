// The ops on moments as points of a map of scores on CUDA.
#include "kernels/detection_cuda.h"

#include <array>
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
    using torch::stable::detail::from;
    using torch::stable::detail::to;
    std::array<StableIValue, 4> sort = {from(found.values), from(std::optional<bool>(true)),
                                        from(int64_t{1}), from(true)};
    TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("aten::sort", "stable", sort.data(), TORCH_ABI_VERSION));
    const auto values = to<Tensor>(sort[0]);
    const auto order = to<Tensor>(sort[1]);
    std::array<StableIValue, 3> take = {from(found.points),
                                        from(torch::stable::unsqueeze(order, -1)),
                                        from(std::optional<int64_t>(1))};
    TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("aten::take_along_dim", "", take.data(), TORCH_ABI_VERSION));
    return {to<Tensor>(take[0]), values};
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
