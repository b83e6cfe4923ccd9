// The torch-free module: what has to start fast.

#include <pybind11/pybind11.h>

#include <string>

#include "bindings/bindings.h"
#include "kernels/cpu_dispatch.h"
#include "kernels/detection_conv.h"

namespace py = pybind11;

namespace {

// What this build was made of and what it chose on this machine; `vmr doctor` prints it.
py::dict build_config() {
  py::dict config;
  config["version"] = VMR_VERSION;
  config["build_type"] = VMR_BUILD_TYPE;
  config["compiler"] = "g++ " __VERSION__;
  config["built_with_torch"] = VMR_TORCH_VERSION;
  config["opencv"] = VMR_OPENCV_VERSION;
  config["cuda"] = VMR_CUDA_VERSION;
  config["cuda_architectures"] = VMR_CUDA_ARCHITECTURES;
  config["cpu_isa"] = std::string(vmr::kernels::cpu_isa_name());
  return config;
}

}  // namespace

PYBIND11_MODULE(_core, module) {
  module.doc() = "The torch-free part of vmr's C++ core.";
  module.def(
      "build_config", &build_config,
      "What this build was made of (empty where a part is absent) and the instruction set that "
      "its kernels use here.");
  module.def("convolution_size", &vmr::kernels::detection_conv::fft_size, py::arg("frames"),
             py::arg("kernel"),
             "The FFT size that a convolution of maps of up to `frames` points an axis takes; 0 "
             "where it goes the direct way.");
  vmr::bindings::bind_metrics(module);
}
