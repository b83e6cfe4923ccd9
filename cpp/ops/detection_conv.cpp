// The large-kernel 2D convolution: its schemas, and the CPU's side of it.
#include "ops/detection_conv.h"

#include "ops/cpu.h"

namespace vmr::ops {
namespace {

using detection_conv::Shape;

Tensor converted(const Tensor& tensor, ScalarType dtype) {
  return torch::stable::contiguous(
      tensor.scalar_type() == dtype ? tensor : torch::stable::to(tensor, dtype));
}

void run(int64_t count, const detection_conv::Body& body) {
  torch::stable::parallel_for(0, count, 1, body);
}

// Half and bfloat16 are computed in float32.
ScalarType computed_in(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Calls function(S{}, stages) with what a dtype is computed in, on this machine's instruction set.
template <typename Function>
void dispatch_stages(ScalarType dtype, const Function& function) {
  using namespace kernels;
  if (dtype == ScalarType::Double) {
    function(double{}, VMR_SELECT_ISA(conv_stages<double>)());
  } else {
    function(float{}, VMR_SELECT_ISA(conv_stages<float>)());
  }
}

struct Cpu : CpuDevice {
  using CpuDevice::CpuDevice;

  Tensor convolve(Shape shape, const Tensor& maps, const Tensor& weight, const Tensor& bias,
                  const Tensor& lengths, const Tensor* spectrum) const {
    const ScalarType dtype = computed_in(maps);
    const bool kept = spectrum != nullptr && spectrum->numel() > 0;
    shape.size = detection_conv::fft_size(shape.frames, shape.kernel);
    if (kept) {
      shape.size = check_spectrum(shape, *spectrum, dtype);
    } else if (shape.size == 0) {
      return converted(convolve_directly(converted(maps, dtype), converted(weight, dtype),
                                         converted(bias, dtype), lengths),
                       maps.scalar_type());
    }
    const Tensor results =
        empty_on(maps, {shape.batch, shape.frames, shape.frames, shape.outputs}, dtype);
    const Tensor inputs[] = {converted(maps, dtype), converted(weight, dtype),
                             converted(bias, dtype), torch::stable::contiguous(lengths)};
    const Tensor slices = kept ? torch::stable::contiguous(*spectrum) : Tensor();
    dispatch_stages(dtype, [&](auto type, const auto& stages) {
      using S = decltype(type);
      detection_conv::convolve<S>(
          {shape, in<S>(inputs[0]), in<S>(inputs[1]), in<S>(inputs[2]),
           kept ? in<S>(slices) : nullptr, in<int64_t>(inputs[3]), out<S>(results)},
          stages, run);
    });
    return converted(results, maps.scalar_type());
  }

  Tensor spectrum(const Tensor& weight, int64_t frames) const {
    const ScalarType dtype = computed_in(weight);
    const int64_t size = detection_conv::fft_size(frames, weight.size(2));
    if (size == 0) return empty_on(weight, {0, 0, 0}, dtype);
    const detection_conv::Kernels kernels = {weight.size(1), weight.size(0), weight.size(2), true};
    const Tensor made =
        torch::stable::new_zeros(weight, detection_conv::spectrum_shape(kernels, size), dtype);
    const Tensor from = converted(weight, dtype);
    dispatch_stages(dtype, [&](auto type, const auto& stages) {
      using S = decltype(type);
      detection_conv::make_spectrum<S>(kernels, size, in<S>(from), out<S>(made), stages, run);
    });
    return made;
  }

  std::tuple<Tensor, Tensor, Tensor> convolve_backward(Shape shape, const Tensor& gradients,
                                                       const Tensor& maps, const Tensor& weight,
                                                       const Tensor& lengths,
                                                       bool maps_wanted) const {
    const ScalarType dtype = computed_in(maps);
    shape.size = detection_conv::fft_size(shape.frames, shape.kernel);
    const Tensor inputs[] = {converted(gradients, dtype), converted(maps, dtype),
                             converted(weight, dtype), torch::stable::contiguous(lengths)};
    if (shape.size == 0) {
      const auto [to_maps, to_weight, to_bias] =
          convolve_backward_directly(inputs[0], inputs[1], inputs[2], inputs[3], maps_wanted);
      return {converted(to_maps, maps.scalar_type()), converted(to_weight, maps.scalar_type()),
              converted(to_bias, maps.scalar_type())};
    }
    const Tensor to_maps = empty_on(
        maps, {maps_wanted ? shape.batch : 0, shape.frames, shape.frames, shape.inputs}, dtype);
    const Tensor to_weight =
        empty_on(maps, {shape.outputs, shape.inputs, shape.kernel, shape.kernel}, dtype);
    const Tensor to_bias = empty_on(maps, {shape.outputs}, dtype);
    dispatch_stages(dtype, [&](auto type, const auto& stages) {
      using S = decltype(type);
      detection_conv::convolve_backward<S>(
          {shape, in<S>(inputs[0]), in<S>(inputs[1]), in<S>(inputs[2]), in<int64_t>(inputs[3]),
           maps_wanted ? out<S>(to_maps) : nullptr, out<S>(to_weight), out<S>(to_bias)},
          stages, run);
    });
    return {converted(to_maps, maps.scalar_type()), converted(to_weight, maps.scalar_type()),
            converted(to_bias, maps.scalar_type())};
  }

 private:
  // The FFT size of a spectrum that fits the weights.
  static int64_t check_spectrum(const Shape& shape, const Tensor& spectrum, ScalarType dtype) {
    const char* const op = "large_conv2d_kept";
    check_shape({op, "spectrum", "[F / 2 + 1, F, K] of large_conv2d_spectrum"}, spectrum,
                {-1, -1, -1});
    const int64_t size = spectrum.size(1);
    const bool known = std::find(std::begin(detection_conv::kSizes),
                                 std::end(detection_conv::kSizes),
                                 size) != std::end(detection_conv::kSizes);
    const std::vector<int64_t> fitting = detection_conv::spectrum_shape(
        {shape.inputs, shape.outputs, shape.kernel, true}, size);
    check(known && size >= shape.kernel && spectrum.size(0) == fitting[0] &&
              spectrum.size(2) == fitting[2],
          op, ": spectrum must be large_conv2d_spectrum's for kernels of weight's shape, got ",
          shape_text(spectrum));
    check(spectrum.scalar_type() == dtype, op, ": spectrum must be ", dtype_text(dtype),
          ", which maps are computed in, got ", dtype_text(spectrum.scalar_type()));
    return size;
  }
};

}  // namespace
}  // namespace vmr::ops

STABLE_TORCH_LIBRARY_FRAGMENT(vmr, library) {
  library.def("large_conv2d(Tensor maps, Tensor weight, Tensor bias, Tensor lengths) -> Tensor");
  library.def("large_conv2d_spectrum(Tensor weight, int frames) -> Tensor");
  library.def(
      "large_conv2d_kept(Tensor maps, Tensor weight, Tensor bias, Tensor lengths, "
      "Tensor spectrum) -> Tensor");
  library.def(
      "large_conv2d_backward(Tensor gradients, Tensor maps, Tensor weight, Tensor lengths, "
      "bool maps_wanted) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(vmr, CPU, library) {
  using vmr::ops::Cpu;
  library.impl("large_conv2d", TORCH_BOX(&vmr::ops::large_conv2d<Cpu>));
  library.impl("large_conv2d_spectrum", TORCH_BOX(&vmr::ops::large_conv2d_spectrum<Cpu>));
  library.impl("large_conv2d_kept", TORCH_BOX(&vmr::ops::large_conv2d_kept<Cpu>));
  library.impl("large_conv2d_backward", TORCH_BOX(&vmr::ops::large_conv2d_backward<Cpu>));
}
