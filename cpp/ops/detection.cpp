// The ops on moments as points of a map of scores: their schemas, and the CPU's side of them.
#include "ops/detection.h"

#include "kernels/detection.h"
#include "ops/cpu.h"

namespace vmr::ops {
namespace {

struct Cpu : CpuDevice {
  using CpuDevice::CpuDevice;

  static void check_points(const char* op, const VertexInputs& inputs) {
    const int64_t batch = inputs.scores.size(0);
    const int64_t count = inputs.points.size(0);
    const int64_t* const points = in<int64_t>(inputs.points);
    const int64_t* const splits = in<int64_t>(inputs.splits);
    check(splits[0] == 0 && splits[batch] == count, op, ": splits must go from 0 to P = ", count,
          ", got ", splits[0], " to ", splits[batch]);
    for (int64_t q = 0; q < batch; ++q) {
      check(splits[q] <= splits[q + 1], op, ": splits must not descend, got ", splits[q],
            " and then ", splits[q + 1], " at query ", q);
    }
    for (int64_t q = 0; q < batch; ++q) {
      const int64_t length = in<int64_t>(inputs.lengths)[q];
      for (int64_t p = splits[q]; p < splits[q + 1]; ++p) {
        const int64_t i = points[2 * p];
        const int64_t j = points[2 * p + 1];
        check(i >= 0 && i < length && j >= 0 && j < length, op,
              ": points must lie in [0, length = ", length, "), got (", i, ", ", j, ") at row ", p);
        check(i <= j, op, ": points (i, j) must have i <= j, got (", i, ", ", j, ") at row ", p);
      }
    }
  }

  template <typename T>
  void row_errors(const detection::VertexProblem<T>& problem, double* errors) const {
    torch::stable::parallel_for(
        0, problem.batch * problem.frames, grain(4 * problem.frames),
        [&](int64_t begin, int64_t end) { detection::row_errors(problem, errors, begin, end); });
  }

  template <typename T>
  void sum_errors(const detection::VertexProblem<T>& problem, const double* errors,
                  T* losses) const {
    torch::stable::parallel_for(0, problem.batch, grain(problem.frames),
                                [&](int64_t begin, int64_t end) {
                                  detection::sum_errors(problem, errors, losses, begin, end);
                                });
  }

  template <typename T>
  void row_error_gradients(const detection::VertexProblem<T>& problem, const T* loss_gradients,
                           T* gradients) const {
    torch::stable::parallel_for(0, problem.batch * problem.frames, grain(4 * problem.frames),
                                [&](int64_t begin, int64_t end) {
                                  detection::row_error_gradients(problem, loss_gradients, gradients,
                                                                 begin, end);
                                });
  }

  template <typename T>
  void top_points(const detection::TopProblem<T>& problem) const {
    torch::stable::parallel_for(
        0, problem.batch, grain(problem.frames * problem.frames),
        [&](int64_t begin, int64_t end) { detection::top_points(problem, begin, end); });
  }

  // The best come first already.
  static TopPoints ranked(const TopPoints& found) { return found; }
};

}  // namespace
}  // namespace vmr::ops

STABLE_TORCH_LIBRARY_FRAGMENT(vmr, library) {
  library.def(
      "vertex_loss(Tensor scores, Tensor points, Tensor splits, Tensor lengths, bool whole, "
      "bool sigmoid) -> Tensor");
  library.def(
      "vertex_loss_backward(Tensor output_gradients, Tensor scores, Tensor points, Tensor splits, "
      "Tensor lengths, bool whole, bool sigmoid) -> Tensor");
  library.def("top_points(Tensor scores, Tensor lengths, int k) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(vmr, CPU, library) {
  using vmr::ops::Cpu;
  library.impl("vertex_loss", TORCH_BOX(&vmr::ops::vertex_loss<Cpu>));
  library.impl("vertex_loss_backward", TORCH_BOX(&vmr::ops::vertex_loss_backward<Cpu>));
  library.impl("top_points", TORCH_BOX(&vmr::ops::top_points<Cpu>));
}
