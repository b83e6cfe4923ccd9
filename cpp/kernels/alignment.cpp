#include "kernels/alignment.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/alignment_rows.h"

namespace vmr::kernels::alignment {
namespace {

// ---- anchors ----

double inverse_norm(double squared) {
  return squared > 0 ? 1 / std::sqrt(squared) : 0;
}

// The query-embedded frames of eq. 1 as v^e_i = by_query_i q + by_frame_i v_i; they are not made,
// since their dot products follow from those of q and the frames.
struct Embedded {
  double query_norm;  // squared
  std::vector<double> by_query;
  std::vector<double> by_frame;
  std::vector<double> with_query;    // v_i . q
  std::vector<double> inverse;       // 1 / |v^e_i|
  std::vector<double> first_to_all;  // cosines of v^e's with the first frame's
  std::vector<double> anchor_to_all;
  std::vector<double> last_to_all;

  explicit Embedded(int64_t frames)
      : query_norm(0),
        by_query(size(frames)),
        by_frame(size(frames)),
        with_query(size(frames)),
        inverse(size(frames)),
        first_to_all(size(frames)),
        anchor_to_all(size(frames)),
        last_to_all(size(frames)) {}

  template <typename Acc>
  void embed(const Acc* query_dots, const Acc* norms, int64_t count, double query_squared,
             bool normalize) {
    query_norm = query_squared;
    const double of_query = inverse_norm(query_norm);
    for (int64_t i = 0; i < count; ++i) {
      const auto k = size(i);
      const auto dot = static_cast<double>(query_dots[i]);
      const auto squared = static_cast<double>(norms[i]);
      const double of_frame = inverse_norm(squared);
      const double cosine = dot * of_query * of_frame;
      const double x = cosine * (normalize ? of_query : 1);
      const double y = (1 - cosine) * (normalize ? of_frame : 1);
      by_query[k] = x;
      by_frame[k] = y;
      with_query[k] = dot;
      inverse[k] = inverse_norm(x * x * query_norm + 2 * x * y * dot + y * y * squared);
    }
  }

  // Eq. 2. |q| is the same for all frames.
  int64_t anchor(int64_t count) const {
    int64_t best = 0;
    double most = -std::numeric_limits<double>::infinity();
    for (int64_t i = 0; i < count; ++i) {
      const auto k = size(i);
      const double relevance =
          (by_query[k] * query_norm + by_frame[k] * with_query[k]) * inverse[k];
      if (relevance > most) {
        most = relevance;
        best = i;
      }
    }
    return best;
  }

  // frame_dots: v_one . v_i
  template <typename Acc>
  void cosines(int64_t one, const Acc* frame_dots, int64_t count, std::vector<double>* to) const {
    const auto o = size(one);
    const double on_query = by_query[o] * query_norm + by_frame[o] * with_query[o];
    const double on_frame = by_query[o];
    for (int64_t i = 0; i < count; ++i) {
      const auto k = size(i);
      const double product =
          by_query[k] * on_query + by_frame[k] * (on_frame * with_query[k] +
                                                  by_frame[o] * static_cast<double>(frame_dots[i]));
      (*to)[k] = product * inverse[k] * inverse[o];
    }
  }

  // Eqs. 3 and 4. From b - 1 to b a sum of eq. 3 changes by cos(v_1, v_b) - cos(v_A, v_b), and one
  // of eq. 4 by cos(v_A, v_b) - cos(v_N, v_b): ties are exact, and the first one wins.
  void transitions(int64_t anchor, int64_t count, bool reach_end, int64_t* segment) const {
    segment[0] = 0;
    double sum = 0;
    double most = 0;
    for (int64_t b = 1; b <= anchor; ++b) {
      sum += first_to_all[size(b)] - anchor_to_all[size(b)];
      if (sum > most) {
        most = sum;
        segment[0] = b;
      }
    }
    segment[1] = anchor;
    sum = 0;
    most = 0;
    for (int64_t b = anchor + 1; b < count; ++b) {
      const double last = reach_end && b == count - 1 ? 0 : last_to_all[size(b)];
      sum += anchor_to_all[size(b)] - last;
      if (sum > most) {
        most = sum;
        segment[1] = b;
      }
    }
  }
};

}  // namespace

Grouping group_queries(const int64_t* videos, int64_t queries, int64_t most) {
  Grouping groups;
  groups.order.resize(size(queries));
  std::iota(groups.order.begin(), groups.order.end(), int64_t{0});
  if (!std::is_sorted(videos, videos + queries)) {
    std::stable_sort(groups.order.begin(), groups.order.end(),
                     [videos](int64_t x, int64_t y) { return videos[x] < videos[y]; });
  }
  for (int64_t k = 0; k < queries; ++k) {
    const bool same = k > 0 && videos[groups.order[size(k)]] == videos[groups.order[size(k - 1)]];
    if (!same || k - groups.splits.back() == most) groups.splits.push_back(k);
  }
  groups.splits.push_back(queries);
  return groups;
}

template <typename T>
void gram(const Gram<T>& problem, int64_t begin, int64_t end) {
  const auto& [sizes, frames, lengths, matrices] = problem;
  const int64_t total = sizes.frames;
  const int64_t blocks = gram_blocks(total);
  const auto gram_columns = VMR_SELECT_ISA(gram_columns<T>);
  std::vector<accumulate_t<T>> scratch(size(kGramScratchRows * padded_size(sizes.dim)));
  for (int64_t k = begin; k < end; ++k) {
    const int64_t video = k / blocks;
    // Early blocks are the longer ones: they alternate with late ones, so that each thread has
    // both.
    const int64_t turn = k % blocks;
    const int64_t block = turn % 2 == 0 ? turn / 2 : blocks - 1 - turn / 2;
    const int64_t first = block * kGramBlock;
    const int64_t last = std::min(first + kGramBlock, total);
    const int64_t count = lengths[video];
    T* const matrix = matrices + video * total * total;
    if (first < count) {
      gram_columns({frames + video * total * sizes.dim, count, sizes.dim, first,
                    std::min(last, count), scratch.data(), matrix, total});
    }
    for (int64_t i = first; i < last; ++i) {
      std::fill(matrix + i * total + (i < count ? count : 0), matrix + (i + 1) * total, T{});
    }
  }
}

template <typename T>
void gram_gradient(const GramGradient<T>& problem, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const auto& [sizes, gradients, frames, lengths, to] = problem;
  FrameSums<T> sums(sizes.dim);
  std::vector<Acc> weights(size(sizes.frames));
  for (int64_t k = begin; k < end; ++k) {
    const int64_t video = k / sizes.frames;
    const int64_t i = k % sizes.frames;
    const int64_t count = i < lengths[video] ? lengths[video] : 0;
    const T* const own = gradients + video * sizes.frames * sizes.frames;
    for (int64_t j = 0; j < count; ++j) {
      weights[size(j)] = load(own + i * sizes.frames + j) + load(own + j * sizes.frames + i);
    }
    sums.run(frames + video * sizes.frames * sizes.dim, count, weights.data(), sizes.frames, 1);
    sums.store_sum(0, to + k * sizes.dim);
  }
}

template <typename T>
void anchors(const Anchors<T>& problem, const Grouping& groups, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const Sizes& sizes = problem.sizes;
  FrameDots<T> dots(sizes.dim, kQueriesAtOnce + 1);
  Embedded embedded(sizes.frames);
  const int64_t stride = sizes.frames;
  std::vector<Acc> query_dots(size((kQueriesAtOnce + 1) * stride));  // the last are v_1's
  std::vector<Acc> anchor_dots(query_dots.size());                   // and v_N's
  std::vector<Acc> norms(size(stride));
  std::vector<Embedded> each(size(kQueriesAtOnce), embedded);
  for (int64_t group = begin; group < end; ++group) {
    const int64_t* const own = groups.order.data() + groups.splits[size(group)];
    const int64_t queries = groups.splits[size(group + 1)] - groups.splits[size(group)];
    const int64_t video = problem.videos[own[0]];
    const int64_t count = problem.lengths[video];
    const T* const rows = problem.frames + video * sizes.frames * sizes.dim;
    for (int64_t k = 0; k < queries; ++k) dots.set(k, problem.queries + own[k] * sizes.dim);
    dots.set(queries, rows);
    dots.run(rows, count, queries + 1, query_dots.data(), stride, norms.data());
    for (int64_t k = 0; k < queries; ++k) {
      Acc unused;
      Acc squared;
      dots.run(problem.queries + own[k] * sizes.dim, 1, 1, &unused, 1, &squared);
      each[size(k)].embed(query_dots.data() + k * stride, norms.data(), count,
                          static_cast<double>(squared), problem.normalize);
      problem.anchors[own[k]] = each[size(k)].anchor(count);
      dots.set(k, rows + problem.anchors[own[k]] * sizes.dim);
    }
    dots.set(queries, rows + (count - 1) * sizes.dim);
    dots.run(rows, count, queries + 1, anchor_dots.data(), stride, nullptr);
    for (int64_t k = 0; k < queries; ++k) {
      Embedded& one = each[size(k)];
      const int64_t anchor = problem.anchors[own[k]];
      one.cosines(0, query_dots.data() + queries * stride, count, &one.first_to_all);
      one.cosines(anchor, anchor_dots.data() + k * stride, count, &one.anchor_to_all);
      one.cosines(count - 1, anchor_dots.data() + queries * stride, count, &one.last_to_all);
      one.transitions(anchor, count, problem.reach_end, problem.segments + 2 * own[k]);
    }
  }
}

#define VMR_INSTANTIATE(T)                                               \
  template void gram(const Gram<T>&, int64_t, int64_t);                  \
  template void gram_gradient(const GramGradient<T>&, int64_t, int64_t); \
  template void anchors(const Anchors<T>&, const Grouping&, int64_t, int64_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::alignment
