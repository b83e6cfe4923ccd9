// Frame attention and attentive pooling for any device. Device supplies the kernels of
// kernels/background_types.h: on the CPU (background.cpp) shared out among threads, on CUDA
// launched. Products of matrices are torch's.
#pragma once

#include <tuple>

#include "kernels/background_types.h"
#include "ops/common.h"

namespace vmr::ops {

namespace background = kernels::background;

// One op's checks, against its first tensor.
struct BackgroundChecks {
  const char* op;
  const Tensor& first;
  const char* first_name;

  void floating(const char* name, const Tensor& tensor, const char* shape,
                const std::vector<int64_t>& sizes) const {
    check_shape({op, name, shape}, tensor, sizes);
    check_same_dtype({op, name, ""}, tensor, first, first_name);
    check_same_device(op, first, {&tensor});
  }
  void indices(const char* name, const Tensor& tensor, const char* shape,
               const std::vector<int64_t>& sizes) const {
    check_shape({op, name, shape}, tensor, sizes);
    check_int64({op, name, ""}, tensor);
    check_same_device(op, first, {&tensor});
  }
};

// Sizes of the first tensor, [B, N, D].
inline background::Sizes check_videos_of_rows(const BackgroundChecks& checks) {
  const Tensor& first = checks.first;
  const bool fits = first.dim() == 3 && first.size(1) >= 1 && first.size(2) >= 1;
  check(fits, checks.op, ": ", checks.first_name, " must be [B, N, D] with N >= 1 and D >= 1, got ",
        shape_text(first));
  check_floating({checks.op, checks.first_name, ""}, first);
  return {first.size(0), first.size(1), first.size(2), 0};
}

// A tensor [B, N, D] whose videos' rows stand one behind the other: as it is, where it is so.
inline Tensor with_whole_videos(const Tensor& tensor) {
  const bool rows = tensor.stride(2) == 1 || tensor.size(2) == 1;
  const bool videos = tensor.stride(1) == tensor.size(2) || tensor.size(1) == 1;
  return rows && videos ? tensor : as_contiguous(tensor);
}
template <typename T>
background::Videos<T> videos_of(const Tensor& tensor) {
  return {in<T>(tensor), tensor.stride(0)};
}

inline Tensor as_dtype(const Tensor& tensor, ScalarType dtype) {
  return tensor.scalar_type() == dtype ? tensor : torch::stable::to(tensor, dtype);
}

// ---- frame attention ----

struct FrameAttentionInputs {
  Tensor frames;         // [B, N, D]
  Tensor hidden_weight;  // [H, D]
  Tensor score_weight;   // [H]
  Tensor lengths;        // [B]
  Tensor negative;       // [B, N, D], or [0, N, D]: there is none
};

// Checks the inputs, and lays them out as the kernels ask for.
template <typename Device>
background::Sizes check_frame_attention(const char* op, FrameAttentionInputs* inputs) {
  FrameAttentionInputs& all = *inputs;
  const BackgroundChecks checks = {op, all.frames, "frames"};
  background::Sizes sizes = check_videos_of_rows(checks);
  checks.floating("hidden_weight", all.hidden_weight, "[H, D] with frames' D", {-1, sizes.dim});
  sizes.hidden = all.hidden_weight.size(0);
  check(sizes.hidden >= 1, op, ": hidden_weight must be [H, D] with H >= 1, got ",
        shape_text(all.hidden_weight));
  checks.floating("score_weight", all.score_weight, "[H] with hidden_weight's H", {sizes.hidden});
  checks.indices("lengths", all.lengths, "[B] with frames' B", {sizes.batch});
  const int64_t negatives = all.negative.dim() == 3 && all.negative.size(0) == 0 ? 0 : sizes.batch;
  checks.floating("negative", all.negative, "[B, N, D] like frames",
                  {negatives, sizes.frames, sizes.dim});
  all = {with_whole_videos(all.frames), as_contiguous(all.hidden_weight),
         as_contiguous(all.score_weight), as_contiguous(all.lengths),
         with_whole_videos(all.negative)};
  Device::check_some_frames(op, all.lengths, sizes.frames);
  return sizes;
}

// attended, joint, positive, attention; and for the backward the hidden layers, of which the second
// is [0, N, H] where there is no negative query.
template <typename Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> frame_attention(
    const Tensor& frames, const Tensor& hidden_weight, const Tensor& score_weight,
    const Tensor& lengths, const Tensor& negative, bool official_padding) {
  FrameAttentionInputs inputs = {frames, hidden_weight, score_weight, lengths, negative};
  const background::Sizes sizes = check_frame_attention<Device>("frame_attention", &inputs);
  const typename Device::Guard guard(frames);
  const ScalarType dtype = frames.scalar_type();
  const Tensor attended = empty_on(frames, {sizes.batch, sizes.frames, sizes.dim}, dtype);
  const Tensor joint = empty_on(frames, {sizes.batch, sizes.frames}, dtype);
  const Tensor positive = empty_as(joint);
  const Tensor attention = empty_as(joint);
  Tensor hidden;
  Tensor negative_hidden;
  dispatch_floating(dtype, [&](auto type) {
    using T = decltype(type);
    using Acc = kernels::accumulate_t<T>;
    const Device device(frames);
    const ScalarType wide = accumulate_dtype<T>();
    const Tensor weight = as_dtype(inputs.hidden_weight, wide);
    const Tensor score_row = as_dtype(inputs.score_weight, wide);
    const bool with_negative = inputs.negative.size(0) != 0;
    const auto match = [&](const Tensor& rows, const Tensor& to) {
      const Tensor product = as_contiguous(
          torch::stable::matmul(as_dtype(rows, wide), torch::stable::transpose(weight, 0, 1)));
      device.match(background::Match<Acc>{sizes, in<int64_t>(inputs.lengths), in<Acc>(score_row),
                                          out<Acc>(product), out<Acc>(to)});
      return product;
    };
    const Tensor numbers = empty_on(frames, {3, sizes.batch, sizes.frames}, wide);
    const Tensor matched = torch::stable::select(numbers, 0, 0);
    const Tensor against = torch::stable::select(numbers, 0, 1);
    const Tensor weights = torch::stable::select(numbers, 0, 2);
    hidden = match(inputs.frames, matched);
    negative_hidden = with_negative ? match(inputs.negative, against)
                                    : empty_on(frames, {0, sizes.frames, sizes.hidden}, wide);
    device.attend(background::Attend<T>{
        sizes, videos_of<T>(inputs.frames), in<int64_t>(inputs.lengths), in<Acc>(matched),
        with_negative ? in<Acc>(against) : nullptr, official_padding, out<Acc>(weights),
        out<T>(attended), out<T>(joint), out<T>(positive), out<T>(attention)});
  });
  return {attended, joint, positive, attention, hidden, negative_hidden};
}

// The gradients of frames, hidden_weight, score_weight and negative.
template <typename Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> frame_attention_backward(
    const Tensor& attended_gradients, const Tensor& joint_gradients,
    const Tensor& positive_gradients, const Tensor& attention_gradients, const Tensor& frames,
    const Tensor& hidden_weight, const Tensor& score_weight, const Tensor& lengths,
    const Tensor& negative, const Tensor& hidden, const Tensor& negative_hidden,
    bool official_padding) {
  const char* const op = "frame_attention_backward";
  FrameAttentionInputs inputs = {frames, hidden_weight, score_weight, lengths, negative};
  const background::Sizes sizes = check_frame_attention<Device>(op, &inputs);
  const BackgroundChecks checks = {op, frames, "frames"};
  const std::vector<int64_t> per_frame = {sizes.batch, sizes.frames};
  checks.floating("attended_gradients", attended_gradients, "[B, N, D] like frames",
                  {sizes.batch, sizes.frames, sizes.dim});
  checks.floating("joint_gradients", joint_gradients, "[B, N]", per_frame);
  checks.floating("positive_gradients", positive_gradients, "[B, N]", per_frame);
  checks.floating("attention_gradients", attention_gradients, "[B, N]", per_frame);
  const int64_t negatives = negative.size(0);
  check_shape({op, "hidden", "[B, N, H]"}, hidden, {sizes.batch, sizes.frames, sizes.hidden});
  check_shape({op, "negative_hidden", "[B, N, H]"}, negative_hidden,
              {negatives, sizes.frames, sizes.hidden});
  const typename Device::Guard guard(frames);
  const Tensor from[] = {as_contiguous(attended_gradients), as_contiguous(joint_gradients),
                         as_contiguous(positive_gradients), as_contiguous(attention_gradients)};
  const Tensor layers[] = {as_contiguous(hidden), as_contiguous(negative_hidden)};
  const ScalarType dtype = frames.scalar_type();
  Tensor to_frames;
  Tensor to_hidden_weight;
  Tensor to_score_weight;
  Tensor to_negative;
  dispatch_floating(dtype, [&](auto type) {
    using T = decltype(type);
    using Acc = kernels::accumulate_t<T>;
    const Device device(frames);
    const ScalarType wide = accumulate_dtype<T>();
    check(hidden.scalar_type() == wide && negative_hidden.scalar_type() == wide, op,
          ": hidden layers must be ", dtype_text(wide), ", got ", dtype_text(hidden.scalar_type()));
    const Tensor weight = as_dtype(inputs.hidden_weight, wide);
    const Tensor score_row = as_dtype(inputs.score_weight, wide);
    const int64_t* const counts = in<int64_t>(inputs.lengths);
    const Tensor numbers =
        empty_on(frames, {sizes.batch, background::kNumbers, sizes.frames}, wide);
    const Tensor through[] = {empty_as(layers[0]), empty_as(layers[1])};
    const Tensor parts = empty_on(frames, {sizes.batch, sizes.hidden}, wide);
    const bool with_negative = negatives != 0;
    device.attend_gradient(background::AttendGradient<T>{
        sizes, videos_of<T>(inputs.frames), counts, in<Acc>(score_row), in<Acc>(layers[0]),
        with_negative ? in<Acc>(layers[1]) : nullptr, in<T>(from[0]), in<T>(from[1]),
        in<T>(from[2]), in<T>(from[3]), official_padding, out<Acc>(numbers), out<Acc>(through[0]),
        with_negative ? out<Acc>(through[1]) : nullptr, out<Acc>(parts)});

    const Tensor product = as_contiguous(torch::stable::matmul(through[0], weight));
    const Tensor attended = dtype == wide ? product : empty_on(frames, product.sizes(), dtype);
    device.add_attended(background::AddAttended<T>{sizes, counts, in<T>(from[0]), in<Acc>(numbers),
                                                   official_padding, in<Acc>(product),
                                                   out<T>(attended)});
    to_frames = attended;
    to_negative = with_negative
                      ? as_dtype(as_contiguous(torch::stable::matmul(through[1], weight)), dtype)
                      : empty_on(frames, {0, sizes.frames, sizes.dim}, dtype);
    const auto to_weight = [&](const Tensor& gradients, const Tensor& rows) {
      const Tensor masked = device.template masked<T>(sizes, rows, counts);
      const Tensor flat = torch::stable::flatten(gradients, 0, 1);
      return torch::stable::matmul(torch::stable::transpose(flat, 0, 1),
                                   torch::stable::flatten(masked, 0, 1));
    };
    Tensor sum = to_weight(through[0], inputs.frames);
    if (with_negative) {
      // The stable headers have no sum of two tensors.
      sum = torch::stable::subtract(sum, to_weight(through[1], inputs.negative), -1.0);
    }
    to_hidden_weight = as_dtype(as_contiguous(sum), dtype);
    to_score_weight = as_dtype(torch::stable::sum(parts, std::vector<int64_t>{0}), dtype);
  });
  return {to_frames, to_hidden_weight, to_score_weight, to_negative};
}

// ---- attentive pooling ----

struct PoolingInputs {
  Tensor features;  // [B, N, D]
  Tensor scores;    // [B, N]
  Tensor lengths;   // [B]

  template <typename T>
  background::Pool<T> problem(const background::Sizes& sizes, T* pooled) const {
    return {sizes, videos_of<T>(features), in<T>(scores), in<int64_t>(lengths), pooled};
  }
};

template <typename Device>
background::Sizes check_attentive_pool(const char* op, PoolingInputs* inputs) {
  PoolingInputs& all = *inputs;
  const BackgroundChecks checks = {op, all.features, "features"};
  const background::Sizes sizes = check_videos_of_rows(checks);
  checks.floating("scores", all.scores, "[B, N] with features' B and N",
                  {sizes.batch, sizes.frames});
  checks.indices("lengths", all.lengths, "[B] with features' B", {sizes.batch});
  all = {with_whole_videos(all.features), as_contiguous(all.scores), as_contiguous(all.lengths)};
  Device::check_lengths(op, all.lengths, sizes.frames);
  return sizes;
}

template <typename Device>
Tensor attentive_pool(const Tensor& features, const Tensor& scores, const Tensor& lengths) {
  PoolingInputs inputs = {features, scores, lengths};
  const background::Sizes sizes = check_attentive_pool<Device>("attentive_pool", &inputs);
  const typename Device::Guard guard(features);
  const Tensor pooled = empty_on(features, {sizes.batch, sizes.dim}, features.scalar_type());
  dispatch_floating(features.scalar_type(), [&](auto type) {
    using T = decltype(type);
    Device(features).pool(inputs.problem<T>(sizes, out<T>(pooled)));
  });
  return pooled;
}

template <typename Device>
std::tuple<Tensor, Tensor> attentive_pool_backward(const Tensor& output_gradients,
                                                   const Tensor& features, const Tensor& scores,
                                                   const Tensor& lengths) {
  const char* const op = "attentive_pool_backward";
  PoolingInputs inputs = {features, scores, lengths};
  const background::Sizes sizes = check_attentive_pool<Device>(op, &inputs);
  BackgroundChecks{op, features, "features"}.floating("output_gradients", output_gradients,
                                                      "[B, D]", {sizes.batch, sizes.dim});
  const typename Device::Guard guard(features);
  const Tensor from = as_contiguous(output_gradients);
  const Tensor to_features =
      empty_on(features, {sizes.batch, sizes.frames, sizes.dim}, features.scalar_type());
  const Tensor to_scores = empty_as(inputs.scores);
  dispatch_floating(features.scalar_type(), [&](auto type) {
    using T = decltype(type);
    Device(features).pool_gradient(background::PoolGradient<T>{
        inputs.problem<T>(sizes, nullptr), in<T>(from), out<T>(to_features), out<T>(to_scores)});
  });
  return {to_features, to_scores};
}

}  // namespace vmr::ops
