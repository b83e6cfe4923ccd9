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

template <typename Acc>
struct Vector {
  typedef Acc type __attribute__((vector_size(kVectorBytes)));
  static constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(Acc));
};

template <typename Acc>
typename Vector<Acc>::type load_vector(const Acc* from) {
  typename Vector<Acc>::type value;
  __builtin_memcpy(&value, from, sizeof(value));
  return value;
}

template <typename Acc>
Acc sum_lanes(typename Vector<Acc>::type value) {
  Acc lanes[Vector<Acc>::kLanes];
  __builtin_memcpy(lanes, &value, sizeof(value));
  for (int width = Vector<Acc>::kLanes / 2; width >= 1; width /= 2) {
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
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

// kRows rows by kVectors vectors, all sums in registers; with kNorms the rows' squared norms too.
template <int kRows, int kVectors, bool kNorms, typename Acc>
void tile(const Acc* const* rows, const Acc* vectors, int64_t padded, Ahead* ahead, Acc* dots,
          int64_t dots_stride, Acc* norms) {
  using V = typename Vector<Acc>::type;
  constexpr int kCacheLine = 64;
  constexpr int kStepLines = kRows * kVectorBytes / kCacheLine;
  constexpr int kLines = kNorms && kVectors == 1 ? kStepLines : (kStepLines + 1) / 2;
  V sums[kRows][kVectors] = {};
  V squares[kRows] = {};
  for (int64_t d = 0; d < padded; d += Vector<Acc>::kLanes) {
    for (int line = 0; line < kLines; ++line) {
      __builtin_prefetch(reinterpret_cast<const void*>(
          ahead->address + static_cast<std::uintptr_t>(line * kCacheLine)));
    }
    ahead->address += ahead->step;
    V other[kVectors];
    for (int v = 0; v < kVectors; ++v) other[v] = load_vector(vectors + v * padded + d);
    for (int r = 0; r < kRows; ++r) {
      const V row = load_vector(rows[r] + d);
      for (int v = 0; v < kVectors; ++v) sums[r][v] += row * other[v];
      if constexpr (kNorms) squares[r] += row * row;
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) dots[r * dots_stride + v] = sum_lanes<Acc>(sums[r][v]);
    if constexpr (kNorms) norms[r] = sum_lanes<Acc>(squares[r]);
  }
}

// The first two vectors go with the norms; then three at a time: 12 sums, 3 vectors and a row are
// the 16 registers that AVX2 has.
template <int kRows, typename Acc>
void row_tile(const Acc* const* rows, const Acc* vectors, int64_t vector_count, int64_t padded,
              std::uintptr_t ahead_address, std::uintptr_t ahead_bytes, Acc* dots, Acc* norms) {
  const int64_t tiles = vector_count == 1 ? 1 : 1 + vector_count / 3;
  const auto steps = static_cast<std::uintptr_t>(tiles * padded / Vector<Acc>::kLanes);
  Ahead ahead = {ahead_address, ahead_bytes / steps};
  int64_t v = vector_count == 1 ? 1 : 2;
  if (v == 1) {
    tile<kRows, 1, true>(rows, vectors, padded, &ahead, dots, vector_count, norms);
  } else {
    tile<kRows, 2, true>(rows, vectors, padded, &ahead, dots, vector_count, norms);
  }
  Acc* const none = nullptr;
  for (; v + 3 <= vector_count; v += 3) {
    tile<kRows, 3, false>(rows, vectors + v * padded, padded, &ahead, dots + v, vector_count, none);
  }
  if (vector_count - v == 2) {
    tile<kRows, 2, false>(rows, vectors + v * padded, padded, &ahead, dots + v, vector_count, none);
  } else if (vector_count - v == 1) {
    tile<kRows, 1, false>(rows, vectors + v * padded, padded, &ahead, dots + v, vector_count, none);
  }
}

}  // namespace

template <typename T>
void row_dots(const RowDots<T>& problem) {
  using Acc = accumulate_t<T>;
  constexpr int64_t kTilesAhead = 4;
  const int64_t padded = (problem.dim + kDimAlignment - 1) / kDimAlignment * kDimAlignment;
  const auto row_bytes = static_cast<std::uintptr_t>(problem.dim) * sizeof(T);
  for (int64_t r = 0; r < problem.row_count;) {
    const bool full = r + kRowTile <= problem.row_count;
    const int64_t count = full ? kRowTile : 1;
    const T* const first = problem.rows + r * problem.dim;
    const Acc* rows[kRowTile];
    for (int64_t i = 0; i < count; ++i) {
      rows[i] = unpack(first + i * problem.dim, problem.dim, padded, problem.scratch + i * padded);
    }
    // An address and no pointer: near the end it lies beyond the rows, where a prefetch does
    // nothing.
    const auto ahead = reinterpret_cast<std::uintptr_t>(first) + kTilesAhead * kRowTile * row_bytes;
    const auto tile_bytes = static_cast<std::uintptr_t>(count) * row_bytes;
    Acc* const dots = problem.dots + r * problem.vector_count;
    Acc* const norms = problem.squared_norms + r;
    if (full) {
      row_tile<kRowTile>(rows, problem.vectors, problem.vector_count, padded, ahead, tile_bytes,
                         dots, norms);
    } else {
      row_tile<1>(rows, problem.vectors, problem.vector_count, padded, ahead, tile_bytes, dots,
                  norms);
    }
    r += count;
  }
}

template void row_dots(const RowDots<float>&);
template void row_dots(const RowDots<double>&);
template void row_dots(const RowDots<Half>&);
template void row_dots(const RowDots<BFloat16>&);

}  // namespace vmr::kernels::VMR_ISA
