// The ops of GranAlign: their schemas, and the CPU's side of them.
#include "ops/granular.h"

#include "kernels/granular.h"
#include "ops/cpu.h"

namespace vmr::ops {
namespace {

struct Cpu : CpuDevice {
  using CpuDevice::CpuDevice;
  static constexpr bool kScoresInOnePass = true;

  static void check_aware_rows(const char* op, const GranularInputs& inputs,
                               const granular::Sizes& sizes) {
    const int64_t* splits = in<int64_t>(inputs.aware_splits);
    const int64_t* frames = in<int64_t>(inputs.aware_frames);
    check(splits[0] == 0 && splits[sizes.queries] == sizes.aware_rows, op,
          ": aware_splits must go from 0 to R = ", sizes.aware_rows, ", got ", splits[0], " to ",
          splits[sizes.queries]);
    for (int64_t q = 0; q < sizes.queries; ++q) {
      check(splits[q] <= splits[q + 1], op, ": aware_splits must not descend, got ", splits[q],
            " and then ", splits[q + 1], " at query ", q);
    }
    for (int64_t q = 0; q < sizes.queries; ++q) {
      int64_t last = -1;
      for (int64_t r = splits[q]; r < splits[q + 1]; ++r) {
        check(frames[r] > last && frames[r] < sizes.frames, op,
              ": aware_frames must ascend within a query and lie in [0, F = ", sizes.frames,
              "), got ", frames[r], " after ", last, " at row ", r);
        last = frames[r];
      }
    }
  }

  // Each calls the kernel of its name for a range of the index that the kernel's header names.
#define VMR_OVER(name, count, work)                                                      \
  template <typename T, typename... Arguments>                                           \
  void name(const granular::Sizes& sizes, const Arguments&... arguments) const {         \
    torch::stable::parallel_for(0, count, grain(work), [&](int64_t begin, int64_t end) { \
      granular::name<T>(sizes, arguments..., begin, end);                                \
    });                                                                                  \
  }
  VMR_OVER(query_channels, sizes.queries, sizes.rewrites* sizes.dim)
  VMR_OVER(query_gradients, sizes.queries, sizes.rewrites* sizes.dim)
  VMR_OVER(frame_cosines, sizes.frames, sizes.queries* sizes.channels* sizes.dim)
  VMR_OVER(aware_cosines, sizes.aware_rows, sizes.channels* sizes.dim)
  VMR_OVER(frame_gradients, sizes.frames, sizes.queries* sizes.channels* sizes.dim)
  VMR_OVER(aware_gradients, sizes.aware_rows, sizes.channels* sizes.dim)
  VMR_OVER(add_frame_channel_gradients, sizes.dim, sizes.queries* sizes.channels* sizes.frames)
  VMR_OVER(add_aware_channel_gradients, sizes.queries* sizes.channels, sizes.frames* sizes.dim)
  VMR_OVER(combine_channels, sizes.queries, sizes.dim)
  VMR_OVER(frame_scores, sizes.frames, sizes.queries* sizes.dim)
  VMR_OVER(finish_scores, sizes.queries, sizes.channels* sizes.frames)
  VMR_OVER(cosine_gradients, sizes.queries, sizes.channels* sizes.frames)
#undef VMR_OVER

  template <typename T>
  void proposals(const granular::ProposalRule& rule, const granular::ProposalInput<T>& input,
                 const granular::ProposalOutput<T>& output) const {
    torch::stable::parallel_for(
        0, input.queries, grain(input.frames),
        [&](int64_t begin, int64_t end) { granular::proposals(rule, input, output, begin, end); });
  }
};

}  // namespace
}  // namespace vmr::ops

STABLE_TORCH_LIBRARY_FRAGMENT(vmr, library) {
  library.def(
      "granular_scores(Tensor simple, Tensor detailed, Tensor agnostic, Tensor aware, "
      "Tensor aware_frames, Tensor aware_splits, bool min_max, float agnostic_weight, "
      "float aware_weight) -> Tensor");
  library.def(
      "granular_scores_backward(Tensor score_gradients, Tensor simple, Tensor detailed, "
      "Tensor agnostic, Tensor aware, Tensor aware_frames, Tensor aware_splits, bool min_max, "
      "float agnostic_weight, float aware_weight) -> (Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "granular_proposals(Tensor scores, Tensor lengths, Tensor thresholds, int max_gap, "
      "float drop_percent, float length_weight, bool by_longest) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(vmr, CPU, library) {
  using vmr::ops::Cpu;
  library.impl("granular_scores", TORCH_BOX(&vmr::ops::granular_scores<Cpu>));
  library.impl("granular_scores_backward", TORCH_BOX(&vmr::ops::granular_scores_backward<Cpu>));
  library.impl("granular_proposals", TORCH_BOX(&vmr::ops::granular_proposals<Cpu>));
}
