#include "kernels/cuda_common.cuh"
#include "kernels/spans_cuda.h"

namespace vmr::kernels::spans::cuda {
namespace {

using device::get;

// What fits into shared memory without asking for more of it.
constexpr int64_t kSharedDoubles = 6000;
constexpr int64_t kMostBlocks = 1024;

struct Shape {
  int64_t rows;  // at most as many as columns
  int64_t columns;
};

// What a problem is solved in. Column j belongs to lane j % 32, which alone writes what is marked
// *.
struct Workspace {
  double* row_potential;     // [rows]
  double* column_potential;  // * [columns]
  double* distance;          // * [columns] of the shortest path found to it
  int64_t* previous;         // * [columns] row on that path
  int64_t* reached;          // * [columns] whether its distance is final
  int64_t* row_of;           // [columns] -1: free
  int64_t* column_of;        // [rows]

  static int64_t doubles(const Shape& most) { return 2 * most.rows + 5 * most.columns; }

  __device__ Workspace(double* memory, const Shape& most)
      : row_potential(memory),
        column_potential(row_potential + most.rows),
        distance(column_potential + most.columns),
        previous(reinterpret_cast<int64_t*>(distance + most.columns)),
        reached(previous + most.columns),
        row_of(reached + most.columns),
        column_of(row_of + most.columns) {}
};

template <typename T>
VMR_HOST_DEVICE Shape most_of(const AssignmentProblem<T>& problem) {
  const bool fewer_slots = problem.slots < problem.windows;
  return {fewer_slots ? problem.slots : problem.windows,
          fewer_slots ? problem.windows : problem.slots};
}

// The nearest column; of equally near ones a free one, and then the first, as on the CPU.
struct Nearest {
  double distance;
  int64_t rank;  // the column, and behind all of these the columns that are taken

  __device__ void keep(double other, int64_t other_rank) {
    if (other < distance || (other == distance && other_rank < rank)) {
      distance = other;
      rank = other_rank;
    }
  }
};

__device__ Nearest nearest_of_warp(Nearest nearest) {
  for (int offset = device::kWarp / 2; offset > 0; offset /= 2) {
    const double distance = __shfl_xor_sync(device::kAllLanes, nearest.distance, offset);
    const auto rank =
        __shfl_xor_sync(device::kAllLanes, static_cast<long long>(nearest.rank), offset);
    nearest.keep(distance, rank);
  }
  return nearest;
}

// Gives row `start` a column, and moves other rows where that is cheaper: see Assigner in
// spans_assignment.cpp, whose sums these are, in the same order.
template <typename Cost>
__device__ void assign_row(const Workspace& at, int64_t columns, int64_t start, const Cost& cost) {
  const int lane = device::lane_index();
  for (int64_t j = lane; j < columns; j += device::kWarp) {
    at.distance[j] = CUDART_INF;
    at.previous[j] = start;
    at.reached[j] = 0;
  }
  double distance = 0;
  int64_t end = -1;
  for (int64_t row = start; row >= 0; row = at.row_of[end]) {
    const double base = distance - at.row_potential[row];
    Nearest nearest = {CUDART_INF, 2 * columns};
    for (int64_t j = lane; j < columns; j += device::kWarp) {
      if (at.reached[j] != 0) continue;
      const double through = base + (cost(row, j) - at.column_potential[j]);
      if (through < at.distance[j]) {
        at.distance[j] = through;
        at.previous[j] = row;
      }
      nearest.keep(at.distance[j], at.row_of[j] < 0 ? j : columns + j);
    }
    nearest = nearest_of_warp(nearest);
    distance = nearest.distance;
    end = nearest.rank < columns ? nearest.rank : nearest.rank - columns;
    if (end % device::kWarp == lane) at.reached[end] = 1;
  }
  __syncwarp();  // all have read the potentials of rows
  for (int64_t j = lane; j < columns; j += device::kWarp) {
    if (at.reached[j] == 0) continue;
    const double change = distance - at.distance[j];
    at.column_potential[j] -= change;
    if (at.row_of[j] >= 0) at.row_potential[at.row_of[j]] += change;
  }
  __syncwarp();
  if (lane == 0) {
    at.row_potential[start] += distance;
    for (int64_t row = -1; row != start;) {
      row = at.previous[end];
      at.row_of[end] = row;
      const int64_t next = at.column_of[row];
      at.column_of[row] = end;
      end = next;
    }
  }
  __syncwarp();
}

// A warp a problem, which is a block. `scratch` is null where shared memory does.
template <typename T>
__global__ void __launch_bounds__(device::kWarp)
    assignment_kernel(AssignmentProblem<T> problem, double* scratch, int64_t doubles) {
  extern __shared__ double shared[];
  const Workspace at(scratch == nullptr ? shared : scratch + blockIdx.x * doubles,
                     most_of(problem));
  const int lane = device::lane_index();
  const int64_t slots = problem.slots;
  const int64_t windows = problem.windows;
  for (int64_t p = blockIdx.x; p < problem.problems; p += gridDim.x) {
    const T* const costs = problem.costs + p * slots * windows;
    int64_t* const found = problem.found + p * windows;
    const int64_t count = min(max(problem.counts[p], int64_t{0}), windows);
    const bool window_rows = count <= slots;
    const int64_t rows = window_rows ? count : slots;
    const int64_t columns = window_rows ? slots : count;
    for (int64_t j = lane; j < columns; j += device::kWarp) {
      at.column_potential[j] = 0;
      at.row_of[j] = -1;
    }
    for (int64_t i = lane; i < rows; i += device::kWarp) {
      at.row_potential[i] = 0;
      at.column_of[i] = -1;
    }
    for (int64_t i = lane; i < windows; i += device::kWarp) found[i] = -1;
    __syncwarp();
    for (int64_t row = 0; row < rows; ++row) {
      assign_row(at, columns, row, [=](int64_t i, int64_t j) {
        return finite_cost(get(costs + (window_rows ? j * windows + i : i * windows + j)));
      });
    }
    for (int64_t i = lane; i < rows; i += device::kWarp) {
      found[window_rows ? i : at.column_of[i]] = window_rows ? at.column_of[i] : i;
    }
    __syncwarp();  // all have read the workspace
  }
}

template <typename T>
unsigned blocks_of(const AssignmentProblem<T>& problem) {
  return static_cast<unsigned>(std::min(problem.problems, kMostBlocks));
}

}  // namespace

template <typename T>
int64_t assignment_scratch(const AssignmentProblem<T>& problem) {
  const int64_t doubles = Workspace::doubles(most_of(problem));
  return doubles > kSharedDoubles ? doubles * blocks_of(problem) : 0;
}

template <typename T>
cudaError_t assign(const AssignmentProblem<T>& problem, double* scratch, cudaStream_t stream) {
  if (problem.problems == 0) return cudaSuccess;
  const int64_t doubles = Workspace::doubles(most_of(problem));
  const bool in_shared = doubles <= kSharedDoubles;
  const auto bytes = static_cast<std::size_t>(in_shared ? doubles : 0) * sizeof(double);
  assignment_kernel<<<blocks_of(problem), device::kWarp, bytes, stream>>>(
      problem, in_shared ? nullptr : scratch, doubles);
  return cudaGetLastError();
}

#define VMR_INSTANTIATE(T)                                          \
  template int64_t assignment_scratch(const AssignmentProblem<T>&); \
  template cudaError_t assign(const AssignmentProblem<T>&, double*, cudaStream_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::spans::cuda
