// What the CPU kernels of the feature alignment share: a video's frames against a few vectors.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/alignment_simd.h"
#include "kernels/cpu_dispatch.h"

namespace vmr::kernels::alignment {

constexpr int64_t kRowsAhead = 8;  // how far ahead frames are fetched

inline std::size_t size(int64_t count) {
  return static_cast<std::size_t>(count);
}

// A vector as `padded` accumulator elements.
template <typename T, typename Acc>
void widen(const T* from, int64_t dim, int64_t padded, Acc* to) {
  for (int64_t d = 0; d < dim; ++d) to[d] = load(from + d);
  std::fill(to + dim, to + padded, Acc(0));
}

// Dot products of consecutive frames with a few vectors: see RowDots.
template <typename T>
struct FrameDots {
  using Acc = accumulate_t<T>;
  int64_t dim;
  int64_t padded;
  std::vector<Acc> scratch;
  std::vector<Acc> vectors;  // [.., padded]

  FrameDots(int64_t d, int64_t most_vectors)
      : dim(d),
        padded(padded_size(d)),
        scratch(size(4 * padded)),
        vectors(size(most_vectors * padded)) {}

  void set(int64_t place, const T* vector) {
    widen(vector, dim, padded, vectors.data() + place * padded);
  }
  void run(const T* rows, int64_t count, int64_t vector_count, Acc* dots, int64_t stride,
           Acc* squared_norms) {
    VMR_SELECT_ISA(row_dots<T>)
    ({rows, nullptr, rows + kRowsAhead * dim, vectors.data(), count, vector_count, dim,
      scratch.data(), dots, stride, squared_norms});
  }
};

// Sums of consecutive frames with a few sets of weights: see RowSums.
template <typename T>
struct FrameSums {
  using Acc = accumulate_t<T>;
  int64_t dim;
  int64_t padded;
  std::vector<Acc> scratch;
  std::vector<Acc> sums;  // [3, padded]

  explicit FrameSums(int64_t d)
      : dim(d), padded(padded_size(d)), scratch(size(8 * padded)), sums(size(3 * padded)) {}

  void run(const T* rows, int64_t count, const Acc* weights, int64_t stride, int64_t vector_count) {
    VMR_SELECT_ISA(row_sums<T>)
    ({rows, count, dim, weights, stride, vector_count, scratch.data(), sums.data()});
  }
  void store_sum(int64_t place, T* to) const {
    for (int64_t d = 0; d < dim; ++d) store(to + d, sums[size(place * padded + d)]);
  }
};

}  // namespace vmr::kernels::alignment
