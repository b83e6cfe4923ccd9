#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu_dispatch.h"
#include "kernels/granular.h"

namespace vmr::kernels::granular {
namespace {

template <typename T>
std::vector<T> random_values(int64_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values) store(&value, normal(engine));
  return values;
}

template <typename T>
using RowDotsFunction = void (*)(const RowDots<T>&);

template <typename T>
std::vector<RowDotsFunction<T>> variants() {
  std::vector<RowDotsFunction<T>> found = {&baseline::row_dots<T>};
#ifdef VMR_X86_64
  if (cpu_isa() != CpuIsa::kBaseline) found.push_back(&avx2::row_dots<T>);
  if (cpu_isa() == CpuIsa::kAvx512) found.push_back(&avx512::row_dots<T>);
#endif
  return found;
}

template <typename T>
class RowDotsTest : public testing::Test {};
using Types = testing::Types<float, double, Half, BFloat16>;
TYPED_TEST_SUITE(RowDotsTest, Types, );

TYPED_TEST(RowDotsTest, EqualsTheSumsInEveryVariantForAllRemainders) {
  using T = TypeParam;
  using Acc = accumulate_t<T>;
  const double tolerance = sizeof(Acc) == sizeof(double) ? 1e-12 : 1e-4;
  for (const auto row_dots : variants<T>()) {
    for (const int64_t dim : {1, 7, 16, 33, 64}) {
      for (const int64_t rows : {0, 1, 4, 6, 9}) {
        for (const int64_t vectors : {1, 2, 3, 4, 5, 6, 7, 8}) {
          const int64_t padded = (dim + kDimAlignment - 1) / kDimAlignment * kDimAlignment;
          const auto captions = random_values<T>(rows * dim, 1);
          auto queries = random_values<Acc>(vectors * padded, 2);
          for (int64_t v = 0; v < vectors; ++v) {
            for (int64_t d = dim; d < padded; ++d) {
              queries[static_cast<std::size_t>(v * padded + d)] = 0;
            }
          }
          std::vector<Acc> scratch(static_cast<std::size_t>(4 * padded));
          std::vector<Acc> dots(static_cast<std::size_t>(rows * vectors));
          std::vector<Acc> norms(static_cast<std::size_t>(rows));
          row_dots({captions.data(), nullptr, captions.data(), queries.data(), rows, vectors, dim,
                    scratch.data(), dots.data(), rows, norms.data()});
          for (int64_t r = 0; r < rows; ++r) {
            const T* row = captions.data() + r * dim;
            double squared = 0;
            for (int64_t d = 0; d < dim; ++d) {
              squared += static_cast<double>(load(row + d)) * load(row + d);
            }
            EXPECT_NEAR(norms[static_cast<std::size_t>(r)], squared, tolerance);
            for (int64_t v = 0; v < vectors; ++v) {
              double dot = 0;
              for (int64_t d = 0; d < dim; ++d) {
                dot += static_cast<double>(load(row + d)) *
                       queries[static_cast<std::size_t>(v * padded + d)];
              }
              EXPECT_NEAR(dots[static_cast<std::size_t>(v * rows + r)], dot, tolerance);
            }
          }
        }
      }
    }
  }
}

TEST(RowDots, APairDoesNotDependOnTheRowsBesideIt) {
  const int64_t dim = 33;
  const auto captions = random_values<float>(9 * dim, 3);
  const auto queries = random_values<float>(5 * 48, 4);
  std::vector<float> scratch(4 * 48);
  std::vector<float> together(9 * 5);
  std::vector<float> alone(5);
  std::vector<float> norms(9);
  const auto row_dots = VMR_SELECT_ISA(row_dots<float>);
  row_dots({captions.data(), nullptr, captions.data(), queries.data(), 9, 5, dim, scratch.data(),
            together.data(), 9, norms.data()});
  for (int64_t r = 0; r < 9; ++r) {
    float norm = 0;
    row_dots({captions.data(), &r, captions.data(), queries.data(), 1, 5, dim, scratch.data(),
              alone.data(), 1, &norm});
    EXPECT_EQ(norm, norms[static_cast<std::size_t>(r)]);
    for (std::size_t v = 0; v < 5; ++v) {
      EXPECT_EQ(alone[v], together[v * 9 + static_cast<std::size_t>(r)]);
    }
  }
}

struct Proposals {
  std::vector<int64_t> spans;
  std::vector<float> scores;
  std::vector<float> means;
  int64_t count;
};

Proposals propose(const std::vector<float>& scores, const ProposalRule& rule, float threshold) {
  const auto frames = static_cast<int64_t>(scores.size());
  const int64_t slots = proposal_slots(frames, rule.max_gap);
  const auto size = static_cast<std::size_t>(slots);
  Proposals out = {std::vector<int64_t>(2 * size), std::vector<float>(size),
                   std::vector<float>(size), 0};
  proposals<float>(rule, {scores.data(), &frames, &threshold, 1, frames},
                   {out.spans.data(), out.scores.data(), out.means.data(), &out.count, slots}, 0,
                   1);
  return out;
}

TEST(Proposals, BridgesGapsAndScoresByLength) {
  const auto found = propose({1, 0, 1, 0, 0, 0.5f}, {1, 0, 0.25, false}, 0.5f);
  ASSERT_EQ(found.count, 2);
  EXPECT_EQ(found.spans, (std::vector<int64_t>{0, 2, 5, 5}));
  EXPECT_FLOAT_EQ(found.means[0], 2.0f / 3);
  EXPECT_FLOAT_EQ(found.scores[0], 0.75f * 2 / 3 + 0.25f * 3 / 6);
  EXPECT_FLOAT_EQ(found.scores[1], 0.75f * 0.5f + 0.25f / 6);
}

// Whatever the scores, NaN and infinities included: as many slots as said are enough, proposals are
// apart, and every high frame is in one unless proposals were dropped.
TEST(Proposals, HoldForAnyScores) {
  std::mt19937 engine(5);
  const float choices[] = {0, 0, 0.25f, 0.5f, 0.75f, 1, NAN, INFINITY, -INFINITY};
  for (int round = 0; round < 3000; ++round) {
    std::vector<float> scores(1 + engine() % 40);
    for (float& score : scores) score = choices[engine() % 9];
    const auto gap = static_cast<int64_t>(engine() % 4);
    const float threshold = round % 7 == 0 ? -INFINITY : 0.5f;
    const ProposalRule rule = {gap, static_cast<double>(engine() % 101), 0.3, engine() % 2 == 0};
    const auto all = propose(scores, {gap, 0, 0.3, false}, threshold);
    const auto kept = propose(scores, rule, threshold);
    EXPECT_EQ(kept.count, all.count - dropped_count(rule, all.count));
    std::vector<bool> covered(scores.size());
    for (int64_t p = 0; p < all.count; ++p) {
      const int64_t first = all.spans[static_cast<std::size_t>(2 * p)];
      const int64_t last = all.spans[static_cast<std::size_t>(2 * p + 1)];
      ASSERT_LE(first, last);
      if (p > 0) {
        ASSERT_GT(first - all.spans[static_cast<std::size_t>(2 * p - 1)], gap + 1);
      }
      for (int64_t f = first; f <= last; ++f) covered[static_cast<std::size_t>(f)] = true;
    }
    for (std::size_t f = 0; f < scores.size(); ++f) {
      if (scores[f] >= threshold) {
        EXPECT_TRUE(covered[f]);
      }
    }
  }
}

}  // namespace
}  // namespace vmr::kernels::granular
