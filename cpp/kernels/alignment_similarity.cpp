// The similarity of the aligned frames, from the Gram matrix of the frames.
#include <algorithm>
#include <cmath>

#include "kernels/alignment.h"
#include "kernels/alignment_rows.h"

namespace vmr::kernels::alignment {
namespace {

// A query's factors lie behind one another.
template <typename Acc>
CosineFactors<Acc> factors_at(const Acc* factors, int64_t stride) {
  return {factors, factors + stride, factors + 2 * stride, factors + 3 * stride};
}

// One aligned frame x q + y v, with x = alpha and y = (1 - alpha) r.
template <typename Acc>
struct AlignedFrame {
  Acc x;
  Acc y;
  Acc dot;      // v . q
  Acc squared;  // |v|^2
  Acc inverse;  // 1 / its norm, or its floor
  bool floored;
};

template <typename T, typename Acc = accumulate_t<T>>
AlignedFrame<Acc> aligned_frame(const Similarity<T>& problem, int64_t query, int64_t i) {
  const int64_t frames = problem.sizes.frames;
  const int64_t row = query * frames + i;
  const Acc norm = load(problem.query_norms + query);
  const Acc x = load(problem.weights + row);
  const Acc y = (1 - x) * load(problem.relevance + row);
  const Acc dot = load(problem.query_dots + row);
  const Acc squared = load(problem.gram + problem.videos[query] * frames * frames + i * frames + i);
  const Acc terms = norm * x * x + y * y * squared;
  const Acc of_sum = terms + 2 * (x * (y * dot));
  const Acc floor = static_cast<Acc>(kRelativeFloor) * terms + static_cast<Acc>(kAbsoluteFloor);
  const bool floored = of_sum < floor;
  return {x, y, dot, squared, 1 / std::sqrt(floored ? floor : of_sum), floored};
}

}  // namespace

template <typename T>
void cosine_factors(const Similarity<T>& problem, accumulate_t<T>* factors, int64_t begin,
                    int64_t end) {
  using Acc = accumulate_t<T>;
  const int64_t stride = padded_size(problem.sizes.frames);
  for (int64_t q = begin; q < end; ++q) {
    const Acc norm = load(problem.query_norms + q);
    Acc* const a = factors + q * kFactors * stride;
    Acc* const b = a + stride;
    Acc* const e = b + stride;
    Acc* const t = e + stride;
    for (int64_t i = 0; i < problem.lengths[problem.videos[q]]; ++i) {
      const AlignedFrame<Acc> frame = aligned_frame(problem, q, i);
      a[i] = frame.x * frame.inverse;
      b[i] = frame.y * frame.inverse;
      e[i] = frame.dot * b[i];
      t[i] = norm * a[i] + e[i];
    }
  }
}

template <typename T>
void similarity(const Similarity<T>& problem, const accumulate_t<T>* factors, int64_t begin,
                int64_t end) {
  const int64_t frames = problem.sizes.frames;
  const int64_t stride = padded_size(frames);
  const int64_t blocks = similarity_blocks(frames);
  const auto similarity_rows = VMR_SELECT_ISA(similarity_rows<T>);
  for (int64_t k = begin; k < end; ++k) {
    const int64_t q = k / blocks;
    const int64_t first = k % blocks * kSimilarityRows;
    const int64_t video = problem.videos[q];
    similarity_rows({factors_at(factors + q * kFactors * stride, stride),
                     problem.gram + video * frames * frames, frames, problem.lengths[video], first,
                     std::min(first + kSimilarityRows, frames),
                     problem.similarity + q * frames * frames});
  }
}

template <typename T>
void similarity_gradient_sums(const SimilarityGradient<T>& problem, const accumulate_t<T>* factors,
                              accumulate_t<T>* sums, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const Similarity<T>& in = problem.inputs;
  const int64_t frames = in.sizes.frames;
  const int64_t stride = padded_size(frames);
  const int64_t blocks = similarity_blocks(frames);
  const auto rows = VMR_SELECT_ISA(similarity_gradient_rows<T>);
  std::vector<Acc> scratch(size((kGradientRows + 2) * stride));
  for (int64_t k = begin; k < end; ++k) {
    const int64_t q = k / blocks;
    const int64_t first = k % blocks * kSimilarityRows;
    const int64_t video = in.videos[q];
    const int64_t count = in.lengths[video];
    rows({factors_at(factors + q * kFactors * stride, stride), in.gram + video * frames * frames,
          problem.gradients + q * frames * frames, frames, count, first,
          std::min(first + kSimilarityRows, count), scratch.data(), sums + q * kSums * stride,
          stride});
  }
}

// With W_ij = E_ij / (|v^a_i| |v^a_j|), P_ij = x_i x_j |q|^2 + x_i c_j + c_i x_j + y_i y_j G_ij and
// c = y (v . q), the loss changes by sum_ij W_ij dP_ij / 2 and, through a norm n_i = P_ii, by
// -(sum_j E_ij C_ij) / (2 n_i) dn_i. Where the norm is floored, that goes to the floor's terms.
template <typename T>
void similarity_gradient(const SimilarityGradient<T>& problem, accumulate_t<T>* factors,
                         const accumulate_t<T>* sums, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const Similarity<T>& in = problem.inputs;
  const int64_t frames = in.sizes.frames;
  const int64_t stride = padded_size(frames);
  for (int64_t q = begin; q < end; ++q) {
    const auto [a, b, e, t] = factors_at(factors + q * kFactors * stride, stride);
    Acc* const diagonal = factors + (q * kFactors + 4) * stride;
    const Acc* const by_a = sums + q * kSums * stride;
    const Acc* const by_t = by_a + stride;
    const Acc* const by_g = by_t + stride;
    const Acc norm = load(in.query_norms + q);
    const int64_t count = in.lengths[in.videos[q]];
    Acc for_norm = 0;
    for (int64_t i = 0; i < count; ++i) {
      const AlignedFrame<Acc> frame = aligned_frame(in, q, i);
      const Acc along = a[i] * by_t[i] + e[i] * by_a[i] + b[i] * by_g[i];
      const Acc for_squared = -along * frame.inverse * frame.inverse / 2;
      // Of |q|^2 x^2 + |v|^2 y^2, and of 2 x y (v . q).
      const Acc for_terms =
          frame.floored ? static_cast<Acc>(kRelativeFloor) * for_squared : for_squared;
      const Acc for_cross = frame.floored ? Acc(0) : for_squared;
      const Acc for_x = frame.inverse * by_t[i] +
                        2 * (for_terms * norm * frame.x + for_cross * frame.y * frame.dot);
      const Acc for_c = frame.inverse * by_a[i] + 2 * for_cross * frame.x;
      const Acc for_y =
          frame.inverse * by_g[i] + 2 * for_terms * frame.y * frame.squared + for_c * frame.dot;
      const int64_t row = q * frames + i;
      store(problem.dot_gradients + row, for_c * frame.y);
      store(problem.weight_gradients + row, for_x - for_y * load(in.relevance + row));
      store(problem.relevance_gradients + row, for_y * (1 - frame.x));
      for_norm += a[i] * by_a[i] / 2 + for_terms * frame.x * frame.x;
      diagonal[i] = for_terms * frame.y * frame.y;
    }
    store(problem.norm_gradients + q, for_norm);
    for (T* const to :
         {problem.dot_gradients, problem.weight_gradients, problem.relevance_gradients}) {
      std::fill(to + q * frames + count, to + (q + 1) * frames, T{});
    }
  }
}

template <typename T>
void similarity_gram_gradient(const SimilarityGradient<T>& problem, const accumulate_t<T>* factors,
                              const Grouping& groups, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const Similarity<T>& in = problem.inputs;
  const int64_t frames = in.sizes.frames;
  const int64_t stride = padded_size(frames);
  const auto add_row = VMR_SELECT_ISA(similarity_gram_gradient_row<T>);
  std::vector<Acc> scratch(size(2 * stride));
  std::vector<Acc> row(size(frames));
  for (int64_t group = begin; group < end; ++group) {
    const int64_t first = groups.splits[size(group)];
    const int64_t last = groups.splits[size(group + 1)];
    const int64_t video = in.videos[groups.order[size(first)]];
    const int64_t count = in.lengths[video];
    for (int64_t i = 0; i < frames; ++i) {
      std::fill(row.begin(), row.end(), Acc(0));
      const T* const gram = in.gram + (video * frames + i) * frames;
      for (int64_t k = first; k < last && i < count; ++k) {
        const int64_t q = groups.order[size(k)];
        const Acc* const own = factors + q * kFactors * stride;
        add_row({factors_at(own, stride), gram, problem.gradients + (q * frames + i) * frames, i,
                 count, scratch.data(), row.data()});
        row[size(i)] += own[4 * stride + i];
      }
      T* const to = problem.gram_gradients + (video * frames + i) * frames;
      for (int64_t j = 0; j < frames; ++j) store(to + j, row[size(j)]);
    }
  }
}

#define VMR_INSTANTIATE(T)                                                                     \
  template void cosine_factors(const Similarity<T>&, accumulate_t<T>*, int64_t, int64_t);      \
  template void similarity(const Similarity<T>&, const accumulate_t<T>*, int64_t, int64_t);    \
  template void similarity_gradient_sums(const SimilarityGradient<T>&, const accumulate_t<T>*, \
                                         accumulate_t<T>*, int64_t, int64_t);                  \
  template void similarity_gradient(const SimilarityGradient<T>&, accumulate_t<T>*,            \
                                    const accumulate_t<T>*, int64_t, int64_t);                 \
  template void similarity_gram_gradient(const SimilarityGradient<T>&, const accumulate_t<T>*, \
                                         const Grouping&, int64_t, int64_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::alignment
