// The exact large-kernel 2D convolution by FFT: its choice of a size, and the order of its stages
// (detection_conv_simd.h). All maps are [B, N, N, channels], of which sample b's [:n, :n] with n of
// lengths [B] is read and everything is written: zeros outside it. S is float or double.
//
// With half = kernel / 2, a circle of n + half points holds a map: what wraps around it reaches
// only outputs that nobody wants. Longer maps go in tiles, each of which makes size - 2 half
// outputs an axis.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/detection_conv_simd.h"

namespace vmr::kernels::detection_conv {

struct Shape {
  int64_t batch;
  int64_t frames;   // N
  int64_t inputs;   // channels
  int64_t outputs;
  int64_t kernel;
  int64_t size;  // of the FFT, one of kSizes and at least the kernel's
};

constexpr int64_t kSizes[] = {32, 48, 64, 96, 128};

// The FFT size for maps of N up to `frames`, or 0 where the direct way is as fast.
int64_t fft_size(int64_t frames, int64_t kernel);

// Elements of a spectrum, whatever the instruction set: [size / 2 + 1, size, spectrum_row].
std::vector<int64_t> spectrum_shape(const Kernels& kernels, int64_t size);

// run(count, body) calls body(begin, end) for ranges that make up [0, count), in any order and on
// any thread. What the body computes for an index does not depend on them.
using Body = std::function<void(int64_t, int64_t)>;
using Run = std::function<void(int64_t, const Body&)>;

template <typename S>
void make_spectrum(const Kernels& kernels, int64_t size, const S* weights, S* spectrum,
                   const Stages<S>& stages, const Run& run);

template <typename S>
struct Forward {
  Shape shape;
  const S* maps;
  const S* weights;   // [outputs, inputs, kernel, kernel]; not read where there is a spectrum
  const S* bias;      // [outputs]
  const S* spectrum;  // of the shape's size, or null
  const int64_t* lengths;
  S* results;
};
template <typename S>
void convolve(const Forward<S>& problem, const Stages<S>& stages, const Run& run);

template <typename S>
struct Backward {
  Shape shape;
  const S* gradients;  // of the results
  const S* maps;
  const S* weights;
  const int64_t* lengths;
  S* map_gradients;  // or null
  S* weight_gradients;
  S* bias_gradients;
};
template <typename S>
void convolve_backward(const Backward<S>& problem, const Stages<S>& stages, const Run& run);

}  // namespace vmr::kernels::detection_conv
