// The hot loops of the feature alignment, compiled for several instruction sets
// (alignment.simd.cpp).
#pragma once

#include <cstdint>

#include "kernels/row_dots.h"
#include "kernels/scalar.h"

namespace vmr::kernels {

// Columns of a Gram matrix that are worked on together: their rows stay in the second-level cache.
constexpr int64_t kGramBlock = 60;
constexpr int64_t kGramScratchRows = kGramBlock + 8;

// The columns [first, last) of a video's Gram matrix, from their diagonal on down, and mirrored.
template <typename T>
struct GramColumns {
  const T* rows;      // [row_count, dim]
  int64_t row_count;  // >= 1
  int64_t dim;
  int64_t first;             // a multiple of kGramBlock
  int64_t last;              // at most kGramBlock more, and at most row_count
  accumulate_t<T>* scratch;  // [kGramScratchRows, padded dim]
  T* gram;                   // out [.., stride]
  int64_t stride;
};

// Sums of rows, each with several sets of weights, in one pass over the rows.
template <typename T>
struct RowSums {
  using Acc = accumulate_t<T>;
  const T* rows;  // [row_count, dim]
  int64_t row_count;
  int64_t dim;
  const Acc* weights;  // [vector_count, weights_stride]
  int64_t weights_stride;
  int64_t vector_count;  // 1 to 3
  Acc* scratch;          // [8, padded dim]
  Acc* sums;             // out [vector_count, padded dim]
};

// A query's frames, of which the first and the last that are aligned are known. Each sum is
// followed by its function: eq. 9's tanh and eq. 11's sigmoid.
template <typename Acc>
struct FrameWeights {
  const Acc* relevance_dots;  // [count] v_i . z
  const Acc* alignment_dots;  // [count] v_i . y
  int64_t count;
  int64_t first;
  int64_t last;
  Acc relevance_offset;
  Acc alignment_offset;
  bool reweight;
  bool align;
  Acc* relevance;  // out [count] r
  Acc* weights;    // out [count] alpha
};

// A query's factors: the cosine of two aligned frames is
//     C_ij = a_i t_j + e_i a_j + b_i b_j G_ij
// with a = alpha / |v^a|, b = (1 - alpha) r / |v^a|, e = (v . q) b and t = |q|^2 a + e.
template <typename Acc>
struct CosineFactors {
  const Acc* a;
  const Acc* b;
  const Acc* e;
  const Acc* t;
};

template <typename T>
struct SimilarityRows {
  CosineFactors<accumulate_t<T>> factors;
  const T* gram;   // [N, N] of the video
  int64_t frames;  // N
  int64_t count;   // of them, those that are no padding
  int64_t first;   // rows [first, last)
  int64_t last;
  T* similarity;  // out [N, N]; zeros in the padding
};

constexpr int64_t kGradientRows = 8;  // that are transposed together

// With E_ij = g_ij + g_ji, or 0 where C_ij or C_ji is outside [-1, 1], for rows [first, last):
// sum_j of E_ij a_j, of E_ij t_j, and of E_ij b_j G_ij.
template <typename T>
struct SimilarityGradientRows {
  using Acc = accumulate_t<T>;
  CosineFactors<Acc> factors;
  const T* gram;       // [N, N]
  const T* gradients;  // [N, N] g
  int64_t frames;
  int64_t count;
  int64_t first;  // [first, last) within count
  int64_t last;
  Acc* scratch;  // [kGradientRows + 2, padded N]
  Acc* sums;     // out [3, sums_stride]
  int64_t sums_stride;
};

// Adds to a row of the Gram matrix's gradient what one query has of it: g_ij b_i b_j, or 0 as
// above.
template <typename T>
struct SimilarityGramGradientRow {
  using Acc = accumulate_t<T>;
  CosineFactors<Acc> factors;
  const T* gram;       // the row, [count]
  const T* gradients;  // [count]
  int64_t row;
  int64_t count;
  Acc* scratch;  // [2, padded count]
  Acc* sums;     // [count]
};

#define VMR_DECLARE_ALIGNMENT(isa)                                                \
  namespace isa {                                                                 \
  template <typename T>                                                           \
  void gram_columns(const GramColumns<T>& problem);                               \
  template <typename T>                                                           \
  void row_sums(const RowSums<T>& problem);                                       \
  template <typename Acc>                                                         \
  void softmax(Acc* logits, int64_t count);                                       \
  template <typename Acc>                                                         \
  void frame_weights(const FrameWeights<Acc>& problem);                           \
  template <typename T>                                                           \
  void similarity_rows(const SimilarityRows<T>& problem);                         \
  template <typename T>                                                           \
  void similarity_gradient_rows(const SimilarityGradientRows<T>& problem);        \
  template <typename T>                                                           \
  void similarity_gram_gradient_row(const SimilarityGramGradientRow<T>& problem); \
  }
VMR_DECLARE_ALIGNMENT(baseline)
VMR_DECLARE_ALIGNMENT(avx2)
VMR_DECLARE_ALIGNMENT(avx512)
#undef VMR_DECLARE_ALIGNMENT

}  // namespace vmr::kernels
