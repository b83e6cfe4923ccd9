#include "kernels/dropout.h"

#include <algorithm>

#include "kernels/cpu_dispatch.h"
#include "kernels/dropout_simd.h"
#include "kernels/scalar.h"

namespace vmr::kernels::dropout {

template <typename T>
void activate(const Activation<T>& problem, int64_t count, int64_t begin, int64_t end) {
  VMR_SELECT_ISA(activate<T>)(problem, begin * kPart, std::min(end * kPart, count));
}

template <typename T>
void activate_gradient(const ActivationGradient<T>& problem, int64_t count, int64_t begin,
                       int64_t end) {
  VMR_SELECT_ISA(activate_gradient<T>)(problem, begin * kPart, std::min(end * kPart, count));
}

template <typename T>
void add_dropped(const Residual<T>& problem, int64_t count, int64_t begin, int64_t end) {
  VMR_SELECT_ISA(add_dropped<T>)(problem, begin * kPart, std::min(end * kPart, count));
}

template <typename T>
void sum_parts(const double* parts, int64_t count, T* sum) {
  double total = 0;
  for (int64_t part = 0; part < count; ++part) total += parts[part];
  store(sum, static_cast<accumulate_t<T>>(total));
}

#define VMR_INSTANTIATE(T)                                                                  \
  template void activate(const Activation<T>&, int64_t, int64_t, int64_t);                  \
  template void activate_gradient(const ActivationGradient<T>&, int64_t, int64_t, int64_t); \
  template void add_dropped(const Residual<T>&, int64_t, int64_t, int64_t);                 \
  template void sum_parts(const double*, int64_t, T*);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::dropout
