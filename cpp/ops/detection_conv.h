// The large-kernel 2D convolution for any device; see granular.h for what a Device is. Here also
// the direct way of it, of torch's own operators, which is all that CUDA has.
#pragma once

#include <tuple>

#include "kernels/detection_conv.h"
#include "ops/common.h"

namespace vmr::ops {

namespace detection_conv = kernels::detection_conv;

// ---- torch's operators that the stable headers lack, through the dispatcher ----

inline Tensor permuted(const Tensor& tensor, const std::vector<int64_t>& order) {
  return call<1>("aten::permute", "", tensor, order)[0];
}
// [B, N, N, C] as the [B, C, N, N] that torch's convolution takes, and back; no copies.
inline Tensor channels_first(const Tensor& maps) {
  return permuted(maps, {0, 3, 1, 2});
}
inline Tensor channels_last(const Tensor& maps) {
  return permuted(maps, {0, 2, 3, 1});
}

// maps [B, N, N, C] with zeros outside each sample's [:n, :n].
inline Tensor masked(const Tensor& maps, const Tensor& lengths) {
  const Tensor ones = torch::stable::new_zeros(lengths, {1, maps.size(1)});
  torch::stable::fill_(ones, 1.0);
  const Tensor positions = call<1>("aten::cumsum", "", ones, int64_t{1}, std::nullopt)[0];
  const Tensor beyond =
      call<1>("aten::gt", "Tensor", positions, torch::stable::unsqueeze(lengths, 1))[0];
  const Tensor outside = call<1>("aten::logical_or", "", torch::stable::unsqueeze(beyond, 2),
                                 torch::stable::unsqueeze(beyond, 1))[0];
  return torch::stable::contiguous(call<1>("aten::masked_fill", "Tensor", maps,
                                           torch::stable::unsqueeze(outside, 3),
                                           torch::stable::new_zeros(maps, {}))[0]);
}

inline Tensor convolve_directly(const Tensor& maps, const Tensor& weight, const Tensor& bias,
                                const Tensor& lengths) {
  if (maps.numel() == 0) {
    return empty_on(maps, {maps.size(0), maps.size(1), maps.size(1), weight.size(0)},
                    maps.scalar_type());
  }
  const std::vector<int64_t> ones = {1, 1};
  const std::vector<int64_t> padding(2, weight.size(2) / 2);
  const Tensor found = call<1>("aten::convolution", "", channels_first(masked(maps, lengths)),
                               weight, std::optional(bias), ones, padding, ones, false,
                               std::vector<int64_t>{0, 0}, int64_t{1})[0];
  return masked(channels_last(found), lengths);
}

inline std::tuple<Tensor, Tensor, Tensor> convolve_backward_directly(const Tensor& gradients,
                                                                     const Tensor& maps,
                                                                     const Tensor& weight,
                                                                     const Tensor& lengths,
                                                                     bool maps_wanted) {
  if (maps.numel() == 0) {
    return {torch::stable::new_zeros(
                maps, {maps_wanted ? maps.size(0) : 0, maps.size(1), maps.size(2), maps.size(3)}),
            torch::stable::new_zeros(
                weight, {weight.size(0), weight.size(1), weight.size(2), weight.size(2)}),
            torch::stable::new_zeros(weight, {weight.size(0)})};
  }
  const std::vector<int64_t> ones = {1, 1};
  const std::vector<int64_t> padding(2, weight.size(2) / 2);
  const std::array<bool, 3> wanted = {maps_wanted, true, true};
  const auto found = call<3>(
      "aten::convolution_backward", "", channels_first(masked(gradients, lengths)),
      channels_first(masked(maps, lengths)), weight,
      std::optional(std::vector<int64_t>(1, weight.size(0))), ones, padding, ones, false,
      std::vector<int64_t>{0, 0}, int64_t{1}, torch::headeronly::HeaderOnlyArrayRef<bool>(wanted));
  return {maps_wanted
              ? masked(channels_last(found[0]), lengths)
              : empty_on(maps, {0, maps.size(1), maps.size(2), maps.size(3)}, maps.scalar_type()),
          torch::stable::contiguous(found[1]), found[2]};
}

// ---- the ops ----

// Checks maps [B, N, N, Ci] and weight [Co, Ci, C, C], and gives the sizes but for the FFT's.
inline detection_conv::Shape check_convolution(const char* op, const Tensor& maps,
                                               const Tensor& weight, const Tensor& lengths) {
  check_shape({op, "maps", "[B, N, N, Ci]"}, maps, {-1, -1, -1, -1});
  check(maps.size(1) == maps.size(2) && maps.size(1) >= 1, op,
        ": maps must be [B, N, N, Ci] with N >= 1, got ", shape_text(maps));
  check_floating({op, "maps", ""}, maps);
  check_shape({op, "weight", "[Co, Ci, C, C] with maps' Ci"}, weight, {-1, maps.size(3), -1, -1});
  check_same_dtype({op, "weight", ""}, weight, maps, "maps");
  check_shape({op, "lengths", "[B] with maps' B"}, lengths, {maps.size(0)});
  check_int64({op, "lengths", ""}, lengths);
  check_same_device(op, maps, {&weight, &lengths});
  return {maps.size(0), maps.size(1), weight.size(1), weight.size(0), weight.size(2), 0};
}

// That the kernels are square with an odd side, and that there are some.
inline void check_kernels(const char* op, const Tensor& weight) {
  check(weight.size(2) == weight.size(3) && weight.size(2) % 2 == 1, op,
        ": weight must be [Co, Ci, C, C] with an odd C, got ", shape_text(weight));
  check(weight.size(0) > 0 && weight.size(1) > 0, op,
        ": weight must have at least one channel in and one out, got ", shape_text(weight));
}

inline void check_bias(const char* op, const Tensor& bias, const Tensor& weight) {
  check_shape({op, "bias", "[Co] with weight's Co"}, bias, {weight.size(0)});
  check_same_dtype({op, "bias", ""}, bias, weight, "maps");
  check_same_device(op, weight, {&bias});
}

template <typename Device>
Tensor large_conv2d(const Tensor& maps, const Tensor& weight, const Tensor& bias,
                    const Tensor& lengths) {
  const char* const op = "large_conv2d";
  const detection_conv::Shape shape = check_convolution(op, maps, weight, lengths);
  check_kernels(op, weight);
  check_bias(op, bias, weight);
  const typename Device::Guard guard(maps);
  Device::check_lengths(op, lengths, shape.frames);
  return Device(maps).convolve(shape, maps, weight, bias, lengths, nullptr);
}

template <typename Device>
Tensor large_conv2d_kept(const Tensor& maps, const Tensor& weight, const Tensor& bias,
                         const Tensor& lengths, const Tensor& spectrum) {
  const char* const op = "large_conv2d_kept";
  const detection_conv::Shape shape = check_convolution(op, maps, weight, lengths);
  check_kernels(op, weight);
  check_bias(op, bias, weight);
  check_same_device(op, maps, {&spectrum});
  const typename Device::Guard guard(maps);
  Device::check_lengths(op, lengths, shape.frames);
  return Device(maps).convolve(shape, maps, weight, bias, lengths, &spectrum);
}

template <typename Device>
Tensor large_conv2d_spectrum(const Tensor& weight, int64_t frames) {
  const char* const op = "large_conv2d_spectrum";
  check_shape({op, "weight", "[Co, Ci, C, C]"}, weight, {-1, -1, -1, -1});
  check_kernels(op, weight);
  check_floating({op, "weight", ""}, weight);
  check(frames >= 0, op, ": frames must not be negative, got ", frames);
  const typename Device::Guard guard(weight);
  return Device(weight).spectrum(weight, frames);
}

template <typename Device>
std::tuple<Tensor, Tensor, Tensor> large_conv2d_backward(const Tensor& gradients,
                                                         const Tensor& maps, const Tensor& weight,
                                                         const Tensor& lengths, bool maps_wanted) {
  const char* const op = "large_conv2d_backward";
  const detection_conv::Shape shape = check_convolution(op, maps, weight, lengths);
  check_kernels(op, weight);
  check_shape({op, "gradients", "[B, N, N, Co]"}, gradients,
              {shape.batch, shape.frames, shape.frames, shape.outputs});
  check_same_dtype({op, "gradients", ""}, gradients, maps, "maps");
  check_same_device(op, maps, {&gradients});
  const typename Device::Guard guard(maps);
  Device::check_lengths(op, lengths, shape.frames);
  return Device(maps).convolve_backward(shape, gradients, maps, weight, lengths, maps_wanted);
}

}  // namespace vmr::ops
