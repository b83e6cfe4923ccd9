#include "kernels/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace vmr::kernels::metrics {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct Window {
  double start;
  double end;
};

// numpy.maximum and numpy.minimum: NaN where either is.
double larger(double a, double b) {
  return std::isnan(a) ? a : std::isnan(b) ? b : std::max(a, b);
}
double smaller(double a, double b) {
  return std::isnan(a) ? a : std::isnan(b) ? b : std::min(a, b);
}

// IoU over the true union; NaN where that is 0 / 0 or a bound is NaN.
double overlap(const Window& a, const Window& b) {
  const double shared = larger(smaller(a.end, b.end) - larger(a.start, b.start), 0.0);
  const double both = (a.end - a.start) + (b.end - b.start) - shared;
  return shared / both;
}

// IoU over the hull of both, 0 where that is empty. The same for windows that overlap but for the
// last bit, which decides at a threshold: recall is published with this one, precision with the
// other.
double hull_overlap(const Window& a, const Window& b) {
  const double shared = larger(0.0, smaller(a.end, b.end) - larger(a.start, b.start));
  const double hull = larger(a.end, b.end) - smaller(a.start, b.start);
  return hull != 0 ? shared / hull : 0.0;
}

bool in_range(const Window& window, const LengthRange& range) {
  const double length = window.end - window.start;
  return range.all || (range.shortest < length && length <= range.longest);
}

void load_truths(const MomentProblem& problem, int64_t query, std::vector<Window>& truths) {
  truths.clear();
  for (int64_t row = problem.truths.offsets[query]; row < problem.truths.offsets[query + 1];
       ++row) {
    const Window window = {problem.truths.values[2 * row], problem.truths.values[2 * row + 1]};
    if (in_range(window, problem.range)) truths.push_back(window);
  }
}

Window prediction(const MomentProblem& problem, int64_t row) {
  return {problem.predictions.values[3 * row], problem.predictions.values[3 * row + 1]};
}

// An order for everything: NaN comes after all numbers.
double orderly(double value) {
  return std::isnan(value) ? -std::numeric_limits<double>::infinity() : value;
}

// Sorts indices of values from the highest to the lowest, equal ones in order.
class Ranking {
 public:
  template <typename Value>
  const std::vector<int64_t>& operator()(int64_t count, const Value& value) {
    pairs_.clear();
    for (int64_t i = 0; i < count; ++i) pairs_.push_back({orderly(value(i)), i});
    std::sort(pairs_.begin(), pairs_.end(), [](const Pair& a, const Pair& b) {
      return a.value != b.value ? a.value > b.value : a.index < b.index;
    });
    order_.clear();
    for (const Pair& pair : pairs_) order_.push_back(pair.index);
    return order_;
  }

 private:
  struct Pair {
    double value;
    int64_t index;
  };
  std::vector<Pair> pairs_;
  std::vector<int64_t> order_;
};

// The area under the interpolated precision over recall; places: of the hits among the ranked
// predictions, ascending. precision is room for as many.
double interpolated_precision(const std::vector<int64_t>& places, int64_t positives,
                              std::vector<double>& precision) {
  precision.resize(places.size());
  double highest = 0;
  for (size_t hit = places.size(); hit-- > 0;) {
    highest =
        std::max(highest, static_cast<double>(hit + 1) / static_cast<double>(places[hit] + 1));
    precision[hit] = highest;
  }
  double area = 0;
  double recall = 0;
  for (size_t hit = 0; hit < places.size(); ++hit) {
    const double next = static_cast<double>(hit + 1) / static_cast<double>(positives);
    area += (next - recall) * precision[hit];
    recall = next;
  }
  return area;
}

// Interpolated precision, averaged over the groups of equally ranked clips that add recall. labels:
// in the order of the ranking; positive from level up.
double grouped_precision(const std::vector<double>& labels, double level,
                         const std::vector<size_t>& group_ends) {
  const size_t clips = labels.size();
  size_t found = 0;
  for (const double label : labels) found += label >= level ? 1 : 0;
  if (found == 0 || found == clips) return found == 0 ? 0.0 : 1.0;
  // From the lowest rank up. Leaving out negatives raises precision, so that it is highest just
  // where a positive is left out next.
  double area = 0;
  double highest = 0;
  size_t steps = 0;
  for (size_t group = group_ends.size(); group-- > 0;) {
    size_t in_group = 0;
    for (size_t i = group == 0 ? 0 : group_ends[group - 1]; i < group_ends[group]; ++i) {
      in_group += labels[i] >= level ? 1 : 0;
    }
    if (in_group == 0) continue;
    highest =
        std::max(highest, static_cast<double>(found) / static_cast<double>(group_ends[group]));
    area += highest;
    ++steps;
    found -= in_group;
  }
  return area / static_cast<double>(steps);
}

}  // namespace

void average_precisions(const MomentProblem& problem, const double* thresholds,
                        int64_t threshold_count, int64_t most_predictions, double* precisions,
                        int64_t begin, int64_t end) {
  const bool published = problem.undefined == Undefined::kAsPublished;
  std::vector<Window> truths;
  std::vector<int64_t> by_overlap;
  std::vector<double> overlaps;
  std::vector<double> precision;
  std::vector<unsigned char> found;
  std::vector<int64_t> hits;
  Ranking ranking;
  for (int64_t query = begin; query < end; ++query) {
    double* const out = precisions + query * threshold_count;
    load_truths(problem, query, truths);
    const auto truth_count = static_cast<int64_t>(truths.size());
    const int64_t first = problem.predictions.offsets[query];
    int64_t count = problem.predictions.offsets[query + 1] - first;
    if (most_predictions > 0) count = std::min(count, most_predictions);
    if (truth_count == 0 || count == 0) {
      std::fill(out, out + threshold_count, truth_count == 0 ? kNaN : 0.0);
      continue;
    }
    const std::vector<int64_t>& order =
        ranking(count, [&](int64_t i) { return problem.predictions.values[3 * (first + i) + 2]; });
    // The overlaps with all ground truth, and which of it each prediction would take first.
    const auto table = static_cast<size_t>(count * truth_count);
    overlaps.resize(table);
    by_overlap.resize(table);
    for (int64_t i = 0; i < count; ++i) {
      const Window window = prediction(problem, first + order[static_cast<size_t>(i)]);
      double* const row = overlaps.data() + i * truth_count;
      int64_t* const choice = by_overlap.data() + i * truth_count;
      for (int64_t j = 0; j < truth_count; ++j) {
        const double value = overlap(window, truths[static_cast<size_t>(j)]);
        // An undefined overlap sorts before all and is below no threshold, in the published code.
        row[j] = !std::isnan(value) ? value
                 : published        ? std::numeric_limits<double>::infinity()
                                    : 0.0;
        // Of equal overlaps the later ground truth comes first.
        int64_t place = j;
        while (place > 0 && row[choice[place - 1]] <= row[j]) {
          choice[place] = choice[place - 1];
          --place;
        }
        choice[place] = j;
      }
    }
    for (int64_t t = 0; t < threshold_count; ++t) {
      found.assign(static_cast<size_t>(truth_count), 0);
      hits.clear();
      for (int64_t i = 0; i < count; ++i) {
        const double* const row = overlaps.data() + i * truth_count;
        const int64_t* const choice = by_overlap.data() + i * truth_count;
        for (int64_t j = 0; j < truth_count && row[choice[j]] >= thresholds[t]; ++j) {
          unsigned char& taken = found[static_cast<size_t>(choice[j])];
          if (taken == 0) {
            taken = 1;
            hits.push_back(i);
            break;
          }
        }
      }
      out[t] = interpolated_precision(hits, truth_count, precision);
    }
  }
}

void best_overlaps(const MomentProblem& problem, const int64_t* tops, int64_t top_count,
                   double* overlaps, int64_t begin, int64_t end) {
  const bool published = problem.undefined == Undefined::kAsPublished;
  std::vector<Window> truths;
  for (int64_t query = begin; query < end; ++query) {
    load_truths(problem, query, truths);
    const int64_t first = problem.predictions.offsets[query];
    const int64_t available = problem.predictions.offsets[query + 1] - first;
    for (int64_t k = 0; k < top_count; ++k) {
      double& out = overlaps[query * top_count + k];
      const int64_t count = tops[k] == 0 ? available : std::min(available, tops[k]);
      if (truths.empty() || count == 0) {
        out = truths.empty() ? kNaN : 0.0;
        continue;
      }
      // As published, the pair with the highest IoU is chosen by one formula and measured by the
      // other.
      Window best_prediction = prediction(problem, first);
      Window best_truth = truths[0];
      double best = -std::numeric_limits<double>::infinity();
      for (int64_t i = 0; i < count; ++i) {
        const Window window = prediction(problem, first + i);
        for (const Window& truth : truths) {
          double value = overlap(window, truth);
          if (std::isnan(value)) {
            value = published && tops[k] == 1 ? std::numeric_limits<double>::infinity() : 0.0;
          }
          if (value > best) {
            best = value;
            best_prediction = window;
            best_truth = truth;
          }
        }
      }
      out = hull_overlap(best_prediction, best_truth);
    }
  }
}

void highlight_precisions(const HighlightProblem& problem, const double* levels,
                          int64_t level_count, double* precisions, double* hits, int64_t begin,
                          int64_t end) {
  const int64_t annotators = problem.annotators;
  std::vector<double> scores;
  Ranking ranking;
  std::vector<size_t> group_ends;
  std::vector<double> ranked;
  for (int64_t query = begin; query < end; ++query) {
    double* const precision_out = precisions + query * level_count;
    double* const hit_out = hits + query * level_count;
    const int64_t clip_begin = problem.labels.offsets[query];
    const int64_t clips = problem.labels.offsets[query + 1] - clip_begin;
    const double* const labels = problem.labels.values + clip_begin * annotators;
    const int64_t score_begin = problem.scores.offsets[query];
    const int64_t score_count = problem.scores.offsets[query + 1] - score_begin;
    std::fill(precision_out, precision_out + level_count, clips == 0 ? kNaN : 0.0);
    std::fill(hit_out, hit_out + level_count, clips == 0 ? kNaN : 0.0);
    if (clips == 0 || score_count == 0) continue;

    const double* const given = problem.scores.values + score_begin;
    const int64_t top = std::max_element(given, given + score_count) - given;
    scores.assign(static_cast<size_t>(clips), 0.0);
    std::copy(given, given + std::min(score_count, clips), scores.begin());
    const std::vector<int64_t>& order =
        ranking(clips, [&](int64_t i) { return scores[static_cast<size_t>(i)]; });
    // Clips with equal scores are found together.
    group_ends.clear();
    for (size_t i = 1; i <= order.size(); ++i) {
      if (i == order.size() ||
          scores[static_cast<size_t>(order[i])] != scores[static_cast<size_t>(order[i - 1])]) {
        group_ends.push_back(i);
      }
    }
    for (int64_t level = 0; level < level_count; ++level) {
      if (top >= clips) break;
      const double* const row = labels + top * annotators;
      const bool hit =
          std::any_of(row, row + annotators, [&](double label) { return label >= levels[level]; });
      hit_out[level] = hit ? 1.0 : 0.0;
    }
    for (int64_t annotator = 0; annotator < annotators; ++annotator) {
      ranked.resize(static_cast<size_t>(clips));
      for (int64_t i = 0; i < clips; ++i) {
        const auto place = static_cast<size_t>(i);
        ranked[place] = labels[order[place] * annotators + annotator];
      }
      for (int64_t level = 0; level < level_count; ++level) {
        precision_out[level] +=
            grouped_precision(ranked, levels[level], group_ends) / static_cast<double>(annotators);
      }
    }
  }
}

void ranked_precisions(const HighlightProblem& problem, int64_t top, bool above_median,
                       double* precisions, int64_t begin, int64_t end) {
  const int64_t annotators = problem.annotators;
  Ranking ranking;
  std::vector<double> sorted;
  for (int64_t query = begin; query < end; ++query) {
    const int64_t clip_begin = problem.labels.offsets[query];
    const int64_t clips = problem.labels.offsets[query + 1] - clip_begin;
    const double* const labels = problem.labels.values + clip_begin * annotators;
    const int64_t score_begin = problem.scores.offsets[query];
    const int64_t scored = std::min(clips, problem.scores.offsets[query + 1] - score_begin);
    precisions[query] = clips == 0 ? kNaN : 0.0;
    if (clips == 0 || scored == 0) continue;
    const double* const scores = problem.scores.values + score_begin;
    const std::vector<int64_t>& order = ranking(scored, [&](int64_t i) { return scores[i]; });
    const int64_t ranked = top > 0 ? std::min(top, scored) : scored;
    double sum = 0;
    for (int64_t annotator = 0; annotator < annotators; ++annotator) {
      double threshold = 0;
      if (above_median) {
        sorted.resize(static_cast<size_t>(clips));
        for (int64_t clip = 0; clip < clips; ++clip) {
          sorted[static_cast<size_t>(clip)] = orderly(labels[clip * annotators + annotator]);
        }
        const auto middle = sorted.begin() + (clips - 1) / 2;
        std::nth_element(sorted.begin(), middle, sorted.end());
        threshold = *middle;
      }
      const auto positive = [&](int64_t place) {
        return labels[order[static_cast<size_t>(place)] * annotators + annotator] > threshold;
      };
      int64_t positives = 0;
      for (int64_t place = 0; place < ranked; ++place) positives += positive(place);
      if (positives == 0) continue;
      int64_t found = 0;
      double recall = 0;
      double precision = 1;
      for (int64_t place = 0; place < ranked; ++place) {
        found += positive(place);
        const double next_recall = static_cast<double>(found) / static_cast<double>(positives);
        const double next_precision = static_cast<double>(found) / static_cast<double>(place + 1);
        sum += (next_recall - recall) * (precision + next_precision) / 2;
        recall = next_recall;
        precision = next_precision;
      }
    }
    precisions[query] = sum / static_cast<double>(annotators);
  }
}

}  // namespace vmr::kernels::metrics
