// Compiled once per instruction set, with VMR_ISA naming the namespace. See docs/adding-an-op.md
// for what may be included and defined in such a file.
#include "kernels/background_simd.h"
#include "kernels/simd_functions.h"
#include "kernels/simd_vectors.h"

namespace vmr::kernels::VMR_ISA {
namespace {

template <typename Acc>
using V = typename Vector<Acc>::type;

template <typename Acc>
constexpr int kPairVectors = kPairLanes / Vector<Acc>::kLanes;

// A vector of elements, the computed-in type's as they are.
template <typename T, typename Acc>
V<Acc> load_as(const T* from) {
  if constexpr (__is_same(T, Acc)) {
    return load_vector(from);
  } else {
    Acc values[Vector<Acc>::kLanes];
    unpack<T>(from, Vector<Acc>::kLanes, Vector<Acc>::kLanes, values);
    return load_vector(values);
  }
}

template <typename T>
accumulate_t<T> dot(const T* a, const T* b, int64_t dim) {
  using Acc = accumulate_t<T>;
  constexpr int64_t kLanes = Vector<Acc>::kLanes;
  V<Acc> even{};
  V<Acc> odd{};
  int64_t d = 0;
  for (; d + 2 * kLanes <= dim; d += 2 * kLanes) {
    even += load_as<T, Acc>(a + d) * load_as<T, Acc>(b + d);
    odd += load_as<T, Acc>(a + d + kLanes) * load_as<T, Acc>(b + d + kLanes);
  }
  Acc sum = sum_lanes(even + odd);
  for (; d < dim; ++d) sum += load(a + d) * load(b + d);
  return sum;
}

}  // namespace

template <typename Acc>
void tanh_in_place(Acc* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = hyperbolic_tangent(values[i]);
}

template <typename T>
void paired_dots(const PairedDots<T>& problem) {
  for (int64_t r = 0; r < problem.row_count; ++r) {
    const int64_t at = r * problem.dim;
    problem.dots[r] = dot(problem.a + at, problem.b + at, problem.dim);
  }
}

template <typename Acc>
void matcher_row_gradient(const MatcherRow<Acc>& row) {
  const Acc* const x = row.hidden;
  const Acc* const w = row.weight;
  Acc* const to = row.gradients;
  Acc* const to_weight = row.weight_gradients;
  const Acc factor = row.factor;
  for (int64_t h = 0; h < row.size; ++h) {
    to[h] = factor * w[h] * (1 - x[h] * x[h]);
    to_weight[h] += factor * x[h];
  }
}

template <typename Acc>
double margin_row_sum(const MarginRow<Acc>& row) {
  V<Acc> sums[kPairVectors<Acc>] = {};
  for (int64_t j = 0; j < row.count; j += kPairLanes) {
    for (int v = 0; v < kPairVectors<Acc>; ++v) {
      const V<Acc> error = load_vector(row.background + j + v * Vector<Acc>::kLanes) - row.score;
      sums[v] += error < 0 ? V<Acc>{} : error;  // NaN stays NaN
    }
  }
  double sum = 0;
  for (const V<Acc>& lanes : sums) sum += static_cast<double>(sum_lanes(lanes));
  return sum;
}

template <typename Acc>
Acc margin_row_count(const MarginRow<Acc>& row, Acc* above) {
  V<Acc> sums[kPairVectors<Acc>] = {};
  for (int64_t j = 0; j < row.count; j += kPairLanes) {
    for (int v = 0; v < kPairVectors<Acc>; ++v) {
      const int64_t at = j + v * Vector<Acc>::kLanes;
      const V<Acc> error = load_vector(row.background + at) - row.score;
      const V<Acc> counts = error > 0 ? V<Acc>{} + 1 : V<Acc>{};
      sums[v] += counts;
      store_vector<Acc>(above + at, load_vector(above + at) + counts);
    }
  }
  Acc sum = 0;
  for (const V<Acc>& lanes : sums) sum += sum_lanes(lanes);
  return sum;
}

#define VMR_INSTANTIATE(Acc)                                  \
  template void tanh_in_place(Acc*, int64_t);                 \
  template void matcher_row_gradient(const MatcherRow<Acc>&); \
  template double margin_row_sum(const MarginRow<Acc>&);      \
  template Acc margin_row_count(const MarginRow<Acc>&, Acc*);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
#undef VMR_INSTANTIATE
template void paired_dots(const PairedDots<float>&);
template void paired_dots(const PairedDots<double>&);
template void paired_dots(const PairedDots<Half>&);
template void paired_dots(const PairedDots<BFloat16>&);

}  // namespace vmr::kernels::VMR_ISA
