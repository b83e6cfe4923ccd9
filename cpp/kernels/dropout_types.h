// What the CPU and the CUDA kernels of dropout share. Nothing is drawn for an element: whether it
// is dropped follows from a seed and the element's place, so that the backward knows it again.
//
// Functions are `static`, as NAME.simd.cpp files include them.
#pragma once

#include <cstdint>

#include "kernels/scalar_types.h"

namespace vmr::kernels::dropout {

struct Mask {
  const int64_t* seed;  // one number, where the threshold is above 0
  uint32_t threshold;   // elements whose hash is below it are dropped
  double scale;         // of the others, 1 / (1 - p)
};

// Probability p in [0, 1).
static inline Mask mask_of(const int64_t* seed, double probability) {
  return {seed, static_cast<uint32_t>(probability * 0x1p32), 1 / (1 - probability)};
}

struct Keys {
  uint32_t first;
  uint32_t second;
};

// The finaliser of splitmix64 (Steele et al., OOPSLA 2014): seeds next to each other share nothing.
VMR_HOST_DEVICE static inline Keys keys_of(int64_t seed) {
  uint64_t mixed = static_cast<uint64_t>(seed) + 0x9e3779b97f4a7c15u;
  mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9u;
  mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebu;
  mixed ^= mixed >> 31;
  return {static_cast<uint32_t>(mixed), static_cast<uint32_t>(mixed >> 32)};
}

// A mix of 32 bits as murmur3 ends with, by constants of less bias ("lowbias32", C. Wellons). The
// second key goes between the products, or masks of two seeds were the same at other places. Word
// is uint32_t or a vector of it.
template <typename Word>
VMR_HOST_DEVICE static inline Word hash_of(Keys keys, Word place) {
  Word mixed = place + keys.first;
  mixed = (mixed ^ mixed >> 16) * 0x7feb352du;
  mixed = ((mixed ^ mixed >> 15) + keys.second) * 0x846ca68bu;
  return mixed ^ mixed >> 16;
}

// All below: elements one behind the other.

// y = d(x >= 0 ? x : slope x)
template <typename T>
struct Activation {
  const T* rows;   // x
  const T* slope;  // one number; null is 0, and no product with it
  Mask mask;
  T* results;  // out
};

template <typename T>
struct ActivationGradient {
  Activation<T> inputs;
  const T* output_gradients;
  T* row_gradients;     // out
  double* slope_parts;  // out, a sum for each kPart elements; unused where slope is null
};
constexpr int64_t kPart = 4096;

// rows + d(found)
template <typename T>
struct Residual {
  const T* rows;  // null adds nothing: so the gradient of `found` follows from that of the result
  const T* found;
  Mask mask;
  T* results;  // out
};

}  // namespace vmr::kernels::dropout
