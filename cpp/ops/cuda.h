// What every stem's CUDA device has. The kernels are enqueued on PyTorch's current stream.
#pragma once

#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "ops/common.h"

namespace vmr::ops {

struct CudaDevice {
  struct Guard {
    explicit Guard(const Tensor& tensor) : guard(tensor.get_device_index()) {}
    torch::stable::accelerator::DeviceGuard guard;
  };

  explicit CudaDevice(const Tensor& tensor) {
    void* current = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &current));
    stream = static_cast<cudaStream_t>(current);
  }

  // Values are not looked at here, which would wait for the GPU; the kernels do not trust them.
  static void check_lengths(const char*, const Tensor&, int64_t, const char* = "",
                            const char* = "") {}

  static void launched(cudaError_t status) { STD_CUDA_CHECK(status); }

  cudaStream_t stream;
};

}  // namespace vmr::ops
