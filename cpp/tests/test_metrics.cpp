#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "kernels/metrics.h"

namespace vmr::kernels::metrics {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr LengthRange kAll = {0, 0, true};

// Queries as lists, packed for the kernels.
struct Packed {
  std::vector<double> values;
  std::vector<int64_t> offsets = {0};

  void add(const std::vector<double>& query, int64_t columns) {
    values.insert(values.end(), query.begin(), query.end());
    offsets.push_back(offsets.back() + static_cast<int64_t>(query.size()) / columns);
  }
  Rows rows() const { return {values.data(), offsets.data()}; }
  int64_t queries() const { return static_cast<int64_t>(offsets.size()) - 1; }
};

Packed pack(const std::vector<double>& query, int64_t columns) {
  Packed packed;
  packed.add(query, columns);
  return packed;
}

double precision(const std::vector<double>& predictions, const std::vector<double>& truths,
                 double threshold, int64_t most = 10, LengthRange range = kAll,
                 Undefined undefined = Undefined::kZero) {
  const Packed a = pack(predictions, 3);
  const Packed b = pack(truths, 2);
  double out = -1;
  average_precisions({a.rows(), b.rows(), range, undefined}, &threshold, 1, most, &out, 0, 1);
  return out;
}

double best(const std::vector<double>& predictions, const std::vector<double>& truths, int64_t top,
            LengthRange range = kAll, Undefined undefined = Undefined::kZero) {
  const Packed a = pack(predictions, 3);
  const Packed b = pack(truths, 2);
  double out = -1;
  best_overlaps({a.rows(), b.rows(), range, undefined}, &top, 1, &out, 0, 1);
  return out;
}

TEST(AveragePrecision, ByHand) {
  // The second prediction hits the one window: precision 1 / 2 at recall 1.
  EXPECT_DOUBLE_EQ(precision({20, 30, 0.9, 0, 10, 0.8}, {0, 10}, 0.5), 0.5);
  // Scores decide, not the order in the file.
  EXPECT_DOUBLE_EQ(precision({20, 30, 0.1, 0, 10, 0.8}, {0, 10}, 0.5), 1.0);
  // A second prediction of the same window is a miss; the last one finds the other window.
  EXPECT_DOUBLE_EQ(precision({0, 10, 3, 0, 10, 2, 20, 30, 1}, {0, 10, 20, 30}, 0.5),
                   0.5 + 0.5 * 2 / 3);
  // Equal scores stay in order.
  EXPECT_DOUBLE_EQ(precision({20, 30, 1, 0, 10, 1}, {0, 10}, 0.5), 0.5);
  // Only the first predictions count where a most is given.
  EXPECT_EQ(precision({20, 30, 0.9, 0, 10, 0.8}, {0, 10}, 0.5, 1), 0);
  // The threshold itself is a hit.
  EXPECT_EQ(precision({0, 10, 1}, {0, 20}, 0.5), 1);
}

TEST(AveragePrecision, WithoutPredictionsOrGroundTruth) {
  EXPECT_EQ(precision({}, {0, 10}, 0.5), 0);
  EXPECT_TRUE(std::isnan(precision({0, 10, 1}, {}, 0.5)));
  EXPECT_TRUE(std::isnan(precision({0, 10, 1}, {0, 10}, 0.5, 10, {10, 30, false})));
  EXPECT_EQ(precision({0, 10, 1}, {0, 10}, 0.5, 10, {9, 10, false}), 1);
}

TEST(AveragePrecision, UndefinedOverlapsAreHitsOnlyAsPublished) {
  EXPECT_EQ(precision({NAN, 10, 1}, {0, 10}, 0.5), 0);
  EXPECT_EQ(precision({NAN, 10, 1}, {0, 10}, 0.5, 10, kAll, Undefined::kAsPublished), 1);
  EXPECT_EQ(precision({3, 3, 1}, {5, 5}, 0.5), 0);
  EXPECT_EQ(precision({3, 3, 1}, {5, 5}, 0.5, 10, kAll, Undefined::kAsPublished), 1);
}

TEST(BestOverlap, ByHand) {
  const std::vector<double> predictions = {0, 5, 0.1, 0, 10, 0.2, 20, 30, 0.3};
  const std::vector<double> truths = {0, 10, 22, 30};
  EXPECT_DOUBLE_EQ(best(predictions, truths, 1), 0.5);
  EXPECT_DOUBLE_EQ(best(predictions, truths, 2), 1.0);
  EXPECT_DOUBLE_EQ(best(predictions, {22, 30}, 0), 0.8);
  EXPECT_DOUBLE_EQ(best(predictions, {22, 30}, 7), 0.8);
  EXPECT_EQ(best({}, truths, 1), 0);
  EXPECT_TRUE(std::isnan(best(predictions, {}, 1)));
  EXPECT_TRUE(std::isnan(best({NAN, 1, 1}, {0, 1}, 1, kAll, Undefined::kAsPublished)));
  EXPECT_EQ(best({3, 3, 1}, {3, 3}, 1), 0);
}

TEST(HighlightPrecision, ByHand) {
  // Two annotators, level 2; the best clip is the second.
  const Packed scores = pack({0.1, 0.9, 0.5}, 1);
  const Packed labels = pack({0, 4, 2, 0, 2, 0}, 2);
  const double level = 2;
  double area = -1;
  double hit = -1;
  highlight_precisions({scores.rows(), labels.rows(), 2}, &level, 1, &area, &hit, 0, 1);
  // First annotator: clips 1 and 2 are the two best: 1. Second: clip 0 is the last: 1 / 3.
  EXPECT_DOUBLE_EQ(area, (1.0 + 1.0 / 3) / 2);
  EXPECT_EQ(hit, 1);
}

TEST(HighlightPrecision, OfOneClassIsZeroOrOne) {
  const Packed scores = pack({0.1, 0.9}, 1);
  const Packed labels = pack({2, 2}, 1);
  const std::vector<double> levels = {1, 3};
  std::vector<double> areas(2);
  std::vector<double> hits(2);
  highlight_precisions({scores.rows(), labels.rows(), 1}, levels.data(), 2, areas.data(),
                       hits.data(), 0, 1);
  EXPECT_EQ(areas, (std::vector<double>{1, 0}));
  EXPECT_EQ(hits, (std::vector<double>{1, 0}));
}

TEST(HighlightPrecision, ScoresAreCutOrFilledToTheClips) {
  Packed scores;
  Packed labels;
  scores.add({0.1, 0.2, 0.3}, 1);  // the best clip is none of the video's
  scores.add({-1}, 1);             // the missing clip has 0, which is more
  scores.add({}, 1);
  for (int query = 0; query < 3; ++query) labels.add({0, 4}, 1);
  const double level = 2;
  std::vector<double> areas(3);
  std::vector<double> hits(3);
  highlight_precisions({scores.rows(), labels.rows(), 1}, &level, 1, areas.data(), hits.data(), 0,
                       3);
  EXPECT_EQ(areas, (std::vector<double>{1, 1, 0}));
  EXPECT_EQ(hits, (std::vector<double>{0, 0, 0}));
}

TEST(RankedPrecision, ByHand) {
  // Ranked: clips 2, 0, 1. Lower median of the labels is 1, so only clip 0 is positive.
  const Packed scores = pack({0.5, 0.1, 0.9}, 1);
  const Packed labels = pack({3, 1, 1}, 1);
  double area = -1;
  ranked_precisions({scores.rows(), labels.rows(), 1}, 2, true, &area, 0, 1);
  EXPECT_DOUBLE_EQ(area, 0.25);  // the one step of recall, at (0 + 1 / 2) / 2
  ranked_precisions({scores.rows(), labels.rows(), 1}, 1, true, &area, 0, 1);
  EXPECT_EQ(area, 0);
  ranked_precisions({scores.rows(), labels.rows(), 1}, 0, false, &area, 0, 1);
  EXPECT_DOUBLE_EQ(area, 1);
}

// Any numbers at all: the sanitizers watch, and every value is a share or undefined.
TEST(Metrics, OfAnything) {
  std::mt19937 engine(1);
  const std::vector<double> odd = {0, 1, 2, 3, 5, -1, 1e300, -1e300, kInf, -kInf, NAN};
  std::uniform_int_distribution<size_t> any(0, odd.size() - 1);
  std::uniform_int_distribution<int> few(0, 12);
  const std::vector<double> thresholds = {0.3, 0.5, 0.95};
  const std::vector<int64_t> tops = {0, 1, 5};
  for (int round = 0; round < 3000; ++round) {
    Packed predictions;
    Packed truths;
    Packed scores;
    Packed labels;
    const auto list = [&](int64_t columns) {
      std::vector<double> values(static_cast<size_t>(few(engine) * columns));
      for (double& value : values) value = odd[any(engine)];
      return values;
    };
    for (int query = 0; query < 4; ++query) {
      predictions.add(list(3), 3);
      truths.add(list(2), 2);
      scores.add(list(1), 1);
      labels.add(list(2), 2);
    }
    for (const Undefined undefined : {Undefined::kZero, Undefined::kAsPublished}) {
      for (const LengthRange& range : {kAll, LengthRange{0, 10, false}}) {
        const MomentProblem problem = {predictions.rows(), truths.rows(), range, undefined};
        std::vector<double> out(12);
        average_precisions(problem, thresholds.data(), 3, 10, out.data(), 0, 4);
        for (const double value : out) EXPECT_FALSE(value < 0 || value > 1 + 1e-12) << value;
        best_overlaps(problem, tops.data(), 3, out.data(), 0, 4);
      }
    }
    const HighlightProblem problem = {scores.rows(), labels.rows(), 2};
    std::vector<double> areas(12);
    std::vector<double> hits(12);
    highlight_precisions(problem, thresholds.data(), 3, areas.data(), hits.data(), 0, 4);
    for (const double value : areas) EXPECT_FALSE(value < 0 || value > 1 + 1e-12) << value;
    ranked_precisions(problem, 5, true, areas.data(), 0, 4);
    for (int query = 0; query < 4; ++query) {
      EXPECT_FALSE(areas[static_cast<size_t>(query)] < 0);
    }
  }
}

}  // namespace
}  // namespace vmr::kernels::metrics
