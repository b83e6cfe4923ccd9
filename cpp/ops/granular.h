// The granular ops for any device. Device supplies the kernels as static functions that run a whole
// range: on the CPU (granular.cpp) shared out among threads, on CUDA (granular_cuda.cpp) launched.
#pragma once

#include <tuple>

#include "kernels/granular_sizes.h"
#include "kernels/row_dots.h"
#include "ops/common.h"

namespace vmr::ops {

namespace granular = kernels::granular;

struct GranularInputs {
  Tensor simple;        // [Q, m, D]
  Tensor detailed;      // [Q, m, D]
  Tensor agnostic;      // [F, D]
  Tensor aware;         // [R, D]
  Tensor aware_frames;  // [R]
  Tensor aware_splits;  // [Q + 1]
};

// Checks shapes, dtypes and devices, and makes the inputs contiguous.
inline granular::Sizes check_granular(const char* op, GranularInputs* inputs, bool min_max) {
  const auto& [simple, detailed, agnostic, aware, aware_frames, aware_splits] = *inputs;
  check_shape({op, "simple", "[Q, m, D]"}, simple, {-1, -1, -1});
  const int64_t queries = simple.size(0);
  const int64_t rewrites = simple.size(1);
  const int64_t dim = simple.size(2);
  check(rewrites >= 1 && dim >= 1, op, ": simple must be [Q, m, D] with m >= 1 and D >= 1, got ",
        shape_text(simple));
  check_shape({op, "detailed", "[Q, m, D] like simple"}, detailed, {queries, rewrites, dim});
  check_shape({op, "agnostic", "[F, D] with simple's D"}, agnostic, {-1, dim});
  check(agnostic.size(0) >= 1, op, ": agnostic must be [F, D] with F >= 1, got ",
        shape_text(agnostic));
  check_shape({op, "aware", "[R, D] with simple's D"}, aware, {-1, dim});
  const int64_t aware_rows = aware.size(0);
  check_shape({op, "aware_frames", "[R] with aware's R"}, aware_frames, {aware_rows});
  check_shape({op, "aware_splits", "[Q + 1] with simple's Q"}, aware_splits, {queries + 1});
  check_floating({op, "simple", ""}, simple);
  check_same_dtype({op, "detailed", ""}, detailed, simple, "simple");
  check_same_dtype({op, "agnostic", ""}, agnostic, simple, "simple");
  check_same_dtype({op, "aware", ""}, aware, simple, "simple");
  check_int64({op, "aware_frames", ""}, aware_frames);
  check_int64({op, "aware_splits", ""}, aware_splits);
  check_same_device(op, simple, {&detailed, &agnostic, &aware, &aware_frames, &aware_splits});

  *inputs = {as_contiguous(simple), as_contiguous(detailed),     as_contiguous(agnostic),
             as_contiguous(aware),  as_contiguous(aware_frames), as_contiguous(aware_splits)};
  const int64_t alignment = kernels::kDimAlignment;
  return {queries,
          rewrites,
          min_max ? rewrites : 1,
          inputs->agnostic.size(0),
          aware_rows,
          dim,
          (dim + alignment - 1) / alignment * alignment};
}

inline granular::Weights granular_weights(bool min_max, double agnostic, double aware) {
  return {min_max ? granular::Normalization::kMinMax : granular::Normalization::kCosine, agnostic,
          aware};
}

// A video's queries as vectors. The first half of each array belongs to the simple rewrites, the
// second to the detailed ones.
template <typename Device, typename T>
struct GranularQueries {
  using Acc = kernels::accumulate_t<T>;
  granular::Sizes sizes;
  int64_t side_channels;  // Q * c
  Tensor units;           // [2, Q * m, padded D] the rewrites at length one
  Tensor unit_norms;      // [2, Q * m] 1 / their norms
  Tensor channels;        // [2, Q * c, padded D]; `units` where nothing is folded

  GranularQueries(const GranularInputs& inputs, const granular::Sizes& s)
      : sizes(s),
        side_channels(s.queries * s.channels),
        units(empty({2, s.queries * s.rewrites, s.padded_dim}, inputs)),
        unit_norms(empty({2, s.queries * s.rewrites}, inputs)),
        channels(folded() ? empty({2, side_channels, s.padded_dim}, inputs) : units) {
    const Device device(inputs.simple);
    const Tensor* const sides[] = {&inputs.simple, &inputs.detailed};
    for (int side = 0; side < 2; ++side) {
      device.template query_channels<T>(sizes, in<T>(*sides[side]), unit(side), unit_norm(side),
                                        folded() ? channel(side) : nullptr);
    }
  }

  bool folded() const { return sizes.channels != sizes.rewrites; }
  Acc* unit(int side) const {
    return out<Acc>(units) + side * sizes.queries * sizes.rewrites * sizes.padded_dim;
  }
  Acc* unit_norm(int side) const {
    return out<Acc>(unit_norms) + side * sizes.queries * sizes.rewrites;
  }
  Acc* channel(int side) const {
    return out<Acc>(channels) + side * side_channels * sizes.padded_dim;
  }

  static Tensor empty(const std::vector<int64_t>& shape, const GranularInputs& inputs) {
    return empty_on(inputs.simple, shape, accumulate_dtype<T>());
  }
};

inline granular::AwareRows aware_rows(const GranularInputs& inputs) {
  return {in<int64_t>(inputs.aware_frames), in<int64_t>(inputs.aware_splits)};
}

// The cosines of the queries with the captions: the simple rewrites' with the frames' own captions,
// and the detailed ones' with the query-aware captions.
template <typename Device, typename T>
struct GranularCosines {
  using Acc = kernels::accumulate_t<T>;
  using Queries = GranularQueries<Device, T>;
  Tensor cosines;      // [2, Q * c, F]
  Tensor frame_norms;  // [F] 1 / the captions' norms
  Tensor aware_norms;  // [R]
  int64_t side_size;

  GranularCosines(const GranularInputs& inputs, const Queries& queries)
      : cosines(Queries::empty({2, queries.side_channels, queries.sizes.frames}, inputs)),
        frame_norms(Queries::empty({queries.sizes.frames}, inputs)),
        aware_norms(Queries::empty({queries.sizes.aware_rows}, inputs)),
        side_size(queries.side_channels * queries.sizes.frames) {
    const Device device(inputs.simple);
    device.template frame_cosines<T>(queries.sizes, in<T>(inputs.agnostic), queries.channel(0),
                                     2 * queries.side_channels, cosine(0), out<Acc>(frame_norms));
    device.template aware_cosines<T>(queries.sizes, in<T>(inputs.aware), aware_rows(inputs),
                                     queries.channel(1), cosine(1), out<Acc>(aware_norms));
  }

  Acc* cosine(int side) const { return out<Acc>(cosines) + side * side_size; }
};

template <typename Device>
Tensor granular_scores(const Tensor& simple, const Tensor& detailed, const Tensor& agnostic,
                       const Tensor& aware, const Tensor& aware_frames, const Tensor& aware_splits,
                       bool min_max, double agnostic_weight, double aware_weight) {
  GranularInputs inputs = {simple, detailed, agnostic, aware, aware_frames, aware_splits};
  const granular::Sizes sizes = check_granular("granular_scores", &inputs, min_max);
  const typename Device::Guard guard(simple);
  Device::check_aware_rows("granular_scores", inputs, sizes);
  Tensor scores = empty_on(simple, {sizes.queries, sizes.frames}, simple.scalar_type());
  if (sizes.queries == 0) return scores;
  dispatch_floating(simple.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const Device device(simple);
    const granular::Weights weights = granular_weights(min_max, agnostic_weight, aware_weight);
    const GranularQueries<Device, T> queries(inputs, sizes);
    if constexpr (Device::kScoresInOnePass) {
      if (!min_max) {
        const Tensor combined = queries.empty({sizes.queries, sizes.padded_dim}, inputs);
        using Acc = kernels::accumulate_t<T>;
        device.template combine_channels<Acc>(sizes, weights, in<Acc>(queries.channels),
                                              out<Acc>(combined));
        device.template frame_scores<T>(sizes, weights, in<T>(inputs.agnostic), in<T>(inputs.aware),
                                        aware_rows(inputs), in<Acc>(queries.channels),
                                        in<Acc>(combined), out<T>(scores));
        return;
      }
    }
    const GranularCosines<Device, T> cosines(inputs, queries);
    device.template finish_scores<T>(sizes, weights, cosines.cosine(0), out<T>(scores));
  });
  return scores;
}

template <typename Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> granular_scores_backward(
    const Tensor& score_gradients, const Tensor& simple, const Tensor& detailed,
    const Tensor& agnostic, const Tensor& aware, const Tensor& aware_frames,
    const Tensor& aware_splits, bool min_max, double agnostic_weight, double aware_weight) {
  const char* const op = "granular_scores_backward";
  GranularInputs inputs = {simple, detailed, agnostic, aware, aware_frames, aware_splits};
  const granular::Sizes sizes = check_granular(op, &inputs, min_max);
  check_shape({op, "score_gradients", "[Q, F]"}, score_gradients, {sizes.queries, sizes.frames});
  check_same_dtype({op, "score_gradients", ""}, score_gradients, simple, "simple");
  check_same_device(op, simple, {&score_gradients});
  const typename Device::Guard guard(simple);
  Device::check_aware_rows(op, inputs, sizes);

  const Tensor from = as_contiguous(score_gradients);
  Tensor gradients[] = {empty_as(inputs.simple), empty_as(inputs.detailed),
                        empty_as(inputs.agnostic), empty_as(inputs.aware)};
  if (sizes.queries == 0) {
    for (Tensor& gradient : gradients) torch::stable::zero_(gradient);
    return {gradients[0], gradients[1], gradients[2], gradients[3]};
  }
  dispatch_floating(simple.scalar_type(), [&](auto type) {
    using T = decltype(type);
    using Acc = kernels::accumulate_t<T>;
    const Device device(simple);
    const granular::AwareRows rows = aware_rows(inputs);
    const GranularQueries<Device, T> queries(inputs, sizes);
    const GranularCosines<Device, T> c(inputs, queries);
    const Tensor cosine_gradients = empty_as(c.cosines);
    const Tensor channel_gradients =
        torch::stable::new_zeros(queries.channels, queries.channels.sizes());
    Acc* const to_cosines = out<Acc>(cosine_gradients);
    Acc* const to_aware_cosines = to_cosines + c.side_size;
    Acc* const to_channels = out<Acc>(channel_gradients);
    Acc* const to_aware_channels = to_channels + queries.side_channels * sizes.padded_dim;

    device.template cosine_gradients<T>(sizes,
                                        granular_weights(min_max, agnostic_weight, aware_weight),
                                        in<T>(from), c.cosine(0), to_cosines);
    device.template aware_gradients<T>(sizes, in<T>(inputs.aware), rows, queries.channel(1),
                                       c.cosine(1), in<Acc>(c.aware_norms), to_aware_cosines,
                                       out<T>(gradients[3]));
    // From here on the cosine gradients are those of the frames' own captions alone.
    device.template add_aware_channel_gradients<T>(sizes, in<T>(inputs.aware), rows,
                                                   in<Acc>(c.aware_norms), to_aware_cosines,
                                                   to_aware_channels);
    device.template frame_gradients<T>(sizes, in<T>(inputs.agnostic), queries.channel(0),
                                       2 * queries.side_channels, c.cosine(0),
                                       in<Acc>(c.frame_norms), to_cosines, out<T>(gradients[2]));
    device.template add_frame_channel_gradients<T>(sizes, in<T>(inputs.agnostic),
                                                   2 * queries.side_channels,
                                                   in<Acc>(c.frame_norms), to_cosines, to_channels);
    device.template query_gradients<T>(sizes, queries.unit(0), queries.unit_norm(0), to_channels,
                                       out<T>(gradients[0]));
    device.template query_gradients<T>(sizes, queries.unit(1), queries.unit_norm(1),
                                       to_aware_channels, out<T>(gradients[1]));
  });
  return {gradients[0], gradients[1], gradients[2], gradients[3]};
}

template <typename Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> granular_proposals(
    const Tensor& scores, const Tensor& lengths, const Tensor& thresholds, int64_t max_gap,
    double drop_percent, double length_weight, bool by_longest) {
  const char* const op = "granular_proposals";
  check_shape({op, "scores", "[Q, F]"}, scores, {-1, -1});
  const int64_t queries = scores.size(0);
  const int64_t frames = scores.size(1);
  check(frames >= 1, op, ": scores must be [Q, F] with F >= 1, got ", shape_text(scores));
  check_shape({op, "lengths", "[Q] with scores' Q"}, lengths, {queries});
  check_shape({op, "thresholds", "[Q] with scores' Q"}, thresholds, {queries});
  check_floating({op, "scores", ""}, scores);
  check_int64({op, "lengths", ""}, lengths);
  check_same_dtype({op, "thresholds", ""}, thresholds, scores, "scores");
  check_same_device(op, scores, {&lengths, &thresholds});
  check(max_gap >= 0, op, ": max_gap must be at least 0, got ", max_gap);
  check(drop_percent >= 0 && drop_percent <= 100, op,
        ": drop_percent must be between 0 and 100, got ", drop_percent);
  check(length_weight >= 0 && length_weight <= 1, op,
        ": length_weight must be between 0 and 1, got ", length_weight);
  const typename Device::Guard guard(scores);
  Device::check_lengths(op, lengths, frames);

  const int64_t slots = granular::proposal_slots(frames, max_gap);
  const Tensor spans = empty_on(scores, {queries, slots, 2}, ScalarType::Long);
  const Tensor ranked = empty_on(scores, {queries, slots}, scores.scalar_type());
  const Tensor means = empty_as(ranked);
  const Tensor counts = empty_on(scores, {queries}, ScalarType::Long);
  const Tensor rows[] = {as_contiguous(scores), as_contiguous(lengths), as_contiguous(thresholds)};
  dispatch_floating(scores.scalar_type(), [&](auto type) {
    using T = decltype(type);
    Device(scores).template proposals<T>(
        {max_gap, drop_percent, length_weight, by_longest},
        {in<T>(rows[0]), in<int64_t>(rows[1]), in<T>(rows[2]), queries, frames},
        {out<int64_t>(spans), out<T>(ranked), out<T>(means), out<int64_t>(counts), slots});
  });
  return {spans, ranked, means, counts};
}

}  // namespace vmr::ops
