// What the CUDA kernels of background-aware moment detection share. None of them adds in an order
// that depends on how threads run.
#pragma once

#include "kernels/background_cuda.h"
#include "kernels/cuda_block.cuh"
#include "kernels/cuda_common.cuh"

namespace vmr::kernels::background::cuda {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / device::kWarp;

__device__ inline int64_t row_count(const int64_t* lengths, int64_t video, int64_t frames) {
  return min(max(lengths[video], int64_t{0}), frames);
}

inline unsigned blocks(int64_t count) {
  return device::blocks_for(count, 1);
}
inline unsigned warps(int64_t count) {
  return device::blocks_for(count, kWarps);
}

}  // namespace vmr::kernels::background::cuda
