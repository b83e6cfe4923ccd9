// Elements of the CPU kernels: half and bfloat16 are loaded into float, computed on and accumulated
// in float, and rounded to nearest even when stored.
//
// Everything here is `static`: NAME.simd.cpp files include this header, and an inline function with
// external linkage that was compiled with AVX could be the one that the linker keeps for all.
#pragma once

#include <cstdint>

#include "kernels/scalar_types.h"

namespace vmr::kernels {

static inline float float_from_bits(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

static inline uint32_t bits_from_float(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return bits;
}

static inline float load(const float* from) {
  return *from;
}
static inline double load(const double* from) {
  return *from;
}
static inline float load(const BFloat16* from) {
  return float_from_bits(static_cast<uint32_t>(from->bits) << 16);
}
static inline float load(const Half* from) {
  const uint32_t half = from->bits;
  const uint32_t magnitude = (half & 0x7fffu) << 13;
  // 2^112 moves the exponent's bias from 15 to 127, and normalises a subnormal half on the way.
  const float finite = float_from_bits(magnitude) * 0x1p112f;
  const bool special = (half & 0x7c00u) == 0x7c00u;
  const uint32_t bits = special ? (magnitude | 0x7f800000u) : bits_from_float(finite);
  return float_from_bits(bits | (half & 0x8000u) << 16);
}

static inline void store(float* to, float value) {
  *to = value;
}
static inline void store(double* to, double value) {
  *to = value;
}
static inline void store(BFloat16* to, float value) {
  const uint32_t bits = bits_from_float(value);
  const uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1u);
  to->bits = static_cast<uint16_t>(value != value ? 0x7fc0u : rounded >> 16);
}
static inline void store(Half* to, float value) {
  const uint32_t bits = bits_from_float(value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;  // NaN
  } else if (magnitude >= 0x477ff000u) {
    half = 0x7c00u;  // 65520 and above round to infinity
  } else if (magnitude < 0x38800000u) {
    // Below the smallest normal half: adding 0.5 leaves multiples of 2^-24, rounded, in the low
    // bits.
    half = bits_from_float(float_from_bits(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  }
  to->bits = static_cast<uint16_t>(sign | half);
}

}  // namespace vmr::kernels
