// The aligned frames and their similarity, for any device; see alignment.h for what a Device is.
#pragma once

#include <tuple>

#include "ops/alignment.h"

namespace vmr::ops {

// ---- the aligned frames themselves ----

struct AlignedFramesInputs {
  Tensor frames;     // [U, N, D]
  Tensor queries;    // [B, D]
  Tensor relevance;  // [B, N]
  Tensor weights;    // [B, N]
  Tensor lengths;    // [U]
  Tensor videos;     // [B]

  template <typename T>
  alignment::AlignedFrames<T> problem(const alignment::Sizes& sizes) const {
    return {sizes,          in<T>(frames),        in<T>(queries),      in<T>(relevance),
            in<T>(weights), in<int64_t>(lengths), in<int64_t>(videos), nullptr};
  }
};

// Checks the inputs, and makes them contiguous.
template <typename Device>
alignment::Sizes check_aligned_frames(const char* op, AlignedFramesInputs* inputs) {
  AlignedFramesInputs& all = *inputs;
  alignment::Sizes sizes = check_frames(op, all.frames);
  const AlignmentChecks checks = {op, all.frames, "frames"};
  check_vectors(checks, "queries", all.queries, &sizes);
  const std::vector<int64_t> per_frame = {sizes.queries, sizes.frames};
  checks.floating("relevance", all.relevance, "[B, N]", per_frame);
  checks.floating("weights", all.weights, "[B, N]", per_frame);
  check_frame_counts<Device>(checks, all.lengths, sizes);
  check_videos<Device>(checks, all.videos, sizes);
  for (Tensor* tensor :
       {&all.frames, &all.queries, &all.relevance, &all.weights, &all.lengths, &all.videos}) {
    *tensor = as_contiguous(*tensor);
  }
  return sizes;
}

template <typename Device>
Tensor aligned_frames(const Tensor& frames, const Tensor& queries, const Tensor& relevance,
                      const Tensor& weights, const Tensor& lengths, const Tensor& videos) {
  AlignedFramesInputs inputs = {frames, queries, relevance, weights, lengths, videos};
  const alignment::Sizes sizes = check_aligned_frames<Device>("aligned_frames", &inputs);
  const typename Device::Guard guard(frames);
  const Tensor aligned =
      empty_on(frames, {sizes.queries, sizes.frames, sizes.dim}, frames.scalar_type());
  dispatch_floating(frames.scalar_type(), [&](auto type) {
    using T = decltype(type);
    alignment::AlignedFrames<T> problem = inputs.problem<T>(sizes);
    problem.aligned = out<T>(aligned);
    Device(frames).aligned_frames(problem);
  });
  return aligned;
}

template <typename Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> aligned_frames_backward(
    const Tensor& gradients, const Tensor& frames, const Tensor& queries, const Tensor& relevance,
    const Tensor& weights, const Tensor& lengths, const Tensor& videos, bool frames_wanted) {
  const char* const op = "aligned_frames_backward";
  AlignedFramesInputs inputs = {frames, queries, relevance, weights, lengths, videos};
  const alignment::Sizes sizes = check_aligned_frames<Device>(op, &inputs);
  AlignmentChecks{op, frames, "frames"}.floating("output_gradients", gradients, "[B, N, D]",
                                                 {sizes.queries, sizes.frames, sizes.dim});
  const typename Device::Guard guard(frames);
  const Tensor from = as_contiguous(gradients);
  const Tensor to[] = {empty_gradient(inputs.frames, frames_wanted), empty_as(inputs.queries),
                       empty_as(inputs.relevance), empty_as(inputs.weights)};
  dispatch_floating(frames.scalar_type(), [&](auto type) {
    using T = decltype(type);
    Device(frames).aligned_frames_gradient(alignment::AlignedFramesGradient<T>{
        inputs.problem<T>(sizes), in<T>(from), wanted_out<T>(to[0], frames_wanted), out<T>(to[1]),
        out<T>(to[2]), out<T>(to[3])});
  });
  return {to[0], to[1], to[2], to[3]};
}

// ---- their similarity, without them ----

struct SimilarityInputs {
  Tensor gram;         // [U, N, N]
  Tensor query_dots;   // [B, N]
  Tensor query_norms;  // [B]
  Tensor relevance;    // [B, N]
  Tensor weights;      // [B, N]
  Tensor lengths;      // [U]
  Tensor videos;       // [B]

  template <typename T>
  alignment::Similarity<T> problem(const alignment::Sizes& sizes) const {
    return {sizes,
            in<T>(gram),
            in<T>(query_dots),
            in<T>(query_norms),
            in<T>(relevance),
            in<T>(weights),
            in<int64_t>(lengths),
            in<int64_t>(videos),
            nullptr};
  }
};

// Checks the inputs, and makes them contiguous.
template <typename Device>
alignment::Sizes check_similarity(const char* op, SimilarityInputs* inputs) {
  SimilarityInputs& all = *inputs;
  check_shape({op, "gram", "[U, N, N]"}, all.gram, {-1, -1, -1});
  alignment::Sizes sizes = {all.gram.size(0), 0, all.gram.size(1), 0};
  check(sizes.frames >= 1 && all.gram.size(2) == sizes.frames, op,
        ": gram must be [U, N, N] with N >= 1, got ", shape_text(all.gram));
  check_floating({op, "gram", ""}, all.gram);
  const AlignmentChecks checks = {op, all.gram, "gram"};
  checks.floating("query_dots", all.query_dots, "[B, N] with gram's N", {-1, sizes.frames});
  sizes.queries = all.query_dots.size(0);
  checks.floating("query_norms", all.query_norms, "[B] with query_dots' B", {sizes.queries});
  const std::vector<int64_t> per_frame = {sizes.queries, sizes.frames};
  checks.floating("relevance", all.relevance, "[B, N] like query_dots", per_frame);
  checks.floating("weights", all.weights, "[B, N] like query_dots", per_frame);
  check_frame_counts<Device>(checks, all.lengths, sizes);
  check_videos<Device>(checks, all.videos, sizes);
  for (Tensor* tensor : {&all.gram, &all.query_dots, &all.query_norms, &all.relevance, &all.weights,
                         &all.lengths, &all.videos}) {
    *tensor = as_contiguous(*tensor);
  }
  return sizes;
}

template <typename Device>
Tensor aligned_similarity(const Tensor& gram, const Tensor& query_dots, const Tensor& query_norms,
                          const Tensor& relevance, const Tensor& weights, const Tensor& lengths,
                          const Tensor& videos) {
  SimilarityInputs inputs = {gram, query_dots, query_norms, relevance, weights, lengths, videos};
  const alignment::Sizes sizes = check_similarity<Device>("aligned_similarity", &inputs);
  const typename Device::Guard guard(gram);
  const Tensor similarity =
      empty_on(gram, {sizes.queries, sizes.frames, sizes.frames}, gram.scalar_type());
  dispatch_floating(gram.scalar_type(), [&](auto type) {
    using T = decltype(type);
    alignment::Similarity<T> problem = inputs.problem<T>(sizes);
    problem.similarity = out<T>(similarity);
    Device(gram).similarity(problem);
  });
  return similarity;
}

template <typename Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> aligned_similarity_backward(
    const Tensor& gradients, const Tensor& gram, const Tensor& query_dots,
    const Tensor& query_norms, const Tensor& relevance, const Tensor& weights,
    const Tensor& lengths, const Tensor& videos, bool gram_wanted) {
  const char* const op = "aligned_similarity_backward";
  SimilarityInputs inputs = {gram, query_dots, query_norms, relevance, weights, lengths, videos};
  const alignment::Sizes sizes = check_similarity<Device>(op, &inputs);
  AlignmentChecks{op, gram, "gram"}.floating("output_gradients", gradients, "[B, N, N]",
                                             {sizes.queries, sizes.frames, sizes.frames});
  const typename Device::Guard guard(gram);
  const Tensor from = as_contiguous(gradients);
  const Tensor to[] = {empty_gradient(inputs.gram, gram_wanted), empty_as(inputs.query_dots),
                       empty_as(inputs.query_norms), empty_as(inputs.relevance),
                       empty_as(inputs.weights)};
  dispatch_floating(gram.scalar_type(), [&](auto type) {
    using T = decltype(type);
    Device(gram).similarity_gradient(alignment::SimilarityGradient<T>{
        inputs.problem<T>(sizes), in<T>(from), wanted_out<T>(to[0], gram_wanted), out<T>(to[1]),
        out<T>(to[2]), out<T>(to[3]), out<T>(to[4])});
  });
  return {to[0], to[1], to[2], to[3], to[4]};
}

}  // namespace vmr::ops
