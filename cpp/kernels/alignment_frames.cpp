// Attention over a segment, relevance and alignment of the frames, and the aligned frames.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/alignment.h"
#include "kernels/alignment_rows.h"

namespace vmr::kernels::alignment {
namespace {

// One query's r and alpha, from its frames' dot products with z and y.
template <typename T, typename Acc = accumulate_t<T>>
void weigh_frames(const Alignment<T>& problem, int64_t query, int64_t count, const Acc* with_z,
                  const Acc* with_y, Acc* relevance, Acc* weights) {
  const int64_t* const segment = problem.segments + 2 * query;
  VMR_SELECT_ISA(frame_weights<Acc>)
  ({with_z, with_y, count, segment[0], segment[1], load(problem.relevance_offsets + query),
    load(problem.alignment_offsets + query), problem.reweight, problem.align, relevance, weights});
}

// Plain sums in eight lanes, in which compilers vectorise them.
template <typename T, typename S>
accumulate_t<T> dot(const T* x, const S* y, int64_t dim) {
  using Acc = accumulate_t<T>;
  constexpr int64_t kLanes = 8;
  Acc sums[kLanes] = {};
  int64_t d = 0;
  for (; d + kLanes <= dim; d += kLanes) {
    for (int64_t k = 0; k < kLanes; ++k) sums[k] += load(x + d + k) * load(y + d + k);
  }
  for (; d < dim; ++d) sums[0] += load(x + d) * load(y + d);
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

}  // namespace

template <typename T>
void pool(const Pool<T>& problem, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const Sizes& sizes = problem.sizes;
  FrameDots<T> dots(sizes.dim, 1);
  FrameSums<T> sums(sizes.dim);
  std::vector<Acc> weights(size(sizes.frames));
  for (int64_t q = begin; q < end; ++q) {
    const int64_t first = problem.segments[2 * q];
    const int64_t count = problem.segments[2 * q + 1] + 1 - first;
    const T* const rows = problem.frames + (problem.videos[q] * sizes.frames + first) * sizes.dim;
    dots.set(0, problem.vectors + q * sizes.dim);
    dots.run(rows, count, 1, weights.data(), sizes.frames, nullptr);
    VMR_SELECT_ISA(softmax<Acc>)(weights.data(), count);
    sums.run(rows, count, weights.data(), sizes.frames, 1);
    sums.store_sum(0, problem.pooled + q * sizes.dim);
    T* const to = problem.weights + q * sizes.frames;
    std::fill(to, to + sizes.frames, T{});
    for (int64_t i = 0; i < count; ++i) store(to + first + i, weights[size(i)]);
  }
}

// With l the logits, w their softmax, and h_i = dpooled . v_i + dw_i:
// dl_i = w_i (h_i - sum_j w_j h_j), du = sum_i dl_i v_i, dv_i = w_i dpooled + dl_i u.
template <typename T>
void pool_gradient(const PoolGradient<T>& problem, accumulate_t<T>* coefficients, int64_t begin,
                   int64_t end) {
  using Acc = accumulate_t<T>;
  const Pool<T>& in = problem.inputs;
  const Sizes& sizes = in.sizes;
  FrameDots<T> dots(sizes.dim, 2);
  FrameSums<T> sums(sizes.dim);
  std::vector<Acc> found(size(2 * sizes.frames));
  Acc* const weights = found.data();
  Acc* const gradients = found.data() + sizes.frames;
  for (int64_t q = begin; q < end; ++q) {
    const int64_t first = in.segments[2 * q];
    const int64_t count = in.segments[2 * q + 1] + 1 - first;
    const T* const rows = in.frames + (in.videos[q] * sizes.frames + first) * sizes.dim;
    dots.set(0, in.vectors + q * sizes.dim);
    dots.set(1, problem.pooled_gradients + q * sizes.dim);
    dots.run(rows, count, 2, weights, sizes.frames, nullptr);
    VMR_SELECT_ISA(softmax<Acc>)(weights, count);
    Acc mean = 0;
    for (int64_t i = 0; i < count; ++i) {
      gradients[i] += load(problem.weight_gradients + q * sizes.frames + first + i);
      mean += weights[i] * gradients[i];
    }
    for (int64_t i = 0; i < count; ++i) gradients[i] = weights[i] * (gradients[i] - mean);
    sums.run(rows, count, gradients, sizes.frames, 1);
    sums.store_sum(0, problem.vector_gradients + q * sizes.dim);
    if (coefficients == nullptr) continue;
    for (int64_t k = 0; k < 2; ++k) {
      Acc* const to = coefficients + (2 * q + k) * sizes.frames;
      std::fill(to, to + sizes.frames, Acc(0));
      std::copy_n(found.data() + k * sizes.frames, count, to + first);
    }
  }
}

template <typename T>
void alignment(const Alignment<T>& problem, const Grouping& groups, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const Sizes& sizes = problem.sizes;
  const int64_t stride = sizes.frames;
  FrameDots<T> dots(sizes.dim, 3 * kQueriesAtOnce);
  std::vector<Acc> found(size(3 * kQueriesAtOnce * stride));
  std::vector<Acc> relevance(size(stride));
  std::vector<Acc> weights(size(stride));
  for (int64_t group = begin; group < end; ++group) {
    const int64_t* const own = groups.order.data() + groups.splits[size(group)];
    const int64_t queries = groups.splits[size(group + 1)] - groups.splits[size(group)];
    const int64_t video = problem.videos[own[0]];
    const int64_t count = problem.lengths[video];
    const int64_t each = 1 + (problem.reweight ? 1 : 0) + (problem.align ? 1 : 0);
    for (int64_t k = 0; k < queries; ++k) {
      const int64_t from = own[k] * sizes.dim;
      int64_t place = k * each;
      dots.set(place++, problem.queries + from);
      if (problem.reweight) dots.set(place++, problem.relevance_vectors + from);
      if (problem.align) dots.set(place++, problem.alignment_vectors + from);
    }
    dots.run(problem.frames + video * sizes.frames * sizes.dim, count, each * queries, found.data(),
             stride, nullptr);
    for (int64_t k = 0; k < queries; ++k) {
      const Acc* const with_query = found.data() + k * each * stride;
      const Acc* const with_z = with_query + (problem.reweight ? stride : 0);
      const Acc* const with_y = with_query + (each - 1) * stride;
      const int64_t to = own[k] * sizes.frames;
      weigh_frames(problem, own[k], count, with_z, with_y, relevance.data(), weights.data());
      for (int64_t i = 0; i < count; ++i) {
        store(problem.relevance + to + i, relevance[size(i)]);
        store(problem.weights + to + i, weights[size(i)]);
        store(problem.dots + to + i, with_query[i]);
      }
      for (T* const row : {problem.relevance, problem.weights, problem.dots}) {
        std::fill(row + to + count, row + to + sizes.frames, T{});
      }
    }
  }
}

template <typename T>
void alignment_gradient(const AlignmentGradient<T>& problem, accumulate_t<T>* coefficients,
                        int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const Alignment<T>& in = problem.inputs;
  const Sizes& sizes = in.sizes;
  FrameDots<T> dots(sizes.dim, 2);
  FrameSums<T> sums(sizes.dim);
  std::vector<Acc> found(size(3 * sizes.frames));
  std::vector<Acc> relevances(size(sizes.frames));
  std::vector<Acc> weights(size(sizes.frames));
  Acc* const for_z = found.data();
  Acc* const for_y = for_z + sizes.frames;
  Acc* const for_q = for_y + sizes.frames;
  for (int64_t q = begin; q < end; ++q) {
    const int64_t count = in.lengths[in.videos[q]];
    const T* const rows = in.frames + in.videos[q] * sizes.frames * sizes.dim;
    const int64_t from = q * sizes.frames;
    dots.set(0, in.relevance_vectors + q * sizes.dim);
    dots.set(1, in.alignment_vectors + q * sizes.dim);
    dots.run(rows, count, 2, found.data(), sizes.frames, nullptr);
    Acc for_relevance_offset = 0;
    Acc for_alignment_offset = 0;
    weigh_frames(in, q, count, for_z, for_y, relevances.data(), weights.data());
    for (int64_t i = 0; i < count; ++i) {
      const Acc r = relevances[size(i)];
      const Acc slope = weights[size(i)] * (1 - weights[size(i)]);
      const Acc logit = load(problem.weight_gradients + from + i) * slope;
      const Acc relevance = load(problem.relevance_gradients + from + i) + logit * for_y[i];
      const Acc argument = in.reweight ? relevance * (1 - r * r) : 0;
      for_z[i] = argument;
      for_y[i] = logit * r;
      for_q[i] = load(problem.dot_gradients + from + i);
      for_relevance_offset += argument;
      for_alignment_offset += logit;
    }
    store(problem.relevance_offset_gradients + q, for_relevance_offset);
    store(problem.alignment_offset_gradients + q, for_alignment_offset);
    const bool query_wanted = problem.query_gradients != nullptr;
    sums.run(rows, count, found.data(), sizes.frames, query_wanted ? 3 : 2);
    sums.store_sum(0, problem.relevance_vector_gradients + q * sizes.dim);
    sums.store_sum(1, problem.alignment_vector_gradients + q * sizes.dim);
    if (query_wanted) sums.store_sum(2, problem.query_gradients + q * sizes.dim);
    if (coefficients == nullptr) continue;
    for (int64_t k = 0; k < 3; ++k) {
      Acc* const to = coefficients + (3 * q + k) * sizes.frames;
      std::copy_n(found.data() + k * sizes.frames, count, to);
      std::fill(to + count, to + sizes.frames, Acc(0));
    }
  }
}

template <typename T>
void frame_gradients(const FrameGradients<T>& problem, const Grouping& groups, int64_t begin,
                     int64_t end) {
  using Acc = accumulate_t<T>;
  const Sizes& sizes = problem.sizes;
  std::vector<Acc> sums(size(sizes.dim));
  for (int64_t group = begin; group < end; ++group) {
    const int64_t first = groups.splits[size(group)];
    const int64_t last = groups.splits[size(group + 1)];
    const int64_t video = problem.videos[groups.order[size(first)]];
    for (int64_t i = 0; i < sizes.frames; ++i) {
      std::fill(sums.begin(), sums.end(), Acc(0));
      for (int64_t k = first; k < last; ++k) {
        const int64_t q = groups.order[size(k)];
        for (int64_t v = 0; v < problem.vector_count; ++v) {
          const Acc weight =
              problem.coefficients[(q * problem.vector_count + v) * sizes.frames + i];
          if (weight == 0) continue;
          const T* const vector = problem.vectors[v] + q * sizes.dim;
          for (int64_t d = 0; d < sizes.dim; ++d) sums[size(d)] += weight * load(vector + d);
        }
      }
      T* const to = problem.gradients + (video * sizes.frames + i) * sizes.dim;
      for (int64_t d = 0; d < sizes.dim; ++d) store(to + d, sums[size(d)]);
    }
  }
}

template <typename T>
void zero_other_videos(const int64_t* videos, const Grouping& groups, int64_t video_count,
                       int64_t row_size, T* rows) {
  int64_t next = 0;
  const auto zero_until = [&](int64_t video) {
    std::fill(rows + next * row_size, rows + video * row_size, T{});
    next = video + 1;
  };
  for (std::size_t group = 0; group + 1 < groups.splits.size(); ++group) {
    zero_until(videos[groups.order[size(groups.splits[group])]]);
  }
  zero_until(video_count);
}

template <typename T>
void aligned_frames(const AlignedFrames<T>& problem, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const Sizes& sizes = problem.sizes;
  for (int64_t q = begin; q < end; ++q) {
    const int64_t count = problem.lengths[problem.videos[q]];
    const T* const query = problem.queries + q * sizes.dim;
    T* const aligned = problem.aligned + q * sizes.frames * sizes.dim;
    for (int64_t i = 0; i < count; ++i) {
      const Acc alpha = load(problem.weights + q * sizes.frames + i);
      const Acc rest = (1 - alpha) * load(problem.relevance + q * sizes.frames + i);
      const T* const frame = problem.frames + (problem.videos[q] * sizes.frames + i) * sizes.dim;
      T* const to = aligned + i * sizes.dim;
      for (int64_t d = 0; d < sizes.dim; ++d) {
        store(to + d, alpha * load(query + d) + rest * load(frame + d));
      }
    }
    std::fill(aligned + count * sizes.dim, aligned + sizes.frames * sizes.dim, T{});
  }
}

template <typename T>
void aligned_frames_gradient(const AlignedFramesGradient<T>& problem, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const AlignedFrames<T>& in = problem.inputs;
  const Sizes& sizes = in.sizes;
  FrameSums<T> sums(sizes.dim);
  std::vector<Acc> weights(size(sizes.frames));
  for (int64_t q = begin; q < end; ++q) {
    const int64_t row = q * sizes.frames;
    const int64_t count = in.lengths[in.videos[q]];
    const T* const gradients = problem.gradients + row * sizes.dim;
    for (int64_t i = 0; i < sizes.frames; ++i) {
      if (i >= count) {
        store(problem.weight_gradients + row + i, Acc(0));
        store(problem.relevance_gradients + row + i, Acc(0));
        continue;
      }
      const T* const gradient = gradients + i * sizes.dim;
      const T* const frame = in.frames + (in.videos[q] * sizes.frames + i) * sizes.dim;
      const Acc along_frame = dot(gradient, frame, sizes.dim);
      const Acc along_query = dot(gradient, in.queries + q * sizes.dim, sizes.dim);
      weights[size(i)] = load(in.weights + row + i);
      store(problem.weight_gradients + row + i,
            along_query - load(in.relevance + row + i) * along_frame);
      store(problem.relevance_gradients + row + i, (1 - weights[size(i)]) * along_frame);
    }
    sums.run(gradients, count, weights.data(), sizes.frames, 1);
    sums.store_sum(0, problem.query_gradients + q * sizes.dim);
  }
}

template <typename T>
void aligned_frames_frame_gradient(const AlignedFramesGradient<T>& problem, const Grouping& groups,
                                   int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const AlignedFrames<T>& in = problem.inputs;
  const Sizes& sizes = in.sizes;
  std::vector<Acc> sums(size(sizes.dim));
  for (int64_t group = begin; group < end; ++group) {
    const int64_t first = groups.splits[size(group)];
    const int64_t last = groups.splits[size(group + 1)];
    const int64_t video = in.videos[groups.order[size(first)]];
    for (int64_t i = 0; i < sizes.frames; ++i) {
      std::fill(sums.begin(), sums.end(), Acc(0));
      for (int64_t k = first; k < last && i < in.lengths[video]; ++k) {
        const int64_t row = groups.order[size(k)] * sizes.frames + i;
        const Acc weight = (1 - load(in.weights + row)) * load(in.relevance + row);
        const T* const gradient = problem.gradients + row * sizes.dim;
        for (int64_t d = 0; d < sizes.dim; ++d) sums[size(d)] += weight * load(gradient + d);
      }
      T* const to = problem.frame_gradients + (video * sizes.frames + i) * sizes.dim;
      for (int64_t d = 0; d < sizes.dim; ++d) store(to + d, sums[size(d)]);
    }
  }
}

#define VMR_INSTANTIATE(T)                                                                      \
  template void pool(const Pool<T>&, int64_t, int64_t);                                         \
  template void pool_gradient(const PoolGradient<T>&, accumulate_t<T>*, int64_t, int64_t);      \
  template void alignment(const Alignment<T>&, const Grouping&, int64_t, int64_t);              \
  template void alignment_gradient(const AlignmentGradient<T>&, accumulate_t<T>*, int64_t,      \
                                   int64_t);                                                    \
  template void frame_gradients(const FrameGradients<T>&, const Grouping&, int64_t, int64_t);   \
  template void zero_other_videos(const int64_t*, const Grouping&, int64_t, int64_t, T*);       \
  template void aligned_frames(const AlignedFrames<T>&, int64_t, int64_t);                      \
  template void aligned_frames_gradient(const AlignedFramesGradient<T>&, int64_t, int64_t);     \
  template void aligned_frames_frame_gradient(const AlignedFramesGradient<T>&, const Grouping&, \
                                              int64_t, int64_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::alignment
