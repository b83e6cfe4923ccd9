#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/spans.h"

namespace vmr::kernels::spans {
namespace {

using Pair = Span<double>;

double iou(const Pair& a, const Pair& b) {
  return overlap<Overlap::kIou>(a, b);
}
double giou(const Pair& a, const Pair& b) {
  return overlap<Overlap::kGiou>(a, b);
}

TEST(Overlap, ByHand) {
  EXPECT_DOUBLE_EQ(iou({0, 4}, {2, 6}), 1.0 / 3);
  EXPECT_DOUBLE_EQ(giou({0, 4}, {6, 8}), -0.25);
  EXPECT_EQ(iou({2, 2}, {2, 2}), 0);
  EXPECT_EQ(giou({2, 2}, {3, 3}), -1);
  EXPECT_EQ(iou({5, 3}, {0, 10}), 0);
  EXPECT_TRUE(std::isnan(iou({NAN, 3}, {0, 10})));
  EXPECT_TRUE(std::isnan(giou({0, 10}, {3, NAN})));
}

TEST(Overlap, LiesInItsRangeAndIsSymmetricForAnySpans) {
  std::mt19937 engine(1);
  std::uniform_int_distribution<int> bound(0, 6);
  for (int round = 0; round < 20000; ++round) {
    const Pair a = {static_cast<double>(bound(engine)), static_cast<double>(bound(engine))};
    const Pair b = {static_cast<double>(bound(engine)), static_cast<double>(bound(engine))};
    EXPECT_GE(iou(a, b), 0);
    EXPECT_LE(iou(a, b), 1);
    EXPECT_GE(giou(a, b), -1);
    EXPECT_LE(giou(a, b), iou(a, b));
    EXPECT_EQ(iou(a, b), iou(b, a));
    EXPECT_EQ(giou(a, b), giou(b, a));
  }
}

template <Overlap kind>
void expect_difference_quotient() {
  std::mt19937 engine(2);
  std::uniform_real_distribution<double> bound(0, 10);
  const double step = 1e-6;
  for (int round = 0; round < 2000; ++round) {
    const Pair a = {bound(engine), bound(engine)};
    const Pair b = {bound(engine), bound(engine)};
    const Pair gradient = overlap_gradient<kind>(2.0, a, b);
    const double by_start = (overlap<kind>(Pair{a.start + step, a.end}, b) -
                             overlap<kind>(Pair{a.start - step, a.end}, b)) /
                            step;
    const double by_end = (overlap<kind>(Pair{a.start, a.end + step}, b) -
                           overlap<kind>(Pair{a.start, a.end - step}, b)) /
                          step;
    // Reversed spans that are close to length 0 make large quotients of small numbers.
    EXPECT_NEAR(gradient.start, by_start, 1e-4 * (1 + std::abs(by_start)));
    EXPECT_NEAR(gradient.end, by_end, 1e-4 * (1 + std::abs(by_end)));
  }
}

TEST(Overlap, GradientIsTheDifferenceQuotient) {
  expect_difference_quotient<Overlap::kIou>();
  expect_difference_quotient<Overlap::kGiou>();
}

TEST(Suppress, KeepsWhatASortAndAScanKeep) {
  std::mt19937 engine(3);
  for (int round = 0; round < 300; ++round) {
    // Above 256 the best are looked for first, which 0.4 and few distinct spans soon use up.
    const int64_t candidates = static_cast<int64_t>(engine() % (round % 10 == 0 ? 900 : 30));
    const auto size = static_cast<std::size_t>(candidates);
    std::vector<float> spans(2 * size);
    std::vector<float> scores(size);
    for (std::size_t p = 0; p < size; ++p) {
      spans[2 * p] = static_cast<float>(engine() % 20);
      spans[2 * p + 1] = spans[2 * p] + static_cast<float>(engine() % 8);
      scores[p] = engine() % 9 == 0 ? NAN : static_cast<float>(engine() % 5);
    }
    const int64_t top_k = 1 + static_cast<int64_t>(engine() % 12);
    std::vector<int64_t> found(static_cast<std::size_t>(top_k), 99);
    int64_t count = 99;
    suppress<float>(
        {spans.data(), scores.data(), &candidates, 1, candidates, 0.4, top_k, found.data(), &count},
        0, 1);

    std::vector<std::size_t> order;
    for (std::size_t p = 0; p < size; ++p) {
      if (!std::isnan(scores[p])) order.push_back(p);
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t i, std::size_t j) { return scores[i] > scores[j]; });
    std::vector<int64_t> kept;
    const auto span = [&](std::size_t p) { return Span<float>{spans[2 * p], spans[2 * p + 1]}; };
    for (const std::size_t p : order) {
      const bool free = std::none_of(kept.begin(), kept.end(), [&](int64_t better) {
        return overlap<Overlap::kIou>(span(static_cast<std::size_t>(better)), span(p)) > 0.4f;
      });
      if (free && static_cast<int64_t>(kept.size()) < top_k) {
        kept.push_back(static_cast<int64_t>(p));
      }
    }
    EXPECT_EQ(count, static_cast<int64_t>(kept.size()));
    kept.resize(static_cast<std::size_t>(top_k), -1);
    EXPECT_EQ(found, kept);
  }
}

std::vector<int64_t> assigned(const std::vector<double>& costs, int64_t slots, int64_t windows,
                              int64_t count) {
  std::vector<int64_t> found(static_cast<std::size_t>(windows), 99);
  assign<double>({costs.data(), &count, 1, slots, windows, found.data()}, 0, 1);
  return found;
}

// The cheapest way to give `count` windows different slots, by trying all: a window that goes
// without has one of further slots, which cost nothing, where there are too few.
double least_total(const std::vector<double>& costs, int64_t slots, int64_t windows,
                   int64_t count) {
  std::vector<int64_t> order(static_cast<std::size_t>(std::max(slots, count)));
  std::iota(order.begin(), order.end(), 0);
  double least = std::numeric_limits<double>::infinity();
  do {
    double total = 0;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t slot = order[static_cast<std::size_t>(i)];
      if (slot < slots) total += costs[static_cast<std::size_t>(slot * windows + i)];
    }
    least = std::min(least, total);
  } while (std::next_permutation(order.begin(), order.end()));
  return least;
}

TEST(Assign, IsTheCheapestOfAllAndLooksAtNoPadding) {
  std::mt19937 engine(4);
  for (int round = 0; round < 1500; ++round) {
    const auto slots = static_cast<int64_t>(engine() % 6);
    const auto windows = static_cast<int64_t>(engine() % 6);
    const auto count = static_cast<int64_t>(engine() % static_cast<unsigned>(windows + 1));
    std::vector<double> costs(static_cast<std::size_t>(slots * windows));
    for (std::size_t i = 0; i < costs.size(); ++i) {
      const bool padding = static_cast<int64_t>(i) % windows >= count;
      costs[i] = padding ? NAN : static_cast<double>(engine() % 7) - 3;
    }
    const std::vector<int64_t> found = assigned(costs, slots, windows, count);
    double total = 0;
    std::vector<int64_t> used;
    for (int64_t i = 0; i < windows; ++i) {
      const int64_t slot = found[static_cast<std::size_t>(i)];
      if (slot == -1) continue;
      ASSERT_LT(i, count);
      ASSERT_LT(slot, slots);
      EXPECT_EQ(std::count(used.begin(), used.end(), slot), 0);
      used.push_back(slot);
      total += costs[static_cast<std::size_t>(slot * windows + i)];
    }
    EXPECT_EQ(static_cast<int64_t>(used.size()), std::min(slots, count));
    EXPECT_EQ(total, least_total(costs, slots, windows, count));
  }
}

TEST(Assign, NoNumberHasACostOfItsOwn) {
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(finite_cost(NAN), 1e6);
  EXPECT_EQ(finite_cost(infinity), 1e6);
  EXPECT_EQ(finite_cost(-infinity), -1e6);
  EXPECT_EQ(finite_cost(-1.7e308), -1.7e308);
  EXPECT_EQ(finite_cost(-0.5), -0.5);
}

TEST(Assign, EverySlotIsUsedOnceEvenWhereSumsOverflow) {
  std::mt19937 engine(5);
  for (int round = 0; round < 300; ++round) {
    std::vector<double> costs(64);
    for (double& cost : costs) cost = engine() % 2 == 0 ? 1.7e308 : -1.7e308;
    std::vector<int64_t> found = assigned(costs, 8, 8, 8);
    std::sort(found.begin(), found.end());
    EXPECT_EQ(found, (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  }
}

}  // namespace
}  // namespace vmr::kernels::spans
