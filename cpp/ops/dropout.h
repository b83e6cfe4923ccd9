// Dropout behind an activation, and before a sum, for any device. Device supplies the kernels of
// kernels/dropout_types.h: on the CPU (dropout.cpp) shared out among threads, on CUDA launched.
#pragma once

#include <tuple>

#include "kernels/dropout_types.h"
#include "ops/common.h"

namespace vmr::ops {

namespace dropout = kernels::dropout;

// Checks what decides of the elements of `first`.
inline dropout::Mask check_mask(const char* op, const Tensor& first, const Tensor& seed,
                                double probability) {
  check(probability >= 0 && probability < 1, op,
        ": probability must be at least 0 and below 1, got ", probability);
  check_int64({op, "seed", ""}, seed);
  check(seed.numel() == 1 || (seed.numel() == 0 && probability == 0), op,
        ": seed must be one number, got ", shape_text(seed));
  check_same_device(op, first, {&seed});
  return dropout::mask_of(in<int64_t>(seed), probability);
}

// A tensor whose elements belong to those of the first one.
inline void check_like(const char* op, const char* name, const Tensor& tensor, const Tensor& first,
                       const char* first_name) {
  bool fits = tensor.dim() == first.dim();
  for (int64_t d = 0; fits && d < first.dim(); ++d) fits = tensor.size(d) == first.size(d);
  check(fits, op, ": ", name, " must have the shape of ", first_name, ", ", shape_text(first),
        ", got ", shape_text(tensor));
  check_same_dtype({op, name, ""}, tensor, first, first_name);
  check_same_device(op, first, {&tensor});
}

// ---- activation and dropout ----

inline dropout::Mask check_activation(const char* op, const Tensor& rows, const Tensor& slope,
                                      const Tensor& seed, double probability) {
  check_floating({op, "rows", ""}, rows);
  check(slope.dim() == 1 && slope.numel() <= 1, op, ": slope must be [1], or [0] for none, got ",
        shape_text(slope));
  check_same_dtype({op, "slope", ""}, slope, rows, "rows");
  check_same_device(op, rows, {&slope});
  return check_mask(op, rows, seed, probability);
}

template <typename T>
const T* slope_of(const Tensor& slope) {
  return slope.numel() == 0 ? nullptr : in<T>(slope);
}

template <typename Device>
Tensor activated_dropout(const Tensor& rows, const Tensor& slope, const Tensor& seed,
                         double probability) {
  const dropout::Mask mask = check_activation("activated_dropout", rows, slope, seed, probability);
  const typename Device::Guard guard(rows);
  const Tensor from = as_contiguous(rows);
  const Tensor results = empty_as(rows);
  dispatch_floating(rows.scalar_type(), [&](auto type) {
    using T = decltype(type);
    Device(rows).activate(
        dropout::Activation<T>{in<T>(from), slope_of<T>(slope), mask, out<T>(results)},
        rows.numel());
  });
  return results;
}

// The gradients of the rows and of the slope.
template <typename Device>
std::tuple<Tensor, Tensor> activated_dropout_backward(const Tensor& output_gradients,
                                                      const Tensor& rows, const Tensor& slope,
                                                      const Tensor& seed, double probability) {
  const char* const op = "activated_dropout_backward";
  const dropout::Mask mask = check_activation(op, rows, slope, seed, probability);
  check_like(op, "output_gradients", output_gradients, rows, "rows");
  const typename Device::Guard guard(rows);
  const Tensor from = as_contiguous(rows);
  const Tensor gradients = as_contiguous(output_gradients);
  const Tensor to_rows = empty_as(rows);
  const Tensor to_slope = empty_as(slope);
  dispatch_floating(rows.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const dropout::Activation<T> inputs = {in<T>(from), slope_of<T>(slope), mask, nullptr};
    Device(rows).activate_gradient(
        dropout::ActivationGradient<T>{inputs, in<T>(gradients), out<T>(to_rows), nullptr},
        rows.numel(), out<T>(to_slope));
  });
  return {to_rows, to_slope};
}

// ---- a sum with dropout ----

template <typename Device>
Tensor residual_dropout(const Tensor& rows, const Tensor& found, const Tensor& seed,
                        double probability) {
  const char* const op = "residual_dropout";
  check_floating({op, "rows", ""}, rows);
  check_like(op, "found", found, rows, "rows");
  const dropout::Mask mask = check_mask(op, rows, seed, probability);
  const typename Device::Guard guard(rows);
  const Tensor first = as_contiguous(rows);
  const Tensor second = as_contiguous(found);
  const Tensor results = empty_as(rows);
  dispatch_floating(rows.scalar_type(), [&](auto type) {
    using T = decltype(type);
    Device(rows).add_dropped(
        dropout::Residual<T>{in<T>(first), in<T>(second), mask, out<T>(results)}, rows.numel());
  });
  return results;
}

// The gradient of `found`; that of `rows` is output_gradients.
template <typename Device>
Tensor residual_dropout_backward(const Tensor& output_gradients, const Tensor& seed,
                                 double probability) {
  const char* const op = "residual_dropout_backward";
  check_floating({op, "output_gradients", ""}, output_gradients);
  const dropout::Mask mask = check_mask(op, output_gradients, seed, probability);
  const typename Device::Guard guard(output_gradients);
  const Tensor from = as_contiguous(output_gradients);
  const Tensor results = empty_as(from);
  dispatch_floating(from.scalar_type(), [&](auto type) {
    using T = decltype(type);
    Device(from).add_dropped(dropout::Residual<T>{nullptr, in<T>(from), mask, out<T>(results)},
                             from.numel());
  });
  return results;
}

}  // namespace vmr::ops
