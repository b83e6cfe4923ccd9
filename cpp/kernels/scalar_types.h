// The element types of all kernels, and what each is computed in.
#pragma once

#include <cstdint>

// Marks what the CPU and the CUDA kernels share.
#ifdef __CUDACC__
#define VMR_HOST_DEVICE __host__ __device__
#else
#define VMR_HOST_DEVICE
#endif

namespace vmr::kernels {

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

// The type to compute in: float, or double for double.
template <typename T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};
template <typename T>
using accumulate_t = typename Accumulate<T>::type;

}  // namespace vmr::kernels
