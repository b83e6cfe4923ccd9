// The hot loops of the vertex loss, compiled for several instruction sets (detection.simd.cpp).
#pragma once

#include <cstdint>

#include "kernels/scalar.h"

namespace vmr::kernels {

template <typename T>
struct VertexRow {
  const T* scores;               // [count]
  const accumulate_t<T>* truth;  // [count]
  int64_t count;                 // any
  bool sigmoid;                  // P is the scores' sigmoid, else the scores themselves
};

// The sum of (P - truth)^2 over a row, and its gradient times `factor`.
#define VMR_DECLARE_VERTEX_ROW(isa)                                                         \
  namespace isa {                                                                           \
  template <typename T>                                                                     \
  double vertex_row_error(const VertexRow<T>& row);                                         \
  template <typename T>                                                                     \
  void vertex_row_gradients(const VertexRow<T>& row, accumulate_t<T> factor, T* gradients); \
  }
VMR_DECLARE_VERTEX_ROW(baseline)
VMR_DECLARE_VERTEX_ROW(avx2)
VMR_DECLARE_VERTEX_ROW(avx512)
#undef VMR_DECLARE_VERTEX_ROW

}  // namespace vmr::kernels
