// What the CPU and the CUDA kernels of the spans share: the sizes, what a cost counts, and the
// overlap of two spans with its gradient, as one formula for both.
#pragma once

#include <cstdint>

#include "kernels/scalar_types.h"

namespace vmr::kernels::spans {

enum class Overlap { kIou, kGiou };

// Spans a [batch, n, 2] against b [batch, m, 2].
struct PairSizes {
  int64_t batch;
  int64_t n;
  int64_t m;
};

template <typename T>
struct NmsProblem {
  const T* spans;          // [Q, P, 2]
  const T* scores;         // [Q, P]
  const int64_t* lengths;  // [Q]
  int64_t queries;
  int64_t candidates;  // P
  double iou_threshold;
  int64_t top_k;
  int64_t* indices;  // out [Q, top_k]
  int64_t* counts;   // out [Q]
};

// Slots are assigned to the windows of each of P problems.
template <typename T>
struct AssignmentProblem {
  const T* costs;         // [P, Q, M]
  const int64_t* counts;  // [P] windows that there are
  int64_t problems;       // P
  int64_t slots;          // Q
  int64_t windows;        // M
  int64_t* found;         // out [P, M]: the slot of each window, -1 where it has none
};

// A cost as it counts, so that whatever a model gives has an assignment: NaN and infinity 1e6,
// minus infinity -1e6.
VMR_HOST_DEVICE inline double finite_cost(double cost) {
  if (cost - cost == 0) return cost;
  return cost < 0 ? -1e6 : 1e6;
}

template <typename Acc>
struct Span {
  Acc start;
  Acc end;
};

// Everything that the overlap of two spans is made of. A reversed span has length 0.
template <typename Acc>
struct PairParts {
  Acc intersection;
  Acc joined;  // length of the union
  Acc hull;

  VMR_HOST_DEVICE PairParts(const Span<Acc>& a, const Span<Acc>& b) {
    const Acc a_length = a.end > a.start ? a.end - a.start : Acc(0);
    const Acc b_length = b.end > b.start ? b.end - b.start : Acc(0);
    const Acc first_end = a.end < b.end ? a.end : b.end;
    const Acc last_start = a.start > b.start ? a.start : b.start;
    intersection = first_end > last_start ? first_end - last_start : Acc(0);
    joined = a_length + b_length - intersection;
    hull = (a.end > b.end ? a.end : b.end) - (a.start < b.start ? a.start : b.start);
  }
};

// part / whole, or 0 where the whole is not positive; without a branch, so that loops vectorise.
template <typename Acc>
VMR_HOST_DEVICE inline Acc ratio(Acc part, Acc whole) {
  return (whole > 0 ? part : Acc(0)) / (whole > 0 ? whole : Acc(1));
}

// IoU = intersection / union, or 0 where the union is empty. gIoU = IoU - (hull - union) / hull, or
// IoU where the hull is empty. A NaN bound gives NaN.
template <Overlap kind, typename Acc>
VMR_HOST_DEVICE inline Acc overlap(const Span<Acc>& a, const Span<Acc>& b) {
  const Acc bounds = a.start + a.end + b.start + b.end;
  const PairParts<Acc> parts(a, b);
  Acc value = ratio(parts.intersection, parts.joined);
  if (kind == Overlap::kGiou) value -= ratio(parts.hull - parts.joined, parts.hull);
  return bounds == bounds ? value : bounds;
}

// The gradient of a's bounds from `gradient`, that of overlap(a, b), which is symmetric. Where two
// bounds are equal each has half of it. A pair without a gradient, or with a NaN bound (in padding,
// say), has none.
template <Overlap kind, typename Acc>
VMR_HOST_DEVICE inline Span<Acc> overlap_gradient(Acc gradient, const Span<Acc>& a,
                                                  const Span<Acc>& b) {
  const Acc bounds = a.start + a.end + b.start + b.end;
  const PairParts<Acc> parts(a, b);
  const Acc by_joined = ratio(gradient, parts.joined);
  const Acc by_hull = kind == Overlap::kGiou ? ratio(gradient, parts.hull) : Acc(0);
  const Acc to_joined = by_hull - ratio(by_joined * parts.intersection, parts.joined);
  const Acc to_hull = -ratio(by_hull * parts.joined, parts.hull);
  // union = length a + length b - intersection; a length or intersection that is cut off has no
  // gradient.
  const Acc first_end = a.end < b.end ? a.end : b.end;
  const Acc last_start = a.start > b.start ? a.start : b.start;
  const Acc to_length = a.end >= a.start ? to_joined : Acc(0);
  const Acc to_intersection = first_end >= last_start ? by_joined - to_joined : Acc(0);
  // How much of an extreme of both spans is a's: all, none, or half.
  const Acc has_first_end = a.end < b.end ? Acc(1) : (a.end > b.end ? Acc(0) : Acc(0.5));
  const Acc has_last_start = a.start > b.start ? Acc(1) : (a.start < b.start ? Acc(0) : Acc(0.5));
  const Acc to_start =
      -to_length - to_intersection * has_last_start - to_hull * (1 - has_last_start);
  const Acc to_end = to_length + to_intersection * has_first_end + to_hull * (1 - has_first_end);
  const bool some = gradient != 0 && bounds == bounds;
  return {some ? to_start : Acc(0), some ? to_end : Acc(0)};
}

}  // namespace vmr::kernels::spans
