// Moment retrieval and highlight metrics on the CPU, one value a query, for a range [begin, end) of
// queries that the caller shares out among threads. Everything is double: the published evaluators
// compute so, and their decisions (IoU >= threshold) are taken here on the same bits.
#pragma once

#include <cstdint>

namespace vmr::kernels::metrics {

// Rows of several queries behind one another: query q has the rows [offsets[q], offsets[q + 1]).
struct Rows {
  const double* values;
  const int64_t* offsets;
};

// Keeps of a query's ground truth the windows with shortest < end - start <= longest; all of them
// where `all` is set (zero-length and reversed ones too).
struct LengthRange {
  double shortest;
  double longest;
  bool all;
};

// What the published code makes of a 0 / 0 or NaN overlap: a hit in average precision, the first
// choice for recall at 1, no overlap at all for recall at more. Otherwise such an overlap is 0.
enum class Undefined { kZero, kAsPublished };

struct MomentProblem {
  Rows predictions;  // rows of (start, end, score), best first
  Rows truths;       // rows of (start, end)
  LengthRange range;
  Undefined undefined;
};

// precisions [queries, thresholds]: the average precision of a query's predictions, ordered by
// score (equal scores stay in order), each ground truth found once. 0 without predictions, NaN
// without ground truth in the range. most_predictions: only so many first predictions count; 0 for
// all.
void average_precisions(const MomentProblem& problem, const double* thresholds,
                        int64_t threshold_count, int64_t most_predictions, double* precisions,
                        int64_t begin, int64_t end);

// overlaps [queries, tops]: the highest IoU of the first tops[k] predictions (all of them for 0)
// with any ground truth of the query. 0 without predictions, NaN without ground truth in the range.
void best_overlaps(const MomentProblem& problem, const int64_t* tops, int64_t top_count,
                   double* overlaps, int64_t begin, int64_t end);

struct HighlightProblem {
  Rows scores;  // one predicted score a clip
  Rows labels;  // rows of one label an annotator, for each clip of the video
  int64_t annotators;
};

// precisions and hits [queries, levels]: a clip is positive for an annotator who gave it at least
// levels[l]. precisions: interpolated average precision, the mean over annotators; hits: whether
// the clip with the highest score (the first of equals) is positive for any annotator. Clips
// without a predicted score have 0, scores after the last clip are left out of precisions; a query
// without any score has 0 in both. NaN without clips.
void highlight_precisions(const HighlightProblem& problem, const double* levels,
                          int64_t level_count, double* precisions, double* hits, int64_t begin,
                          int64_t end);

// precisions [queries]: the area under precision and recall (trapezoids) over the `top` clips with
// the highest scores (all for 0), recall relative to the positives among these; the mean over
// annotators. A clip is positive where its label is above the annotator's lower median, or above 0
// where not above_median. 0 without scores, NaN without clips.
void ranked_precisions(const HighlightProblem& problem, int64_t top, bool above_median,
                       double* precisions, int64_t begin, int64_t end);

}  // namespace vmr::kernels::metrics
