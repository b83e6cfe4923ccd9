#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/dropout.h"
#include "kernels/dropout_simd.h"
#include "kernels/scalar.h"

namespace vmr::kernels::dropout {
namespace {

template <typename T>
struct Variant {
  void (*activate)(const Activation<T>&, int64_t, int64_t);
  void (*activate_gradient)(const ActivationGradient<T>&, int64_t, int64_t);
  void (*add_dropped)(const Residual<T>&, int64_t, int64_t);
};

// Every compiled variant that this CPU can run.
template <typename T>
std::vector<Variant<T>> variants() {
  std::vector<Variant<T>> found = {
      {&baseline::activate<T>, &baseline::activate_gradient<T>, &baseline::add_dropped<T>}};
#ifdef VMR_X86_64
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c")) {
    found.push_back({&avx2::activate<T>, &avx2::activate_gradient<T>, &avx2::add_dropped<T>});
  }
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    found.push_back({&avx512::activate<T>, &avx512::activate_gradient<T>, &avx512::add_dropped<T>});
  }
#endif
  return found;
}

// One element written like the equation.
double after_dropout(double value, const Mask& mask, int64_t place) {
  if (mask.threshold == 0) return value;
  const uint32_t hash = hash_of(keys_of(*mask.seed), static_cast<uint32_t>(place));
  return hash < mask.threshold ? 0 : value * mask.scale;
}

// Sizes about those of vectors, blocks and parts.
const std::vector<int64_t> kCounts = {0, 1, 3, 15, 16, 17, 255, 256, 257, 4095, 4096, 4099, 9000};

template <typename T>
class Dropout : public testing::Test {
 protected:
  static constexpr double kTolerance = sizeof(T) == 8 ? 1e-12 : sizeof(T) == 4 ? 1e-6 : 1e-2;

  static std::vector<T> draw(int64_t count, double frequency) {
    std::vector<T> found(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < found.size(); ++i) {
      store(&found[i], static_cast<accumulate_t<T>>(std::sin(frequency * static_cast<double>(i))));
    }
    return found;
  }
  static double at(const std::vector<T>& values, int64_t i) {
    return static_cast<double>(load(&values[static_cast<std::size_t>(i)]));
  }
};

using Types = testing::Types<float, double, Half, BFloat16>;
TYPED_TEST_SUITE(Dropout, Types);

TYPED_TEST(Dropout, EveryVariantDoesWhatTheEquationsSay) {
  using T = TypeParam;
  const int64_t seed = -77;
  const std::vector<T> slope = {this->draw(3, 0.4)[2]};
  const double factor = this->at(slope, 0);
  for (const int64_t count : kCounts) {
    const std::vector<T> rows = this->draw(count, 1.7);
    const std::vector<T> others = this->draw(count, 2.9);
    for (const Variant<T>& variant : variants<T>()) {
      for (const double probability : {0.0, 0.3}) {
        const Mask mask = mask_of(&seed, probability);
        for (const T* const learned : {slope.data(), static_cast<const T*>(nullptr)}) {
          const double below = learned == nullptr ? 0 : factor;
          std::vector<T> results(rows.size());
          std::vector<T> gradients(rows.size());
          std::vector<double> parts(static_cast<std::size_t>(parts_of(count)), NAN);
          const Activation<T> problem = {rows.data(), learned, mask, results.data()};
          variant.activate(problem, 0, count);
          variant.activate_gradient({problem, others.data(), gradients.data(), parts.data()}, 0,
                                    count);
          double slope_gradient = 0;
          double summed = 1;
          for (int64_t i = 0; i < count; ++i) {
            const double x = this->at(rows, i);
            const double active = x >= 0 ? x : below * x;
            const double kept = after_dropout(this->at(others, i), mask, i);
            EXPECT_NEAR(this->at(results, i), after_dropout(active, mask, i), this->kTolerance);
            EXPECT_NEAR(this->at(gradients, i), x > 0 ? kept : below * kept, this->kTolerance);
            slope_gradient += x > 0 ? 0 : kept * x;
            summed += std::abs(kept * x);
          }
          if (learned != nullptr) {
            T sum{};
            sum_parts(parts.data(), parts_of(count), &sum);
            EXPECT_NEAR(static_cast<double>(load(&sum)), slope_gradient, this->kTolerance * summed);
          }
        }
        for (const T* const added : {rows.data(), static_cast<const T*>(nullptr)}) {
          std::vector<T> results(rows.size());
          variant.add_dropped({added, others.data(), mask, results.data()}, 0, count);
          for (int64_t i = 0; i < count; ++i) {
            const double kept = after_dropout(this->at(others, i), mask, i);
            const double sum = (added == nullptr ? 0 : this->at(rows, i)) + kept;
            EXPECT_NEAR(this->at(results, i), sum, 2 * this->kTolerance);
          }
        }
      }
    }
  }
}

TYPED_TEST(Dropout, RangesOfPartsMakeTheWhole) {
  using T = TypeParam;
  const int64_t seed = 5;
  const int64_t count = 2 * kPart + 100;
  const std::vector<T> rows = this->draw(count, 0.3);
  std::vector<T> whole(rows.size());
  std::vector<T> shared(rows.size());
  const Mask mask = mask_of(&seed, 0.5);
  activate<T>({rows.data(), nullptr, mask, whole.data()}, count, 0, 3);
  for (const int64_t part : {2, 0, 1}) {
    activate<T>({rows.data(), nullptr, mask, shared.data()}, count, part, part + 1);
  }
  for (int64_t i = 0; i < count; ++i) EXPECT_EQ(this->at(whole, i), this->at(shared, i));
}

TEST(DropoutMask, TheKeysAreThoseOfSplitmix64) {
  // The first two numbers that the generator gives from the seed 1234567.
  const Keys first = keys_of(1234567);
  EXPECT_EQ((static_cast<uint64_t>(first.second) << 32 | first.first), 6457827717110365317u);
  const Keys second = keys_of(static_cast<int64_t>(1234567 + 0x9e3779b97f4a7c15u));
  EXPECT_EQ((static_cast<uint64_t>(second.second) << 32 | second.first), 3203168211198807973u);
}

TEST(DropoutMask, AProbabilityJustBelowOneIsNoOverflow) {
  EXPECT_EQ(mask_of(nullptr, std::nextafter(1.0, 0.0)).threshold, 0xffffffffu);
  EXPECT_EQ(mask_of(nullptr, 0).threshold, 0u);
}

}  // namespace
}  // namespace vmr::kernels::dropout
