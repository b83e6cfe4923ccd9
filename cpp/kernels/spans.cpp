#include "kernels/spans.h"

#include <algorithm>
#include <vector>

namespace vmr::kernels::spans {
namespace {

template <typename T>
Span<accumulate_t<T>> load_span(const T* from) {
  return {load(from), load(from + 1)};
}

template <typename Acc>
struct Candidate {
  Acc score;
  int64_t index;
};

// Heap order: the best score comes out first, of equal scores the smaller index.
template <typename Acc>
bool comes_later(const Candidate<Acc>& left, const Candidate<Acc>& right) {
  if (left.score != right.score) return left.score < right.score;
  return left.index > right.index;
}

}  // namespace

template <typename T, Overlap kind>
void pair_overlaps(const PairSizes& sizes, const T* a, const T* b, T* overlaps, int64_t begin,
                   int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const auto span = load_span(a + 2 * row);
    const T* others = b + row / sizes.n * sizes.m * 2;
    T* to = overlaps + row * sizes.m;
    for (int64_t j = 0; j < sizes.m; ++j) {
      store(to + j, overlap<kind>(span, load_span(others + 2 * j)));
    }
  }
}

template <typename T, Overlap kind>
void pair_overlap_gradients(const PairSizes& sizes, const T* gradients, bool transposed, const T* a,
                            const T* b, T* a_gradients, int64_t begin, int64_t end) {
  const int64_t stride = transposed ? sizes.n : 1;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t batch = row / sizes.n;
    const auto span = load_span(a + 2 * row);
    const T* others = b + batch * sizes.m * 2;
    const T* from =
        gradients + (transposed ? batch * sizes.n * sizes.m + row % sizes.n : row * sizes.m);
    Span<accumulate_t<T>> sum = {0, 0};
    for (int64_t j = 0; j < sizes.m; ++j) {
      add_overlap_gradient<kind>(load(from + j * stride), span, load_span(others + 2 * j), &sum);
    }
    store(a_gradients + 2 * row, sum.start);
    store(a_gradients + 2 * row + 1, sum.end);
  }
}

// A heap instead of a sort: of many candidates only the best few are looked at.
template <typename T>
void suppress(const NmsProblem<T>& problem, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  std::vector<Candidate<Acc>> heap;
  std::vector<Span<Acc>> kept;
  for (int64_t q = begin; q < end; ++q) {
    const T* spans = problem.spans + q * problem.candidates * 2;
    const T* scores = problem.scores + q * problem.candidates;
    int64_t* indices = problem.indices + q * problem.top_k;
    heap.clear();
    kept.clear();
    for (int64_t p = 0; p < problem.lengths[q]; ++p) {
      const Acc score = load(scores + p);
      if (score == score) heap.push_back({score, p});
    }
    std::make_heap(heap.begin(), heap.end(), comes_later<Acc>);
    while (!heap.empty() && static_cast<int64_t>(kept.size()) < problem.top_k) {
      const int64_t best = heap.front().index;
      std::pop_heap(heap.begin(), heap.end(), comes_later<Acc>);
      heap.pop_back();
      const auto span = load_span(spans + 2 * best);
      const bool suppressed = std::any_of(kept.begin(), kept.end(), [&](const Span<Acc>& better) {
        return overlap<Overlap::kIou>(better, span) > static_cast<Acc>(problem.iou_threshold);
      });
      if (suppressed) continue;
      indices[kept.size()] = best;
      kept.push_back(span);
    }
    const int64_t count = static_cast<int64_t>(kept.size());
    problem.counts[q] = count;
    std::fill(indices + count, indices + problem.top_k, int64_t{-1});
  }
}

#define VMR_INSTANTIATE_OVERLAP(T, kind)                                                    \
  template void pair_overlaps<T, kind>(const PairSizes&, const T*, const T*, T*, int64_t,   \
                                       int64_t);                                            \
  template void pair_overlap_gradients<T, kind>(const PairSizes&, const T*, bool, const T*, \
                                                const T*, T*, int64_t, int64_t);
#define VMR_INSTANTIATE(T)                   \
  VMR_INSTANTIATE_OVERLAP(T, Overlap::kIou)  \
  VMR_INSTANTIATE_OVERLAP(T, Overlap::kGiou) \
  template void suppress(const NmsProblem<T>&, int64_t, int64_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE
#undef VMR_INSTANTIATE_OVERLAP

}  // namespace vmr::kernels::spans
