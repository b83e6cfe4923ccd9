#include "kernels/detection.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/cpu_dispatch.h"
#include "kernels/detection_simd.h"

namespace vmr::kernels::detection {
namespace {

// Calls function(q, offset of the row, its columns that count, truth [frames]) for each row in
// [begin, end). G is set where it is 1 and cleared again, so that points listed twice count once.
template <typename T, typename Function>
void over_rows(const VertexProblem<T>& problem, int64_t begin, int64_t end,
               const Function& function) {
  std::vector<accumulate_t<T>> truth(static_cast<std::size_t>(problem.frames), 0);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t q = row / problem.frames;
    const int64_t i = row % problem.frames;
    const auto set = [&](accumulate_t<T> value) {
      for (int64_t p = problem.splits[q]; p < problem.splits[q + 1]; ++p) {
        const int64_t* const point = problem.points + 2 * p;
        if (point[0] == i) truth[static_cast<std::size_t>(point[1])] = value;
      }
    };
    set(1);
    const Columns columns = columns_of_row(i, problem.lengths[q], problem.whole);
    function(q, row * problem.frames, columns, truth.data());
    set(0);
  }
}

template <typename T>
VertexRow<T> vertex_row(const VertexProblem<T>& problem, int64_t offset, const Columns& columns,
                        const accumulate_t<T>* truth) {
  return {problem.scores + offset + columns.begin, truth + columns.begin,
          std::max(columns.end - columns.begin, int64_t{0}), problem.sigmoid};
}

template <typename Acc>
struct Point {
  Acc score;
  int64_t place;  // i * N + j
};

// Heap order: the worst point comes out first, of equal ones the last.
template <typename Acc>
bool better(const Point<Acc>& left, const Point<Acc>& right) {
  if (left.score != right.score) return left.score > right.score;
  return left.place < right.place;
}

// The best points seen so far. Points come in ascending places, so that one with the score of the
// worst kept point is not better than it.
template <typename T>
struct Best {
  using Acc = accumulate_t<T>;
  std::vector<Point<Acc>> heap;
  std::size_t most;
  Acc worst;  // a score that must be exceeded, once there are `most`

  bool full() const { return heap.size() == most; }

  void offer(Acc score, int64_t place) {
    if (full()) {
      if (!(score > worst)) return;
      std::pop_heap(heap.begin(), heap.end(), better<Acc>);
      heap.back() = {score, place};
    } else {
      if (score != score) return;
      heap.push_back({score, place});
    }
    std::push_heap(heap.begin(), heap.end(), better<Acc>);
    worst = heap.front().score;
  }

  // Most blocks have no point that is good enough, which a loop without a branch finds out.
  void offer_row(const T* scores, int64_t count, int64_t place) {
    constexpr int64_t kBlock = 64;
    for (int64_t first = 0; first < count; first += kBlock) {
      const int64_t last = std::min(first + kBlock, count);
      if (full()) {
        int exceeding = 0;
        for (int64_t j = first; j < last; ++j) exceeding += load(scores + j) > worst ? 1 : 0;
        if (exceeding == 0) continue;
      }
      for (int64_t j = first; j < last; ++j) offer(load(scores + j), place + j);
    }
  }
};

}  // namespace

template <typename T>
void row_errors(const VertexProblem<T>& problem, double* row_errors, int64_t begin, int64_t end) {
  const auto row_error = VMR_SELECT_ISA(vertex_row_error<T>);
  over_rows(problem, begin, end,
            [&](int64_t, int64_t offset, const Columns& columns, const accumulate_t<T>* truth) {
              row_errors[offset / problem.frames] =
                  row_error(vertex_row(problem, offset, columns, truth));
            });
}

template <typename T>
void sum_errors(const VertexProblem<T>& problem, const double* row_errors, T* losses, int64_t begin,
                int64_t end) {
  for (int64_t q = begin; q < end; ++q) {
    double sum = 0;
    for (int64_t i = 0; i < problem.lengths[q]; ++i) sum += row_errors[q * problem.frames + i];
    store(losses + q, static_cast<accumulate_t<T>>(sum));
  }
}

template <typename T>
void row_error_gradients(const VertexProblem<T>& problem, const T* loss_gradients,
                         T* score_gradients, int64_t begin, int64_t end) {
  const auto row_gradients = VMR_SELECT_ISA(vertex_row_gradients<T>);
  over_rows(problem, begin, end,
            [&](int64_t q, int64_t offset, const Columns& columns, const accumulate_t<T>* truth) {
              T* const to = score_gradients + offset;
              const VertexRow<T> row = vertex_row(problem, offset, columns, truth);
              const int64_t first = row.count == 0 ? 0 : columns.begin;
              std::fill(to, to + first, T{});
              row_gradients(row, load(loss_gradients + q), to + first);
              std::fill(to + first + row.count, to + problem.frames, T{});
            });
}

template <typename T>
void top_points(const TopProblem<T>& problem, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  for (int64_t q = begin; q < end; ++q) {
    const int64_t length = problem.lengths[q];
    const T* const scores = problem.scores + q * problem.frames * problem.frames;
    const int64_t most = std::min(problem.k, length * (length + 1) / 2);
    Best<T> best = {{}, static_cast<std::size_t>(most), 0};
    best.heap.reserve(best.most);
    for (int64_t i = 0; i < length; ++i) {
      const int64_t first = i * problem.frames + i;
      best.offer_row(scores + first, length - i, first);
    }
    std::sort_heap(best.heap.begin(), best.heap.end(), better<Acc>);
    const auto count = static_cast<int64_t>(best.heap.size());
    int64_t* const points = problem.points + q * problem.k * 2;
    T* const values = problem.values + q * problem.k;
    for (int64_t p = 0; p < problem.k; ++p) {
      const bool some = p < count;
      const Point<Acc> point = some ? best.heap[static_cast<std::size_t>(p)] : Point<Acc>{0, 0};
      points[2 * p] = some ? point.place / problem.frames : -1;
      points[2 * p + 1] = some ? point.place % problem.frames : -1;
      store(values + p, some ? point.score : -std::numeric_limits<Acc>::infinity());
    }
    problem.counts[q] = count;
  }
}

#define VMR_INSTANTIATE(T)                                                                    \
  template void row_errors(const VertexProblem<T>&, double*, int64_t, int64_t);               \
  template void sum_errors(const VertexProblem<T>&, const double*, T*, int64_t, int64_t);     \
  template void row_error_gradients(const VertexProblem<T>&, const T*, T*, int64_t, int64_t); \
  template void top_points(const TopProblem<T>&, int64_t, int64_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::detection
