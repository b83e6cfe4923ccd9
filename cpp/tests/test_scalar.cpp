#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/scalar.h"

namespace vmr::kernels {
namespace {

template <typename T>
T stored(float value) {
  T to;
  store(&to, value);
  return to;
}

// Half and bfloat16 by arithmetic instead of bits.
double value_of(Half half) {
  const int exponent = half.bits >> 10 & 31;
  const int fraction = half.bits & 1023;
  const double sign = half.bits >> 15 != 0 ? -1 : 1;
  if (exponent == 31) return fraction == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

TEST(Half, EveryValueIsLoadedAndStoredExactly) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const Half half = {static_cast<uint16_t>(bits)};
    const float loaded = load(&half);
    if (std::isnan(value_of(half))) {
      EXPECT_TRUE(std::isnan(loaded)) << bits;
      EXPECT_TRUE(std::isnan(value_of(stored<Half>(loaded)))) << bits;
    } else {
      EXPECT_EQ(loaded, value_of(half)) << bits;
      EXPECT_EQ(stored<Half>(loaded).bits, bits);
    }
  }
}

TEST(Half, RoundsToNearestEven) {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const Half low = {static_cast<uint16_t>(bits)};
    const Half high = {static_cast<uint16_t>(bits + 1)};
    const float middle = (load(&low) + load(&high)) / 2;
    EXPECT_EQ(stored<Half>(middle).bits, bits % 2 == 0 ? bits : bits + 1);
    EXPECT_EQ(stored<Half>(std::nextafter(middle, 0.0f)).bits, bits);
    EXPECT_EQ(stored<Half>(std::nextafter(middle, INFINITY)).bits, bits + 1);
  }
  EXPECT_EQ(stored<Half>(65519.0f).bits, 0x7bff);
  EXPECT_EQ(stored<Half>(65520.0f).bits, 0x7c00);
  EXPECT_EQ(stored<Half>(-1e30f).bits, 0xfc00);
}

TEST(BFloat16, EveryValueIsLoadedAndStoredExactly) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const BFloat16 value = {static_cast<uint16_t>(bits)};
    const float loaded = load(&value);
    if (std::isnan(loaded)) {
      EXPECT_EQ(stored<BFloat16>(loaded).bits & 0x7fc0, 0x7fc0) << bits;
    } else {
      EXPECT_EQ(stored<BFloat16>(loaded).bits, bits);
    }
  }
}

TEST(BFloat16, RoundsToNearestEven) {
  EXPECT_EQ(stored<BFloat16>(1.0f + 0x1p-8f).bits, 0x3f80);
  EXPECT_EQ(stored<BFloat16>(1.0f + 0x3p-8f).bits, 0x3f82);
  EXPECT_EQ(stored<BFloat16>(std::numeric_limits<float>::max()).bits, 0x7f80);
}

}  // namespace
}  // namespace vmr::kernels
