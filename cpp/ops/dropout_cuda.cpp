// Dropout's ops on CUDA.
#include "kernels/dropout_cuda.h"

#include "ops/cuda.h"
#include "ops/dropout.h"

namespace vmr::ops {
namespace {

struct Cuda : CudaDevice {
  explicit Cuda(const Tensor& tensor) : CudaDevice(tensor), like(tensor) {}

  template <typename T>
  void activate(const dropout::Activation<T>& problem, int64_t count) const {
    launched(dropout::cuda::activate(problem, count, stream));
  }

  template <typename T>
  void activate_gradient(dropout::ActivationGradient<T> problem, int64_t count,
                         T* slope_gradient) const {
    const Tensor parts = empty_on(like, {dropout::cuda::kSumBlocks}, ScalarType::Double);
    problem.slope_parts = out<double>(parts);
    launched(dropout::cuda::activate_gradient(problem, count, slope_gradient, stream));
  }

  template <typename T>
  void add_dropped(const dropout::Residual<T>& problem, int64_t count) const {
    launched(dropout::cuda::add_dropped(problem, count, stream));
  }

  const Tensor& like;
};

}  // namespace
}  // namespace vmr::ops

STABLE_TORCH_LIBRARY_IMPL(vmr, CUDA, library) {
  using vmr::ops::Cuda;
  library.impl("activated_dropout", TORCH_BOX(&vmr::ops::activated_dropout<Cuda>));
  library.impl("activated_dropout_backward",
               TORCH_BOX(&vmr::ops::activated_dropout_backward<Cuda>));
  library.impl("residual_dropout", TORCH_BOX(&vmr::ops::residual_dropout<Cuda>));
  library.impl("residual_dropout_backward", TORCH_BOX(&vmr::ops::residual_dropout_backward<Cuda>));
}
