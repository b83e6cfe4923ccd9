// The ops on temporal spans: their schemas, and the CPU's side of them.
#include "ops/spans.h"

#include "kernels/spans.h"
#include "ops/cpu.h"

namespace vmr::ops {
namespace {

struct Cpu : CpuDevice {
  using CpuDevice::CpuDevice;

  template <typename T, spans::Overlap kind>
  void pair_overlaps(const spans::PairSizes& sizes, const T* a, const T* b, T* overlaps) const {
    torch::stable::parallel_for(0, sizes.batch * sizes.n, grain(sizes.m),
                                [&](int64_t begin, int64_t end) {
                                  spans::pair_overlaps<T, kind>(sizes, a, b, overlaps, begin, end);
                                });
  }

  template <typename T, spans::Overlap kind>
  void pair_overlap_gradients(const spans::PairSizes& sizes, const T* gradients, bool transposed,
                              const T* a, const T* b, T* a_gradients) const {
    torch::stable::parallel_for(0, sizes.batch * sizes.n, grain(sizes.m),
                                [&](int64_t begin, int64_t end) {
                                  spans::pair_overlap_gradients<T, kind>(
                                      sizes, gradients, transposed, a, b, a_gradients, begin, end);
                                });
  }

  template <typename T>
  void suppress(const spans::NmsProblem<T>& problem) const {
    torch::stable::parallel_for(
        0, problem.queries, grain(problem.candidates),
        [&](int64_t begin, int64_t end) { spans::suppress(problem, begin, end); });
  }

  template <typename T>
  void assign(const spans::AssignmentProblem<T>& problem) const {
    const int64_t paths = std::min(problem.slots, problem.windows);
    torch::stable::parallel_for(
        0, problem.problems, grain(problem.slots * problem.windows * paths),
        [&](int64_t begin, int64_t end) { spans::assign(problem, begin, end); });
  }
};

}  // namespace
}  // namespace vmr::ops

STABLE_TORCH_LIBRARY_FRAGMENT(vmr, library) {
  library.def("span_iou(Tensor a, Tensor b) -> Tensor");
  library.def("span_giou(Tensor a, Tensor b) -> Tensor");
  library.def("span_iou_backward(Tensor gradients, Tensor a, Tensor b) -> (Tensor, Tensor)");
  library.def("span_giou_backward(Tensor gradients, Tensor a, Tensor b) -> (Tensor, Tensor)");
  library.def(
      "span_nms(Tensor spans, Tensor scores, Tensor lengths, float iou_threshold, int top_k) "
      "-> (Tensor, Tensor)");
  library.def("assignment(Tensor costs, Tensor counts) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(vmr, CPU, library) {
  using vmr::kernels::spans::Overlap;
  using vmr::ops::Cpu;
  library.impl("span_iou", TORCH_BOX((&vmr::ops::span_overlap<Cpu, Overlap::kIou>)));
  library.impl("span_giou", TORCH_BOX((&vmr::ops::span_overlap<Cpu, Overlap::kGiou>)));
  library.impl("span_iou_backward",
               TORCH_BOX((&vmr::ops::span_overlap_backward<Cpu, Overlap::kIou>)));
  library.impl("span_giou_backward",
               TORCH_BOX((&vmr::ops::span_overlap_backward<Cpu, Overlap::kGiou>)));
  library.impl("span_nms", TORCH_BOX(&vmr::ops::span_nms<Cpu>));
  library.impl("assignment", TORCH_BOX(&vmr::ops::assignment<Cpu>));
}
