// Moments as points of a map of scores on the CPU, for a range [begin, end) of the outermost index
// that the caller shares out among threads. T is float, double, Half or BFloat16. Points and
// lengths are in range.
#pragma once

#include <cstdint>

#include "kernels/detection_types.h"
#include "kernels/scalar.h"

namespace vmr::kernels::detection {

// row_errors [batch, frames]: the sum of (P - G)^2 over each row of a map, where G is 1 at the
// query's points and 0 elsewhere. Range over the batch * frames rows.
template <typename T>
void row_errors(const VertexProblem<T>& problem, double* row_errors, int64_t begin, int64_t end);

// losses [batch], the sums of the rows' errors. Range over queries.
template <typename T>
void sum_errors(const VertexProblem<T>& problem, const double* row_errors, T* losses, int64_t begin,
                int64_t end);

// score_gradients [batch, frames, frames] from loss_gradients [batch]. Range over the rows.
template <typename T>
void row_error_gradients(const VertexProblem<T>& problem, const T* loss_gradients,
                         T* score_gradients, int64_t begin, int64_t end);

// The k best points (i, j), i <= j, best first, of equal ones the first row by row; never NaN.
// Range over queries.
template <typename T>
void top_points(const TopProblem<T>& problem, int64_t begin, int64_t end);

}  // namespace vmr::kernels::detection
