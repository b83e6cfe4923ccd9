#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/granular.h"

namespace vmr::kernels::granular {
namespace {

using Bits = std::vector<uint64_t>;

struct Proposal {
  int64_t first;
  int64_t last;
  double mean;
};

// What the queries of a range use in turn.
struct Scratch {
  Bits high;
  std::vector<int64_t> begins;
  std::vector<int64_t> ends;
  std::vector<double> keys;
  std::vector<double> candidates;
  std::vector<Proposal> found;
};

// Bit f says whether frame f is high; a word more than is needed, so that gaps can be closed.
// NaN compares false.
template <typename T>
void mark_high(const T* scores, int64_t length, accumulate_t<T> threshold, Bits& high) {
  high.assign(static_cast<std::size_t>(length / 64 + 2), 0);
  for (int64_t base = 0; base < length; base += 64) {
    uint8_t bytes[64] = {};
    const int64_t count = std::min<int64_t>(64, length - base);
    if (count == 64) {
      for (int64_t i = 0; i < 64; ++i) bytes[i] = load(scores + base + i) >= threshold;
    } else {
      for (int64_t i = 0; i < count; ++i) bytes[i] = load(scores + base + i) >= threshold;
    }
    uint64_t word = 0;
    for (int i = 0; i < 8; ++i) {
      uint64_t eight;
      __builtin_memcpy(&eight, bytes + 8 * i, sizeof(eight));
      // The product gathers the eight low bits, one of each byte, in the highest byte.
      word |= (eight * 0x0102040810204080u >> 56) << (8 * i);
    }
    high[static_cast<std::size_t>(base / 64)] = word;
  }
}

// Sets the bits between two set ones that have at most `gap` < 64 others between them: what is
// moved up by up to `gap` places, and then back down where all of it is set.
void close_gaps(int64_t gap, Bits& bits) {
  for (int64_t moved = 0; moved < gap;) {
    const int64_t step = std::min(moved + 1, gap - moved);
    for (std::size_t w = bits.size() - 1; w > 0; --w) {
      bits[w] |= bits[w] << step | bits[w - 1] >> (64 - step);
    }
    bits[0] |= bits[0] << step;
    moved += step;
  }
  for (int64_t moved = 0; moved < gap;) {
    const int64_t step = std::min(moved + 1, gap - moved);
    for (std::size_t w = 0; w + 1 < bits.size(); ++w) {
      bits[w] &= bits[w] >> step | bits[w + 1] << (64 - step);
    }
    bits.back() &= bits.back() >> step;
    moved += step;
  }
}

void list_bits(uint64_t word, int64_t base, std::vector<int64_t>& to) {
  for (; word != 0; word &= word - 1) to.push_back(base + __builtin_ctzll(word));
}

// The mean of the scores [first, last] that are not NaN; one at least is not.
template <typename T>
double mean_score(const T* scores, int64_t first, int64_t last) {
  double sums[4] = {};
  for (int64_t f = first; f <= last; f += 4) {
    for (int64_t i = 0; i < 4; ++i) {
      const double score = load(scores + std::min(f + i, last));
      sums[i] += f + i <= last ? score : 0.0;
    }
  }
  const double sum = (sums[0] + sums[2]) + (sums[1] + sums[3]);
  if (std::isfinite(sum)) return sum / static_cast<double>(last - first + 1);
  double known = 0;
  int64_t count = 0;
  for (int64_t f = first; f <= last; ++f) {
    const double score = load(scores + f);
    if (std::isnan(score)) continue;
    known += score;
    ++count;
  }
  return known / static_cast<double>(count);
}

// Runs of high frames, bridging up to max_gap low ones, with their mean scores.
template <typename T>
void merge(const T* scores, int64_t length, accumulate_t<T> threshold, int64_t max_gap,
           Scratch& scratch) {
  Bits& high = scratch.high;
  mark_high(scores, length, threshold, high);
  close_gaps(std::min<int64_t>(max_gap, 63), high);
  scratch.begins.clear();
  scratch.ends.clear();
  for (std::size_t w = 0; w + 1 < high.size(); ++w) {
    const uint64_t before = w > 0 ? high[w - 1] >> 63 : 0;
    const auto base = static_cast<int64_t>(64 * w);
    list_bits(high[w] & ~(high[w] << 1 | before), base, scratch.begins);
    list_bits(high[w] & ~(high[w] >> 1 | high[w + 1] << 63), base, scratch.ends);
  }
  scratch.found.clear();
  for (std::size_t run = 0; run < scratch.begins.size(); ++run) {
    const int64_t first = scratch.begins[run];
    // Gaps of 64 and more are still open.
    while (run + 1 < scratch.begins.size() &&
           scratch.begins[run + 1] - scratch.ends[run] - 1 <= max_gap) {
      ++run;
    }
    const int64_t last = scratch.ends[run];
    scratch.found.push_back({first, last, mean_score(scores, first, last)});
  }
}

// The value of rank `rank` from the lowest, by counting values in buckets of equal width and
// looking at one bucket only. Some ten times faster than nth_element, whose branches go either way.
double value_of_rank(const std::vector<double>& values, int64_t rank,
                     std::vector<double>& candidates) {
  constexpr int kBuckets = 256;
  double low = values[0];
  double high = values[0];
  for (const double value : values) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  const double scale = kBuckets / (high - low) * (1 - 1e-9);
  candidates.resize(values.size());
  std::size_t count = 0;
  if (std::isfinite(scale) && std::isfinite(high - low)) {
    int64_t counts[kBuckets] = {};
    for (const double value : values) ++counts[static_cast<int>((value - low) * scale)];
    int bucket = 0;
    for (; rank >= counts[bucket]; ++bucket) rank -= counts[bucket];
    for (const double value : values) {
      candidates[count] = value;
      count += static_cast<int>((value - low) * scale) == bucket;
    }
    candidates.resize(count);
  } else {
    candidates = values;
  }
  std::nth_element(candidates.begin(), candidates.begin() + rank, candidates.end());
  return candidates[static_cast<std::size_t>(rank)];
}

// A NaN mean, of infinite scores of both signs, is the lowest.
double key_of(const Proposal& proposal) {
  return std::isnan(proposal.mean) ? -std::numeric_limits<double>::infinity() : proposal.mean;
}

// Takes out the `count` proposals with the lowest means; of equal ones the later go first.
void drop_lowest(int64_t count, Scratch& scratch) {
  if (count <= 0) return;
  std::vector<Proposal>& found = scratch.found;
  scratch.keys.resize(found.size());
  std::transform(found.begin(), found.end(), scratch.keys.begin(), key_of);
  const double cut = value_of_rank(scratch.keys, count, scratch.candidates);
  int64_t below = 0;
  int64_t equal = 0;
  for (const double key : scratch.keys) {
    below += key < cut;
    equal += key == cut;
  }
  int64_t kept_equal = equal - (count - below);
  std::size_t kept = 0;
  for (std::size_t p = 0; p < found.size(); ++p) {
    const double key = scratch.keys[p];
    found[kept] = found[p];
    kept += key > cut;
    if (key == cut && kept_equal-- > 0) ++kept;
  }
  found.resize(kept);
}

}  // namespace

template <typename T>
void proposals(const ProposalRule& rule, const ProposalInput<T>& in, const ProposalOutput<T>& out,
               int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  Scratch scratch;
  const std::vector<Proposal>& found = scratch.found;
  for (int64_t q = begin; q < end; ++q) {
    merge(in.scores + q * in.frames, in.lengths[q], load(in.thresholds + q), rule.max_gap, scratch);
    drop_lowest(dropped_count(rule, static_cast<int64_t>(found.size())), scratch);
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
    const auto count = static_cast<int64_t>(found.size());
    out.counts[q] = count;
    T none;
    store(&none, -std::numeric_limits<Acc>::infinity());
    std::fill(span, span + 2 * (out.slots - count), int64_t{-1});
    std::fill(mean, mean + (out.slots - count), none);
    std::fill(score, score + (out.slots - count), none);
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
