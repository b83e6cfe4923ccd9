// Vectors of the compiler's, and the FFT of detection_conv_fft.simd.cpp on them: each lane is an
// FFT of its own. For detection_conv*.simd.cpp alone, once per instruction set: nothing here is
// shared.
#pragma once

#include <cstdint>

namespace vmr::kernels::VMR_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
#ifndef VMR_INLINE
#define VMR_INLINE inline __attribute__((always_inline))
#endif

template <typename S>
struct Vector {
  typedef S type __attribute__((vector_size(kVectorBytes)));
};
template <typename S>
using V = typename Vector<S>::type;
template <typename S>
constexpr int64_t kLanes = kVectorBytes / static_cast<int64_t>(sizeof(S));

template <typename S>
VMR_INLINE V<S> load_vector(const S* from) {
  V<S> value;
  __builtin_memcpy(&value, from, sizeof(value));
  return value;
}
template <typename S>
VMR_INLINE void store_vector(S* to, V<S> value) {
  __builtin_memcpy(to, &value, sizeof(value));
}

}  // namespace

// A sequence of vectors in memory, of which only elements [begin, end) are there: others read as
// zero, and are not written. `re` and `im` point to element `begin`.
template <typename S>
struct Sequence {
  S* re;
  S* im;
  int64_t stride;
  int64_t begin;
  int64_t end;
  Sequence exchanged() const { return {im, re, stride, begin, end}; }
};

// `to` is the transform of `from`, of 32, 48, 64, 96 or 128 points; what zeros at the end of `from`
// and unwanted elements at the end of `to` save is left out.
template <typename S>
void conv_fft(int64_t size, const Sequence<S>& from, const Sequence<S>& to);

// Its inverse times the size: real and imaginary parts exchanged, there and back.
template <typename S>
VMR_INLINE void conv_inverse_fft(int64_t size, const Sequence<S>& from, const Sequence<S>& to) {
  conv_fft<S>(size, from.exchanged(), to.exchanged());
}

}  // namespace vmr::kernels::VMR_ISA
