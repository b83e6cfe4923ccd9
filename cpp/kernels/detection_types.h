// What the CPU and the CUDA kernels of moments as points (i, j) of an N x N map of scores share.
#pragma once

#include <cstdint>

#include "kernels/scalar_types.h"

namespace vmr::kernels::detection {

template <typename T>
struct VertexProblem {
  const T* scores;         // [B, N, N]
  const int64_t* points;   // [P, 2]
  const int64_t* splits;   // [B + 1]: points splits[q] to splits[q + 1] are query q's
  const int64_t* lengths;  // [B]
  int64_t batch;
  int64_t frames;  // N
  int64_t point_count;
  bool whole;    // all points count, else those with i <= j
  bool sigmoid;  // P is the scores' sigmoid, else the scores themselves
};

template <typename T>
struct TopProblem {
  const T* scores;         // [B, N, N]
  const int64_t* lengths;  // [B]
  int64_t batch;
  int64_t frames;  // N
  int64_t k;
  int64_t* points;  // out [B, k, 2]
  T* values;        // out [B, k]
  int64_t* counts;  // out [B]
};

// The columns [begin, end) of row i that count in a video of `length` frames; begin may be beyond
// the end.
struct Columns {
  int64_t begin;
  int64_t end;
};

VMR_HOST_DEVICE inline Columns columns_of_row(int64_t i, int64_t length, bool whole) {
  return {whole ? 0 : i, i < length ? length : 0};
}

}  // namespace vmr::kernels::detection
