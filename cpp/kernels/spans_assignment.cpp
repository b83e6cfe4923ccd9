#include <algorithm>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/spans.h"

namespace vmr::kernels::spans {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The rectangular assignment of Crouse (IEEE TAES 52(4), 2016): each row in turn gets a column, by
// the shortest augmenting path from it to a free column; potentials keep all reduced costs from 0
// on. Rows are at most as many as columns. What it needs is kept from problem to problem.
class Assigner {
 public:
  Assigner(int64_t most_rows, int64_t most_columns)
      : costs_(place(most_rows * most_columns)),
        row_potential_(place(most_rows)),
        column_of_(place(most_rows)),
        states_(place(most_columns)) {}

  // Afterwards `column(row)` is the column of each row. cost(row, column) is finite.
  template <typename Cost>
  void solve(int64_t rows, int64_t columns, const Cost& cost) {
    columns_ = columns;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) costs_[place(i * columns + j)] = cost(i, j);
      row_potential_[place(i)] = 0;
      column_of_[place(i)] = -1;
    }
    for (int64_t j = 0; j < columns; ++j) states_[place(j)] = {0, 0, 0, -1, false};
    for (int64_t i = 0; i < rows; ++i) assign(i);
  }

  int64_t column(int64_t row) const { return column_of_[place(row)]; }

 private:
  struct Column {
    double potential;
    double distance;   // of the shortest path found to it
    int64_t previous;  // row on that path
    int64_t row;       // -1: free
    bool reached;      // its distance is final
  };

  static std::size_t place(int64_t index) { return static_cast<std::size_t>(index); }

  void assign(int64_t start) {
    for (int64_t j = 0; j < columns_; ++j) {
      Column& column = states_[place(j)];
      column.distance = kInfinity;
      column.previous = start;
      column.reached = false;
    }
    double distance = 0;
    int64_t end = -1;
    for (int64_t row = start; row >= 0; row = states_[place(end)].row) {
      end = next_column(row, distance);
      states_[place(end)].reached = true;
      distance = states_[place(end)].distance;
    }
    row_potential_[place(start)] += distance;
    for (int64_t j = 0; j < columns_; ++j) {
      Column& column = states_[place(j)];
      if (!column.reached) continue;
      const double change = distance - column.distance;
      column.potential -= change;
      if (column.row >= 0) row_potential_[place(column.row)] += change;
    }
    for (int64_t row = -1; row != start;) {  // along the path, each row moves to the next column
      Column& column = states_[place(end)];
      row = column.row = column.previous;
      std::swap(end, column_of_[place(row)]);
    }
  }

  // Paths that go on from `row`, whose column is `so_far` away: the nearest column that was not
  // reached yet. Of equally near ones a free one, and then the first, on all devices. There always
  // is one: even where sums overflow and no comparison holds.
  int64_t next_column(int64_t row, double so_far) {
    const double* const from = costs_.data() + row * columns_;
    const double base = so_far - row_potential_[place(row)];
    double nearest = kInfinity;
    bool taken = true;
    int64_t best = -1;
    for (int64_t j = 0; j < columns_; ++j) {
      Column& column = states_[place(j)];
      if (column.reached) continue;
      const double distance = base + (from[j] - column.potential);
      if (distance < column.distance) {
        column.distance = distance;
        column.previous = row;
      }
      if (best < 0 || column.distance < nearest ||
          (column.distance == nearest && taken && column.row < 0)) {
        nearest = column.distance;
        taken = column.row >= 0;
        best = j;
      }
    }
    return best;
  }

  int64_t columns_ = 0;
  std::vector<double> costs_;
  std::vector<double> row_potential_;
  std::vector<int64_t> column_of_;
  std::vector<Column> states_;
};

}  // namespace

template <typename T>
void assign(const AssignmentProblem<T>& problem, int64_t begin, int64_t end) {
  const int64_t slots = problem.slots;
  const int64_t windows = problem.windows;
  Assigner assigner(std::min(slots, windows), std::max(slots, windows));
  for (int64_t p = begin; p < end; ++p) {
    const T* const costs = problem.costs + p * slots * windows;
    int64_t* const found = problem.found + p * windows;
    const int64_t count = problem.counts[p];
    const auto cost = [&](int64_t slot, int64_t window) {
      return finite_cost(load(costs + slot * windows + window));
    };
    std::fill(found, found + windows, int64_t{-1});
    if (count <= slots) {
      assigner.solve(count, slots, [&](int64_t i, int64_t j) { return cost(j, i); });
      for (int64_t i = 0; i < count; ++i) found[i] = assigner.column(i);
    } else {
      assigner.solve(slots, count, cost);
      for (int64_t i = 0; i < slots; ++i) found[assigner.column(i)] = i;
    }
  }
}

template void assign(const AssignmentProblem<float>&, int64_t, int64_t);
template void assign(const AssignmentProblem<double>&, int64_t, int64_t);
template void assign(const AssignmentProblem<Half>&, int64_t, int64_t);
template void assign(const AssignmentProblem<BFloat16>&, int64_t, int64_t);

}  // namespace vmr::kernels::spans
