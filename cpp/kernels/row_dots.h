// Dot products of rows with vectors, compiled for several instruction sets (row_dots.simd.cpp).
#pragma once

#include <cstdint>

#include "kernels/scalar.h"

namespace vmr::kernels {

// Rows of vectors are padded with zeros to a multiple of this many elements: no kernel has a tail.
constexpr int64_t kDimAlignment = 16;

static constexpr int64_t padded_size(int64_t size) {
  return (size + kDimAlignment - 1) / kDimAlignment * kDimAlignment;
}

template <typename T>
struct RowDots {
  using Acc = accumulate_t<T>;
  const T* rows;         // [row_count, dim], or where there is an index [.., dim]
  const int64_t* index;  // null, or [row_count]: row r is rows[index[r]]
  // What is read soon: a row of it is fetched for each row. It may lie beyond the end.
  const T* ahead;
  const Acc* vectors;    // [vector_count, padded dim]
  int64_t row_count;     // any
  int64_t vector_count;  // >= 1
  int64_t dim;           // >= 1
  Acc* scratch;          // [4, padded dim]
  Acc* dots;             // out [vector_count, dots_stride], of which row_count are written
  int64_t dots_stride;
  Acc* squared_norms;  // out [row_count], or null
};

// Dot products of every row with every vector, and every row's squared norm, in one pass over the
// rows. The value of a pair does not depend on which rows and vectors it is computed with.
#define VMR_DECLARE_ROW_DOTS(isa)           \
  namespace isa {                           \
  template <typename T>                     \
  void row_dots(const RowDots<T>& problem); \
  }
VMR_DECLARE_ROW_DOTS(baseline)
VMR_DECLARE_ROW_DOTS(avx2)
VMR_DECLARE_ROW_DOTS(avx512)
#undef VMR_DECLARE_ROW_DOTS

}  // namespace vmr::kernels
