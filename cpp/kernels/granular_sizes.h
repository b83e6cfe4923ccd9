// What the CPU and the CUDA kernels of the granular scores share: sizes and plain parameters.
#pragma once

#include <cstdint>

#include "kernels/scalar_types.h"

namespace vmr::kernels::granular {

// How a cosine becomes a similarity g in [0, 1].
enum class Normalization { kCosine, kMinMax };

// Cosines of a channel that differ by no more than rounding are all the same: min-max gives 0.
template <typename Acc>
VMR_HOST_DEVICE constexpr Acc constant_range() {
  return static_cast<Acc>(sizeof(Acc) == sizeof(double) ? 0x1p-48 : 0x1p-19);  // 16 epsilon
}

struct Sizes {
  int64_t queries;   // Q
  int64_t rewrites;  // m, of each kind
  int64_t channels;  // c, vectors of a query of each kind: 1 where the rewrites are folded, else m
  int64_t frames;    // F
  int64_t aware_rows;  // R
  int64_t dim;         // D
  int64_t padded_dim;  // D rounded up; what lies beyond D is zero
};

// S = agnostic * mean_i g(simple_i) + aware * mean_i g(detailed_i)
struct Weights {
  Normalization normalization;
  double agnostic;
  double aware;
};

// Row r of the query-aware captions belongs to frame frames[r], ascending within a query, and to
// the query q with splits[q] <= r < splits[q + 1].
struct AwareRows {
  const int64_t* frames;  // [R]
  const int64_t* splits;  // [Q + 1]
};

struct ProposalRule {
  int64_t max_gap;       // frames below the threshold that a proposal may bridge in one place
  double drop_percent;   // of the proposals, those with the lowest means
  double length_weight;  // lambda
  bool by_longest;  // rho is the length over the query's longest kept proposal, else over its video
};

// Enough slots for any scores: between two proposals lie more than max_gap frames.
constexpr int64_t proposal_slots(int64_t frames, int64_t max_gap) {
  return max_gap >= frames ? 1 : (frames + max_gap + 1) / (max_gap + 2);
}

// How many of `count` proposals are dropped: rounded down, and never all.
VMR_HOST_DEVICE inline int64_t dropped_count(const ProposalRule& rule, int64_t count) {
  const auto dropped = static_cast<int64_t>(static_cast<double>(count) * rule.drop_percent / 100.0);
  return dropped < count ? dropped : (count > 0 ? count - 1 : 0);
}

template <typename T>
struct ProposalInput {
  const T* scores;         // [Q, F]
  const int64_t* lengths;  // [Q]
  const T* thresholds;     // [Q]
  int64_t queries;
  int64_t frames;
};

template <typename T>
struct ProposalOutput {
  int64_t* spans;   // [Q, slots, 2]
  T* scores;        // [Q, slots]
  T* means;         // [Q, slots]
  int64_t* counts;  // [Q]
  int64_t slots;
};

}  // namespace vmr::kernels::granular
