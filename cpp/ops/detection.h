// The ops on moments as points of a map of scores, for any device; see granular.h for what a Device
// is.
#pragma once

#include <tuple>

#include "kernels/detection_types.h"
#include "ops/common.h"

namespace vmr::ops {

namespace detection = kernels::detection;

struct VertexInputs {
  Tensor scores;   // [B, N, N]
  Tensor points;   // [P, 2]
  Tensor splits;   // [B + 1]
  Tensor lengths;  // [B]
};

struct TopPoints {
  Tensor points;  // [B, k, 2]
  Tensor values;  // [B, k]
};

inline void check_score_maps(const char* op, const Tensor& scores, const Tensor& lengths) {
  const bool square = scores.dim() == 3 && scores.size(1) == scores.size(2) && scores.size(1) >= 1;
  check(square, op, ": scores must be [B, N, N] with N >= 1, got ", shape_text(scores));
  check_shape({op, "lengths", "[B] with scores' B"}, lengths, {scores.size(0)});
  check_floating({op, "scores", ""}, scores);
  check_int64({op, "lengths", ""}, lengths);
}

// Checks shapes, dtypes, devices and, on the CPU, values, and makes the inputs contiguous.
template <typename Device>
void check_vertices(const char* op, VertexInputs* inputs) {
  const auto& [scores, points, splits, lengths] = *inputs;
  check_score_maps(op, scores, lengths);
  check_shape({op, "points", "[P, 2]"}, points, {-1, 2});
  check_shape({op, "splits", "[B + 1] with scores' B"}, splits, {scores.size(0) + 1});
  check_int64({op, "points", ""}, points);
  check_int64({op, "splits", ""}, splits);
  check_same_device(op, scores, {&points, &splits, &lengths});
  *inputs = {as_contiguous(scores), as_contiguous(points), as_contiguous(splits),
             as_contiguous(lengths)};
  Device::check_lengths(op, inputs->lengths, inputs->scores.size(1));
  Device::check_points(op, *inputs);
}

template <typename T>
detection::VertexProblem<T> vertex_problem(const VertexInputs& inputs, bool whole, bool sigmoid) {
  return {in<T>(inputs.scores),
          in<int64_t>(inputs.points),
          in<int64_t>(inputs.splits),
          in<int64_t>(inputs.lengths),
          inputs.scores.size(0),
          inputs.scores.size(1),
          inputs.points.size(0),
          whole,
          sigmoid};
}

template <typename Device>
Tensor vertex_loss(const Tensor& scores, const Tensor& points, const Tensor& splits,
                   const Tensor& lengths, bool whole, bool sigmoid) {
  VertexInputs inputs = {scores, points, splits, lengths};
  const typename Device::Guard guard(scores);
  check_vertices<Device>("vertex_loss", &inputs);
  const int64_t batch = scores.size(0);
  const Tensor losses = empty_on(scores, {batch}, scores.scalar_type());
  const Tensor row_errors = empty_on(scores, {batch, scores.size(1)}, ScalarType::Double);
  dispatch_floating(scores.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const Device device(scores);
    const auto problem = vertex_problem<T>(inputs, whole, sigmoid);
    device.row_errors(problem, out<double>(row_errors));
    device.sum_errors(problem, in<double>(row_errors), out<T>(losses));
  });
  return losses;
}

template <typename Device>
Tensor vertex_loss_backward(const Tensor& output_gradients, const Tensor& scores,
                            const Tensor& points, const Tensor& splits, const Tensor& lengths,
                            bool whole, bool sigmoid) {
  const char* const op = "vertex_loss_backward";
  VertexInputs inputs = {scores, points, splits, lengths};
  const typename Device::Guard guard(scores);
  check_vertices<Device>(op, &inputs);
  check_shape({op, "output_gradients", "[B] with scores' B"}, output_gradients, {scores.size(0)});
  check_same_dtype({op, "output_gradients", ""}, output_gradients, scores, "scores");
  check_same_device(op, scores, {&output_gradients});
  const Tensor from = as_contiguous(output_gradients);
  const Tensor gradients = empty_as(inputs.scores);
  dispatch_floating(scores.scalar_type(), [&](auto type) {
    using T = decltype(type);
    Device(scores).row_error_gradients(vertex_problem<T>(inputs, whole, sigmoid), in<T>(from),
                                       out<T>(gradients));
  });
  return gradients;
}

template <typename Device>
std::tuple<Tensor, Tensor, Tensor> top_points(const Tensor& scores, const Tensor& lengths,
                                              int64_t k) {
  const char* const op = "top_points";
  check_score_maps(op, scores, lengths);
  check_same_device(op, scores, {&lengths});
  check(k >= 1, op, ": k must be at least 1, got ", k);
  const int64_t batch = scores.size(0);
  const int64_t frames = scores.size(1);
  const typename Device::Guard guard(scores);
  Device::check_lengths(op, lengths, frames);
  TopPoints found = {empty_on(scores, {batch, k, 2}, ScalarType::Long),
                     empty_on(scores, {batch, k}, scores.scalar_type())};
  const Tensor counts = empty_on(scores, {batch}, ScalarType::Long);
  const Tensor rows[] = {as_contiguous(scores), as_contiguous(lengths)};
  dispatch_floating(scores.scalar_type(), [&](auto type) {
    using T = decltype(type);
    Device(scores).template top_points<T>({in<T>(rows[0]), in<int64_t>(rows[1]), batch, frames, k,
                                           out<int64_t>(found.points), out<T>(found.values),
                                           out<int64_t>(counts)});
  });
  found = Device::ranked(found);
  return {found.points, found.values, counts};
}

}  // namespace vmr::ops
