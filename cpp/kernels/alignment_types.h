// What the CPU and the CUDA kernels of the anchor-aware feature alignment (A2FA) share.
//
// U videos of up to N frames and B queries: query b is about video videos[b], which has
// lengths[video] frames. What lies behind them is never read. Several queries may be about a video,
// in any order.
#pragma once

#include <cstdint>

#include "kernels/scalar_types.h"

namespace vmr::kernels::alignment {

// Of an aligned frame's squared norm: a part of what it were with its two terms orthogonal, and an
// absolute one. Below their sum a frame and the query cancel out, and its direction is rounding.
constexpr double kRelativeFloor = 1e-5;
constexpr double kAbsoluteFloor = 1e-12;

struct Sizes {
  int64_t videos;
  int64_t queries;
  int64_t frames;
  int64_t dim;
};

template <typename T>
struct Gram {
  Sizes sizes;
  const T* frames;         // [U, N, D]
  const int64_t* lengths;  // [U]
  T* gram;                 // out [U, N, N]
};

template <typename T>
struct GramGradient {
  Sizes sizes;
  const T* gradients;  // [U, N, N]
  const T* frames;
  const int64_t* lengths;
  T* frame_gradients;  // out [U, N, D]
};

template <typename T>
struct Anchors {
  Sizes sizes;
  const T* frames;
  const T* queries;  // [B, D]
  const int64_t* lengths;
  const int64_t* videos;  // [B]
  bool normalize;         // all vectors have length one in eq. 1
  bool reach_end;         // the last frame's similarity to itself does not count in eq. 4
  int64_t* anchors;       // out [B]
  int64_t* segments;      // out [B, 2] first and last frame
};

template <typename T>
struct Pool {
  Sizes sizes;
  const T* frames;
  const T* vectors;         // [B, D]
  const int64_t* segments;  // [B, 2]; only these frames are read
  const int64_t* videos;
  T* pooled;   // out [B, D]; not read or written by the gradient
  T* weights;  // out [B, N]; neither
};

template <typename T>
struct PoolGradient {
  Pool<T> inputs;
  const T* pooled_gradients;  // [B, D]
  const T* weight_gradients;  // [B, N]
  T* frame_gradients;         // out [U, N, D], or null where not wanted
  T* vector_gradients;        // out [B, D]
};

template <typename T>
struct Alignment {
  Sizes sizes;
  const T* frames;
  const T* queries;            // [B, D]
  const T* relevance_vectors;  // [B, D] z
  const T* relevance_offsets;  // [B]
  const T* alignment_vectors;  // [B, D] y
  const T* alignment_offsets;  // [B]
  const int64_t* segments;
  const int64_t* lengths;
  const int64_t* videos;
  bool reweight;  // else r = 1
  bool align;     // else alpha = 0
  T* relevance;   // out [B, N] r; not read or written by the gradient, as the next two
  T* weights;     // out [B, N] alpha
  T* dots;        // out [B, N] v_i . q
};

template <typename T>
struct AlignmentGradient {
  Alignment<T> inputs;
  const T* relevance_gradients;  // [B, N]
  const T* weight_gradients;     // [B, N]
  const T* dot_gradients;        // [B, N]
  T* frame_gradients;            // out [U, N, D], or null where not wanted
  T* query_gradients;            // out [B, D], or null where not wanted
  T* relevance_vector_gradients;
  T* relevance_offset_gradients;
  T* alignment_vector_gradients;
  T* alignment_offset_gradients;
};

template <typename T>
struct AlignedFrames {
  Sizes sizes;
  const T* frames;
  const T* queries;
  const T* relevance;  // [B, N]
  const T* weights;    // [B, N]
  const int64_t* lengths;
  const int64_t* videos;
  T* aligned;  // out [B, N, D]; not written by the gradient
};

template <typename T>
struct AlignedFramesGradient {
  AlignedFrames<T> inputs;
  const T* gradients;  // [B, N, D]
  T* frame_gradients;  // out [U, N, D], or null where not wanted
  T* query_gradients;
  T* relevance_gradients;
  T* weight_gradients;
};

template <typename T>
struct Similarity {
  Sizes sizes;           // without dim
  const T* gram;         // [U, N, N], symmetric
  const T* query_dots;   // [B, N]
  const T* query_norms;  // [B] squared
  const T* relevance;    // [B, N]
  const T* weights;      // [B, N]
  const int64_t* lengths;
  const int64_t* videos;
  T* similarity;  // out [B, N, N]; not written by the gradient
};

template <typename T>
struct SimilarityGradient {
  Similarity<T> inputs;
  const T* gradients;  // [B, N, N]
  T* gram_gradients;   // out [U, N, N], or null where not wanted
  T* dot_gradients;
  T* norm_gradients;
  T* relevance_gradients;
  T* weight_gradients;
};

}  // namespace vmr::kernels::alignment
