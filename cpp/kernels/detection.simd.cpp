// Compiled once per instruction set, with VMR_ISA naming the namespace. See docs/adding-an-op.md
// for what may be included and defined in such a file.
#include "kernels/detection_simd.h"
#include "kernels/simd_functions.h"

namespace vmr::kernels::VMR_ISA {
namespace {

constexpr int64_t kBlock = 256;
constexpr int kLanes = 16;

// P = 1 / (1 + e) and its derivative e P^2, or the score itself. NaN stays NaN.
template <typename Acc>
struct Prediction {
  Acc value;
  Acc slope;
};

template <bool sigmoid, typename Acc>
inline Prediction<Acc> predict(Acc score) {
  if constexpr (!sigmoid) {
    return {score, Acc(1)};
  } else {
    constexpr Acc kMost = sizeof(Acc) == sizeof(double) ? Acc(600) : Acc(80);
    const Acc above = score < -kMost ? -kMost : score;
    const Acc e = exponential(above > kMost ? -kMost : -above);
    const Acc value = 1 / (1 + e);
    return {value, e * value * value};
  }
}

template <bool sigmoid, typename T>
double row_error(const VertexRow<T>& row) {
  using Acc = accumulate_t<T>;
  double total = 0;
  for (int64_t first = 0; first < row.count; first += kBlock) {
    const int64_t count = row.count - first < kBlock ? row.count - first : kBlock;
    const T* const scores = row.scores + first;
    const Acc* const truth = row.truth + first;
    Acc squares[kBlock];
    for (int64_t j = 0; j < count; ++j) {
      const Acc error = predict<sigmoid>(load(scores + j)).value - truth[j];
      squares[j] = error * error;
    }
    const int64_t padded = (count + kLanes - 1) / kLanes * kLanes;
    for (int64_t j = count; j < padded; ++j) squares[j] = 0;
    Acc lanes[kLanes] = {};
    for (int64_t j = 0; j < padded; j += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += squares[j + lane];
    }
    for (const Acc lane : lanes) total += static_cast<double>(lane);
  }
  return total;
}

template <bool sigmoid, typename T>
void row_gradients(const VertexRow<T>& row, accumulate_t<T> factor, T* gradients) {
  using Acc = accumulate_t<T>;
  for (int64_t first = 0; first < row.count; first += kBlock) {
    const int64_t count = row.count - first < kBlock ? row.count - first : kBlock;
    const T* const scores = row.scores + first;
    const Acc* const truth = row.truth + first;
    Acc values[kBlock];
    for (int64_t j = 0; j < count; ++j) {
      const Prediction<Acc> found = predict<sigmoid>(load(scores + j));
      values[j] = factor * 2 * (found.value - truth[j]) * found.slope;
    }
    for (int64_t j = 0; j < count; ++j) store(gradients + first + j, values[j]);
  }
}

}  // namespace

template <typename T>
double vertex_row_error(const VertexRow<T>& row) {
  return row.sigmoid ? row_error<true>(row) : row_error<false>(row);
}

template <typename T>
void vertex_row_gradients(const VertexRow<T>& row, accumulate_t<T> factor, T* gradients) {
  if (row.sigmoid) {
    row_gradients<true>(row, factor, gradients);
  } else {
    row_gradients<false>(row, factor, gradients);
  }
}

#define VMR_INSTANTIATE(T)                               \
  template double vertex_row_error(const VertexRow<T>&); \
  template void vertex_row_gradients(const VertexRow<T>&, accumulate_t<T>, T*);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::VMR_ISA
