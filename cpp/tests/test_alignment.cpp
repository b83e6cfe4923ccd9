#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/alignment.h"
#include "kernels/cpu_dispatch.h"

namespace vmr::kernels::alignment {
namespace {

std::size_t at(int64_t place) {
  return static_cast<std::size_t>(place);
}

template <typename T>
std::vector<T> random_values(int64_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<T> values(at(count));
  for (T& value : values) store(&value, normal(engine));
  return values;
}

template <typename T>
double dot(const T* x, const T* y, int64_t dim) {
  double sum = 0;
  for (int64_t d = 0; d < dim; ++d) sum += static_cast<double>(load(x + d)) * load(y + d);
  return sum;
}

// The variants of a kernel that this CPU can run.
template <typename Function>
std::vector<Function*> runnable(Function* baseline, [[maybe_unused]] Function* avx2,
                                [[maybe_unused]] Function* avx512) {
  std::vector<Function*> found = {baseline};
  if (cpu_isa() != CpuIsa::kBaseline) found.push_back(avx2);
  if (cpu_isa() == CpuIsa::kAvx512) found.push_back(avx512);
  return found;
}
#ifdef VMR_X86_64
#define VMR_VARIANTS(name) runnable(&baseline::name, &avx2::name, &avx512::name)
#else
#define VMR_VARIANTS(name) runnable(&baseline::name, &baseline::name, &baseline::name)
#endif

template <typename T>
class AlignmentLoops : public testing::Test {
 public:
  static constexpr double kTolerance = sizeof(T) == sizeof(double)  ? 1e-12
                                       : sizeof(T) == sizeof(float) ? 1e-4
                                                                    : 0.3;  // rounded on storing
};
using Types = testing::Types<float, double, Half, BFloat16>;
TYPED_TEST_SUITE(AlignmentLoops, Types, );

TYPED_TEST(AlignmentLoops, GramMatrixOfEveryRemainder) {
  using T = TypeParam;
  for (const auto gram_columns : VMR_VARIANTS(gram_columns<T>)) {
    for (const int64_t dim : {1, 16, 33}) {
      for (const int64_t rows : {1, 2, 4, 5, 13, 59, 60, 61, 75, 121}) {
        const auto frames = random_values<T>(rows * dim, 1);
        std::vector<accumulate_t<T>> scratch(at(kGramScratchRows * padded_size(dim)));
        std::vector<T> matrix(at(rows * rows));
        for (int64_t first = 0; first < rows; first += kGramBlock) {
          gram_columns({frames.data(), rows, dim, first, std::min(first + kGramBlock, rows),
                        scratch.data(), matrix.data(), rows});
        }
        for (int64_t i = 0; i < rows; ++i) {
          for (int64_t j = 0; j < rows; ++j) {
            const auto found = static_cast<double>(load(&matrix[at(i * rows + j)]));
            EXPECT_NEAR(found, dot(frames.data() + i * dim, frames.data() + j * dim, dim),
                        TestFixture::kTolerance);
            EXPECT_EQ(found, static_cast<double>(load(&matrix[at(j * rows + i)])));
          }
        }
      }
    }
  }
}

TYPED_TEST(AlignmentLoops, SumsOfRows) {
  using T = TypeParam;
  using Acc = accumulate_t<T>;
  for (const auto row_sums : VMR_VARIANTS(row_sums<T>)) {
    for (const int64_t dim : {1, 16, 33, 80, 144}) {
      for (const int64_t rows : {0, 1, 8, 11}) {
        for (const int64_t vectors : {1, 2, 3}) {
          const int64_t padded = padded_size(dim);
          const auto frames = random_values<T>(rows * dim, 2);
          const auto weights = random_values<Acc>(vectors * rows, 3);
          std::vector<Acc> scratch(at(8 * padded));
          std::vector<Acc> sums(at(vectors * padded), Acc(7));
          row_sums({frames.data(), rows, dim, weights.data(), rows, vectors, scratch.data(),
                    sums.data()});
          for (int64_t v = 0; v < vectors; ++v) {
            for (int64_t d = 0; d < dim; ++d) {
              double sum = 0;
              for (int64_t r = 0; r < rows; ++r) {
                sum += static_cast<double>(weights[at(v * rows + r)]) *
                       load(frames.data() + r * dim + d);
              }
              EXPECT_NEAR(static_cast<double>(sums[at(v * padded + d)]), sum, 1e-4);
            }
          }
        }
      }
    }
  }
}

// A query's factors, and what its video's Gram matrix and a gradient hold.
template <typename T>
struct Map {
  using Acc = accumulate_t<T>;
  int64_t frames;
  std::vector<Acc> a, b, e, t;
  std::vector<T> gram;
  std::vector<T> gradient;

  Map(int64_t n, int64_t count)
      : frames(n),
        a(random_values<Acc>(count, 4)),
        b(random_values<Acc>(count, 5)),
        e(random_values<Acc>(count, 6)),
        t(random_values<Acc>(count, 7)),
        gram(random_values<T>(n * n, 8)),
        gradient(random_values<T>(n * n, 9)) {
    for (Acc* values : {a.data(), b.data(), e.data(), t.data()}) {
      for (int64_t i = 0; i < count; ++i)
        values[i] /= 2;  // so that many cosines are within [-1, 1]
    }
    // Symmetric, and NaN in the padding.
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        gram[at(i * n + j)] = gram[at(std::min(i, j) * n + std::max(i, j))];
        if (std::max(i, j) < count) continue;
        store(&gram[at(i * n + j)], std::numeric_limits<float>::quiet_NaN());
        gradient[at(i * n + j)] = gram[at(i * n + j)];
      }
    }
  }
  CosineFactors<Acc> factors() const { return {a.data(), b.data(), e.data(), t.data()}; }
  double cosine(int64_t i, int64_t j) const {
    return static_cast<double>(a[at(i)] * t[at(j)] + e[at(i)] * a[at(j)] +
                               b[at(i)] * b[at(j)] * load(&gram[at(i * frames + j)]));
  }
};

TYPED_TEST(AlignmentLoops, SimilarityRows) {
  using T = TypeParam;
  for (const auto similarity_rows : VMR_VARIANTS(similarity_rows<T>)) {
    for (const auto& [frames, count] : {std::pair{1, 1}, {3, 2}, {9, 9}, {21, 17}, {75, 75}}) {
      const Map<T> map(frames, count);
      std::vector<T> found(at(frames * frames));
      similarity_rows({map.factors(), map.gram.data(), frames, count, 0, frames, found.data()});
      for (int64_t i = 0; i < frames; ++i) {
        for (int64_t j = 0; j < frames; ++j) {
          const double wanted =
              i < count && j < count ? std::clamp(map.cosine(i, j), -1.0, 1.0) : 0.0;
          EXPECT_NEAR(static_cast<double>(load(&found[at(i * frames + j)])), wanted, 8e-3);
        }
      }
    }
  }
}

TYPED_TEST(AlignmentLoops, SimilarityGradientRows) {
  using T = TypeParam;
  using Acc = accumulate_t<T>;
  for (const auto rows : VMR_VARIANTS(similarity_gradient_rows<T>)) {
    for (const auto& [frames, count] : {std::pair{1, 1}, {3, 2}, {9, 9}, {21, 17}, {75, 75}}) {
      const Map<T> map(frames, count);
      std::vector<Acc> scratch(at((kGradientRows + 2) * padded_size(frames)));
      std::vector<Acc> sums(at(3 * frames));
      rows({map.factors(), map.gram.data(), map.gradient.data(), frames, count, 0, count,
            scratch.data(), sums.data(), frames});
      for (int64_t i = 0; i < count; ++i) {
        double by_a = 0;
        double by_t = 0;
        double by_g = 0;
        for (int64_t j = 0; j < count; ++j) {
          if (std::max(std::abs(map.cosine(i, j)), std::abs(map.cosine(j, i))) > 1) continue;
          const double both = static_cast<double>(load(&map.gradient[at(i * frames + j)])) +
                              load(&map.gradient[at(j * frames + i)]);
          by_a += both * map.a[at(j)];
          by_t += both * map.t[at(j)];
          by_g += both * map.b[at(j)] * load(&map.gram[at(i * frames + j)]);
        }
        EXPECT_NEAR(static_cast<double>(sums[at(i)]), by_a, 1e-4);
        EXPECT_NEAR(static_cast<double>(sums[at(frames + i)]), by_t, 1e-4);
        EXPECT_NEAR(static_cast<double>(sums[at(2 * frames + i)]), by_g, 1e-4);
      }
    }
  }
}

TYPED_TEST(AlignmentLoops, SimilarityGramGradientRow) {
  using T = TypeParam;
  using Acc = accumulate_t<T>;
  for (const auto add_row : VMR_VARIANTS(similarity_gram_gradient_row<T>)) {
    for (const int64_t count : {1, 7, 16, 21}) {
      const Map<T> map(count, count);
      const int64_t row = count / 2;
      std::vector<Acc> scratch(at(2 * padded_size(count)));
      std::vector<Acc> sums(at(count), Acc(1));
      add_row({map.factors(), map.gram.data() + row * count, map.gradient.data() + row * count, row,
               count, scratch.data(), sums.data()});
      for (int64_t j = 0; j < count; ++j) {
        const bool counts =
            std::max(std::abs(map.cosine(row, j)), std::abs(map.cosine(j, row))) <= 1;
        const double share = static_cast<double>(load(&map.gradient[at(row * count + j)])) *
                             map.b[at(row)] * map.b[at(j)];
        EXPECT_NEAR(static_cast<double>(sums[at(j)]), 1 + (counts ? share : 0), 1e-5);
      }
    }
  }
}

TEST(Grouping, PutsQueriesOfAVideoTogetherAndKeepsTheirOrder) {
  const std::vector<int64_t> videos = {2, 0, 2, 2, 0};
  const Grouping pairs = group_queries(videos.data(), 5, 2);
  EXPECT_EQ(pairs.order, (std::vector<int64_t>{1, 4, 0, 2, 3}));
  EXPECT_EQ(pairs.splits, (std::vector<int64_t>{0, 2, 4, 5}));
  EXPECT_EQ(group_queries(videos.data(), 5, 5).splits, (std::vector<int64_t>{0, 2, 5}));
  EXPECT_EQ(group_queries(nullptr, 0, 4).splits, (std::vector<int64_t>{0}));
}

struct Segment {
  int64_t anchor;
  int64_t first;
  int64_t last;
  bool operator==(const Segment&) const = default;
};

Segment segment(const std::vector<float>& frames, const std::vector<float>& query, int64_t count) {
  const auto dim = static_cast<int64_t>(query.size());
  const int64_t video = 0;
  int64_t anchor = -1;
  int64_t ends[2] = {-1, -1};
  const Sizes sizes = {1, 1, static_cast<int64_t>(frames.size()) / dim, dim};
  anchors<float>({sizes, frames.data(), query.data(), &count, &video, true, false, &anchor, ends},
                 group_queries(&video, 1, kQueriesAtOnce), 0, 1);
  return {anchor, ends[0], ends[1]};
}

TEST(Anchors, OfOneFrameOfEqualOnesAndOfZeros) {
  EXPECT_EQ(segment({1, 2, 3}, {0, 1, 0}, 1), (Segment{0, 0, 0}));
  EXPECT_EQ(segment({1, 2, 1, 2, 1, 2, 1, 2, 1, 2}, {3, 1}, 5), (Segment{0, 0, 0}));
  EXPECT_EQ(segment({0, 0, 0, 0, 0, 0}, {3, 1}, 3), (Segment{0, 0, 0}));
  EXPECT_EQ(segment({1, 2, 3, 4, 5, 6}, {0, 0}, 3).anchor, 0);
}

TEST(Anchors, DoNotReadThePadding) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(segment({1, 0, 0, 1, 1, 0, nan, nan}, {0, 1}, 3),
            segment({1, 0, 0, 1, 1, 0}, {0, 1}, 3));
}

TEST(ZeroOtherVideos, LeavesThoseThatAQueryIsAbout) {
  const std::vector<int64_t> videos = {3, 1};
  std::vector<float> rows(5 * 2, 1);
  zero_other_videos(videos.data(), group_queries(videos.data(), 2, 2), 5, 2, rows.data());
  EXPECT_EQ(rows, (std::vector<float>{0, 0, 1, 1, 0, 0, 1, 1, 0, 0}));
}

}  // namespace
}  // namespace vmr::kernels::alignment
