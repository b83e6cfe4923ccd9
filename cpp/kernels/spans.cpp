#include "kernels/spans.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

namespace vmr::kernels::spans {
namespace {

template <typename T>
Span<accumulate_t<T>> load_span(const T* from) {
  return {load(from), load(from + 1)};
}

constexpr int64_t kBlock = 256;

// Some of the spans b of a batch, starts and ends apart, so that loops over them vectorise.
template <typename Acc>
struct SpanBlock {
  int64_t first;
  int64_t count;
  Acc starts[kBlock];
  Acc ends[kBlock];
};

// Calls function(block, row) for each row of a in [begin, end) and each block of its batch's b.
template <typename T, typename Function>
void over_blocks(const PairSizes& sizes, const T* b, int64_t begin, int64_t end,
                 const Function& function) {
  SpanBlock<accumulate_t<T>> block;
  for (int64_t row = begin; row < end;) {
    const int64_t batch = row / sizes.n;
    const int64_t last_row = std::min(end, (batch + 1) * sizes.n);
    for (block.first = 0; block.first < sizes.m; block.first += kBlock) {
      block.count = std::min(kBlock, sizes.m - block.first);
      const T* from = b + (batch * sizes.m + block.first) * 2;
      for (int64_t j = 0; j < block.count; ++j) {
        block.starts[j] = load(from + 2 * j);
        block.ends[j] = load(from + 2 * j + 1);
      }
      for (int64_t r = row; r < last_row; ++r) function(block, r);
    }
    row = last_row;
  }
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

// A score that about 5% of the scores are not below, by a sample; the lowest where there are few.
template <typename T>
accumulate_t<T> high_score(const T* scores, int64_t length) {
  using Acc = accumulate_t<T>;
  constexpr int64_t kSamples = 64;
  constexpr Acc kLowest = -std::numeric_limits<Acc>::infinity();
  if (length < 4 * kSamples) return kLowest;
  Acc best[3] = {kLowest, kLowest, kLowest};
  for (int64_t i = 0; i < kSamples; ++i) {
    Acc score = load(scores + i * length / kSamples);
    for (Acc& other : best) {
      if (score > other) std::swap(score, other);
    }
  }
  return best[2];
}

}  // namespace

template <typename T, Overlap kind>
void pair_overlaps(const PairSizes& sizes, const T* a, const T* b, T* overlaps, int64_t begin,
                   int64_t end) {
  using Acc = accumulate_t<T>;
  over_blocks(sizes, b, begin, end, [&](const SpanBlock<Acc>& block, int64_t row) {
    const auto span = load_span(a + 2 * row);
    Acc values[kBlock];
    for (int64_t j = 0; j < block.count; ++j) {
      values[j] = overlap<kind>(span, Span<Acc>{block.starts[j], block.ends[j]});
    }
    T* to = overlaps + row * sizes.m + block.first;
    for (int64_t j = 0; j < block.count; ++j) store(to + j, values[j]);
  });
}

template <typename T, Overlap kind>
void pair_overlap_gradients(const PairSizes& sizes, const T* gradients, bool transposed, const T* a,
                            const T* b, T* a_gradients, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const int64_t stride = transposed ? sizes.n : 1;
  std::vector<Span<Acc>> sums(static_cast<std::size_t>(end - begin), {0, 0});
  over_blocks(sizes, b, begin, end, [&](const SpanBlock<Acc>& block, int64_t row) {
    const int64_t batch = row / sizes.n;
    const auto span = load_span(a + 2 * row);
    const T* from = gradients + block.first * stride +
                    (transposed ? batch * sizes.n * sizes.m + row % sizes.n : row * sizes.m);
    Acc gradient[kBlock];
    Acc to_start[kBlock];
    Acc to_end[kBlock];
    for (int64_t j = 0; j < block.count; ++j) gradient[j] = load(from + j * stride);
    for (int64_t j = 0; j < block.count; ++j) {
      const auto part =
          overlap_gradient<kind>(gradient[j], span, Span<Acc>{block.starts[j], block.ends[j]});
      to_start[j] = part.start;
      to_end[j] = part.end;
    }
    Span<Acc>& sum = sums[static_cast<std::size_t>(row - begin)];
    for (int64_t j = 0; j < block.count; ++j) {
      sum.start += to_start[j];
      sum.end += to_end[j];
    }
  });
  for (int64_t row = begin; row < end; ++row) {
    store(a_gradients + 2 * row, sums[static_cast<std::size_t>(row - begin)].start);
    store(a_gradients + 2 * row + 1, sums[static_cast<std::size_t>(row - begin)].end);
  }
}

// Candidates are looked at from the best on, and mostly few of them: those at or above the cut
// first, and the rest only if these do not suffice. A heap instead of a sort, for the same reason.
template <typename T>
void suppress(const NmsProblem<T>& problem, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  std::vector<Candidate<Acc>> heap;
  std::vector<Span<Acc>> kept;
  for (int64_t q = begin; q < end; ++q) {
    const T* spans = problem.spans + q * problem.candidates * 2;
    const T* scores = problem.scores + q * problem.candidates;
    int64_t* indices = problem.indices + q * problem.top_k;
    const auto full = [&] { return static_cast<int64_t>(kept.size()) == problem.top_k; };
    kept.clear();
    const Acc cut = high_score(scores, problem.lengths[q]);
    for (const bool rest : {false, true}) {
      if (full()) break;
      heap.clear();
      for (int64_t p = 0; p < problem.lengths[q]; ++p) {
        const Acc score = load(scores + p);
        if (rest ? score < cut : score >= cut) heap.push_back({score, p});
      }
      std::make_heap(heap.begin(), heap.end(), comes_later<Acc>);
      while (!heap.empty() && !full()) {
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
    }
    const auto count = static_cast<int64_t>(kept.size());
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
