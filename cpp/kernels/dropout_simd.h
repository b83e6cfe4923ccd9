// The loops of dropout, compiled for several instruction sets (dropout.simd.cpp).
#pragma once

#include <cstdint>

#include "kernels/dropout_types.h"

namespace vmr::kernels {

// Elements [begin, end). The gradient's `begin` is a multiple of kPart.
#define VMR_DECLARE_DROPOUT(isa)                                                       \
  namespace isa {                                                                      \
  template <typename T>                                                                \
  void activate(const dropout::Activation<T>& problem, int64_t begin, int64_t end);    \
  template <typename T>                                                                \
  void activate_gradient(const dropout::ActivationGradient<T>& problem, int64_t begin, \
                         int64_t end);                                                 \
  template <typename T>                                                                \
  void add_dropped(const dropout::Residual<T>& problem, int64_t begin, int64_t end);   \
  }
VMR_DECLARE_DROPOUT(baseline)
VMR_DECLARE_DROPOUT(avx2)
VMR_DECLARE_DROPOUT(avx512)
#undef VMR_DECLARE_DROPOUT

}  // namespace vmr::kernels
