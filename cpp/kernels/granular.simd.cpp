// Compiled once per instruction set, with VMR_ISA naming the namespace. See docs/adding-an-op.md
// for what may be included and defined in such a file.
#include "kernels/granular_simd.h"

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
constexpr int kRowTile = 4;

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

// Where the memory that a later tile reads lies, and how much of it to ask for at each step. Spread
// over the whole of a tile's work, the requests cost next to nothing; left to the hardware, the
// pass over captions that are not in the cache took half as long again.
struct Ahead {
  std::uintptr_t address;
  std::uintptr_t step;
};

// Where a tile's results go.
template <typename Acc>
struct Output {
  Acc* dots;
  int64_t dots_stride;
  Acc* norms;
  int64_t row_count;  // of the tile's rows, those that are wanted
};

// kRowTile rows by kVectors vectors, all sums in registers; with kNorms the squared norms too.
template <int kVectors, bool kNorms, typename Acc>
void tile(const Acc* const* rows, const Acc* vectors, int64_t padded, Ahead* ahead,
          const Output<Acc>& out) {
  using V = typename Vector<Acc>::type;
  constexpr int kCacheLine = 64;
  constexpr int kStepLines = kRowTile * kVectorBytes / kCacheLine;
  constexpr int kLines = kVectors == 1 ? kStepLines : (kStepLines + 1) / 2;
  constexpr int kSums = kNorms ? kVectors + 1 : kVectors;  // the last are the squares
  V sums[kSums][kRowTile] = {};
  for (int64_t d = 0; d < padded; d += Vector<Acc>::kLanes) {
    for (int line = 0; line < kLines; ++line) {
      __builtin_prefetch(reinterpret_cast<const void*>(
          ahead->address + static_cast<std::uintptr_t>(line * kCacheLine)));
    }
    ahead->address += ahead->step;
    V other[kVectors];
    for (int v = 0; v < kVectors; ++v) other[v] = load_vector(vectors + v * padded + d);
    for (int r = 0; r < kRowTile; ++r) {
      const V row = load_vector(rows[r] + d);
      for (int v = 0; v < kVectors; ++v) sums[v][r] += row * other[v];
      if constexpr (kNorms) sums[kVectors][r] += row * row;
    }
  }
  for (int v = 0; v < kSums; ++v) {
    Acc four[kRowTile];
    sum_lanes(sums[v], four);
    Acc* const to = v < kVectors ? out.dots + v * out.dots_stride : out.norms;
    for (int64_t r = 0; r < out.row_count; ++r) to[r] = four[r];
  }
}

// The first two vectors go with the norms; then three at a time: 12 sums, 3 vectors and a row are
// the 16 registers that AVX2 has.
template <typename Acc>
void row_tile(const Acc* const* rows, const Acc* vectors, int64_t vector_count, int64_t padded,
              Ahead ahead, Output<Acc> out) {
  if (vector_count == 1) {
    if (out.norms == nullptr) {
      tile<1, false>(rows, vectors, padded, &ahead, out);
    } else {
      tile<1, true>(rows, vectors, padded, &ahead, out);
    }
    return;
  }
  tile<2, true>(rows, vectors, padded, &ahead, out);
  for (int64_t v = 2; v < vector_count; v += 3) {
    vectors += (v == 2 ? 2 : 3) * padded;
    out.dots += (v == 2 ? 2 : 3) * out.dots_stride;
    if (vector_count - v == 1) {
      tile<1, false>(rows, vectors, padded, &ahead, out);
    } else if (vector_count - v == 2) {
      tile<2, false>(rows, vectors, padded, &ahead, out);
    } else {
      tile<3, false>(rows, vectors, padded, &ahead, out);
    }
  }
}

}  // namespace

template <typename T>
void row_dots(const RowDots<T>& problem) {
  using Acc = accumulate_t<T>;
  const int64_t padded = (problem.dim + kDimAlignment - 1) / kDimAlignment * kDimAlignment;
  const auto row_bytes = static_cast<std::uintptr_t>(problem.dim) * sizeof(T);
  const int64_t tiles = problem.vector_count == 1 ? 1 : 1 + problem.vector_count / 3;
  const auto steps = static_cast<std::uintptr_t>(tiles * padded / Vector<Acc>::kLanes);
  for (int64_t first = 0; first < problem.row_count; first += kRowTile) {
    const int64_t left = problem.row_count - first;
    const Acc* rows[kRowTile];
    for (int64_t i = 0; i < kRowTile; ++i) {
      if (i >= left) {  // the last tile repeats its last row
        rows[i] = rows[i - 1];
        continue;
      }
      const int64_t row = problem.index == nullptr ? first + i : problem.index[first + i];
      rows[i] = unpack(problem.rows + row * problem.dim, problem.dim, padded,
                       problem.scratch + i * padded);
    }
    const Ahead ahead = {reinterpret_cast<std::uintptr_t>(problem.ahead) +
                             static_cast<std::uintptr_t>(first) * row_bytes,
                         kRowTile * row_bytes / steps};
    row_tile<Acc>(rows, problem.vectors, problem.vector_count, padded, ahead,
                  {problem.dots + first, problem.dots_stride,
                   problem.squared_norms == nullptr ? nullptr : problem.squared_norms + first,
                   left < kRowTile ? left : kRowTile});
  }
}

template void row_dots(const RowDots<float>&);
template void row_dots(const RowDots<double>&);
template void row_dots(const RowDots<Half>&);
template void row_dots(const RowDots<BFloat16>&);

}  // namespace vmr::kernels::VMR_ISA
