// The span ops for any device; see granular.h for what a Device is.
#pragma once

#include <tuple>

#include "kernels/spans_types.h"
#include "ops/common.h"

namespace vmr::ops {

namespace spans = kernels::spans;

// [.., N, 2] and [.., M, 2] with the same leading sizes; makes both contiguous.
inline spans::PairSizes check_pairs(const char* op, Tensor* a, Tensor* b) {
  for (const auto& [name, tensor] : {std::pair{"a", a}, std::pair{"b", b}}) {
    const int64_t dims = tensor->dim();
    check(dims >= 2 && tensor->size(dims - 1) == 2, op, ": ", name, " must be [..., ",
          name[0] == 'a' ? "N" : "M", ", 2], got ", shape_text(*tensor));
  }
  check_floating({op, "a", ""}, *a);
  check_same_dtype({op, "b", ""}, *b, *a, "a");
  check_same_device(op, *a, {b});
  const int64_t leading = a->dim() - 2;
  bool same = b->dim() == a->dim();
  spans::PairSizes sizes = {1, a->size(leading), 0};
  for (int64_t d = 0; same && d < leading; ++d) {
    same = a->size(d) == b->size(d);
    sizes.batch *= a->size(d);
  }
  check(same, op, ": a and b must have the same leading sizes, got ", shape_text(*a), " and ",
        shape_text(*b));
  sizes.m = b->size(leading);
  *a = as_contiguous(*a);
  *b = as_contiguous(*b);
  return sizes;
}

inline std::vector<int64_t> pair_shape(const Tensor& a, const spans::PairSizes& sizes) {
  std::vector<int64_t> shape;
  for (int64_t d = 0; d + 1 < a.dim(); ++d) shape.push_back(a.size(d));
  shape.push_back(sizes.m);
  return shape;
}

template <typename Device, spans::Overlap kind>
Tensor span_overlap(const Tensor& a, const Tensor& b) {
  const char* const op = kind == spans::Overlap::kIou ? "span_iou" : "span_giou";
  Tensor first = a;
  Tensor second = b;
  const spans::PairSizes sizes = check_pairs(op, &first, &second);
  const typename Device::Guard guard(a);
  const Tensor overlaps = empty_on(a, pair_shape(a, sizes), a.scalar_type());
  dispatch_floating(a.scalar_type(), [&](auto type) {
    using T = decltype(type);
    Device(a).template pair_overlaps<T, kind>(sizes, in<T>(first), in<T>(second), out<T>(overlaps));
  });
  return overlaps;
}

template <typename Device, spans::Overlap kind>
std::tuple<Tensor, Tensor> span_overlap_backward(const Tensor& gradients, const Tensor& a,
                                                 const Tensor& b) {
  const char* const op = kind == spans::Overlap::kIou ? "span_iou_backward" : "span_giou_backward";
  Tensor first = a;
  Tensor second = b;
  const spans::PairSizes sizes = check_pairs(op, &first, &second);
  check_shape({op, "gradients", "[..., N, M]"}, gradients, pair_shape(a, sizes));
  check_same_dtype({op, "gradients", ""}, gradients, a, "a");
  check_same_device(op, a, {&gradients});
  const typename Device::Guard guard(a);
  const Tensor from = as_contiguous(gradients);
  const Tensor to_a = empty_as(first);
  const Tensor to_b = empty_as(second);
  dispatch_floating(a.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const Device device(a);
    device.template pair_overlap_gradients<T, kind>(sizes, in<T>(from), false, in<T>(first),
                                                    in<T>(second), out<T>(to_a));
    device.template pair_overlap_gradients<T, kind>({sizes.batch, sizes.m, sizes.n}, in<T>(from),
                                                    true, in<T>(second), in<T>(first),
                                                    out<T>(to_b));
  });
  return {to_a, to_b};
}

template <typename Device>
std::tuple<Tensor, Tensor> span_nms(const Tensor& spans, const Tensor& scores,
                                    const Tensor& lengths, double iou_threshold, int64_t top_k) {
  const char* const op = "span_nms";
  check_shape({op, "spans", "[Q, P, 2]"}, spans, {-1, -1, 2});
  const int64_t queries = spans.size(0);
  const int64_t candidates = spans.size(1);
  check_shape({op, "scores", "[Q, P] like spans"}, scores, {queries, candidates});
  check_shape({op, "lengths", "[Q] with spans' Q"}, lengths, {queries});
  check_floating({op, "spans", ""}, spans);
  check_same_dtype({op, "scores", ""}, scores, spans, "spans");
  check_int64({op, "lengths", ""}, lengths);
  check_same_device(op, spans, {&scores, &lengths});
  check(iou_threshold >= 0 && iou_threshold <= 1, op,
        ": iou_threshold must be between 0 and 1, got ", iou_threshold);
  check(top_k >= 1, op, ": top_k must be at least 1, got ", top_k);
  const typename Device::Guard guard(spans);
  Device::check_lengths(op, lengths, candidates);

  const Tensor indices = empty_on(spans, {queries, top_k}, ScalarType::Long);
  const Tensor counts = empty_on(spans, {queries}, ScalarType::Long);
  const Tensor rows[] = {as_contiguous(spans), as_contiguous(scores), as_contiguous(lengths)};
  dispatch_floating(spans.scalar_type(), [&](auto type) {
    using T = decltype(type);
    Device(spans).template suppress<T>({in<T>(rows[0]), in<T>(rows[1]), in<int64_t>(rows[2]),
                                        queries, candidates, iou_threshold, top_k,
                                        out<int64_t>(indices), out<int64_t>(counts)});
  });
  return {indices, counts};
}

template <typename Device>
Tensor assignment(const Tensor& costs, const Tensor& counts) {
  const char* const op = "assignment";
  check_shape({op, "costs", "[P, Q, M]"}, costs, {-1, -1, -1});
  const int64_t problems = costs.size(0);
  const int64_t windows = costs.size(2);
  check_shape({op, "counts", "[P] with costs' P"}, counts, {problems});
  check_floating({op, "costs", ""}, costs);
  check_int64({op, "counts", ""}, counts);
  check_same_device(op, costs, {&counts});
  const typename Device::Guard guard(costs);
  Device::check_lengths(op, counts, windows, "counts", "problem");

  const Tensor found = empty_on(costs, {problems, windows}, ScalarType::Long);
  const Tensor rows[] = {as_contiguous(costs), as_contiguous(counts)};
  dispatch_floating(costs.scalar_type(), [&](auto type) {
    using T = decltype(type);
    Device(costs).template assign<T>({in<T>(rows[0]), in<int64_t>(rows[1]), problems, costs.size(1),
                                      windows, out<int64_t>(found)});
  });
  return found;
}

}  // namespace vmr::ops
