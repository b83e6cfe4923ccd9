// What the CUDA kernels share: elements as floats, sums over a warp, launch sizes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math_constants.h>

#include <algorithm>
#include <cstdint>

#include "kernels/scalar_types.h"

namespace vmr::kernels::device {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ inline float get(const float* from) {
  return *from;
}
__device__ inline double get(const double* from) {
  return *from;
}
__device__ inline float get(const Half* from) {
  return __half2float(*reinterpret_cast<const __half*>(from));
}
__device__ inline float get(const BFloat16* from) {
  return __bfloat162float(*reinterpret_cast<const __nv_bfloat16*>(from));
}

__device__ inline void put(float* to, float value) {
  *to = value;
}
__device__ inline void put(double* to, double value) {
  *to = value;
}
__device__ inline void put(Half* to, float value) {
  *reinterpret_cast<__half*>(to) = __float2half_rn(value);
}
__device__ inline void put(BFloat16* to, float value) {
  *reinterpret_cast<__nv_bfloat16*>(to) = __float2bfloat16_rn(value);
}

// The sum of all lanes' values, in every lane. All lanes must take part.
template <typename Acc>
__device__ Acc warp_sum(Acc value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, offset);
  }
  return value;
}

// This thread's place among all of the grid's, or among all of its warps.
__device__ inline int64_t thread_index() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline int64_t thread_count() {
  return static_cast<int64_t>(gridDim.x) * blockDim.x;
}
__device__ inline int64_t warp_index() {
  return thread_index() / kWarp;
}
__device__ inline int64_t warp_count() {
  return thread_count() / kWarp;
}
__device__ inline int lane_index() {
  return static_cast<int>(threadIdx.x) % kWarp;
}

// Blocks for `count` pieces of work, `per_block` to a block. Kernels stride over what is more.
inline unsigned blocks_for(int64_t count, int64_t per_block) {
  constexpr int64_t kMostBlocks = 1 << 20;
  return static_cast<unsigned>(std::min((count + per_block - 1) / per_block, kMostBlocks));
}

}  // namespace vmr::kernels::device
