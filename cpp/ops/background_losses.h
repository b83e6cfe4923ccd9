// The losses on the rows inside and outside of the moments, for any device; see background.h.
#pragma once

#include "ops/background.h"

namespace vmr::ops {

struct SideInputs {
  Tensor scores;   // [B, N]
  Tensor windows;  // [B, M, 2]
  Tensor counts;   // [B]
  Tensor lengths;  // [B]

  template <typename T>
  background::Sides<T> problem() const {
    return {in<T>(scores),  in<int64_t>(windows), in<int64_t>(counts), in<int64_t>(lengths),
            scores.size(0), scores.size(1),       windows.size(1)};
  }
};

// Checks the inputs, whose first is called `name`, and makes them contiguous.
template <typename Device>
void check_sides(const char* op, const char* name, SideInputs* inputs) {
  SideInputs& all = *inputs;
  const bool fits = all.scores.dim() == 2 && all.scores.size(1) >= 1;
  check(fits, op, ": ", name, " must be [B, N] with N >= 1, got ", shape_text(all.scores));
  check_floating({op, name, ""}, all.scores);
  const BackgroundChecks checks = {op, all.scores, name};
  const int64_t batch = all.scores.size(0);
  checks.indices("windows", all.windows, "[B, M, 2], one row of M windows a video", {batch, -1, 2});
  checks.indices("counts", all.counts, "[B], one a video", {batch});
  checks.indices("lengths", all.lengths, "[B], one a video", {batch});
  all = {as_contiguous(all.scores), as_contiguous(all.windows), as_contiguous(all.counts),
         as_contiguous(all.lengths)};
  Device::check_lengths(op, all.lengths, all.scores.size(1));
  Device::check_windows(op, all);
}

// A loss of each video: run(device, problem, losses).
template <typename Device, typename Run>
Tensor side_losses(const char* op, const char* name, SideInputs inputs, const Run& run) {
  check_sides<Device>(op, name, &inputs);
  const typename Device::Guard guard(inputs.scores);
  const ScalarType dtype = inputs.scores.scalar_type();
  const Tensor losses = empty_on(inputs.scores, {inputs.scores.size(0)}, dtype);
  dispatch_floating(dtype, [&](auto type) {
    using T = decltype(type);
    run(Device(inputs.scores), inputs.problem<T>(), out<T>(losses));
  });
  return losses;
}

// Its gradient: run(device, problem).
template <typename Device, typename Run>
Tensor side_gradients(const char* op, const char* name, const Tensor& output_gradients,
                      SideInputs inputs, const Run& run) {
  check_sides<Device>(op, name, &inputs);
  BackgroundChecks{op, inputs.scores, name}.floating("output_gradients", output_gradients,
                                                     "[B], one a video", {inputs.scores.size(0)});
  const typename Device::Guard guard(inputs.scores);
  const Tensor from = as_contiguous(output_gradients);
  const Tensor gradients = empty_as(inputs.scores);
  dispatch_floating(inputs.scores.scalar_type(), [&](auto type) {
    using T = decltype(type);
    run(Device(inputs.scores),
        background::SideGradients<T>{inputs.problem<T>(), in<T>(from), out<T>(gradients)});
  });
  return gradients;
}

template <typename Device>
Tensor margin_loss(const Tensor& scores, const Tensor& windows, const Tensor& counts,
                   const Tensor& lengths, double margin) {
  return side_losses<Device>("margin_loss", "scores", {scores, windows, counts, lengths},
                             [=](const Device& device, const auto& problem, auto* losses) {
                               device.margin_loss(problem, margin, losses);
                             });
}

template <typename Device>
Tensor margin_loss_backward(const Tensor& output_gradients, const Tensor& scores,
                            const Tensor& windows, const Tensor& counts, const Tensor& lengths,
                            double margin) {
  return side_gradients<Device>("margin_loss_backward", "scores", output_gradients,
                                {scores, windows, counts, lengths},
                                [=](const Device& device, const auto& problem) {
                                  device.margin_loss_gradient(problem, margin);
                                });
}

template <typename Device>
Tensor probability_loss(const Tensor& joint, const Tensor& windows, const Tensor& counts,
                        const Tensor& lengths) {
  return side_losses<Device>("probability_loss", "joint", {joint, windows, counts, lengths},
                             [](const Device& device, const auto& problem, auto* losses) {
                               device.probability_loss(problem, losses);
                             });
}

template <typename Device>
Tensor probability_loss_backward(const Tensor& output_gradients, const Tensor& joint,
                                 const Tensor& windows, const Tensor& counts,
                                 const Tensor& lengths) {
  return side_gradients<Device>(
      "probability_loss_backward", "joint", output_gradients, {joint, windows, counts, lengths},
      [](const Device& device, const auto& problem) { device.probability_loss_gradient(problem); });
}

}  // namespace vmr::ops
