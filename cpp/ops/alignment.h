// The ops of anchor-aware feature alignment for any device. Device supplies one method an op, which
// fills the outputs of its problem (kernels/alignment_types.h): on the CPU (alignment.cpp) shared
// out among threads, on CUDA launched.
#pragma once

#include <tuple>

#include "kernels/alignment_types.h"
#include "ops/common.h"

namespace vmr::ops {

namespace alignment = kernels::alignment;

// One op's checks: of the tensors by name, and then of what they have in common.
struct AlignmentChecks {
  const char* op;
  const Tensor& first;  // has the dtype and device of all
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

// Sizes of [U, N, D] frames; queries are not counted yet.
inline alignment::Sizes check_frames(const char* op, const Tensor& frames) {
  check_shape({op, "frames", "[U, N, D]"}, frames, {-1, -1, -1});
  check(frames.size(1) >= 1 && frames.size(2) >= 1, op,
        ": frames must be [U, N, D] with N >= 1 and D >= 1, got ", shape_text(frames));
  check_floating({op, "frames", ""}, frames);
  return {frames.size(0), 0, frames.size(1), frames.size(2)};
}

// [B, D] vectors, one a query, which say how many queries there are.
inline void check_vectors(const AlignmentChecks& checks, const char* name, const Tensor& vectors,
                          alignment::Sizes* sizes) {
  checks.floating(name, vectors, "[B, D] with frames' D", {-1, sizes->dim});
  sizes->queries = vectors.size(0);
}

template <typename Device>
void check_videos(const AlignmentChecks& checks, const Tensor& videos,
                  const alignment::Sizes& sizes) {
  checks.indices("videos", videos, "[B], one a query", {sizes.queries});
  Device::check_videos(checks.op, videos, sizes.videos);
}

template <typename Device>
void check_frame_counts(const AlignmentChecks& checks, const Tensor& lengths,
                        const alignment::Sizes& sizes) {
  checks.indices("lengths", lengths, "[U], one a video", {sizes.videos});
  Device::check_frame_counts(checks.op, lengths, sizes.frames);
}

template <typename Device>
void check_segments(const AlignmentChecks& checks, const Tensor& segments,
                    const alignment::Sizes& sizes) {
  checks.indices("segments", segments, "[B, 2], one a query", {sizes.queries, 2});
  Device::check_segments(checks.op, segments, sizes.frames);
}

// An empty tensor stands for a gradient that nobody asked for.
inline Tensor empty_gradient(const Tensor& of, bool wanted) {
  return wanted ? empty_as(of) : empty_on(of, {0}, of.scalar_type());
}
template <typename T>
T* wanted_out(const Tensor& gradient, bool wanted) {
  return wanted ? out<T>(gradient) : nullptr;
}

// ---- the Gram matrix ----

template <typename Device>
alignment::Sizes check_gram_matrix(const char* op, const Tensor& frames, const Tensor& lengths) {
  const alignment::Sizes sizes = check_frames(op, frames);
  check_frame_counts<Device>({op, frames, "frames"}, lengths, sizes);
  return sizes;
}

template <typename Device>
Tensor gram_matrix(const Tensor& frames, const Tensor& lengths) {
  const char* const op = "gram_matrix";
  const alignment::Sizes sizes = check_gram_matrix<Device>(op, frames, lengths);
  const typename Device::Guard guard(frames);
  const Tensor rows = as_contiguous(frames);
  const Tensor counts = as_contiguous(lengths);
  const Tensor gram =
      empty_on(frames, {sizes.videos, sizes.frames, sizes.frames}, frames.scalar_type());
  dispatch_floating(frames.scalar_type(), [&](auto type) {
    using T = decltype(type);
    Device(frames).gram(alignment::Gram<T>{sizes, in<T>(rows), in<int64_t>(counts), out<T>(gram)});
  });
  return gram;
}

template <typename Device>
Tensor gram_matrix_backward(const Tensor& gradients, const Tensor& frames, const Tensor& lengths) {
  const char* const op = "gram_matrix_backward";
  const alignment::Sizes sizes = check_gram_matrix<Device>(op, frames, lengths);
  AlignmentChecks{op, frames, "frames"}.floating("output_gradients", gradients, "[U, N, N]",
                                                 {sizes.videos, sizes.frames, sizes.frames});
  const typename Device::Guard guard(frames);
  const Tensor from = as_contiguous(gradients);
  const Tensor rows = as_contiguous(frames);
  const Tensor counts = as_contiguous(lengths);
  const Tensor to = empty_as(rows);
  dispatch_floating(frames.scalar_type(), [&](auto type) {
    using T = decltype(type);
    Device(frames).gram_gradient(alignment::GramGradient<T>{sizes, in<T>(from), in<T>(rows),
                                                            in<int64_t>(counts), out<T>(to)});
  });
  return to;
}

// ---- anchor and segment ----

template <typename Device>
std::tuple<Tensor, Tensor> anchor_segment(const Tensor& frames, const Tensor& queries,
                                          const Tensor& lengths, const Tensor& videos,
                                          bool normalize, bool reach_end) {
  const char* const op = "anchor_segment";
  alignment::Sizes sizes = check_frames(op, frames);
  const AlignmentChecks checks = {op, frames, "frames"};
  check_vectors(checks, "queries", queries, &sizes);
  check_frame_counts<Device>(checks, lengths, sizes);
  check_videos<Device>(checks, videos, sizes);
  const typename Device::Guard guard(frames);
  const Tensor inputs[] = {as_contiguous(frames), as_contiguous(queries), as_contiguous(lengths),
                           as_contiguous(videos)};
  const Tensor anchors = empty_on(frames, {sizes.queries}, ScalarType::Long);
  const Tensor segments = empty_on(frames, {sizes.queries, 2}, ScalarType::Long);
  dispatch_floating(frames.scalar_type(), [&](auto type) {
    using T = decltype(type);
    Device(frames).anchors(alignment::Anchors<T>{
        sizes, in<T>(inputs[0]), in<T>(inputs[1]), in<int64_t>(inputs[2]), in<int64_t>(inputs[3]),
        normalize, reach_end, out<int64_t>(anchors), out<int64_t>(segments)});
  });
  return {anchors, segments};
}

// ---- attention over a segment ----

struct PoolInputs {
  Tensor frames;    // [U, N, D]
  Tensor vectors;   // [B, D]
  Tensor segments;  // [B, 2]
  Tensor videos;    // [B]

  template <typename T>
  alignment::Pool<T> problem(const alignment::Sizes& sizes) const {
    return {sizes,   in<T>(frames), in<T>(vectors), in<int64_t>(segments), in<int64_t>(videos),
            nullptr, nullptr};
  }
};

// Checks the inputs, and makes them contiguous.
template <typename Device>
alignment::Sizes check_pool(const char* op, PoolInputs* inputs) {
  const auto& [frames, vectors, segments, videos] = *inputs;
  alignment::Sizes sizes = check_frames(op, frames);
  const AlignmentChecks checks = {op, frames, "frames"};
  check_vectors(checks, "vectors", vectors, &sizes);
  check_segments<Device>(checks, segments, sizes);
  check_videos<Device>(checks, videos, sizes);
  *inputs = {as_contiguous(frames), as_contiguous(vectors), as_contiguous(segments),
             as_contiguous(videos)};
  return sizes;
}

template <typename Device>
std::tuple<Tensor, Tensor> attention_pool(const Tensor& frames, const Tensor& vectors,
                                          const Tensor& segments, const Tensor& videos) {
  PoolInputs inputs = {frames, vectors, segments, videos};
  const alignment::Sizes sizes = check_pool<Device>("attention_pool", &inputs);
  const typename Device::Guard guard(frames);
  const Tensor pooled = empty_as(inputs.vectors);
  const Tensor weights = empty_on(frames, {sizes.queries, sizes.frames}, frames.scalar_type());
  dispatch_floating(frames.scalar_type(), [&](auto type) {
    using T = decltype(type);
    alignment::Pool<T> problem = inputs.problem<T>(sizes);
    problem.pooled = out<T>(pooled);
    problem.weights = out<T>(weights);
    Device(frames).pool(problem);
  });
  return {pooled, weights};
}

template <typename Device>
std::tuple<Tensor, Tensor> attention_pool_backward(const Tensor& pooled_gradients,
                                                   const Tensor& weight_gradients,
                                                   const Tensor& frames, const Tensor& vectors,
                                                   const Tensor& segments, const Tensor& videos,
                                                   bool frames_wanted) {
  const char* const op = "attention_pool_backward";
  PoolInputs inputs = {frames, vectors, segments, videos};
  const alignment::Sizes sizes = check_pool<Device>(op, &inputs);
  const AlignmentChecks checks = {op, frames, "frames"};
  checks.floating("pooled_gradients", pooled_gradients, "[B, D]", {sizes.queries, sizes.dim});
  checks.floating("weight_gradients", weight_gradients, "[B, N]", {sizes.queries, sizes.frames});
  const typename Device::Guard guard(frames);
  const Tensor from[] = {as_contiguous(pooled_gradients), as_contiguous(weight_gradients)};
  const Tensor to_frames = empty_gradient(inputs.frames, frames_wanted);
  const Tensor to_vectors = empty_as(inputs.vectors);
  dispatch_floating(frames.scalar_type(), [&](auto type) {
    using T = decltype(type);
    Device(frames).pool_gradient(
        alignment::PoolGradient<T>{inputs.problem<T>(sizes), in<T>(from[0]), in<T>(from[1]),
                                   wanted_out<T>(to_frames, frames_wanted), out<T>(to_vectors)});
  });
  return {to_frames, to_vectors};
}

// ---- relevance and alignment of the frames ----

struct FrameAlignmentInputs {
  Tensor frames;             // [U, N, D]
  Tensor queries;            // [B, D]
  Tensor relevance_vectors;  // [B, D]
  Tensor relevance_offsets;  // [B]
  Tensor alignment_vectors;  // [B, D]
  Tensor alignment_offsets;  // [B]
  Tensor segments;           // [B, 2]
  Tensor lengths;            // [U]
  Tensor videos;             // [B]

  template <typename T>
  alignment::Alignment<T> problem(const alignment::Sizes& sizes, bool reweight, bool align) const {
    return {sizes,
            in<T>(frames),
            in<T>(queries),
            in<T>(relevance_vectors),
            in<T>(relevance_offsets),
            in<T>(alignment_vectors),
            in<T>(alignment_offsets),
            in<int64_t>(segments),
            in<int64_t>(lengths),
            in<int64_t>(videos),
            reweight,
            align,
            nullptr,
            nullptr,
            nullptr};
  }
};

// Checks the inputs, and makes them contiguous.
template <typename Device>
alignment::Sizes check_frame_alignment(const char* op, FrameAlignmentInputs* inputs) {
  FrameAlignmentInputs& all = *inputs;
  alignment::Sizes sizes = check_frames(op, all.frames);
  const AlignmentChecks checks = {op, all.frames, "frames"};
  check_vectors(checks, "queries", all.queries, &sizes);
  const int64_t queries = sizes.queries;
  checks.floating("relevance_vectors", all.relevance_vectors, "[B, D] like queries",
                  {queries, sizes.dim});
  checks.floating("relevance_offsets", all.relevance_offsets, "[B] with queries' B", {queries});
  checks.floating("alignment_vectors", all.alignment_vectors, "[B, D] like queries",
                  {queries, sizes.dim});
  checks.floating("alignment_offsets", all.alignment_offsets, "[B] with queries' B", {queries});
  check_segments<Device>(checks, all.segments, sizes);
  check_frame_counts<Device>(checks, all.lengths, sizes);
  check_videos<Device>(checks, all.videos, sizes);
  for (Tensor* tensor :
       {&all.frames, &all.queries, &all.relevance_vectors, &all.relevance_offsets,
        &all.alignment_vectors, &all.alignment_offsets, &all.segments, &all.lengths, &all.videos}) {
    *tensor = as_contiguous(*tensor);
  }
  return sizes;
}

template <typename Device>
std::tuple<Tensor, Tensor, Tensor> frame_alignment(
    const Tensor& frames, const Tensor& queries, const Tensor& relevance_vectors,
    const Tensor& relevance_offsets, const Tensor& alignment_vectors,
    const Tensor& alignment_offsets, const Tensor& segments, const Tensor& lengths,
    const Tensor& videos, bool reweight, bool align) {
  FrameAlignmentInputs inputs = {frames,
                                 queries,
                                 relevance_vectors,
                                 relevance_offsets,
                                 alignment_vectors,
                                 alignment_offsets,
                                 segments,
                                 lengths,
                                 videos};
  const alignment::Sizes sizes = check_frame_alignment<Device>("frame_alignment", &inputs);
  const typename Device::Guard guard(frames);
  const Tensor relevance = empty_on(frames, {sizes.queries, sizes.frames}, frames.scalar_type());
  const Tensor weights = empty_as(relevance);
  const Tensor dots = empty_as(relevance);
  dispatch_floating(frames.scalar_type(), [&](auto type) {
    using T = decltype(type);
    alignment::Alignment<T> problem = inputs.problem<T>(sizes, reweight, align);
    problem.relevance = out<T>(relevance);
    problem.weights = out<T>(weights);
    problem.dots = out<T>(dots);
    Device(frames).alignment(problem);
  });
  return {relevance, weights, dots};
}

template <typename Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> frame_alignment_backward(
    const Tensor& relevance_gradients, const Tensor& weight_gradients, const Tensor& dot_gradients,
    const Tensor& frames, const Tensor& queries, const Tensor& relevance_vectors,
    const Tensor& relevance_offsets, const Tensor& alignment_vectors,
    const Tensor& alignment_offsets, const Tensor& segments, const Tensor& lengths,
    const Tensor& videos, bool reweight, bool align, bool frames_wanted, bool queries_wanted) {
  const char* const op = "frame_alignment_backward";
  FrameAlignmentInputs inputs = {frames,
                                 queries,
                                 relevance_vectors,
                                 relevance_offsets,
                                 alignment_vectors,
                                 alignment_offsets,
                                 segments,
                                 lengths,
                                 videos};
  const alignment::Sizes sizes = check_frame_alignment<Device>(op, &inputs);
  const AlignmentChecks checks = {op, frames, "frames"};
  const std::vector<int64_t> per_frame = {sizes.queries, sizes.frames};
  checks.floating("relevance_gradients", relevance_gradients, "[B, N]", per_frame);
  checks.floating("weight_gradients", weight_gradients, "[B, N]", per_frame);
  checks.floating("dot_gradients", dot_gradients, "[B, N]", per_frame);
  const typename Device::Guard guard(frames);
  const Tensor from[] = {as_contiguous(relevance_gradients), as_contiguous(weight_gradients),
                         as_contiguous(dot_gradients)};
  const Tensor to[] = {
      empty_gradient(inputs.frames, frames_wanted), empty_gradient(inputs.queries, queries_wanted),
      empty_as(inputs.relevance_vectors),           empty_as(inputs.relevance_offsets),
      empty_as(inputs.alignment_vectors),           empty_as(inputs.alignment_offsets)};
  dispatch_floating(frames.scalar_type(), [&](auto type) {
    using T = decltype(type);
    Device(frames).alignment_gradient(alignment::AlignmentGradient<T>{
        inputs.problem<T>(sizes, reweight, align), in<T>(from[0]), in<T>(from[1]), in<T>(from[2]),
        wanted_out<T>(to[0], frames_wanted), wanted_out<T>(to[1], queries_wanted), out<T>(to[2]),
        out<T>(to[3]), out<T>(to[4]), out<T>(to[5])});
  });
  return {to[0], to[1], to[2], to[3], to[4], to[5]};
}

}  // namespace vmr::ops
