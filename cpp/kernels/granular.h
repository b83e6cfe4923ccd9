// Granular moment scores on the CPU: loops over raw pointers for a range [begin, end) of their
// outermost index, which the caller shares out among threads. A result does not depend on how.
// T is float, double, Half or BFloat16; Acc is what it is computed in.
#pragma once

#include <cstdint>

#include "kernels/granular_sizes.h"
#include "kernels/row_dots.h"

namespace vmr::kernels::granular {

// ---- query side ----

// units [Q * m, padded dim]: the rewrites [Q, m, dim] at length one (zero stays zero);
// inverse_norms [Q * m]; channels [Q, padded dim]: their mean over m, or null where there is no
// folding. Range over queries.
template <typename T>
void query_channels(const Sizes& sizes, const T* rewrites, accumulate_t<T>* units,
                    accumulate_t<T>* inverse_norms, accumulate_t<T>* channels, int64_t begin,
                    int64_t end);

// The rewrites' gradient from that of their channels, [Q * channels, padded dim]. Range over
// queries.
template <typename T>
void query_gradients(const Sizes& sizes, const accumulate_t<T>* units,
                     const accumulate_t<T>* inverse_norms, const accumulate_t<T>* channel_gradients,
                     T* gradients, int64_t begin, int64_t end);

// ---- caption side ----

// cosines [channel_count, F] of the frames' captions [F, dim] with vectors [channel_count, padded
// dim]; inverse_norms [F]. Range over frames.
template <typename T>
void frame_cosines(const Sizes& sizes, const T* captions, const accumulate_t<T>* vectors,
                   int64_t channel_count, accumulate_t<T>* cosines, accumulate_t<T>* inverse_norms,
                   int64_t begin, int64_t end);

// Overwrites cosines [Q * channels, F] where a query has a caption of its own for a frame;
// inverse_norms [R]. Range over the rows of the query-aware captions [R, dim].
template <typename T>
void aware_cosines(const Sizes& sizes, const T* captions, const AwareRows& rows,
                   const accumulate_t<T>* vectors, accumulate_t<T>* cosines,
                   accumulate_t<T>* inverse_norms, int64_t begin, int64_t end);

// Gradients of captions, the frames' [F, dim] or the query-aware ones [R, dim], from those of their
// cosines. Ranges over frames and over rows.
template <typename T>
void frame_gradients(const Sizes& sizes, const T* captions, const accumulate_t<T>* vectors,
                     int64_t channel_count, const accumulate_t<T>* cosines,
                     const accumulate_t<T>* inverse_norms, const accumulate_t<T>* cosine_gradients,
                     T* gradients, int64_t begin, int64_t end);
template <typename T>
void aware_gradients(const Sizes& sizes, const T* captions, const AwareRows& rows,
                     const accumulate_t<T>* vectors, const accumulate_t<T>* cosines,
                     const accumulate_t<T>* inverse_norms, const accumulate_t<T>* cosine_gradients,
                     T* gradients, int64_t begin, int64_t end);

// The captions' share of the channels' gradients is added to channel_gradients [.., padded dim].
// Of the frames: range over columns of dim. Of the query-aware captions: range over channels; it
// sets the cosine gradients it has used to zero, since they are not the frames' captions'.
template <typename T>
void add_frame_channel_gradients(const Sizes& sizes, const T* captions, int64_t channel_count,
                                 const accumulate_t<T>* inverse_norms,
                                 const accumulate_t<T>* cosine_gradients,
                                 accumulate_t<T>* channel_gradients, int64_t begin, int64_t end);
template <typename T>
void add_aware_channel_gradients(const Sizes& sizes, const T* captions, const AwareRows& rows,
                                 const accumulate_t<T>* inverse_norms,
                                 accumulate_t<T>* cosine_gradients,
                                 accumulate_t<T>* channel_gradients, int64_t begin, int64_t end);

// ---- scores ----

// The weighted sums [Q, padded dim] of the two channels [2, Q, padded dim] that each query is
// folded into. Range over queries.
template <typename Acc>
void combine_channels(const Sizes& sizes, const Weights& weights, const Acc* channels,
                      Acc* combined, int64_t begin, int64_t end);

// The scores [Q, F] of the cosine normalisation from the captions, in one pass over them, with one
// dot product for a frame without a caption of the query's own. Range over frames.
template <typename T>
void frame_scores(const Sizes& sizes, const Weights& weights, const T* agnostic, const T* aware,
                  const AwareRows& rows, const accumulate_t<T>* channels,
                  const accumulate_t<T>* combined, T* scores, int64_t begin, int64_t end);

// scores [Q, F] from cosines [2, Q * channels, F], and the way back. Range over queries.
template <typename T>
void finish_scores(const Sizes& sizes, const Weights& weights, const accumulate_t<T>* cosines,
                   T* scores, int64_t begin, int64_t end);
template <typename T>
void cosine_gradients(const Sizes& sizes, const Weights& weights, const T* score_gradients,
                      const accumulate_t<T>* cosines, accumulate_t<T>* gradients, int64_t begin,
                      int64_t end);

// ---- proposals ----

// Merges, drops and scores the proposals of queries [begin, end).
template <typename T>
void proposals(const ProposalRule& rule, const ProposalInput<T>& in, const ProposalOutput<T>& out,
               int64_t begin, int64_t end);

}  // namespace vmr::kernels::granular
