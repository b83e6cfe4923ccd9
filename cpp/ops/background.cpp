// The ops of background-aware moment detection: their schemas, and the CPU's side of them.
#include "ops/background.h"

#include "kernels/background.h"
#include "ops/background_losses.h"
#include "ops/cpu.h"

namespace vmr::ops {
namespace {

struct Cpu : CpuDevice {
  using CpuDevice::CpuDevice;

  static void check_some_frames(const char* op, const Tensor& lengths, int64_t most) {
    for (int64_t b = 0; b < lengths.numel(); ++b) {
      const int64_t length = in<int64_t>(lengths)[b];
      check(length >= 1 && length <= most, op, ": lengths must be between 1 and ", most, ", got ",
            length, " at video ", b);
    }
  }

  static void check_windows(const char* op, const SideInputs& inputs) {
    const int64_t frames = inputs.scores.size(1);
    const int64_t most = inputs.windows.size(1);
    for (int64_t b = 0; b < inputs.scores.size(0); ++b) {
      const int64_t count = in<int64_t>(inputs.counts)[b];
      check(count >= 0 && count <= most, op, ": counts must be between 0 and M = ", most, ", got ",
            count, " at video ", b);
      const int64_t* const windows = in<int64_t>(inputs.windows) + 2 * b * most;
      for (int64_t m = 0; m < count; ++m) {
        const int64_t first = windows[2 * m];
        const int64_t last = windows[2 * m + 1];
        check(first >= 0 && first <= last && last < frames, op,
              ": windows must be (first, last) with 0 <= first <= last < N = ", frames, ", got (",
              first, ", ", last, ") at video ", b);
      }
    }
  }

  // Calls kernel(begin, end) for the parts of [0, count).
  template <typename Kernel>
  static void share(int64_t count, int64_t work, const Kernel& kernel) {
    torch::stable::parallel_for(0, count, grain(work), kernel);
  }

  template <typename Acc>
  void match(const background::Match<Acc>& problem) const {
    const auto& sizes = problem.sizes;
    share(sizes.batch * sizes.frames, 4 * sizes.hidden,
          [&](int64_t begin, int64_t end) { background::match(problem, begin, end); });
  }

  template <typename T>
  void attend(const background::Attend<T>& problem) const {
    const auto& sizes = problem.sizes;
    share(sizes.batch, sizes.frames * sizes.dim,
          [&](int64_t begin, int64_t end) { background::attend(problem, begin, end); });
  }

  template <typename T>
  void attend_gradient(const background::AttendGradient<T>& problem) const {
    const auto& sizes = problem.sizes;
    share(sizes.batch, sizes.frames * (sizes.dim + 2 * sizes.hidden),
          [&](int64_t begin, int64_t end) { background::attend_gradient(problem, begin, end); });
  }

  template <typename T>
  void add_attended(const background::AddAttended<T>& problem) const {
    const auto& sizes = problem.sizes;
    share(sizes.batch * sizes.frames, sizes.dim,
          [&](int64_t begin, int64_t end) { background::add_attended(problem, begin, end); });
  }

  // The rows as they are computed on, with zeros in the padding: a NaN times 0 were a NaN.
  template <typename T>
  Tensor masked(const background::Sizes& sizes, const Tensor& rows, const int64_t* lengths) const {
    const bool padded = std::any_of(lengths, lengths + sizes.batch,
                                    [&](int64_t length) { return length < sizes.frames; });
    const ScalarType wide = accumulate_dtype<T>();
    if (!padded && rows.is_contiguous() && rows.scalar_type() == wide) return rows;
    const Tensor to = empty_on(rows, {sizes.batch, sizes.frames, sizes.dim}, wide);
    share(sizes.batch * sizes.frames, sizes.dim, [&](int64_t begin, int64_t end) {
      background::mask_rows<T>(sizes, videos_of<T>(rows), lengths,
                               out<kernels::accumulate_t<T>>(to), begin, end);
    });
    return to;
  }

  template <typename T>
  void pool(const background::Pool<T>& problem) const {
    const auto& sizes = problem.sizes;
    share(sizes.batch, sizes.frames * sizes.dim,
          [&](int64_t begin, int64_t end) { background::pool(problem, begin, end); });
  }

  template <typename T>
  void pool_gradient(const background::PoolGradient<T>& problem) const {
    const auto& sizes = problem.inputs.sizes;
    share(sizes.batch, sizes.frames * sizes.dim,
          [&](int64_t begin, int64_t end) { background::pool_gradient(problem, begin, end); });
  }

  template <typename T>
  void margin_loss(const background::Sides<T>& problem, double margin, T* losses) const {
    share(problem.batch, problem.frames * problem.frames / 8, [&](int64_t begin, int64_t end) {
      background::margin_loss(problem, margin, losses, begin, end);
    });
  }

  template <typename T>
  void margin_loss_gradient(const background::SideGradients<T>& problem, double margin) const {
    const auto& in = problem.inputs;
    share(in.batch, in.frames * in.frames / 8, [&](int64_t begin, int64_t end) {
      background::margin_loss_gradient(problem, margin, begin, end);
    });
  }

  template <typename T>
  void probability_loss(const background::Sides<T>& problem, T* losses) const {
    share(problem.batch, problem.frames, [&](int64_t begin, int64_t end) {
      background::probability_loss(problem, losses, begin, end);
    });
  }

  template <typename T>
  void probability_loss_gradient(const background::SideGradients<T>& problem) const {
    share(problem.inputs.batch, problem.inputs.frames, [&](int64_t begin, int64_t end) {
      background::probability_loss_gradient(problem, begin, end);
    });
  }
};

}  // namespace
}  // namespace vmr::ops

STABLE_TORCH_LIBRARY_FRAGMENT(vmr, library) {
  library.def(
      "frame_attention(Tensor frames, Tensor hidden_weight, Tensor score_weight, Tensor lengths, "
      "Tensor negative, bool official_padding) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "frame_attention_backward(Tensor attended_gradients, Tensor joint_gradients, "
      "Tensor positive_gradients, Tensor attention_gradients, Tensor frames, "
      "Tensor hidden_weight, Tensor score_weight, Tensor lengths, Tensor negative, "
      "Tensor hidden, Tensor negative_hidden, bool official_padding) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  library.def("attentive_pool(Tensor features, Tensor scores, Tensor lengths) -> Tensor");
  library.def(
      "attentive_pool_backward(Tensor output_gradients, Tensor features, Tensor scores, "
      "Tensor lengths) -> (Tensor, Tensor)");
  library.def(
      "margin_loss(Tensor scores, Tensor windows, Tensor counts, Tensor lengths, float margin) "
      "-> Tensor");
  library.def(
      "margin_loss_backward(Tensor output_gradients, Tensor scores, Tensor windows, "
      "Tensor counts, Tensor lengths, float margin) -> Tensor");
  library.def(
      "probability_loss(Tensor joint, Tensor windows, Tensor counts, Tensor lengths) -> Tensor");
  library.def(
      "probability_loss_backward(Tensor output_gradients, Tensor joint, Tensor windows, "
      "Tensor counts, Tensor lengths) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(vmr, CPU, library) {
  using vmr::ops::Cpu;
  library.impl("frame_attention", TORCH_BOX(&vmr::ops::frame_attention<Cpu>));
  library.impl("frame_attention_backward", TORCH_BOX(&vmr::ops::frame_attention_backward<Cpu>));
  library.impl("attentive_pool", TORCH_BOX(&vmr::ops::attentive_pool<Cpu>));
  library.impl("attentive_pool_backward", TORCH_BOX(&vmr::ops::attentive_pool_backward<Cpu>));
  library.impl("margin_loss", TORCH_BOX(&vmr::ops::margin_loss<Cpu>));
  library.impl("margin_loss_backward", TORCH_BOX(&vmr::ops::margin_loss_backward<Cpu>));
  library.impl("probability_loss", TORCH_BOX(&vmr::ops::probability_loss<Cpu>));
  library.impl("probability_loss_backward", TORCH_BOX(&vmr::ops::probability_loss_backward<Cpu>));
}
