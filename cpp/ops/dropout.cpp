// Dropout's ops: their schemas, and the CPU's side of them.
#include "ops/dropout.h"

#include "kernels/dropout.h"
#include "ops/cpu.h"

namespace vmr::ops {
namespace {

struct Cpu : CpuDevice {
  using CpuDevice::CpuDevice;

  // Calls kernel(begin, end) for ranges of the parts of `count` elements.
  template <typename Kernel>
  static void share(int64_t count, const Kernel& kernel) {
    torch::stable::parallel_for(0, dropout::parts_of(count), grain(dropout::kPart), kernel);
  }

  template <typename T>
  void activate(const dropout::Activation<T>& problem, int64_t count) const {
    share(count,
          [&](int64_t begin, int64_t end) { dropout::activate(problem, count, begin, end); });
  }

  template <typename T>
  void activate_gradient(dropout::ActivationGradient<T> problem, int64_t count,
                         T* slope_gradient) const {
    const bool sloped = problem.inputs.slope != nullptr;
    std::vector<double> parts(static_cast<std::size_t>(sloped ? dropout::parts_of(count) : 0));
    problem.slope_parts = parts.data();
    share(count, [&](int64_t begin, int64_t end) {
      dropout::activate_gradient(problem, count, begin, end);
    });
    if (sloped) {
      dropout::sum_parts(parts.data(), static_cast<int64_t>(parts.size()), slope_gradient);
    }
  }

  template <typename T>
  void add_dropped(const dropout::Residual<T>& problem, int64_t count) const {
    share(count,
          [&](int64_t begin, int64_t end) { dropout::add_dropped(problem, count, begin, end); });
  }
};

}  // namespace
}  // namespace vmr::ops

STABLE_TORCH_LIBRARY_FRAGMENT(vmr, library) {
  library.def(
      "activated_dropout(Tensor rows, Tensor slope, Tensor seed, float probability) -> Tensor");
  library.def(
      "activated_dropout_backward(Tensor output_gradients, Tensor rows, Tensor slope, "
      "Tensor seed, float probability) -> (Tensor, Tensor)");
  library.def(
      "residual_dropout(Tensor rows, Tensor found, Tensor seed, float probability) -> Tensor");
  library.def(
      "residual_dropout_backward(Tensor output_gradients, Tensor seed, float probability) "
      "-> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(vmr, CPU, library) {
  using vmr::ops::Cpu;
  library.impl("activated_dropout", TORCH_BOX(&vmr::ops::activated_dropout<Cpu>));
  library.impl("activated_dropout_backward", TORCH_BOX(&vmr::ops::activated_dropout_backward<Cpu>));
  library.impl("residual_dropout", TORCH_BOX(&vmr::ops::residual_dropout<Cpu>));
  library.impl("residual_dropout_backward", TORCH_BOX(&vmr::ops::residual_dropout_backward<Cpu>));
}
