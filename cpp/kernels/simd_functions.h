// Functions that vectorise, for NAME.simd.cpp files alone: a call of the library's would keep a
// loop over them from that. Everything is in VMR_ISA's namespace and local to a file.
#pragma once

#include "kernels/scalar.h"

namespace vmr::kernels::VMR_ISA {
namespace {

// exp(x) for |x| <= 87, to 2 units in the last place: 2^n exp(r), |r| <= log(2) / 2, by the series.
// The library's made the vertex loss five times slower.
inline float exponential(float x) {
  constexpr float kRounder = 0x1.8p23f;  // added, it leaves the nearest integer in the low bits
  const float shifted = x * 0x1.715476p0f + kRounder;
  const float n = shifted - kRounder;
  const float r =
      x - n * 0x1.62ep-1f - n * 0x1.0bfbe8p-15f;  // log(2) as a sum: n times it is exact
  float sum = 1.0f / 5040;
  sum = sum * r + 1.0f / 720;
  sum = sum * r + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  return sum * float_from_bits((bits_from_float(shifted) << 23) + 0x3f800000u);
}

inline double exponential(double x) {
  return __builtin_exp(x);
}

// exp(x) for x <= 0; 0 below -87, where a float's normal numbers end.
inline float decay(float x) {
  const float e = exponential(x < -87.0f ? -87.0f : x);
  return x < -87.0f ? 0.0f : e;
}
inline double decay(double x) {
  return __builtin_exp(x);
}

inline float sigmoid(float x) {
  const float above = x < -87.0f ? -87.0f : x;
  return 1 / (1 + exponential(above > 87.0f ? -87.0f : -above));
}
inline double sigmoid(double x) {
  return 1 / (1 + __builtin_exp(-x));
}

// Near 0, where 1 - exp(-2 |x|) would cancel out, by the series.
inline float hyperbolic_tangent(float x) {
  const float size = x < 0 ? -x : x;
  const float e = exponential(size > 20.0f ? -40.0f : -2 * size);
  const float far = (1 - e) / (1 + e);
  const float square = x * x;
  float sum = -1382.0f / 155925;
  sum = sum * square + 62.0f / 2835;
  sum = sum * square - 17.0f / 315;
  sum = sum * square + 2.0f / 15;
  sum = sum * square - 1.0f / 3;
  const float near = x + x * (square * sum);
  return size < 0.25f ? near : (x < 0 ? -far : far);
}
inline double hyperbolic_tangent(double x) {
  return __builtin_tanh(x);
}

}  // namespace
}  // namespace vmr::kernels::VMR_ISA
