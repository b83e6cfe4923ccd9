#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu_dispatch.h"
#include "kernels/detection_conv.h"

namespace vmr::kernels::detection_conv {
namespace {

template <typename S>
using Values = std::vector<S>;

template <typename S>
Values<S> random_values(int64_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal;
  Values<S> values(static_cast<std::size_t>(count));
  for (S& value : values) value = static_cast<S>(normal(engine));
  return values;
}

template <typename S>
std::vector<Stages<S>> variants() {
  std::vector<Stages<S>> found = {baseline::conv_stages<S>()};
#ifdef VMR_X86_64
  if (cpu_isa() != CpuIsa::kBaseline) found.push_back(avx2::conv_stages<S>());
  if (cpu_isa() == CpuIsa::kAvx512) found.push_back(avx512::conv_stages<S>());
#endif
  return found;
}

// In ranges of a few, backwards: nothing may depend on it.
void run_in_pieces(int64_t count, const Body& body) {
  for (int64_t end = count; end > 0; end -= 7) body(std::max<int64_t>(0, end - 7), end);
}

// Calls function(result's index, map's index, weight's index) for each product of a convolution.
template <typename Function>
void for_products(const Shape& shape, const std::vector<int64_t>& lengths,
                  const Function& function) {
  const int64_t half = shape.kernel / 2;
  const auto at = [&](int64_t b, int64_t y, int64_t x, int64_t channel, int64_t channels) {
    return static_cast<std::size_t>(((b * shape.frames + y) * shape.frames + x) * channels +
                                    channel);
  };
  for (int64_t b = 0; b < shape.batch; ++b) {
    const int64_t n = lengths[static_cast<std::size_t>(b)];
    for (int64_t tap = 0; tap < shape.kernel * shape.kernel; ++tap) {
      const int64_t v = tap / shape.kernel;
      const int64_t u = tap % shape.kernel;
      for (int64_t y = std::max<int64_t>(0, half - v); y < std::min(n, n + half - v); ++y) {
        for (int64_t x = std::max<int64_t>(0, half - u); x < std::min(n, n + half - u); ++x) {
          for (int64_t o = 0; o < shape.outputs; ++o) {
            for (int64_t i = 0; i < shape.inputs; ++i) {
              const int64_t weight = (o * shape.inputs + i) * shape.kernel * shape.kernel + tap;
              function(at(b, y, x, o, shape.outputs),
                       at(b, y + v - half, x + u - half, i, shape.inputs),
                       static_cast<std::size_t>(weight));
            }
          }
        }
      }
    }
  }
}

template <typename S>
class ConvolutionTest : public testing::Test {
 protected:
  static constexpr double kTolerance = sizeof(S) == sizeof(double) ? 1e-12 : 3e-6;

  // Everything of one convolution, by all variants, against loops in double.
  static void expect_right(const Shape& shape, const std::vector<int64_t>& lengths) {
    const int64_t points = shape.batch * shape.frames * shape.frames;
    const int64_t taps = shape.kernel * shape.kernel;
    auto maps = random_values<S>(points * shape.inputs, 1);
    auto gradients = random_values<S>(points * shape.outputs, 2);
    auto weights = random_values<S>(shape.outputs * shape.inputs * taps, 3);
    const auto bias = random_values<S>(shape.outputs, 4);
    for (S& value : weights) {
      value /= static_cast<S>(static_cast<double>(shape.kernel) *
                              std::sqrt(static_cast<double>(shape.inputs)));
    }
    for (S& value : gradients) {
      value /= static_cast<S>(std::sqrt(static_cast<double>(points)));
    }
    Values<double> results(gradients.size());
    Values<double> map_gradients(maps.size());
    Values<double> weight_gradients(weights.size());
    Values<double> bias_gradients(bias.size());
    for_each_valid(shape, lengths, [&](bool valid, std::size_t point) {
      for (std::size_t o = 0; o < bias.size(); ++o) {
        const std::size_t at = point * bias.size() + o;
        if (valid) {
          results[at] = bias[o];
          bias_gradients[o] += gradients[at];
        } else {
          gradients[at] = std::numeric_limits<S>::quiet_NaN();
        }
      }
      const auto inputs = static_cast<std::size_t>(shape.inputs);
      for (std::size_t i = 0; !valid && i < inputs; ++i) {
        maps[point * inputs + i] = std::numeric_limits<S>::quiet_NaN();
      }
    });
    for_products(shape, lengths, [&](std::size_t result, std::size_t map, std::size_t weight) {
      results[result] += static_cast<double>(weights[weight]) * maps[map];
      map_gradients[map] += static_cast<double>(weights[weight]) * gradients[result];
      weight_gradients[weight] += static_cast<double>(gradients[result]) * maps[map];
    });

    for (const Stages<S>& stages : variants<S>()) {
      SCOPED_TRACE(std::to_string(stages.lanes) + " lanes");
      const S nan = std::numeric_limits<S>::quiet_NaN();
      Values<S> found(results.size(), nan);
      Forward<S> forward = {shape,   maps.data(),    weights.data(), bias.data(),
                            nullptr, lengths.data(), found.data()};
      convolve(forward, stages, run_in_pieces);
      expect_near(found, results, "results");

      const Kernels kernels = {shape.inputs, shape.outputs, shape.kernel, true};
      int64_t elements = 1;
      for (const int64_t size : spectrum_shape(kernels, shape.size)) elements *= size;
      Values<S> spectrum(static_cast<std::size_t>(elements));
      make_spectrum(kernels, shape.size, weights.data(), spectrum.data(), stages, run_in_pieces);
      found.assign(found.size(), nan);
      forward.weights = nullptr;
      forward.spectrum = spectrum.data();
      convolve(forward, stages, run_in_pieces);
      expect_near(found, results, "results, spectrum kept");

      Values<S> to_maps(maps.size(), nan);
      Values<S> to_weights(weights.size(), nan);
      Values<S> to_bias(bias.size(), nan);
      Backward<S> backward = {shape,          gradients.data(), maps.data(),       weights.data(),
                              lengths.data(), to_maps.data(),   to_weights.data(), to_bias.data()};
      convolve_backward(backward, stages, run_in_pieces);
      expect_near(to_maps, map_gradients, "gradients of maps");
      expect_near(to_weights, weight_gradients, "gradients of weights");
      expect_near(to_bias, bias_gradients, "gradients of the bias");
      to_weights.assign(to_weights.size(), nan);
      backward.map_gradients = nullptr;
      convolve_backward(backward, stages, run_in_pieces);
      expect_near(to_weights, weight_gradients, "gradients of weights alone");
    }
  }

 private:
  template <typename Function>
  static void for_each_valid(const Shape& shape, const std::vector<int64_t>& lengths,
                             const Function& function) {
    for (int64_t point = 0; point < shape.batch * shape.frames * shape.frames; ++point) {
      const int64_t n = lengths[static_cast<std::size_t>(point / shape.frames / shape.frames)];
      const bool valid = point % shape.frames < n && point / shape.frames % shape.frames < n;
      function(valid, static_cast<std::size_t>(point));
    }
  }

  static void expect_near(const Values<S>& found, const Values<double>& wanted, const char* what) {
    double worst = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      const double error = std::abs(static_cast<double>(found[i]) - wanted[i]);
      worst = error <= worst ? worst : error;  // a NaN too
    }
    EXPECT_LT(worst, kTolerance) << what;
  }
};

using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(ConvolutionTest, Types, );

TYPED_TEST(ConvolutionTest, EverySizeAtItsEdges) {
  for (const int64_t size : kSizes) {
    SCOPED_TRACE(size);
    this->expect_right({1, size - 2, 1, 2, 5, size}, {size - 2});  // just fits
    this->expect_right({1, size - 1, 2, 1, 5, size}, {size - 1});  // in tiles
    this->expect_right({2, 3, 1, 1, size - 1, size}, {3, 2});      // the largest kernel
    this->expect_right({2, 3, 1, 1, 1, size}, {3, 1});             // the smallest
  }
}

TYPED_TEST(ConvolutionTest, Channels) {
  for (const int64_t inputs : {1, 3, 8, 17}) {
    for (const int64_t outputs : {1, 5, 16, 24}) {
      SCOPED_TRACE(std::to_string(inputs) + " to " + std::to_string(outputs));
      this->expect_right({3, 7, inputs, outputs, 5, 32}, {7, 4, 6});
    }
  }
}

TYPED_TEST(ConvolutionTest, GroupsOfPairsAndChunks) {
  this->expect_right({1, 5, 1, 1, 3, 32}, {5});
  this->expect_right({11, 4, 1, 3, 3, 32}, {4, 0, 3, 4, 1, 2, 4, 4, 0, 4, 3});
  this->expect_right({11, 4, 3, 1, 3, 32}, {4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4});
  // More than one chunk: many tiles of many channels.
  this->expect_right({2, 60, 9, 17, 11, 32}, {60, 31});
  this->expect_right({1, 0, 2, 2, 3, 32}, {0});
  this->expect_right({2, 3, 2, 2, 3, 32}, {0, 0});
}

TEST(FftSize, HoldsTheMapOrLeavesRoomForTiles) {
  EXPECT_EQ(fft_size(75, 21), 96);
  EXPECT_EQ(fft_size(75, 27), 96);
  EXPECT_EQ(fft_size(75, 3), 0);
  EXPECT_EQ(fft_size(75, 201), 0);
  for (int64_t kernel = 7; kernel < 128; kernel += 2) {
    for (const int64_t frames : {1, 10, 100, 1000}) {
      const int64_t size = fft_size(frames, kernel);
      EXPECT_GT(size, kernel - 1) << frames << " " << kernel;
    }
  }
}

}  // namespace
}  // namespace vmr::kernels::detection_conv
