// Compiled once per instruction set, with VMR_ISA naming the namespace. See docs/adding-an-op.md
// for what may be included and defined in such a file.
#include "kernels/alignment_simd.h"
#include "kernels/simd_functions.h"
#include "kernels/simd_vectors.h"

namespace vmr::kernels::VMR_ISA {
namespace {

// ---- the Gram matrix ----

// Rows by columns of a tile, whose sums all stay in registers.
#if defined(__AVX512F__)
constexpr int kTileRows = 5;
constexpr int kTileColumns = 5;
#else
constexpr int kTileRows = 4;
constexpr int kTileColumns = 3;
#endif
static_assert(kGramBlock % kTileRows == 0 && kGramBlock % kTileColumns == 0);
static_assert(kGramScratchRows >= kGramBlock + kTileRows);

template <typename Acc>
void gram_tile(const Acc* const* rows, const Acc* const* columns, int64_t padded, Acc* dots) {
  using V = typename Vector<Acc>::type;
  V sums[kTileRows][kTileColumns];
  for (int r = 0; r < kTileRows; ++r) {
    for (int c = 0; c < kTileColumns; ++c) sums[r][c] = V{};
  }
  for (int64_t d = 0; d < padded; d += Vector<Acc>::kLanes) {
    V column[kTileColumns];
    for (int c = 0; c < kTileColumns; ++c) column[c] = load_vector(columns[c] + d);
    for (int r = 0; r < kTileRows; ++r) {
      const V row = load_vector(rows[r] + d);
      for (int c = 0; c < kTileColumns; ++c) sums[r][c] += row * column[c];
    }
  }
  constexpr int kSums = kTileRows * kTileColumns;
  const V* flat = &sums[0][0];
  int k = 0;
  for (; k + 4 <= kSums; k += 4) sum_lanes(flat + k, dots + k);
  for (; k < kSums; ++k) dots[k] = sum_lanes(flat[k]);
}

// Columns [first, first + count) with the rows from their diagonal on down. A few columns stay in
// the first-level cache, while the rows pass by.
constexpr int64_t kGroupColumns = 3 * kTileColumns;

template <typename T>
void gram_group(const GramColumns<T>& problem, const accumulate_t<T>* const* columns, int64_t first,
                int64_t count) {
  using Acc = accumulate_t<T>;
  const int64_t padded = padded_size(problem.dim);
  Acc* const row_scratch = problem.scratch + kGramBlock * padded;
  for (int64_t top = first - first % kTileRows; top < problem.row_count; top += kTileRows) {
    const int64_t height =
        problem.row_count - top < kTileRows ? problem.row_count - top : kTileRows;
    const Acc* rows[kTileRows];
    for (int64_t r = 0; r < kTileRows; ++r) {
      const int64_t row = top + (r < height ? r : height - 1);  // the last one repeats
      rows[r] =
          unpack(problem.rows + row * problem.dim, problem.dim, padded, row_scratch + r * padded);
    }
    for (int64_t c = 0; c < count && first + c < top + height; c += kTileColumns) {
      Acc dots[kTileRows * kTileColumns];
      gram_tile(rows, columns + c, padded, dots);
      const int64_t width = count - c < kTileColumns ? count - c : kTileColumns;
      for (int64_t r = 0; r < height; ++r) {
        for (int64_t k = 0; k < width; ++k) {
          const Acc dot = dots[r * kTileColumns + k];
          store(problem.gram + (top + r) * problem.stride + first + c + k, dot);
          store(problem.gram + (first + c + k) * problem.stride + top + r, dot);
        }
      }
    }
  }
}

// ---- sums of rows ----

template <int kVectors, int kWidth, typename Acc>
void sum_columns(const Acc* rows, int64_t row_count, int64_t stride, const Acc* weights,
                 int64_t weights_stride, Acc* sums, int64_t sums_stride) {
  using V = typename Vector<Acc>::type;
  constexpr int kLanes = Vector<Acc>::kLanes;
  V total[kVectors][kWidth];
  for (int v = 0; v < kVectors; ++v) {
    for (int w = 0; w < kWidth; ++w) total[v][w] = load_vector(sums + v * sums_stride + w * kLanes);
  }
  for (int64_t r = 0; r < row_count; ++r) {
    V weight[kVectors];
    for (int v = 0; v < kVectors; ++v) weight[v] = V{} + weights[v * weights_stride + r];
    for (int w = 0; w < kWidth; ++w) {
      const V row = load_vector(rows + r * stride + w * kLanes);
      for (int v = 0; v < kVectors; ++v) total[v][w] += weight[v] * row;
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    for (int w = 0; w < kWidth; ++w) {
      store_vector(sums + v * sums_stride + w * kLanes, total[v][w]);
    }
  }
}

template <int kVectors, typename Acc>
void sum_rows(const Acc* rows, int64_t row_count, int64_t padded, const Acc* weights,
              int64_t weights_stride, Acc* sums) {
  constexpr int kWidth = kVectors == 1 ? 8 : 4;
  constexpr int64_t kLanes = Vector<Acc>::kLanes;
  int64_t d = 0;
  for (; d + kWidth * kLanes <= padded; d += kWidth * kLanes) {
    sum_columns<kVectors, kWidth>(rows + d, row_count, padded, weights, weights_stride, sums + d,
                                  padded);
  }
  for (; d < padded; d += kLanes) {
    sum_columns<kVectors, 1>(rows + d, row_count, padded, weights, weights_stride, sums + d,
                             padded);
  }
}

template <typename Acc>
void sum_rows(const Acc* rows, int64_t row_count, int64_t padded, const Acc* weights,
              int64_t weights_stride, int64_t vector_count, Acc* sums) {
  if (vector_count == 1) {
    sum_rows<1>(rows, row_count, padded, weights, weights_stride, sums);
  } else if (vector_count == 2) {
    sum_rows<2>(rows, row_count, padded, weights, weights_stride, sums);
  } else {
    sum_rows<3>(rows, row_count, padded, weights, weights_stride, sums);
  }
}

template <typename T>
constexpr bool kAsComputed = __is_same(T, accumulate_t<T>);

// ---- the similarity's gradient ----

// to[r, j] = from[j, r] for kGradientRows r and count j.
template <typename T, typename Acc>
void transpose(const T* from, int64_t stride, int64_t rows, int64_t count, Acc* to,
               int64_t to_stride) {
  int64_t r = 0;
  if constexpr (__is_same(T, float)) {
    using Four = Vector<float, 16>::type;
    for (; r + 4 <= rows; r += 4) {
      int64_t j = 0;
      for (; j + 4 <= count; j += 4) {
        Four in[4];
        for (int k = 0; k < 4; ++k) {
          __builtin_memcpy(&in[k], from + (j + k) * stride + r, sizeof(Four));
        }
        const Four low01 = __builtin_shufflevector(in[0], in[1], 0, 4, 1, 5);
        const Four high01 = __builtin_shufflevector(in[0], in[1], 2, 6, 3, 7);
        const Four low23 = __builtin_shufflevector(in[2], in[3], 0, 4, 1, 5);
        const Four high23 = __builtin_shufflevector(in[2], in[3], 2, 6, 3, 7);
        const Four out[4] = {__builtin_shufflevector(low01, low23, 0, 1, 4, 5),
                             __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
                             __builtin_shufflevector(high01, high23, 0, 1, 4, 5),
                             __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
        for (int k = 0; k < 4; ++k) {
          __builtin_memcpy(to + (r + k) * to_stride + j, &out[k], sizeof(Four));
        }
      }
      for (; j < count; ++j) {
        for (int64_t k = r; k < r + 4; ++k) to[k * to_stride + j] = from[j * stride + k];
      }
    }
  }
  for (; r < rows; ++r) {
    for (int64_t j = 0; j < count; ++j) to[r * to_stride + j] = load(from + j * stride + r);
  }
}

// Where C_ij and C_ji are within [-1, 1]. Both are asked for, and computed alike in row i and in
// row j, so that a pair of parallel frames counts in all sums or in none: only then do their
// gradients cancel out.
template <typename Acc>
struct Row {
  using V = typename Vector<Acc>::type;
  Acc a;
  Acc b;
  Acc e;
  Acc t;

  V cosine(V other_a, V other_b, V other_t, V gram) const {
    return sum(a * other_t, e * other_a, (b * other_b) * gram);
  }
  auto inside(V gram, V other_a, V other_b, V other_e, V other_t) const {
    const V product = (b * other_b) * gram;
    const V one = sum(a * other_t, e * other_a, product);
    const V other = sum(other_a * t, other_e * a, product);
    return (one >= V{} - 1) & (one <= V{} + 1) & (other >= V{} - 1) & (other <= V{} + 1);
  }
  static V sum(V x, V y, V product) { return x + (y + product); }
};

// One row's sums. `lanes` is 1 where a lane counts, and 0 where the last vector, which reaches back
// into those before it, would count a column twice.
template <typename Acc>
struct GradientSums {
  using V = typename Vector<Acc>::type;
  V by_a = {};
  V by_t = {};
  V by_g = {};

  void add(const Row<Acc>& row, V gradient, V gram, V a, V b, V e, V t, V lanes) {
    const V counted = row.inside(gram, a, b, e, t) ? gradient * lanes : V{};
    by_a += counted * a;
    by_t += counted * t;
    by_g += counted * (b * gram);
  }
};

// The first `count` elements, fewer than a vector has, and zeros.
template <typename Acc>
typename Vector<Acc>::type load_few(const Acc* from, int64_t count) {
  Acc some[Vector<Acc>::kLanes] = {};
  for (int64_t k = 0; k < count; ++k) some[k] = from[k];
  return load_vector(some);
}

template <typename Acc>
void gradient_row(const CosineFactors<Acc>& factors, int64_t i, const Acc* gram,
                  const Acc* gradient, const Acc* transposed, int64_t count,
                  GradientSums<Acc>* sums) {
  using V = typename Vector<Acc>::type;
  constexpr int64_t kLanes = Vector<Acc>::kLanes;
  const auto [a, b, e, t] = factors;
  const Row<Acc> row = {a[i], b[i], e[i], t[i]};
  const V all = V{} + 1;
  int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes) {
    sums->add(row, load_vector(gradient + j) + load_vector(transposed + j), load_vector(gram + j),
              load_vector(a + j), load_vector(b + j), load_vector(e + j), load_vector(t + j), all);
  }
  if (j == count) return;
  if (count < kLanes) {
    sums->add(row, load_few(gradient, count) + load_few(transposed, count), load_few(gram, count),
              load_few(a, count), load_few(b, count), load_few(e, count), load_few(t, count), all);
    return;
  }
  V lanes;
  for (int64_t k = 0; k < kLanes; ++k) lanes[k] = k < kLanes - (count - j) ? Acc(0) : Acc(1);
  j = count - kLanes;
  sums->add(row, load_vector(gradient + j) + load_vector(transposed + j), load_vector(gram + j),
            load_vector(a + j), load_vector(b + j), load_vector(e + j), load_vector(t + j), lanes);
}

}  // namespace

template <typename T>
void gram_columns(const GramColumns<T>& problem) {
  using Acc = accumulate_t<T>;
  const int64_t padded = padded_size(problem.dim);
  const Acc* columns[kGramBlock + kTileColumns];
  const int64_t columns_count = problem.last - problem.first;
  for (int64_t c = 0; c < columns_count; ++c) {
    columns[c] = unpack(problem.rows + (problem.first + c) * problem.dim, problem.dim, padded,
                        problem.scratch + c * padded);
  }
  for (int c = 0; c < kTileColumns; ++c) columns[columns_count + c] = columns[columns_count - 1];
  for (int64_t group = problem.first; group < problem.last; group += kGroupColumns) {
    const int64_t left = problem.last - group;
    gram_group(problem, columns + (group - problem.first), group,
               left < kGroupColumns ? left : kGroupColumns);
  }
}

template <typename T>
void row_sums(const RowSums<T>& problem) {
  constexpr int64_t kBlock = 8;
  const int64_t padded = padded_size(problem.dim);
  for (int64_t d = 0; d < problem.vector_count * padded; ++d) problem.sums[d] = 0;
  if constexpr (kAsComputed<T>) {
    if (padded == problem.dim) {
      sum_rows(problem.rows, problem.row_count, padded, problem.weights, problem.weights_stride,
               problem.vector_count, problem.sums);
      return;
    }
  }
  for (int64_t first = 0; first < problem.row_count; first += kBlock) {
    const int64_t count = problem.row_count - first < kBlock ? problem.row_count - first : kBlock;
    for (int64_t r = 0; r < count; ++r) {
      unpack(problem.rows + (first + r) * problem.dim, problem.dim, padded,
             problem.scratch + r * padded);
    }
    sum_rows<accumulate_t<T>>(problem.scratch, count, padded, problem.weights + first,
                              problem.weights_stride, problem.vector_count, problem.sums);
  }
}

template <typename Acc>
void softmax(Acc* logits, int64_t count) {
  Acc most = logits[0];
  for (int64_t i = 1; i < count; ++i) most = logits[i] > most ? logits[i] : most;
  for (int64_t i = 0; i < count; ++i) logits[i] = decay(logits[i] - most);
  Acc sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += logits[i];
  const Acc factor = 1 / sum;
  for (int64_t i = 0; i < count; ++i) logits[i] *= factor;
}

template <typename Acc>
void frame_weights(const FrameWeights<Acc>& problem) {
  Acc* const relevance = problem.relevance;
  Acc* const weights = problem.weights;
  for (int64_t i = 0; i < problem.count; ++i) weights[i] = 0;
  if (problem.reweight) {
    for (int64_t i = 0; i < problem.count; ++i) {
      relevance[i] = hyperbolic_tangent(problem.relevance_dots[i] + problem.relevance_offset);
    }
  } else {
    for (int64_t i = 0; i < problem.count; ++i) relevance[i] = 1;
  }
  if (!problem.align) return;
  const int64_t end = problem.last < problem.count ? problem.last + 1 : problem.count;
  for (int64_t i = problem.first; i < end; ++i) {
    weights[i] = sigmoid(relevance[i] * problem.alignment_dots[i] + problem.alignment_offset);
  }
}

template <typename T>
void similarity_rows(const SimilarityRows<T>& problem) {
  using Acc = accumulate_t<T>;
  using V = typename Vector<Acc>::type;
  constexpr int64_t kLanes = Vector<Acc>::kLanes;
  const auto [a, b, e, t] = problem.factors;
  for (int64_t i = problem.first; i < problem.last; ++i) {
    T* const to = problem.similarity + i * problem.frames;
    const T* const gram = problem.gram + i * problem.frames;
    const int64_t count = i < problem.count ? problem.count : 0;
    for (int64_t j = count; j < problem.frames; ++j) store(to + j, Acc(0));
    if (count == 0) continue;
    const Row<Acc> row = {a[i], b[i], e[i], t[i]};
    if (kAsComputed<T> && count >= kLanes) {
      // The last vector reaches back into those before it.
      for (int64_t next = 0; next < count; next += kLanes) {
        const int64_t j = next + kLanes <= count ? next : count - kLanes;
        V g;
        __builtin_memcpy(&g, gram + j, sizeof(g));
        const V cosine = row.cosine(load_vector(a + j), load_vector(b + j), load_vector(t + j), g);
        const V above = cosine < V{} - 1 ? V{} - 1 : cosine;
        const V within = above > V{} + 1 ? V{} + 1 : above;
        __builtin_memcpy(to + j, &within, sizeof(within));
      }
    } else {
      for (int64_t j = 0; j < count; ++j) {
        const Acc cosine = a[i] * t[j] + (e[i] * a[j] + (b[i] * b[j]) * load(gram + j));
        const Acc above = cosine < -1 ? Acc(-1) : cosine;
        store(to + j, above > 1 ? Acc(1) : above);
      }
    }
  }
}

template <typename T>
void similarity_gradient_rows(const SimilarityGradientRows<T>& problem) {
  using Acc = accumulate_t<T>;
  const int64_t frames = problem.frames;
  const int64_t count = problem.count;
  const int64_t padded = padded_size(frames);
  Acc* const row_scratch = problem.scratch + kGradientRows * padded;
  for (int64_t first = problem.first; first < problem.last; first += kGradientRows) {
    const int64_t rows =
        problem.last - first < kGradientRows ? problem.last - first : kGradientRows;
    transpose(problem.gradients + first, frames, rows, count, problem.scratch, padded);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t i = first + r;
      const T* const gradient = problem.gradients + i * frames;
      const T* const gram = problem.gram + i * frames;
      GradientSums<Acc> sums;
      if constexpr (kAsComputed<T>) {
        gradient_row(problem.factors, i, gram, gradient, problem.scratch + r * padded, count,
                     &sums);
      } else {
        gradient_row<Acc>(problem.factors, i, unpack(gram, count, padded, row_scratch),
                          unpack(gradient, count, padded, row_scratch + padded),
                          problem.scratch + r * padded, count, &sums);
      }
      problem.sums[i] = sum_lanes(sums.by_a);
      problem.sums[problem.sums_stride + i] = sum_lanes(sums.by_t);
      problem.sums[2 * problem.sums_stride + i] = sum_lanes(sums.by_g);
    }
  }
}

template <typename T>
void similarity_gram_gradient_row(const SimilarityGramGradientRow<T>& problem) {
  using Acc = accumulate_t<T>;
  using V = typename Vector<Acc>::type;
  constexpr int64_t kLanes = Vector<Acc>::kLanes;
  const int64_t count = problem.count;
  const auto [a, b, e, t] = problem.factors;
  const Row<Acc> row = {a[problem.row], b[problem.row], e[problem.row], t[problem.row]};
  const int64_t padded = padded_size(count);
  const Acc* const gram = unpack(problem.gram, count, padded, problem.scratch);
  const Acc* const gradient = unpack(problem.gradients, count, padded, problem.scratch + padded);
  for (int64_t j = 0; j < count; j += kLanes) {
    const int64_t few = count - j < kLanes ? count - j : kLanes;
    const V other_b = load_few(b + j, few);
    const auto inside = row.inside(load_vector(gram + j), load_few(a + j, few), other_b,
                                   load_few(e + j, few), load_few(t + j, few));
    const V share = inside ? load_vector(gradient + j) * (row.b * other_b) : V{};
    for (int64_t k = 0; k < few; ++k) problem.sums[j + k] += share[k];
  }
}

template void softmax(float*, int64_t);
template void softmax(double*, int64_t);
template void frame_weights(const FrameWeights<float>&);
template void frame_weights(const FrameWeights<double>&);

#define VMR_INSTANTIATE(T)                                                  \
  template void gram_columns(const GramColumns<T>&);                        \
  template void row_sums(const RowSums<T>&);                                \
  template void similarity_rows(const SimilarityRows<T>&);                  \
  template void similarity_gradient_rows(const SimilarityGradientRows<T>&); \
  template void similarity_gram_gradient_row(const SimilarityGramGradientRow<T>&);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::VMR_ISA
