// Dropout on the CPU: the problems of dropout_types.h, for a range [begin, end) of parts of kPart
// elements, the last perhaps shorter, that the caller shares out among threads. T is float, double,
// Half or BFloat16.
#pragma once

#include <cstdint>

#include "kernels/dropout_types.h"

namespace vmr::kernels::dropout {

template <typename T>
void activate(const Activation<T>& problem, int64_t count, int64_t begin, int64_t end);
template <typename T>
void activate_gradient(const ActivationGradient<T>& problem, int64_t count, int64_t begin,
                       int64_t end);
template <typename T>
void add_dropped(const Residual<T>& problem, int64_t count, int64_t begin, int64_t end);

inline int64_t parts_of(int64_t count) {
  return (count + kPart - 1) / kPart;
}

// The slope's gradient: the sum of its parts, in their order.
template <typename T>
void sum_parts(const double* parts, int64_t count, T* sum);

}  // namespace vmr::kernels::dropout
