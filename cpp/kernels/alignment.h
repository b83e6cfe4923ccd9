// Anchor-aware feature alignment on the CPU: loops over raw pointers for a range [begin, end) of
// their outermost index, which the caller shares out among threads. A result does not depend on
// how. T is float, double, Half or BFloat16; Acc is what it is computed in.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/alignment_simd.h"
#include "kernels/alignment_types.h"

namespace vmr::kernels::alignment {

// Queries by their videos, so that those about one video read its frames together.
struct Grouping {
  std::vector<int64_t> order;   // [B] queries, by video and then as they came
  std::vector<int64_t> splits;  // [groups + 1] into order: each group is about one video
};

// Groups of at most `most` queries.
Grouping group_queries(const int64_t* videos, int64_t queries, int64_t most);

// As many queries as share a pass over a video's frames: their vectors stay in the first-level
// cache.
constexpr int64_t kQueriesAtOnce = 4;

// ---- features ----

// The Gram matrices' blocks of kGramBlock columns. Range over U * gram_blocks(N).
constexpr int64_t gram_blocks(int64_t frames) {
  return (frames + kGramBlock - 1) / kGramBlock;
}
template <typename T>
void gram(const Gram<T>& problem, int64_t begin, int64_t end);

// Range over the U * N frames.
template <typename T>
void gram_gradient(const GramGradient<T>& problem, int64_t begin, int64_t end);

// Range over groups of at most kQueriesAtOnce queries, as the forward of the alignment.
template <typename T>
void anchors(const Anchors<T>& problem, const Grouping& groups, int64_t begin, int64_t end);

// ---- attention over a segment; ranges over queries ----

template <typename T>
void pool(const Pool<T>& problem, int64_t begin, int64_t end);

// coefficients [B, 2, N], or null: what a frame's gradient has of the pooled gradients and of the
// vectors.
template <typename T>
void pool_gradient(const PoolGradient<T>& problem, accumulate_t<T>* coefficients, int64_t begin,
                   int64_t end);

// ---- relevance and alignment of the frames ----

template <typename T>
void alignment(const Alignment<T>& problem, const Grouping& groups, int64_t begin, int64_t end);

// Range over queries. coefficients [B, 3, N], or null: what a frame's gradient has of the relevance
// vectors, the alignment vectors and the queries.
template <typename T>
void alignment_gradient(const AlignmentGradient<T>& problem, accumulate_t<T>* coefficients,
                        int64_t begin, int64_t end);

// ---- gradients of the frames ----

// The gradients of a video's frames as sums over its queries of coefficients times vectors.
template <typename T>
struct FrameGradients {
  Sizes sizes;
  const int64_t* videos;
  int64_t vector_count;
  const T* vectors[3];                  // each [B, D]
  const accumulate_t<T>* coefficients;  // [B, vector_count, N]; 0 where a frame is not concerned
  T* gradients;                         // out [U, N, D]
};

// Range over groups of all queries of a video; the others' frames are set to zero by
// zero_other_videos.
template <typename T>
void frame_gradients(const FrameGradients<T>& problem, const Grouping& groups, int64_t begin,
                     int64_t end);

// Zeros the rows [U, size] of the videos that no query is about.
template <typename T>
void zero_other_videos(const int64_t* videos, const Grouping& groups, int64_t video_count,
                       int64_t size, T* rows);

// ---- the aligned frames themselves ----

// Range over queries.
template <typename T>
void aligned_frames(const AlignedFrames<T>& problem, int64_t begin, int64_t end);

// All but the frames' gradient. Range over queries.
template <typename T>
void aligned_frames_gradient(const AlignedFramesGradient<T>& problem, int64_t begin, int64_t end);

// The frames' gradient. Range over groups of all queries of a video.
template <typename T>
void aligned_frames_frame_gradient(const AlignedFramesGradient<T>& problem, const Grouping& groups,
                                   int64_t begin, int64_t end);

// ---- their similarity ----

// What is kept of each query between the passes.
constexpr int64_t kFactors = 5;  // a, b, e, t (CosineFactors), and the gradient of the diagonal
constexpr int64_t kSums = 3;     // SimilarityGradientRows

// factors [B, kFactors, padded N]. Range over queries.
template <typename T>
void cosine_factors(const Similarity<T>& problem, accumulate_t<T>* factors, int64_t begin,
                    int64_t end);

// Rows in blocks of kSimilarityRows. Range over B * similarity_blocks(N).
constexpr int64_t kSimilarityRows = 128;
constexpr int64_t similarity_blocks(int64_t frames) {
  return (frames + kSimilarityRows - 1) / kSimilarityRows;
}
template <typename T>
void similarity(const Similarity<T>& problem, const accumulate_t<T>* factors, int64_t begin,
                int64_t end);

// sums [B, kSums, padded N]. Range over B * similarity_blocks(N).
template <typename T>
void similarity_gradient_sums(const SimilarityGradient<T>& problem, const accumulate_t<T>* factors,
                              accumulate_t<T>* sums, int64_t begin, int64_t end);

// All gradients but that of the Gram matrix, from these; leaves the factor of its diagonal. Range
// over queries.
template <typename T>
void similarity_gradient(const SimilarityGradient<T>& problem, accumulate_t<T>* factors,
                         const accumulate_t<T>* sums, int64_t begin, int64_t end);

// The Gram matrix's gradient. Range over groups of all queries of a video.
template <typename T>
void similarity_gram_gradient(const SimilarityGradient<T>& problem, const accumulate_t<T>* factors,
                              const Grouping& groups, int64_t begin, int64_t end);

}  // namespace vmr::kernels::alignment
