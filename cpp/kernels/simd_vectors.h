// What the files that are compiled once per instruction set share: vectors as wide as the
// registers. For NAME.simd.cpp files alone; everything is in VMR_ISA's namespace and local to a
// file.
#pragma once

#include "kernels/scalar.h"

#ifdef __F16C__
#include <immintrin.h>
#endif

namespace vmr::kernels::VMR_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <typename Acc, int kBytes = kVectorBytes>
struct Vector {
  typedef Acc type __attribute__((vector_size(kBytes)));
  static constexpr int kLanes = kBytes / static_cast<int>(sizeof(Acc));
};

template <typename Acc>
typename Vector<Acc>::type load_vector(const Acc* from) {
  typename Vector<Acc>::type value;
  __builtin_memcpy(&value, from, sizeof(value));
  return value;
}

template <typename Acc>
void store_vector(Acc* to, typename Vector<Acc>::type value) {
  __builtin_memcpy(to, &value, sizeof(value));
}

// Sums of lanes: halves are added down to 16 bytes, and these as (x0 + x2) + (x1 + x3) or x0 + x1.
template <typename Acc, int kBytes = kVectorBytes>
typename Vector<Acc, 16>::type sum_halves(typename Vector<Acc, kBytes>::type value) {
  if constexpr (kBytes == 16) {
    return value;
  } else {
    typename Vector<Acc, kBytes / 2>::type halves[2];
    __builtin_memcpy(halves, &value, sizeof(value));
    return sum_halves<Acc, kBytes / 2>(halves[0] + halves[1]);
  }
}

inline float sum_lanes(Vector<float>::type value) {
  const Vector<float, 16>::type x = sum_halves<float>(value);
  return (x[0] + x[2]) + (x[1] + x[3]);
}
inline double sum_lanes(Vector<double>::type value) {
  const Vector<double, 16>::type x = sum_halves<double>(value);
  return x[0] + x[1];
}

// The same sums of four vectors at once: one by one they took a third of all time.
inline void sum_lanes(const Vector<float>::type* values, float* sums) {
  using Four = Vector<float, 16>::type;
  const Four a = sum_halves<float>(values[0]);
  const Four b = sum_halves<float>(values[1]);
  const Four c = sum_halves<float>(values[2]);
  const Four d = sum_halves<float>(values[3]);
  const Four ab =
      __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Four cd =
      __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
  const Four all =
      __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
  __builtin_memcpy(sums, &all, sizeof(all));
}
inline void sum_lanes(const Vector<double>::type* values, double* sums) {
  for (int i = 0; i < 4; ++i) sums[i] = sum_lanes(values[i]);
}

// A row as `padded` accumulator elements: in place where it already is that, else copied to
// `scratch`.
template <typename T, typename Acc>
const Acc* unpack(const T* row, int64_t dim, int64_t padded, Acc* scratch) {
  int64_t d = 0;
#ifdef __F16C__
  if constexpr (__is_same(T, Half)) {
    for (; d + 8 <= dim; d += 8) {
      const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + d));
      _mm256_storeu_ps(scratch + d, _mm256_cvtph_ps(halves));
    }
  }
#endif
  for (; d < dim; ++d) scratch[d] = load(row + d);
  for (; d < padded; ++d) scratch[d] = 0;
  return scratch;
}
template <typename Acc>
const Acc* unpack(const Acc* row, int64_t dim, int64_t padded, Acc* scratch) {
  if (dim == padded) return row;
  __builtin_memcpy(scratch, row, static_cast<std::size_t>(dim) * sizeof(Acc));
  for (int64_t d = dim; d < padded; ++d) scratch[d] = 0;
  return scratch;
}

}  // namespace
}  // namespace vmr::kernels::VMR_ISA
