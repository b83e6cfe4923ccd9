#include "kernels/granular.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu_dispatch.h"

namespace vmr::kernels::granular {
namespace {

constexpr int64_t kRowsAhead = 16;    // how far ahead captions are fetched
constexpr int64_t kRowBlock = 32;     // rows of a block whose dot products stay in the cache
constexpr int64_t kColumnBlock = 64;  // columns of a gradient that stay in the cache

// A zero vector has no direction: its cosine with anything is 0.
template <typename Acc>
Acc inverse_norm(Acc squared) {
  return squared == 0 ? Acc(0) : 1 / std::sqrt(squared);
}

int64_t query_of_row(const Sizes& sizes, const AwareRows& rows, int64_t row) {
  return std::upper_bound(rows.splits, rows.splits + sizes.queries + 1, row) - rows.splits - 1;
}

template <typename Acc>
void fill_zero(Acc* to, int64_t count) {
  std::fill(to, to + count, Acc(0));
}

// With u = x / |x|: the gradient of x from g, that of u, is (g - (g . u) u) / |x|.
// `along` is g . u.
template <typename T, typename Acc>
void store_normalize_gradient(const Acc* gradient, Acc along, Acc inverse, const T* x, int64_t dim,
                              T* to) {
  for (int64_t d = 0; d < dim; ++d) {
    store(to + d, inverse * (gradient[d] - along * inverse * load(x + d)));
  }
}

// Gradient of one caption: sum_k p_k v_k projected off its direction, over its length.
template <typename T, typename Acc>
void caption_gradient(const Sizes& sizes, const T* caption, const Acc* vectors, int64_t count,
                      const Acc* cosines, const Acc* gradients, Acc inverse, Acc* scratch, T* to) {
  fill_zero(scratch, sizes.dim);
  Acc along = 0;
  for (int64_t k = 0; k < count; ++k) {
    const Acc p = gradients[k * sizes.frames];
    along += p * cosines[k * sizes.frames];
    const Acc* vector = vectors + k * sizes.padded_dim;
    for (int64_t d = 0; d < sizes.dim; ++d) scratch[d] += p * vector[d];
  }
  store_normalize_gradient(scratch, along, inverse, caption, sizes.dim, to);
}

template <typename Acc>
struct Extremes {
  Acc low;
  Acc high;
  Acc scale;  // 1 / (high - low), or 0 where the channel is constant but for rounding
};

// A NaN anywhere in the channel makes all of it NaN, as amin and amax do.
template <typename Acc>
Extremes<Acc> extremes(const Acc* values, int64_t count) {
  Acc low = values[0];
  Acc high = values[0];
  for (int64_t f = 1; f < count; ++f) {
    const Acc x = values[f];
    low = (x < low || x != x) ? x : low;
    high = (x > high || x != x) ? x : high;
  }
  const Acc range = high - low;
  return {low, high, range <= constant_range<Acc>() ? Acc(0) : 1 / range};
}

}  // namespace

template <typename T>
void query_channels(const Sizes& sizes, const T* rewrites, accumulate_t<T>* units,
                    accumulate_t<T>* inverse_norms, accumulate_t<T>* channels, int64_t begin,
                    int64_t end) {
  using Acc = accumulate_t<T>;
  const int64_t m = sizes.rewrites;
  for (int64_t row = begin * m; row < end * m; ++row) {
    const T* from = rewrites + row * sizes.dim;
    Acc* unit = units + row * sizes.padded_dim;
    Acc squared = 0;
    for (int64_t d = 0; d < sizes.dim; ++d) squared += load(from + d) * load(from + d);
    inverse_norms[row] = inverse_norm(squared);
    for (int64_t d = 0; d < sizes.dim; ++d) unit[d] = load(from + d) * inverse_norms[row];
    fill_zero(unit + sizes.dim, sizes.padded_dim - sizes.dim);
  }
  if (channels == nullptr) return;
  for (int64_t q = begin; q < end; ++q) {
    Acc* channel = channels + q * sizes.padded_dim;
    fill_zero(channel, sizes.padded_dim);
    for (int64_t i = 0; i < m; ++i) {
      const Acc* unit = units + (q * m + i) * sizes.padded_dim;
      for (int64_t d = 0; d < sizes.dim; ++d) channel[d] += unit[d] / static_cast<Acc>(m);
    }
  }
}

template <typename T>
void query_gradients(const Sizes& sizes, const accumulate_t<T>* units,
                     const accumulate_t<T>* inverse_norms, const accumulate_t<T>* channel_gradients,
                     T* gradients, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const int64_t per_channel = sizes.rewrites / sizes.channels;  // m where folded, else 1
  const Acc share = 1 / static_cast<Acc>(per_channel);
  for (int64_t row = begin * sizes.rewrites; row < end * sizes.rewrites; ++row) {
    const Acc* gradient = channel_gradients + row / per_channel * sizes.padded_dim;
    const Acc* unit = units + row * sizes.padded_dim;
    Acc along = 0;
    for (int64_t d = 0; d < sizes.dim; ++d) along += gradient[d] * unit[d];
    for (int64_t d = 0; d < sizes.dim; ++d) {
      store(gradients + row * sizes.dim + d,
            share * inverse_norms[row] * (gradient[d] - along * unit[d]));
    }
  }
}

template <typename T>
void frame_cosines(const Sizes& sizes, const T* captions, const accumulate_t<T>* vectors,
                   int64_t channel_count, accumulate_t<T>* cosines, accumulate_t<T>* inverse_norms,
                   int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const auto row_dots = VMR_SELECT_ISA(row_dots<T>);
  std::vector<Acc> scratch(static_cast<std::size_t>(4 * sizes.padded_dim));
  for (int64_t first = begin; first < end; first += kRowBlock) {
    const int64_t last = std::min(first + kRowBlock, end);
    row_dots({captions + first * sizes.dim, nullptr, captions + (first + kRowsAhead) * sizes.dim,
              vectors, last - first, channel_count, sizes.dim, scratch.data(), cosines + first,
              sizes.frames, inverse_norms + first});
    for (int64_t f = first; f < last; ++f) inverse_norms[f] = inverse_norm(inverse_norms[f]);
    for (int64_t k = 0; k < channel_count; ++k) {
      for (int64_t f = first; f < last; ++f) cosines[k * sizes.frames + f] *= inverse_norms[f];
    }
  }
}

template <typename T>
void aware_cosines(const Sizes& sizes, const T* captions, const AwareRows& rows,
                   const accumulate_t<T>* vectors, accumulate_t<T>* cosines,
                   accumulate_t<T>* inverse_norms, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const auto row_dots = VMR_SELECT_ISA(row_dots<T>);
  const int64_t channels = sizes.channels;
  std::vector<Acc> scratch(static_cast<std::size_t>(4 * sizes.padded_dim));
  std::vector<Acc> dots(static_cast<std::size_t>(kRowBlock * channels));
  for (int64_t first = begin; first < end;) {
    const int64_t q = query_of_row(sizes, rows, first);
    const int64_t count = std::min({kRowBlock, end - first, rows.splits[q + 1] - first});
    row_dots({captions + first * sizes.dim, nullptr, captions + (first + kRowsAhead) * sizes.dim,
              vectors + q * channels * sizes.padded_dim, count, channels, sizes.dim, scratch.data(),
              dots.data(), kRowBlock, inverse_norms + first});
    for (int64_t i = 0; i < count; ++i) {
      const Acc inverse = inverse_norm(inverse_norms[first + i]);
      inverse_norms[first + i] = inverse;
      for (int64_t k = 0; k < channels; ++k) {
        cosines[(q * channels + k) * sizes.frames + rows.frames[first + i]] =
            dots[static_cast<std::size_t>(k * kRowBlock + i)] * inverse;
      }
    }
    first += count;
  }
}

template <typename T>
void frame_gradients(const Sizes& sizes, const T* captions, const accumulate_t<T>* vectors,
                     int64_t channel_count, const accumulate_t<T>* cosines,
                     const accumulate_t<T>* inverse_norms, const accumulate_t<T>* cosine_gradients,
                     T* gradients, int64_t begin, int64_t end) {
  std::vector<accumulate_t<T>> scratch(static_cast<std::size_t>(sizes.dim));
  for (int64_t f = begin; f < end; ++f) {
    caption_gradient(sizes, captions + f * sizes.dim, vectors, channel_count, cosines + f,
                     cosine_gradients + f, inverse_norms[f], scratch.data(),
                     gradients + f * sizes.dim);
  }
}

template <typename T>
void aware_gradients(const Sizes& sizes, const T* captions, const AwareRows& rows,
                     const accumulate_t<T>* vectors, const accumulate_t<T>* cosines,
                     const accumulate_t<T>* inverse_norms, const accumulate_t<T>* cosine_gradients,
                     T* gradients, int64_t begin, int64_t end) {
  std::vector<accumulate_t<T>> scratch(static_cast<std::size_t>(sizes.dim));
  for (int64_t r = begin; r < end; ++r) {
    const int64_t channel = query_of_row(sizes, rows, r) * sizes.channels;
    const int64_t at = channel * sizes.frames + rows.frames[r];
    caption_gradient(sizes, captions + r * sizes.dim, vectors + channel * sizes.padded_dim,
                     sizes.channels, cosines + at, cosine_gradients + at, inverse_norms[r],
                     scratch.data(), gradients + r * sizes.dim);
  }
}

template <typename T>
void add_frame_channel_gradients(const Sizes& sizes, const T* captions, int64_t channel_count,
                                 const accumulate_t<T>* inverse_norms,
                                 const accumulate_t<T>* cosine_gradients,
                                 accumulate_t<T>* channel_gradients, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  for (int64_t column = begin; column < end; column += kColumnBlock) {
    const int64_t width = std::min(kColumnBlock, end - column);
    Acc unit[kColumnBlock];
    for (int64_t f = 0; f < sizes.frames; ++f) {
      const T* caption = captions + f * sizes.dim + column;
      for (int64_t d = 0; d < width; ++d) unit[d] = load(caption + d) * inverse_norms[f];
      for (int64_t k = 0; k < channel_count; ++k) {
        const Acc p = cosine_gradients[k * sizes.frames + f];
        Acc* to = channel_gradients + k * sizes.padded_dim + column;
        for (int64_t d = 0; d < width; ++d) to[d] += p * unit[d];
      }
    }
  }
}

template <typename T>
void add_aware_channel_gradients(const Sizes& sizes, const T* captions, const AwareRows& rows,
                                 const accumulate_t<T>* inverse_norms,
                                 accumulate_t<T>* cosine_gradients,
                                 accumulate_t<T>* channel_gradients, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  for (int64_t k = begin; k < end; ++k) {
    const int64_t q = k / sizes.channels;
    Acc* to = channel_gradients + k * sizes.padded_dim;
    for (int64_t r = rows.splits[q]; r < rows.splits[q + 1]; ++r) {
      Acc& gradient = cosine_gradients[k * sizes.frames + rows.frames[r]];
      const Acc p = gradient * inverse_norms[r];
      gradient = 0;
      for (int64_t d = 0; d < sizes.dim; ++d) to[d] += p * load(captions + r * sizes.dim + d);
    }
  }
}

template <typename Acc>
void combine_channels(const Sizes& sizes, const Weights& weights, const Acc* channels,
                      Acc* combined, int64_t begin, int64_t end) {
  const Acc* other = channels + sizes.queries * sizes.padded_dim;
  for (int64_t i = begin * sizes.padded_dim; i < end * sizes.padded_dim; ++i) {
    combined[i] = static_cast<Acc>(weights.agnostic) * channels[i] +
                  static_cast<Acc>(weights.aware) * other[i];
  }
}

template <typename T>
void frame_scores(const Sizes& sizes, const Weights& weights, const T* agnostic, const T* aware,
                  const AwareRows& rows, const accumulate_t<T>* channels,
                  const accumulate_t<T>* combined, T* scores, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  constexpr int64_t kBlock = 128;  // frames whose captions stay in the cache for all queries
  const auto row_dots = VMR_SELECT_ISA(row_dots<T>);
  const auto agnostic_weight = static_cast<Acc>(weights.agnostic);
  const auto aware_weight = static_cast<Acc>(weights.aware);
  const Acc constant = (agnostic_weight + aware_weight) / 2;
  std::vector<Acc> scratch(static_cast<std::size_t>(4 * sizes.padded_dim));
  std::vector<Acc> all(static_cast<std::size_t>(sizes.queries * kBlock));
  std::vector<int64_t> next_rows(static_cast<std::size_t>(sizes.queries));
  for (int64_t q = 0; q < sizes.queries; ++q) {
    next_rows[static_cast<std::size_t>(q)] =
        std::lower_bound(rows.frames + rows.splits[q], rows.frames + rows.splits[q + 1], begin) -
        rows.frames;
  }
  Acc inverse[kBlock];
  Acc simple[kBlock];
  Acc detailed[kBlock];
  Acc norms[kBlock];
  for (int64_t first = begin; first < end; first += kBlock) {
    const int64_t last = std::min(first + kBlock, end);
    row_dots({agnostic + first * sizes.dim, nullptr, agnostic + (first + kRowsAhead) * sizes.dim,
              combined, last - first, sizes.queries, sizes.dim, scratch.data(), all.data(), kBlock,
              inverse});
    for (int64_t i = 0; i < last - first; ++i) inverse[i] = inverse_norm(inverse[i]);
    for (int64_t q = 0; q < sizes.queries; ++q) {
      T* const to = scores + q * sizes.frames;
      const Acc* dots = all.data() + q * kBlock;
      for (int64_t i = 0; i < last - first; ++i) {
        store(to + first + i, constant + Acc(0.5) * dots[i] * inverse[i]);
      }
      // The frames with a caption of this query's own.
      const int64_t row = next_rows[static_cast<std::size_t>(q)];
      const int64_t stop = std::min(rows.splits[q + 1], row + (last - first));
      const int64_t* frames = rows.frames + row;
      const int64_t count = std::lower_bound(frames, rows.frames + stop, last) - frames;
      next_rows[static_cast<std::size_t>(q)] += count;
      const Acc* simple_channel = channels + q * sizes.padded_dim;
      const Acc* detailed_channel = simple_channel + sizes.queries * sizes.padded_dim;
      const T* own = aware + row * sizes.dim;
      row_dots({agnostic, frames, own, simple_channel, count, 1, sizes.dim, scratch.data(), simple,
                kBlock, nullptr});
      row_dots({own, nullptr, own + kRowsAhead * sizes.dim, detailed_channel, count, 1, sizes.dim,
                scratch.data(), detailed, kBlock, norms});
      for (int64_t i = 0; i < count; ++i) {
        const Acc cosines = agnostic_weight * simple[i] * inverse[frames[i] - first] +
                            aware_weight * detailed[i] * inverse_norm(norms[i]);
        store(to + frames[i], constant + Acc(0.5) * cosines);
      }
    }
  }
}

template <typename T>
void finish_scores(const Sizes& sizes, const Weights& weights, const accumulate_t<T>* cosines,
                   T* scores, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const int64_t side = sizes.queries * sizes.channels * sizes.frames;
  const Acc side_weights[] = {static_cast<Acc>(weights.agnostic), static_cast<Acc>(weights.aware)};
  std::vector<Acc> sums(static_cast<std::size_t>(sizes.frames));
  for (int64_t q = begin; q < end; ++q) {
    fill_zero(sums.data(), sizes.frames);
    for (int s = 0; s < 2; ++s) {
      const Acc weight = side_weights[s] / static_cast<Acc>(sizes.channels);
      for (int64_t i = 0; i < sizes.channels; ++i) {
        const Acc* channel = cosines + s * side + (q * sizes.channels + i) * sizes.frames;
        // g = (1 + cos) / 2, or min-max's (cos - low) / (high - low)
        Extremes<Acc> affine = {-1, 1, Acc(0.5)};
        if (weights.normalization == Normalization::kMinMax) {
          affine = extremes(channel, sizes.frames);
        }
        const Acc scale = weight * affine.scale;
        for (int64_t f = 0; f < sizes.frames; ++f) {
          sums[static_cast<std::size_t>(f)] += scale * (channel[f] - affine.low);
        }
      }
    }
    for (int64_t f = 0; f < sizes.frames; ++f) {
      store(scores + q * sizes.frames + f, sums[static_cast<std::size_t>(f)]);
    }
  }
}

template <typename T>
void cosine_gradients(const Sizes& sizes, const Weights& weights, const T* score_gradients,
                      const accumulate_t<T>* cosines, accumulate_t<T>* gradients, int64_t begin,
                      int64_t end) {
  using Acc = accumulate_t<T>;
  const int64_t frames = sizes.frames;
  const int64_t side = sizes.queries * sizes.channels * frames;
  const Acc side_weights[] = {static_cast<Acc>(weights.agnostic), static_cast<Acc>(weights.aware)};
  for (int64_t q = begin; q < end; ++q) {
    const T* from = score_gradients + q * frames;
    for (int s = 0; s < 2; ++s) {
      const Acc weight = side_weights[s] / static_cast<Acc>(sizes.channels);
      for (int64_t i = 0; i < sizes.channels; ++i) {
        const int64_t at = s * side + (q * sizes.channels + i) * frames;
        const Acc* channel = cosines + at;
        Acc* to = gradients + at;
        if (weights.normalization == Normalization::kCosine) {
          for (int64_t f = 0; f < frames; ++f) to[f] = weight * Acc(0.5) * load(from + f);
          continue;
        }
        // g = (x - low) / (high - low): dg/dlow = (g - 1) / range and dg/dhigh = -g / range, shared
        // evenly among the frames that attain the extreme.
        const Extremes<Acc> affine = extremes(channel, frames);
        Acc to_low = 0;
        Acc to_high = 0;
        Acc lows = 0;
        Acc highs = 0;
        for (int64_t f = 0; f < frames; ++f) {
          const Acc g = affine.scale * (channel[f] - affine.low);
          const Acc slope = weight * affine.scale * load(from + f);
          to[f] = slope;
          to_low += slope * (g - 1);
          to_high -= slope * g;
          lows += channel[f] == affine.low ? Acc(1) : Acc(0);
          highs += channel[f] == affine.high ? Acc(1) : Acc(0);
        }
        for (int64_t f = 0; f < frames; ++f) {
          if (channel[f] == affine.low) to[f] += to_low / lows;
          if (channel[f] == affine.high) to[f] += to_high / highs;
        }
      }
    }
  }
}

#define VMR_INSTANTIATE(T)                                                                        \
  template void query_channels(const Sizes&, const T*, accumulate_t<T>*, accumulate_t<T>*,        \
                               accumulate_t<T>*, int64_t, int64_t);                               \
  template void query_gradients(const Sizes&, const accumulate_t<T>*, const accumulate_t<T>*,     \
                                const accumulate_t<T>*, T*, int64_t, int64_t);                    \
  template void frame_cosines(const Sizes&, const T*, const accumulate_t<T>*, int64_t,            \
                              accumulate_t<T>*, accumulate_t<T>*, int64_t, int64_t);              \
  template void aware_cosines(const Sizes&, const T*, const AwareRows&, const accumulate_t<T>*,   \
                              accumulate_t<T>*, accumulate_t<T>*, int64_t, int64_t);              \
  template void frame_gradients(const Sizes&, const T*, const accumulate_t<T>*, int64_t,          \
                                const accumulate_t<T>*, const accumulate_t<T>*,                   \
                                const accumulate_t<T>*, T*, int64_t, int64_t);                    \
  template void aware_gradients(const Sizes&, const T*, const AwareRows&, const accumulate_t<T>*, \
                                const accumulate_t<T>*, const accumulate_t<T>*,                   \
                                const accumulate_t<T>*, T*, int64_t, int64_t);                    \
  template void add_frame_channel_gradients(const Sizes&, const T*, int64_t,                      \
                                            const accumulate_t<T>*, const accumulate_t<T>*,       \
                                            accumulate_t<T>*, int64_t, int64_t);                  \
  template void add_aware_channel_gradients(const Sizes&, const T*, const AwareRows&,             \
                                            const accumulate_t<T>*, accumulate_t<T>*,             \
                                            accumulate_t<T>*, int64_t, int64_t);                  \
  template void frame_scores(const Sizes&, const Weights&, const T*, const T*, const AwareRows&,  \
                             const accumulate_t<T>*, const accumulate_t<T>*, T*, int64_t,         \
                             int64_t);                                                            \
  template void finish_scores(const Sizes&, const Weights&, const accumulate_t<T>*, T*, int64_t,  \
                              int64_t);                                                           \
  template void cosine_gradients(const Sizes&, const Weights&, const T*, const accumulate_t<T>*,  \
                                 accumulate_t<T>*, int64_t, int64_t);
template void combine_channels(const Sizes&, const Weights&, const float*, float*, int64_t,
                               int64_t);
template void combine_channels(const Sizes&, const Weights&, const double*, double*, int64_t,
                               int64_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::granular
