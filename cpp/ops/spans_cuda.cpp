// The ops on temporal spans on CUDA.
#include "kernels/spans_cuda.h"

#include "ops/cuda.h"
#include "ops/spans.h"

namespace vmr::ops {
namespace {

struct Cuda : CudaDevice {
  explicit Cuda(const Tensor& tensor) : CudaDevice(tensor), like(tensor) {}

  template <typename T, spans::Overlap kind>
  void pair_overlaps(const spans::PairSizes& sizes, const T* a, const T* b, T* overlaps) const {
    launched(spans::cuda::pair_overlaps<T, kind>(sizes, a, b, overlaps, stream));
  }

  template <typename T, spans::Overlap kind>
  void pair_overlap_gradients(const spans::PairSizes& sizes, const T* gradients, bool transposed,
                              const T* a, const T* b, T* a_gradients) const {
    launched(spans::cuda::pair_overlap_gradients<T, kind>(sizes, gradients, transposed, a, b,
                                                          a_gradients, stream));
  }

  template <typename T>
  void suppress(const spans::NmsProblem<T>& problem) const {
    const Tensor alive = empty_on(like, {problem.queries, problem.candidates}, ScalarType::Byte);
    launched(spans::cuda::suppress(problem, out<uint8_t>(alive), stream));
  }

  template <typename T>
  void assign(const spans::AssignmentProblem<T>& problem) const {
    const Tensor scratch =
        empty_on(like, {spans::cuda::assignment_scratch(problem)}, ScalarType::Double);
    launched(spans::cuda::assign(problem, out<double>(scratch), stream));
  }

  const Tensor& like;
};

}  // namespace
}  // namespace vmr::ops

STABLE_TORCH_LIBRARY_IMPL(vmr, CUDA, library) {
  using vmr::kernels::spans::Overlap;
  using vmr::ops::Cuda;
  library.impl("span_iou", TORCH_BOX((&vmr::ops::span_overlap<Cuda, Overlap::kIou>)));
  library.impl("span_giou", TORCH_BOX((&vmr::ops::span_overlap<Cuda, Overlap::kGiou>)));
  library.impl("span_iou_backward",
               TORCH_BOX((&vmr::ops::span_overlap_backward<Cuda, Overlap::kIou>)));
  library.impl("span_giou_backward",
               TORCH_BOX((&vmr::ops::span_overlap_backward<Cuda, Overlap::kGiou>)));
  library.impl("span_nms", TORCH_BOX(&vmr::ops::span_nms<Cuda>));
  library.impl("assignment", TORCH_BOX(&vmr::ops::assignment<Cuda>));
}
