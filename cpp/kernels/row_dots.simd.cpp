// Compiled once per instruction set, with VMR_ISA naming the namespace. See docs/adding-an-op.md
// for what may be included and defined in such a file.
#include "kernels/row_dots.h"

#include "kernels/simd_vectors.h"

namespace vmr::kernels::VMR_ISA {
namespace {

constexpr int kRowTile = 4;
constexpr int kCacheLine = 64;
constexpr int kStepLines = kRowTile * kVectorBytes / kCacheLine;  // what a tile reads in a step

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
template <int kVectors, bool kNorms, int kLines, typename Acc>
void tile(const Acc* const* rows, const Acc* vectors, int64_t padded, Ahead* ahead,
          const Output<Acc>& out) {
  using V = typename Vector<Acc>::type;
  constexpr int kSums = kNorms ? kVectors + 1 : kVectors;  // the last are the squares
  V sums[kSums][kRowTile];
  for (int v = 0; v < kSums; ++v) {
    for (int r = 0; r < kRowTile; ++r) sums[v][r] = V{};
  }
  std::uintptr_t address = ahead->address;
  for (int64_t d = 0; d < padded; d += Vector<Acc>::kLanes) {
    for (int line = 0; line < kLines; ++line) {
      __builtin_prefetch(
          reinterpret_cast<const void*>(address + static_cast<std::uintptr_t>(line * kCacheLine)));
    }
    address += ahead->step;
    V other[kVectors];
    for (int v = 0; v < kVectors; ++v) other[v] = load_vector(vectors + v * padded + d);
    for (int r = 0; r < kRowTile; ++r) {
      const V row = load_vector(rows[r] + d);
      for (int v = 0; v < kVectors; ++v) sums[v][r] += row * other[v];
      if constexpr (kNorms) sums[kVectors][r] += row * row;
    }
  }
  ahead->address = address;
  for (int v = 0; v < kSums; ++v) {
    Acc four[kRowTile];
    sum_lanes(sums[v], four);
    Acc* const to = v < kVectors ? out.dots + v * out.dots_stride : out.norms;
    for (int64_t r = 0; r < out.row_count; ++r) to[r] = four[r];
  }
}

// The first two vectors go with the norms, if these are wanted; then three at a time: 12 sums, 3
// vectors and a row are the 16 registers that AVX2 has.
int64_t tile_count(int64_t vector_count, bool norms) {
  const int64_t left = norms && vector_count > 1 ? vector_count - 2 : vector_count;
  return (norms && vector_count > 1 ? 1 : 0) + (left + 2) / 3;
}

template <int kLines, typename Acc>
void row_tile(const Acc* const* rows, const Acc* vectors, int64_t vector_count, int64_t padded,
              Ahead ahead, Output<Acc> out) {
  if (vector_count == 1 && out.norms != nullptr) {
    tile<1, true, kLines>(rows, vectors, padded, &ahead, out);
    return;
  }
  int64_t step = 0;
  if (out.norms != nullptr) {
    tile<2, true, kLines>(rows, vectors, padded, &ahead, out);
    step = 2;
  }
  for (int64_t v = step; v < vector_count; v += 3) {
    vectors += step * padded;
    out.dots += step * out.dots_stride;
    step = 3;
    if (vector_count - v == 1) {
      tile<1, false, kLines>(rows, vectors, padded, &ahead, out);
    } else if (vector_count - v == 2) {
      tile<2, false, kLines>(rows, vectors, padded, &ahead, out);
    } else {
      tile<3, false, kLines>(rows, vectors, padded, &ahead, out);
    }
  }
}

}  // namespace

template <typename T>
void row_dots(const RowDots<T>& problem) {
  using Acc = accumulate_t<T>;
  const int64_t padded = (problem.dim + kDimAlignment - 1) / kDimAlignment * kDimAlignment;
  const auto row_bytes = static_cast<std::uintptr_t>(problem.dim) * sizeof(T);
  const int64_t tiles = tile_count(problem.vector_count, problem.squared_norms != nullptr);
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
    const auto run = tiles == 1 ? &row_tile<kStepLines, Acc> : &row_tile<(kStepLines + 1) / 2, Acc>;
    run(rows, problem.vectors, problem.vector_count, padded, ahead,
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
