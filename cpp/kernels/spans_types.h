// What the CPU and the CUDA kernels of the spans share: the sizes, and the overlap of two spans
// with its gradient, as one formula for both.
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

// IoU = intersection / union, or 0 where the union is empty. gIoU = IoU - (hull - union) / hull, or
// IoU where the hull is empty. A NaN bound gives NaN.
template <Overlap kind, typename Acc>
VMR_HOST_DEVICE inline Acc overlap(const Span<Acc>& a, const Span<Acc>& b) {
  const Acc bounds = a.start + a.end + b.start + b.end;
  const PairParts<Acc> parts(a, b);
  Acc value = parts.joined > 0 ? parts.intersection / parts.joined : Acc(0);
  if (kind == Overlap::kGiou && parts.hull > 0) value -= (parts.hull - parts.joined) / parts.hull;
  return bounds == bounds ? value : bounds;
}

// Adds to `to` the gradient of a's bounds from `gradient`, that of overlap(a, b), which is
// symmetric. Where two bounds are equal each has half of it. A pair without a gradient, or with a
// NaN bound (in padding, say), adds nothing.
template <Overlap kind, typename Acc>
VMR_HOST_DEVICE inline void add_overlap_gradient(Acc gradient, const Span<Acc>& a,
                                                 const Span<Acc>& b, Span<Acc>* to) {
  const Acc bounds = a.start + a.end + b.start + b.end;
  if (gradient == 0 || bounds != bounds) return;
  const PairParts<Acc> parts(a, b);
  Acc to_joined = 0;
  Acc to_intersection = 0;
  Acc to_hull = 0;
  if (parts.joined > 0) {
    to_intersection = gradient / parts.joined;
    to_joined = -gradient * parts.intersection / (parts.joined * parts.joined);
  }
  if (kind == Overlap::kGiou && parts.hull > 0) {
    to_joined += gradient / parts.hull;
    to_hull = -gradient * parts.joined / (parts.hull * parts.hull);
  }
  to_intersection -= to_joined;  // union = length a + length b - intersection
  // How much of an extreme of both spans is a's: all, none, or half.
  const Acc has_first_end = a.end < b.end ? Acc(1) : (a.end > b.end ? Acc(0) : Acc(0.5));
  const Acc has_last_start = a.start > b.start ? Acc(1) : (a.start < b.start ? Acc(0) : Acc(0.5));
  if (a.end >= a.start) {
    to->end += to_joined;
    to->start -= to_joined;
  }
  if ((a.end < b.end ? a.end : b.end) >= (a.start > b.start ? a.start : b.start)) {
    to->end += to_intersection * has_first_end;
    to->start -= to_intersection * has_last_start;
  }
  to->end += to_hull * (1 - has_first_end);
  to->start -= to_hull * (1 - has_last_start);
}

}  // namespace vmr::kernels::spans
