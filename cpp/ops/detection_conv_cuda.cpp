// The large-kernel 2D convolution on CUDA: torch's own.
#include "ops/cuda.h"
#include "ops/detection_conv.h"

namespace vmr::ops {
namespace {

struct Cuda : CudaDevice {
  using CudaDevice::CudaDevice;

  Tensor convolve(const detection_conv::Shape&, const Tensor& maps, const Tensor& weight,
                  const Tensor& bias, const Tensor& lengths, const Tensor*) const {
    return convolve_directly(maps, weight, bias, lengths);
  }

  Tensor spectrum(const Tensor& weight, int64_t) const {
    return empty_on(weight, {0, 0, 0},
                    weight.scalar_type() == ScalarType::Double ? ScalarType::Double
                                                               : ScalarType::Float);
  }

  std::tuple<Tensor, Tensor, Tensor> convolve_backward(const detection_conv::Shape&,
                                                       const Tensor& gradients, const Tensor& maps,
                                                       const Tensor& weight, const Tensor& lengths,
                                                       bool maps_wanted) const {
    return convolve_backward_directly(gradients, maps, weight, lengths, maps_wanted);
  }
};

}  // namespace
}  // namespace vmr::ops

STABLE_TORCH_LIBRARY_IMPL(vmr, CUDA, library) {
  using vmr::ops::Cuda;
  library.impl("large_conv2d", TORCH_BOX(&vmr::ops::large_conv2d<Cuda>));
  library.impl("large_conv2d_spectrum", TORCH_BOX(&vmr::ops::large_conv2d_spectrum<Cuda>));
  library.impl("large_conv2d_kept", TORCH_BOX(&vmr::ops::large_conv2d_kept<Cuda>));
  library.impl("large_conv2d_backward", TORCH_BOX(&vmr::ops::large_conv2d_backward<Cuda>));
}
