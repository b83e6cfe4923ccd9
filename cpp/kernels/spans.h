// Temporal spans [start, end] on the CPU, for a range [begin, end) of the outermost index that the
// caller shares out among threads. T is float, double, Half or BFloat16.
#pragma once

#include <cstdint>

#include "kernels/scalar.h"
#include "kernels/spans_types.h"

namespace vmr::kernels::spans {

// overlaps [batch, n, m]. Range over the batch * n rows of a.
template <typename T, Overlap kind>
void pair_overlaps(const PairSizes& sizes, const T* a, const T* b, T* overlaps, int64_t begin,
                   int64_t end);

// a_gradients [batch, n, 2] from gradients [batch, n, m], or [batch, m, n] where transposed:
// overlap is symmetric, so b's gradients are had by calling this with a and b changed over. Range
// over the batch * n rows of a.
template <typename T, Overlap kind>
void pair_overlap_gradients(const PairSizes& sizes, const T* gradients, bool transposed, const T* a,
                            const T* b, T* a_gradients, int64_t begin, int64_t end);

// Greedy non-maximum suppression. Range over queries.
template <typename T>
void suppress(const NmsProblem<T>& problem, int64_t begin, int64_t end);

// The cheapest min(Q, count) pairs of slots and windows; of equally cheap ones, the same on all
// devices. Costs whose sums overflow a double still get an assignment. Range over problems.
template <typename T>
void assign(const AssignmentProblem<T>& problem, int64_t begin, int64_t end);

}  // namespace vmr::kernels::spans
