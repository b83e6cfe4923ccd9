#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/granular.h"

namespace vmr::kernels::granular {
namespace {

struct Proposal {
  int64_t first;
  int64_t last;
  double mean;
};

// Runs of high frames, bridging up to max_gap low ones, with their mean score. A NaN is never high,
// and is left out of the mean.
template <typename T>
void merge(const T* scores, int64_t length, accumulate_t<T> threshold, int64_t max_gap,
           std::vector<Proposal>& found) {
  found.clear();
  double sum = 0;
  int64_t counted = 0;
  int64_t first = -1;
  int64_t last = -1;
  const auto close = [&] {
    if (first >= 0) found.push_back({first, last, sum / static_cast<double>(counted)});
  };
  for (int64_t f = 0; f < length; ++f) {
    const accumulate_t<T> score = load(scores + f);
    if (!(score >= threshold)) continue;
    if (first < 0 || f - last - 1 > max_gap) {
      close();
      first = f;
      sum = 0;
      counted = 0;
    } else {
      for (int64_t low = last + 1; low < f; ++low) {
        const accumulate_t<T> bridged = load(scores + low);
        if (bridged == bridged) {
          sum += bridged;
          ++counted;
        }
      }
    }
    sum += score;
    ++counted;
    last = f;
  }
  close();
}

// Takes out the `count` proposals with the lowest means; of equal ones the later go first.
// A NaN mean (of infinite scores of both signs) is the lowest.
void drop_lowest(int64_t count, std::vector<Proposal>& found, std::vector<double>& keys) {
  if (count <= 0) return;
  const auto key = [](const Proposal& proposal) {
    return std::isnan(proposal.mean) ? -std::numeric_limits<double>::infinity() : proposal.mean;
  };
  keys.clear();
  for (const Proposal& proposal : found) keys.push_back(key(proposal));
  std::nth_element(keys.begin(), keys.begin() + count, keys.end());
  const double cut = keys[static_cast<std::size_t>(count)];
  int64_t below = 0;
  int64_t equal = 0;
  for (const Proposal& proposal : found) {
    below += key(proposal) < cut;
    equal += key(proposal) == cut;
  }
  int64_t kept_equal = equal - (count - below);
  const auto dropped = [&](const Proposal& proposal) {
    if (key(proposal) == cut) return kept_equal-- <= 0;
    return key(proposal) < cut;
  };
  // A plain loop: std::remove_if may copy its stateful predicate.
  std::size_t kept = 0;
  for (const Proposal& proposal : found) {
    if (!dropped(proposal)) found[kept++] = proposal;
  }
  found.resize(kept);
}

}  // namespace

template <typename T>
void proposals(const ProposalRule& rule, const ProposalInput<T>& in, const ProposalOutput<T>& out,
               int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  std::vector<Proposal> found;
  std::vector<double> keys;
  for (int64_t q = begin; q < end; ++q) {
    merge(in.scores + q * in.frames, in.lengths[q], load(in.thresholds + q), rule.max_gap, found);
    drop_lowest(dropped_count(rule, static_cast<int64_t>(found.size())), found, keys);
    int64_t longest = in.lengths[q];
    if (rule.by_longest) {
      longest = 1;
      for (const Proposal& p : found) longest = std::max(longest, p.last - p.first + 1);
    }
    int64_t* span = out.spans + q * out.slots * 2;
    T* score = out.scores + q * out.slots;
    T* mean = out.means + q * out.slots;
    for (const Proposal& p : found) {
      const double rho = static_cast<double>(p.last - p.first + 1) / static_cast<double>(longest);
      *span++ = p.first;
      *span++ = p.last;
      store(mean++, static_cast<Acc>(p.mean));
      store(score++,
            static_cast<Acc>((1 - rule.length_weight) * p.mean + rule.length_weight * rho));
    }
    const int64_t count = static_cast<int64_t>(found.size());
    out.counts[q] = count;
    for (int64_t p = count; p < out.slots; ++p) {
      *span++ = -1;
      *span++ = -1;
      store(mean++, -std::numeric_limits<Acc>::infinity());
      store(score++, -std::numeric_limits<Acc>::infinity());
    }
  }
}

#define VMR_INSTANTIATE(T)                                                                        \
  template void proposals(const ProposalRule&, const ProposalInput<T>&, const ProposalOutput<T>&, \
                          int64_t, int64_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::granular
