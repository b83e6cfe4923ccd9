#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "kernels/detection.h"
#include "kernels/detection_simd.h"

namespace vmr::kernels::detection {
namespace {

std::size_t size(int64_t count) {
  return static_cast<std::size_t>(count);
}

using RowError = double (*)(const VertexRow<float>&);

// Every compiled variant that this CPU can run.
std::vector<RowError> variants() {
  std::vector<RowError> found = {&baseline::vertex_row_error<float>};
#ifdef VMR_X86_64
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c")) {
    found.push_back(&avx2::vertex_row_error<float>);
  }
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    found.push_back(&avx512::vertex_row_error<float>);
  }
#endif
  return found;
}

TEST(VertexRow, TheSigmoidIsThatOfTheLibrary) {
  for (const RowError row_error : variants()) {
    for (float score = -110; score <= 110; score += 0.0173f) {
      const float truth = 0;
      const double squared = row_error({&score, &truth, 1, true});
      const double expected = 1 / (1 + std::exp(-static_cast<double>(score)));
      const double tolerance = score > -40 ? 1e-6 * expected * expected : 1e-34;
      EXPECT_NEAR(squared, expected * expected, tolerance) << score;
    }
    for (const float score : {INFINITY, -INFINITY, 3e38f, -3e38f}) {
      const float truth = score > 0 ? 1 : 0;
      EXPECT_NEAR(row_error({&score, &truth, 1, true}), 0, 1e-60);
    }
    const float nan = NAN;
    const float truth = 0;
    EXPECT_TRUE(std::isnan(row_error({&nan, &truth, 1, true})));
    EXPECT_TRUE(std::isnan(row_error({&nan, &truth, 1, false})));
    EXPECT_EQ(row_error({nullptr, nullptr, 0, true}), 0);
  }
}

// A random problem, with what is not to be read as NaN.
struct Example {
  int64_t frames;
  std::vector<double> scores;
  std::vector<int64_t> points;
  std::vector<int64_t> splits;
  std::vector<int64_t> lengths;

  Example(std::mt19937* engine, int64_t batch, int64_t n, bool whole)
      : frames(n), scores(size(batch * n * n), NAN), splits(1, 0) {
    std::normal_distribution<double> normal;
    for (int64_t q = 0; q < batch; ++q) {
      const auto length = static_cast<int64_t>((*engine)() % size(n + 1));
      lengths.push_back(length);
      for (int64_t i = 0; i < length; ++i) {
        for (int64_t j = whole ? 0 : i; j < length; ++j) {
          scores[size((q * n + i) * n + j)] = normal(*engine);
        }
      }
      for (std::size_t p = length == 0 ? 0 : (*engine)() % 4; p > 0; --p) {
        auto i = static_cast<int64_t>((*engine)() % size(length));
        auto j = static_cast<int64_t>((*engine)() % size(length));
        if (!whole && i > j) std::swap(i, j);
        for (int times = 0; times < 2; ++times) points.insert(points.end(), {i, j});
      }
      splits.push_back(static_cast<int64_t>(points.size() / 2));
    }
  }

  VertexProblem<double> problem(bool whole, bool sigmoid) const {
    return {scores.data(),
            points.data(),
            splits.data(),
            lengths.data(),
            static_cast<int64_t>(lengths.size()),
            frames,
            static_cast<int64_t>(points.size() / 2),
            whole,
            sigmoid};
  }

  double loss(int64_t q, bool whole, bool sigmoid) const {
    std::set<std::pair<int64_t, int64_t>> own;
    for (int64_t p = splits[size(q)]; p < splits[size(q + 1)]; ++p) {
      own.insert({points[size(2 * p)], points[size(2 * p + 1)]});
    }
    double sum = 0;
    for (int64_t i = 0; i < lengths[size(q)]; ++i) {
      for (int64_t j = whole ? 0 : i; j < lengths[size(q)]; ++j) {
        const double score = scores[size((q * frames + i) * frames + j)];
        const double value = sigmoid ? 1 / (1 + std::exp(-score)) : score;
        sum += std::pow(value - static_cast<double>(own.count({i, j})), 2);
      }
    }
    return sum;
  }
};

TEST(VertexLoss, IsTheErrorAgainstTheExplicitMapAndItsGradientTheDifferenceQuotient) {
  std::mt19937 engine(1);
  for (int round = 0; round < 60; ++round) {
    const bool whole = round % 2 == 0;
    const bool sigmoid = round % 4 < 2;
    const int64_t batch = 1 + static_cast<int64_t>(engine() % 3);
    const int64_t n = round % 10 == 0 ? 300 : 1 + static_cast<int64_t>(engine() % 9);
    Example example(&engine, batch, n, whole);
    const VertexProblem<double> problem = example.problem(whole, sigmoid);
    std::vector<double> rows(size(batch * n), 99);
    std::vector<double> losses(size(batch), 99);
    // In two ranges, as two threads would.
    row_errors(problem, rows.data(), batch * n / 2, batch * n);
    row_errors(problem, rows.data(), 0, batch * n / 2);
    sum_errors(problem, rows.data(), losses.data(), 0, batch);
    const std::vector<double> factors = {1, -2, 0.5};
    std::vector<double> gradients(size(batch * n * n), 99);
    row_error_gradients(problem, factors.data(), gradients.data(), 0, batch * n);
    for (int64_t q = 0; q < batch; ++q) {
      EXPECT_NEAR(losses[size(q)], example.loss(q, whole, sigmoid), 1e-12 * losses[size(q)]);
      for (int64_t place = q * n * n; place < (q + 1) * n * n; ++place) {
        double& score = example.scores[size(place)];
        if (std::isnan(score)) {
          EXPECT_EQ(gradients[size(place)], 0);
        }
        if (std::isnan(score) || n > 10) continue;
        const double before = score;
        const double step = 1e-5;
        score = before + step;
        const double above = example.loss(q, whole, sigmoid);
        score = before - step;
        const double below = example.loss(q, whole, sigmoid);
        score = before;
        EXPECT_NEAR(gradients[size(place)], factors[size(q)] * (above - below) / (2 * step), 1e-7);
      }
    }
  }
}

TEST(TopPoints, AreTheFirstOfAStableSort) {
  std::mt19937 engine(2);
  for (int round = 0; round < 400; ++round) {
    const int64_t n = 1 + static_cast<int64_t>(engine() % (round % 10 == 0 ? 150 : 8));
    const auto length = static_cast<int64_t>(engine() % size(n + 1));
    const int64_t k = 1 + static_cast<int64_t>(engine() % 40);
    const unsigned distinct = round % 2 == 0 ? 3 : 1000000;
    std::vector<float> scores(size(n * n), NAN);
    std::vector<int64_t> order;
    for (int64_t i = 0; i < length; ++i) {
      for (int64_t j = 0; j < length; ++j) {
        if (engine() % 9 == 0) continue;
        scores[size(i * n + j)] =
            engine() % 11 == 0 ? -INFINITY : -static_cast<float>(engine() % distinct);
        if (i <= j) order.push_back(i * n + j);
      }
    }
    std::stable_sort(order.begin(), order.end(), [&](int64_t left, int64_t right) {
      return scores[size(left)] > scores[size(right)];
    });
    std::vector<int64_t> points(size(2 * k), 99);
    std::vector<float> values(size(k), 99);
    int64_t count = 99;
    top_points<float>({scores.data(), &length, 1, n, k, points.data(), values.data(), &count}, 0,
                      1);
    EXPECT_EQ(count, std::min(k, static_cast<int64_t>(order.size())));
    for (int64_t p = 0; p < k; ++p) {
      const int64_t place = p < count ? order[size(p)] : 0;
      EXPECT_EQ(points[size(2 * p)], p < count ? place / n : -1);
      EXPECT_EQ(points[size(2 * p + 1)], p < count ? place % n : -1);
      EXPECT_EQ(values[size(p)], p < count ? scores[size(place)] : -INFINITY);
    }
  }
}

}  // namespace
}  // namespace vmr::kernels::detection
