// Frame attention and attentive pooling.
#include "kernels/background.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/alignment_rows.h"
#include "kernels/background_simd.h"
#include "kernels/cpu_dispatch.h"

namespace vmr::kernels::background {
namespace {

using alignment::FrameDots;
using alignment::FrameSums;
using alignment::size;

template <typename Acc>
Acc sigmoid(Acc score) {
  return 1 / (1 + std::exp(-score));
}

// to = factor * from, which may be the same.
template <typename T, typename S>
void scale_row(const S* from, int64_t dim, accumulate_t<T> factor, T* to) {
  for (int64_t d = 0; d < dim; ++d) store(to + d, factor * load(from + d));
}

// The scores of consecutive rows of the hidden layer become their probabilities.
template <typename Acc>
void probabilities(FrameDots<Acc>* dots, const Acc* hidden, int64_t count, Acc* to) {
  dots->run(hidden, count, 1, to, count, nullptr);
  for (int64_t i = 0; i < count; ++i) to[i] = sigmoid(to[i]);
}

}  // namespace

template <typename Acc>
void match(const Match<Acc>& problem, int64_t begin, int64_t end) {
  const auto& [batch, frames, dim, hidden_size] = problem.sizes;
  FrameDots<Acc> dots(hidden_size, 1);
  dots.set(0, problem.score_weight);
  for (int64_t row = begin; row < end;) {
    const int64_t video = row / frames;
    const int64_t last = std::min(end, (video + 1) * frames);
    const int64_t valid = std::max(std::min(last, video * frames + problem.lengths[video]), row);
    Acc* const hidden = problem.hidden + row * hidden_size;
    Acc* const padding = problem.hidden + valid * hidden_size;
    // A few rows at a time are still in the first-level cache for their dot products.
    constexpr int64_t kRows = 16;
    for (int64_t i = row; i < valid; i += kRows) {
      const int64_t count = std::min(kRows, valid - i);
      Acc* const few = hidden + (i - row) * hidden_size;
      VMR_SELECT_ISA(tanh_in_place<Acc>)(few, count * hidden_size);
      probabilities(&dots, few, count, problem.probabilities + i);
    }
    std::fill(padding, problem.hidden + last * hidden_size, Acc(0));
    std::fill(problem.probabilities + valid, problem.probabilities + last, Acc(0));
    row = last;
  }
}

template <typename T>
void attend(const Attend<T>& problem, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const int64_t frames = problem.sizes.frames;
  const int64_t dim = problem.sizes.dim;
  for (int64_t b = begin; b < end; ++b) {
    const int64_t at = b * frames;
    const int64_t count = problem.official_padding ? frames : problem.lengths[b];
    Acc* const weights = problem.weights + at;
    for (int64_t i = 0; i < frames; ++i) {
      const Acc positive = problem.matched[at + i];
      weights[i] = problem.against == nullptr ? positive : positive * (1 - problem.against[at + i]);
      store(problem.positive + at + i, positive);
      store(problem.joint + at + i, weights[i]);
    }
    VMR_SELECT_ISA(softmax<Acc>)(weights, count);
    std::fill(weights + count, weights + frames, Acc(0));
    for (int64_t i = 0; i < frames; ++i) store(problem.attention + at + i, weights[i]);
    T* const attended = problem.attended + at * dim;
    for (int64_t i = 0; i < count; ++i) {
      scale_row(problem.frames.row(b, i, dim), dim, weights[i], attended + i * dim);
    }
    std::fill(attended + count * dim, attended + frames * dim, T{});
  }
}

// With P and Q the two probabilities, p = P (1 - Q), o their softmax, and g_i what comes to o_i,
// of v'_i too: dp_i = o_i (g_i - sum_k o_k g_k) + dp_i of the output, dP = (1 - Q) dp + dP of the
// output, dQ = -P dp; a score's gradient is P (1 - P) dP, or Q (1 - Q) dQ.
template <typename T>
void attend_gradient(const AttendGradient<T>& problem, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const auto& [batch, frames, dim, hidden_size] = problem.sizes;
  const bool negative = problem.negative_hidden != nullptr;
  FrameDots<Acc> dots(hidden_size, 1);
  dots.set(0, problem.score_weight);
  std::vector<Acc> scratch(size(3 * frames));
  Acc* const matched = scratch.data();
  Acc* const against = matched + frames;
  Acc* const incoming = against + frames;
  for (int64_t b = begin; b < end; ++b) {
    const int64_t at = b * frames;
    const int64_t length = problem.lengths[b];
    const int64_t count = problem.official_padding ? frames : length;
    Acc* const weights = problem.numbers + kNumbers * at;
    Acc* const to_positive = weights + frames;
    Acc* const to_negative = to_positive + frames;
    std::fill(weights, weights + kNumbers * frames, Acc(0));

    const Acc* const hidden = problem.hidden + at * hidden_size;
    probabilities(&dots, hidden, length, matched);
    std::fill(against, against + length, Acc(0));
    if (negative) {
      probabilities(&dots, problem.negative_hidden + at * hidden_size, length, against);
    }
    for (int64_t i = 0; i < length; ++i) weights[i] = matched[i] * (1 - against[i]);
    VMR_SELECT_ISA(softmax<Acc>)(weights, count);

    VMR_SELECT_ISA(paired_dots<T>)
    ({problem.frames.row(b, 0, dim), problem.attended_gradients + at * dim, count, dim, incoming});
    Acc mean = 0;
    for (int64_t i = 0; i < count; ++i) {
      incoming[i] += load(problem.attention_gradients + at + i);
      mean += weights[i] * incoming[i];
    }
    for (int64_t i = 0; i < length; ++i) {
      const Acc joint = weights[i] * (incoming[i] - mean) + load(problem.joint_gradients + at + i);
      const Acc positive = joint * (1 - against[i]) + load(problem.positive_gradients + at + i);
      to_positive[i] = positive * matched[i] * (1 - matched[i]);
      to_negative[i] = -joint * matched[i] * against[i] * (1 - against[i]);
    }

    Acc* const to_weight = problem.weight_gradients + b * hidden_size;
    std::fill(to_weight, to_weight + hidden_size, Acc(0));
    const auto through_matcher = [&](const Acc* from, const Acc* factors, Acc* to) {
      for (int64_t i = 0; i < length; ++i) {
        VMR_SELECT_ISA(matcher_row_gradient<Acc>)
        ({from + i * hidden_size, problem.score_weight, hidden_size, factors[i],
          to + i * hidden_size, to_weight});
      }
      std::fill(to + length * hidden_size, to + frames * hidden_size, Acc(0));
    };
    through_matcher(hidden, to_positive, problem.hidden_gradients + at * hidden_size);
    if (negative) {
      through_matcher(problem.negative_hidden + at * hidden_size, to_negative,
                      problem.negative_hidden_gradients + at * hidden_size);
    }
  }
}

template <typename T>
void add_attended(const AddAttended<T>& problem, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const int64_t frames = problem.sizes.frames;
  const int64_t dim = problem.sizes.dim;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t b = row / frames;
    const int64_t i = row % frames;
    const Acc* const from = problem.from + row * dim;
    T* const to = problem.to + row * dim;
    if (!problem.official_padding && i >= problem.lengths[b]) {
      std::fill(to, to + dim, T{});
      continue;
    }
    const Acc weight = problem.numbers[b * kNumbers * frames + i];
    const T* const gradients = problem.attended_gradients + row * dim;
    for (int64_t d = 0; d < dim; ++d) store(to + d, from[d] + weight * load(gradients + d));
  }
}

template <typename T>
void mask_rows(const Sizes& sizes, const Videos<T>& videos, const int64_t* lengths,
               accumulate_t<T>* to, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t b = row / sizes.frames;
    const int64_t i = row % sizes.frames;
    if (i < lengths[b]) {
      scale_row<Acc>(videos.row(b, i, sizes.dim), sizes.dim, 1, to + row * sizes.dim);
    } else {
      std::fill(to + row * sizes.dim, to + (row + 1) * sizes.dim, Acc(0));
    }
  }
}

template <typename T>
void pool(const Pool<T>& problem, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const int64_t frames = problem.sizes.frames;
  const int64_t dim = problem.sizes.dim;
  FrameSums<T> sums(dim);
  std::vector<Acc> weights(size(frames));
  for (int64_t b = begin; b < end; ++b) {
    const int64_t count = problem.lengths[b];
    for (int64_t i = 0; i < count; ++i) weights[size(i)] = load(problem.scores + b * frames + i);
    if (count > 0) VMR_SELECT_ISA(softmax<Acc>)(weights.data(), count);
    sums.run(problem.features.row(b, 0, dim), count, weights.data(), frames, 1);
    sums.store_sum(0, problem.pooled + b * dim);
  }
}

// With w the softmax of the scores and h_i = dpooled . f_i: ds_i = w_i (h_i - sum_j w_j h_j) and
// df_i = w_i dpooled.
template <typename T>
void pool_gradient(const PoolGradient<T>& problem, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const Pool<T>& in = problem.inputs;
  const int64_t frames = in.sizes.frames;
  const int64_t dim = in.sizes.dim;
  FrameDots<T> dots(dim, 1);
  std::vector<Acc> scratch(size(2 * frames));
  Acc* const weights = scratch.data();
  Acc* const products = weights + frames;
  for (int64_t b = begin; b < end; ++b) {
    const int64_t count = in.lengths[b];
    const T* const from = problem.pooled_gradients + b * dim;
    T* const to = problem.feature_gradients + b * frames * dim;
    T* const to_scores = problem.score_gradients + b * frames;
    std::fill(to + count * dim, to + frames * dim, T{});
    std::fill(to_scores + count, to_scores + frames, T{});
    if (count == 0) continue;
    for (int64_t i = 0; i < count; ++i) weights[i] = load(in.scores + b * frames + i);
    VMR_SELECT_ISA(softmax<Acc>)(weights, count);
    dots.set(0, from);
    dots.run(in.features.row(b, 0, dim), count, 1, products, frames, nullptr);
    Acc mean = 0;
    for (int64_t i = 0; i < count; ++i) mean += weights[i] * products[i];
    for (int64_t i = 0; i < count; ++i) {
      store(to_scores + i, weights[i] * (products[i] - mean));
      scale_row(dots.vectors.data(), dim, weights[i], to + i * dim);
    }
  }
}

template void match(const Match<float>&, int64_t, int64_t);
template void match(const Match<double>&, int64_t, int64_t);
#define VMR_INSTANTIATE(T)                                                                  \
  template void attend(const Attend<T>&, int64_t, int64_t);                                 \
  template void attend_gradient(const AttendGradient<T>&, int64_t, int64_t);                \
  template void add_attended(const AddAttended<T>&, int64_t, int64_t);                      \
  template void mask_rows(const Sizes&, const Videos<T>&, const int64_t*, accumulate_t<T>*, \
                          int64_t, int64_t);                                                \
  template void pool(const Pool<T>&, int64_t, int64_t);                                     \
  template void pool_gradient(const PoolGradient<T>&, int64_t, int64_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::background
