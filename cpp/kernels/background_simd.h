// The hot loops of background-aware moment detection, compiled for several instruction sets
// (background.simd.cpp).
#pragma once

#include <cstdint>

#include "kernels/scalar.h"

namespace vmr::kernels {

template <typename T>
struct PairedDots {
  const T* a;  // [row_count, dim]
  const T* b;  // [row_count, dim]
  int64_t row_count;
  int64_t dim;
  accumulate_t<T>* dots;  // out [row_count] a_i . b_i
};

// A row x of the matcher's hidden layer after tanh, whose score x . w has the gradient `factor`.
template <typename Acc>
struct MatcherRow {
  const Acc* hidden;  // [size] x
  const Acc* weight;  // [size] w
  int64_t size;
  Acc factor;
  Acc* gradients;         // out [size] of x before tanh
  Acc* weight_gradients;  // [size] of w, added to
};

// A foreground row's score s with those of all background rows, the margin t_j added.
constexpr int64_t kPairLanes = 16;
template <typename Acc>
struct MarginRow {
  Acc score;
  const Acc* background;  // [count]
  int64_t count;          // a multiple of kPairLanes; -infinity is no pair
};

#define VMR_DECLARE_BACKGROUND(isa)                               \
  namespace isa {                                                 \
  template <typename Acc>                                         \
  void tanh_in_place(Acc* values, int64_t count);                 \
  template <typename T>                                           \
  void paired_dots(const PairedDots<T>& problem);                 \
  template <typename Acc>                                         \
  void matcher_row_gradient(const MatcherRow<Acc>& row);          \
  /* The sum of max(0, t_j - s). */                               \
  template <typename Acc>                                         \
  double margin_row_sum(const MarginRow<Acc>& row);               \
  /* How many t_j are above s; 1 is added to `above` at those. */ \
  template <typename Acc>                                         \
  Acc margin_row_count(const MarginRow<Acc>& row, Acc* above);    \
  }
VMR_DECLARE_BACKGROUND(baseline)
VMR_DECLARE_BACKGROUND(avx2)
VMR_DECLARE_BACKGROUND(avx512)
#undef VMR_DECLARE_BACKGROUND

}  // namespace vmr::kernels
