#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "kernels/background.h"
#include "kernels/background_simd.h"

namespace vmr::kernels::background {
namespace {

std::size_t size(int64_t count) {
  return static_cast<std::size_t>(count);
}

std::vector<double> draw(std::mt19937* engine, int64_t count) {
  std::normal_distribution<double> normal;
  std::vector<double> drawn(size(count));
  for (double& value : drawn) value = normal(*engine);
  return drawn;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// The difference quotients of a function of `values`, each of which it leaves as it was.
std::vector<double> quotients(std::vector<double>* values,
                              const std::function<double()>& function) {
  std::vector<double> found;
  for (double& value : *values) {
    const double before = value;
    const double step = 1e-6;
    value = before + step;
    const double above = function();
    value = before - step;
    found.push_back((above - function()) / (2 * step));
    value = before;
  }
  return found;
}

// Frame attention from what is before tanh on, with a sum of its outputs by random weights as loss.
struct Attention {
  Sizes sizes;
  bool negative;
  bool official;
  std::vector<int64_t> lengths;
  std::vector<double> before, negative_before, weight, frames;
  std::vector<double> to_attended, to_joint, to_positive, to_attention;
  std::vector<double> hidden, negative_hidden, weights, attended, joint, positive, attention;

  Attention(std::mt19937* engine, const Sizes& s, bool with_negative, bool official_padding)
      : sizes(s), negative(with_negative), official(official_padding) {
    const int64_t rows = s.batch * s.frames;
    for (int64_t b = 0; b < s.batch; ++b) {
      lengths.push_back(1 + static_cast<int64_t>((*engine)() % size(s.frames)));
    }
    before = draw(engine, rows * s.hidden);
    negative_before = draw(engine, rows * s.hidden);
    weight = draw(engine, s.hidden);
    frames = draw(engine, rows * s.dim);
    to_attended = draw(engine, rows * s.dim);
    to_joint = draw(engine, rows);
    to_positive = draw(engine, rows);
    to_attention = draw(engine, rows);
  }

  double loss() {
    const int64_t rows = sizes.batch * sizes.frames;
    std::vector<double> matched(size(rows), 9);
    std::vector<double> against(size(rows), 9);
    hidden = before;
    negative_hidden = negative_before;
    // In two ranges that no video ends at, as two threads would.
    for (const auto& [layer, to] : {std::pair{&hidden, &matched}, {&negative_hidden, &against}}) {
      const Match<double> problem = {sizes, lengths.data(), weight.data(), layer->data(),
                                     to->data()};
      match(problem, rows / 2, rows);
      match(problem, 0, rows / 2);
    }
    for (auto* to : {&weights, &joint, &positive, &attention}) to->assign(size(rows), 9);
    attended.assign(size(rows * sizes.dim), 9);
    attend<double>({sizes, videos(), lengths.data(), matched.data(),
                    negative ? against.data() : nullptr, official, weights.data(), attended.data(),
                    joint.data(), positive.data(), attention.data()},
                   0, sizes.batch);
    return dot(attended, to_attended) + dot(joint, to_joint) + dot(positive, to_positive) +
           dot(attention, to_attention);
  }

  Videos<double> videos() const { return {frames.data(), sizes.frames * sizes.dim}; }
};

void expect_near(const std::vector<double>& found, const std::vector<double>& wanted) {
  ASSERT_EQ(found.size(), wanted.size());
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], wanted[i], 1e-7) << i;
}

TEST(FrameAttention, SumsToOneAndItsGradientsAreTheDifferenceQuotients) {
  std::mt19937 engine(1);
  for (int round = 0; round < 24; ++round) {
    const Sizes sizes = {1 + round % 3, 1 + round % 5, 1 + round % 4, 1 + round % 7};
    Attention example(&engine, sizes, round % 2 == 0, round % 4 < 2);
    example.loss();
    const int64_t rows = sizes.batch * sizes.frames;
    for (int64_t b = 0; b < sizes.batch; ++b) {
      double sum = 0;
      for (int64_t i = 0; i < sizes.frames; ++i) {
        const double share = example.attention[size(b * sizes.frames + i)];
        sum += share;
        if (i < example.lengths[size(b)]) continue;
        EXPECT_EQ(example.joint[size(b * sizes.frames + i)], 0);
        EXPECT_EQ(share > 0, example.official);
      }
      EXPECT_NEAR(sum, 1, 1e-12);
    }

    std::vector<double> numbers(size(kNumbers * rows), 9);
    std::vector<double> to_hidden(size(rows * sizes.hidden), 9);
    std::vector<double> to_negative(size(rows * sizes.hidden), 9);
    std::vector<double> parts(size(sizes.batch * sizes.hidden), 9);
    attend_gradient<double>(
        {sizes, example.videos(), example.lengths.data(), example.weight.data(),
         example.hidden.data(), example.negative ? example.negative_hidden.data() : nullptr,
         example.to_attended.data(), example.to_joint.data(), example.to_positive.data(),
         example.to_attention.data(), example.official, numbers.data(), to_hidden.data(),
         example.negative ? to_negative.data() : nullptr, parts.data()},
        0, sizes.batch);
    const std::vector<double> nothing(size(rows * sizes.dim), 0);
    std::vector<double> to_frames(size(rows * sizes.dim), 9);
    add_attended<double>({sizes, example.lengths.data(), example.to_attended.data(), numbers.data(),
                          example.official, nothing.data(), to_frames.data()},
                         0, rows);
    std::vector<double> to_weight(size(sizes.hidden), 0);
    for (std::size_t k = 0; k < parts.size(); ++k) to_weight[k % to_weight.size()] += parts[k];

    const auto loss = [&] { return example.loss(); };
    expect_near(to_hidden, quotients(&example.before, loss));
    if (example.negative) expect_near(to_negative, quotients(&example.negative_before, loss));
    expect_near(to_weight, quotients(&example.weight, loss));
    expect_near(to_frames, quotients(&example.frames, loss));
  }
}

TEST(AttentivePool, IsTheMeanBySoftmaxAndItsGradientTheDifferenceQuotient) {
  std::mt19937 engine(2);
  for (int round = 0; round < 20; ++round) {
    const Sizes sizes = {2, 1 + round % 6, 1 + round % 18, 0};
    const int64_t stride = (sizes.frames + 1) * sizes.dim;  // a longer memory
    std::vector<double> features = draw(&engine, sizes.batch * stride);
    std::vector<double> scores = draw(&engine, sizes.batch * sizes.frames);
    const std::vector<int64_t> lengths = {sizes.frames,
                                          static_cast<int64_t>(engine()) % (sizes.frames + 1)};
    const std::vector<double> to_pooled = draw(&engine, sizes.batch * sizes.dim);
    std::vector<double> pooled(to_pooled.size(), 9);
    const Pool<double> problem = {
        sizes, {features.data(), stride}, scores.data(), lengths.data(), pooled.data()};
    const auto loss = [&] {
      pool(problem, 0, sizes.batch);
      return dot(pooled, to_pooled);
    };
    loss();
    for (int64_t d = 0; d < sizes.dim; ++d) {
      double sum = 0;
      double mean = 0;
      for (int64_t i = 0; i < lengths[1]; ++i) {
        const double weight = std::exp(scores[size(sizes.frames + i)]);
        sum += weight;
        mean += weight * features[size(stride + i * sizes.dim + d)];
      }
      EXPECT_NEAR(pooled[size(sizes.dim + d)], sum > 0 ? mean / sum : 0, 1e-12);
    }
    std::vector<double> to_features(size(sizes.batch * sizes.frames * sizes.dim), 9);
    std::vector<double> to_scores(scores.size(), 9);
    pool_gradient<double>({problem, to_pooled.data(), to_features.data(), to_scores.data()}, 0,
                          sizes.batch);
    expect_near(to_scores, quotients(&scores, loss));
    const std::vector<double> of_memory = quotients(&features, loss);
    for (int64_t b = 0; b < sizes.batch; ++b) {
      for (int64_t k = 0; k < sizes.frames * sizes.dim; ++k) {
        EXPECT_NEAR(to_features[size(b * sizes.frames * sizes.dim + k)],
                    of_memory[size(b * stride + k)], 1e-7);
      }
    }
  }
}

TEST(FrameLosses, AreTheMeansOverPairsAndSidesAndTheirGradientsTheDifferenceQuotients) {
  std::mt19937 engine(3);
  for (int round = 0; round < 60; ++round) {
    const int64_t frames = 1 + static_cast<int64_t>(engine() % 40);
    const int64_t most = 3;
    std::vector<double> scores = draw(&engine, frames);
    const auto length = static_cast<int64_t>(engine() % size(frames + 1));
    const auto count = static_cast<int64_t>(engine() % 3);
    std::vector<int64_t> windows(size(2 * most), -7);
    std::vector<bool> inside(size(frames), false);
    for (int64_t m = 0; m < count; ++m) {
      int64_t first = static_cast<int64_t>(engine() % size(frames));
      int64_t last = static_cast<int64_t>(engine() % size(frames));
      if (first > last) std::swap(first, last);
      windows[size(2 * m)] = first;
      windows[size(2 * m + 1)] = last;
      std::fill(inside.begin() + first, inside.begin() + last + 1, true);
    }
    double sum = 0;
    double sides[2] = {0, 0};
    double counts[2] = {0, 0};
    for (int64_t i = 0; i < length; ++i) {
      sides[inside[size(i)] ? 1 : 0] += scores[size(i)];
      counts[inside[size(i)] ? 1 : 0] += 1;
      for (int64_t j = 0; inside[size(i)] && j < length; ++j) {
        if (!inside[size(j)]) sum += std::max(0.0, 0.2 + scores[size(j)] - scores[size(i)]);
      }
    }
    const Sides<double> problem = {scores.data(), windows.data(), &count, &length, 1, frames, most};
    const double factor = -1.5;
    double loss = 9;
    std::vector<double> gradients(size(frames), 9);

    margin_loss(problem, 0.2, &loss, 0, 1);
    EXPECT_NEAR(loss, sum / std::max(1.0, counts[0] * counts[1]), 1e-12);
    margin_loss_gradient<double>({problem, &factor, gradients.data()}, 0.2, 0, 1);
    expect_near(gradients, quotients(&scores, [&] {
                  margin_loss(problem, 0.2, &loss, 0, 1);
                  return factor * loss;
                }));

    const auto mean = [&](int side) { return sides[side] / std::max(1.0, counts[side]); };
    probability_loss(problem, &loss, 0, 1);
    EXPECT_NEAR(loss, counts[1] > 0 ? 1 - mean(1) + mean(0) : 0, 1e-12);
    probability_loss_gradient<double>({problem, &factor, gradients.data()}, 0, 1);
    expect_near(gradients, quotients(&scores, [&] {
                  probability_loss(problem, &loss, 0, 1);
                  return factor * loss;
                }));
  }
}

// Each instruction set's variant against the plain loop, at sizes that no vector divides.
struct Variant {
  void (*tanh_in_place)(float*, int64_t);
  void (*paired_dots)(const PairedDots<Half>&);
  void (*row_gradient)(const MatcherRow<float>&);
  double (*margin_sum)(const MarginRow<float>&);
  float (*margin_count)(const MarginRow<float>&, float*);
};

#define VMR_VARIANT(isa)                                                                    \
  Variant {                                                                                 \
    &isa::tanh_in_place<float>, &isa::paired_dots<Half>, &isa::matcher_row_gradient<float>, \
        &isa::margin_row_sum<float>, &isa::margin_row_count<float>                          \
  }

std::vector<Variant> variants() {
  std::vector<Variant> found = {VMR_VARIANT(baseline)};
#ifdef VMR_X86_64
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c")) {
    found.push_back(VMR_VARIANT(avx2));
  }
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    found.push_back(VMR_VARIANT(avx512));
  }
#endif
  return found;
}

TEST(BackgroundLoops, AreTheSameForEveryInstructionSet) {
  std::mt19937 engine(4);
  std::normal_distribution<float> normal;
  for (const Variant& variant : variants()) {
    for (const int64_t count : {1, 7, 16, 37, 64}) {
      std::vector<float> x(size(count)), w(size(count)), to(size(count)), sums(size(count), 1);
      std::vector<Half> halves(size(3 * count));
      for (float& value : x) value = 3 * normal(engine);
      for (float& value : w) value = normal(engine);
      for (Half& value : halves) store(&value, normal(engine));

      std::vector<float> curve = x;
      variant.tanh_in_place(curve.data(), count);
      variant.row_gradient({curve.data(), w.data(), count, 0.5f, to.data(), sums.data()});
      for (std::size_t h = 0; h < x.size(); ++h) {
        EXPECT_NEAR(curve[h], std::tanh(x[h]), 1e-6);
        EXPECT_NEAR(to[h], 0.5f * w[h] * (1 - curve[h] * curve[h]), 1e-6);
        EXPECT_NEAR(sums[h], 1 + 0.5f * curve[h], 1e-6);
      }

      float products[2];
      variant.paired_dots({halves.data(), halves.data() + count, 2, count, products});
      for (int64_t r = 0; r < 2; ++r) {
        double sum = 0;
        for (int64_t d = 0; d < count; ++d) {
          sum += double{load(&halves[size(r * count + d)])} *
                 double{load(&halves[size((r + 1) * count + d)])};
        }
        EXPECT_NEAR(products[r], sum, 1e-4);
      }

      std::vector<float> background = x;
      background.resize((background.size() + kPairLanes - 1) / kPairLanes * kPairLanes,
                        -std::numeric_limits<float>::infinity());
      std::vector<float> above(background.size(), 2);
      const MarginRow<float> row = {0.25f, background.data(),
                                    static_cast<int64_t>(background.size())};
      double sum = 0;
      float exceeding = 0;
      for (const float value : x) {
        sum += std::max(0.0f, value - 0.25f);
        exceeding += value > 0.25f ? 1 : 0;
      }
      EXPECT_NEAR(variant.margin_sum(row), sum, 1e-4);
      EXPECT_EQ(variant.margin_count(row, above.data()), exceeding);
      for (std::size_t j = 0; j < x.size(); ++j) EXPECT_EQ(above[j], x[j] > 0.25f ? 3 : 2);
      background[0] = std::nanf("");
      EXPECT_TRUE(std::isnan(variant.margin_sum(row)));
    }
  }
}

}  // namespace
}  // namespace vmr::kernels::background
