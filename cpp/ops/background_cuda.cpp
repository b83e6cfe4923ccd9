// The ops of background-aware moment detection on CUDA.
#include "kernels/background_cuda.h"

#include "ops/background.h"
#include "ops/background_losses.h"
#include "ops/cuda.h"

namespace vmr::ops {
namespace {

struct Cuda : CudaDevice {
  explicit Cuda(const Tensor& tensor) : CudaDevice(tensor), like(tensor) {}

  static void check_some_frames(const char*, const Tensor&, int64_t) {}
  static void check_windows(const char*, const SideInputs&) {}

  template <typename Acc>
  void match(const background::Match<Acc>& problem) const {
    launched(background::cuda::match(problem, stream));
  }

  template <typename T>
  void attend(const background::Attend<T>& problem) const {
    launched(background::cuda::attend(problem, stream));
  }

  template <typename T>
  void attend_gradient(const background::AttendGradient<T>& problem) const {
    const Tensor matches = scratch<T>(problem.sizes, background::cuda::kMatches);
    launched(
        background::cuda::attend_gradient(problem, out<kernels::accumulate_t<T>>(matches), stream));
  }

  template <typename T>
  void add_attended(const background::AddAttended<T>& problem) const {
    launched(background::cuda::add_attended(problem, stream));
  }

  template <typename T>
  Tensor masked(const background::Sizes& sizes, const Tensor& rows, const int64_t* lengths) const {
    const Tensor to = empty_on(like, {sizes.batch, sizes.frames, sizes.dim}, accumulate_dtype<T>());
    launched(background::cuda::mask_rows(sizes, videos_of<T>(rows), lengths,
                                         out<kernels::accumulate_t<T>>(to), stream));
    return to;
  }

  template <typename T>
  void pool(const background::Pool<T>& problem) const {
    const Tensor weights = scratch<T>(problem.sizes, 1);
    launched(background::cuda::pool(problem, out<kernels::accumulate_t<T>>(weights), stream));
  }

  template <typename T>
  void pool_gradient(const background::PoolGradient<T>& problem) const {
    const Tensor weights = scratch<T>(problem.inputs.sizes, 2);
    launched(
        background::cuda::pool_gradient(problem, out<kernels::accumulate_t<T>>(weights), stream));
  }

  template <typename T>
  void margin_loss(const background::Sides<T>& problem, double margin, T* losses) const {
    const Tensor rows = sides(problem);
    launched(background::cuda::margin_loss(problem, margin, out<int64_t>(rows), losses, stream));
  }

  template <typename T>
  void margin_loss_gradient(const background::SideGradients<T>& problem, double margin) const {
    const Tensor rows = sides(problem.inputs);
    launched(background::cuda::margin_loss_gradient(problem, margin, out<int64_t>(rows), stream));
  }

  template <typename T>
  void probability_loss(const background::Sides<T>& problem, T* losses) const {
    const Tensor rows = sides(problem);
    launched(background::cuda::probability_loss(problem, out<int64_t>(rows), losses, stream));
  }

  template <typename T>
  void probability_loss_gradient(const background::SideGradients<T>& problem) const {
    const Tensor rows = sides(problem.inputs);
    launched(background::cuda::probability_loss_gradient(problem, out<int64_t>(rows), stream));
  }

  // [B, rows, N] of what is accumulated in.
  template <typename T>
  Tensor scratch(const background::Sizes& sizes, int64_t rows) const {
    return empty_on(like, {sizes.batch, rows, sizes.frames}, accumulate_dtype<T>());
  }

  template <typename T>
  Tensor sides(const background::Sides<T>& problem) const {
    return empty_on(like, {problem.batch, problem.frames}, ScalarType::Long);
  }

  const Tensor& like;
};

}  // namespace
}  // namespace vmr::ops

STABLE_TORCH_LIBRARY_IMPL(vmr, CUDA, library) {
  using vmr::ops::Cuda;
  library.impl("frame_attention", TORCH_BOX(&vmr::ops::frame_attention<Cuda>));
  library.impl("frame_attention_backward", TORCH_BOX(&vmr::ops::frame_attention_backward<Cuda>));
  library.impl("attentive_pool", TORCH_BOX(&vmr::ops::attentive_pool<Cuda>));
  library.impl("attentive_pool_backward", TORCH_BOX(&vmr::ops::attentive_pool_backward<Cuda>));
  library.impl("margin_loss", TORCH_BOX(&vmr::ops::margin_loss<Cuda>));
  library.impl("margin_loss_backward", TORCH_BOX(&vmr::ops::margin_loss_backward<Cuda>));
  library.impl("probability_loss", TORCH_BOX(&vmr::ops::probability_loss<Cuda>));
  library.impl("probability_loss_backward", TORCH_BOX(&vmr::ops::probability_loss_backward<Cuda>));
}
