// What every stem's CPU device has: the checks of values, which on CUDA would have to wait for the
// GPU.
#pragma once

#include "kernels/cpu_dispatch.h"
#include "ops/common.h"

namespace vmr::ops {

struct CpuDevice {
  struct Guard {
    explicit Guard(const Tensor&) {}
  };
  // Settles on the instruction set here: an error in a worker thread would lose its message.
  explicit CpuDevice(const Tensor&) { kernels::cpu_isa(); }

  static void check_lengths(const char* op, const Tensor& lengths, int64_t most,
                            const char* name = "lengths", const char* whose = "query") {
    const Tensor row = as_contiguous(lengths);
    for (int64_t q = 0; q < row.numel(); ++q) {
      const int64_t length = in<int64_t>(row)[q];
      check(length >= 0 && length <= most, op, ": ", name, " must be between 0 and ", most,
            ", got ", length, " at ", whose, " ", q);
    }
  }
};

}  // namespace vmr::ops
