// Complex FFTs of 32, 48, 64, 96 and 128 points on vectors: each lane is an FFT of its own. For
// detection_conv*.simd.cpp alone: all is in an anonymous namespace of the instruction set's.
//
// F points are 8 x R points: 8-point transforms over n1 of x[R n1 + n2], twiddles, R-point
// transforms over n2. Real and imaginary parts are apart, so an inverse transform is a forward one
// with the two exchanged, there and back (without 1 / F).
#pragma once

#include <cstdint>
#include <utility>

namespace vmr::kernels::VMR_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
#define VMR_INLINE inline __attribute__((always_inline))

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

// Calls function(i) for i = 0 .. count - 1 as constants: arrays indexed by them stay in registers.
template <int kCount, typename Function>
VMR_INLINE void unrolled(const Function& function) {
  [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
    (function(std::integral_constant<int, i>{}), ...);
  }(std::make_integer_sequence<int, kCount>{});
}

// ---- cos and sin of 2 pi k / n, at compile time ----

struct Angle {
  double cosine;
  double sine;
};
constexpr Angle angle(int k, int n) {
  constexpr long double kPi = 3.14159265358979323846264338327950288L;
  const int folded = 2 * k > n ? k - n : k;
  const long double x = 2 * kPi * folded / n;
  long double term = 1;
  long double cosine = 0;
  long double sine = 0;
  for (int i = 0; i < 40; i += 2) {
    cosine += term;
    term *= x / (i + 1);
    sine += term;
    term *= -x / (i + 2);
  }
  return {static_cast<double>(cosine), static_cast<double>(sine)};
}

// e^(-2 pi i n2 k1 / F)
template <typename S, int kSize>
struct Twiddles {
  S real[kSize / 8][8];
  S imag[kSize / 8][8];
};
template <typename S, int kSize>
constexpr Twiddles<S, kSize> make_twiddles() {
  Twiddles<S, kSize> table = {};
  for (int n2 = 0; n2 < kSize / 8; ++n2) {
    for (int k1 = 0; k1 < 8; ++k1) {
      const Angle turn = angle(n2 * k1 % kSize, kSize);
      table.real[n2][k1] = static_cast<S>(turn.cosine);
      table.imag[n2][k1] = static_cast<S>(-turn.sine);
    }
  }
  return table;
}

// ---- transforms of few points, in place ----

template <typename S>
struct Complex {
  V<S> re;
  V<S> im;
};
template <typename S>
VMR_INLINE Complex<S> operator+(const Complex<S>& a, const Complex<S>& b) {
  return {a.re + b.re, a.im + b.im};
}
template <typename S>
VMR_INLINE Complex<S> operator-(const Complex<S>& a, const Complex<S>& b) {
  return {a.re - b.re, a.im - b.im};
}
template <typename S>
VMR_INLINE Complex<S> times_minus_i(const Complex<S>& a) {
  return {a.im, -a.re};
}
template <typename S>
VMR_INLINE Complex<S> times(const Complex<S>& a, S re, S im) {
  return {a.re * re - a.im * im, a.re * im + a.im * re};
}

template <typename S>
VMR_INLINE void dft3(Complex<S>& a, Complex<S>& b, Complex<S>& c) {
  constexpr S kSine = static_cast<S>(angle(1, 3).sine);
  const Complex<S> sum = b + c;
  const Complex<S> turned = times_minus_i(b - c);
  const Complex<S> mean = {a.re - sum.re * S(0.5), a.im - sum.im * S(0.5)};
  a = a + sum;
  b = Complex<S>{mean.re + turned.re * kSine, mean.im + turned.im * kSine};
  c = Complex<S>{mean.re - turned.re * kSine, mean.im - turned.im * kSine};
}

template <typename S>
VMR_INLINE void dft4(Complex<S>& a, Complex<S>& b, Complex<S>& c, Complex<S>& d) {
  const Complex<S> even_sum = a + c;
  const Complex<S> even = a - c;
  const Complex<S> odd_sum = b + d;
  const Complex<S> odd = times_minus_i(b - d);
  a = even_sum + odd_sum;
  b = even + odd;
  c = even_sum - odd_sum;
  d = even - odd;
}
// The same where c and d are zero.
template <typename S>
VMR_INLINE void dft4_of_two(Complex<S>& a, Complex<S>& b, Complex<S>& c, Complex<S>& d) {
  const Complex<S> first = a;
  const Complex<S> second = b;
  const Complex<S> turned = times_minus_i(b);
  a = first + second;
  b = first + turned;
  c = first - second;
  d = first - turned;
}

// Of 8 points, where those from kUsed (2, 4 or 8) on are zero.
template <int kUsed, typename S>
VMR_INLINE void dft8(Complex<S>* x) {
  constexpr S kHalf = static_cast<S>(angle(1, 8).cosine);
  Complex<S> even[4] = {x[0], x[2], x[4], x[6]};
  Complex<S> odd[4] = {x[1], x[3], x[5], x[7]};
  if constexpr (kUsed == 2) {
    unrolled<3>([&](auto i) __attribute__((always_inline)) {
      even[i + 1] = even[0];
      odd[i + 1] = odd[0];
    });
  } else if constexpr (kUsed == 4) {
    dft4_of_two(even[0], even[1], even[2], even[3]);
    dft4_of_two(odd[0], odd[1], odd[2], odd[3]);
  } else {
    dft4(even[0], even[1], even[2], even[3]);
    dft4(odd[0], odd[1], odd[2], odd[3]);
  }
  x[0] = even[0] + odd[0];
  x[4] = even[0] - odd[0];
  const Complex<S> first = {odd[1].re + odd[1].im, odd[1].im - odd[1].re};
  x[1] = Complex<S>{even[1].re + first.re * kHalf, even[1].im + first.im * kHalf};
  x[5] = Complex<S>{even[1].re - first.re * kHalf, even[1].im - first.im * kHalf};
  const Complex<S> second = times_minus_i(odd[2]);
  x[2] = even[2] + second;
  x[6] = even[2] - second;
  const Complex<S> third = {odd[3].im - odd[3].re, -odd[3].re - odd[3].im};
  x[3] = Complex<S>{even[3].re + third.re * kHalf, even[3].im + third.im * kHalf};
  x[7] = Complex<S>{even[3].re - third.re * kHalf, even[3].im - third.im * kHalf};
}

// Of 4, 6, 8, 12 or 16 points. Those of 6 and 12 need no twiddles: with n = b n1 + a n2 and k known
// by its remainders after division by a and by b, the transform is one of a by b points.
template <int kPoints, typename S>
VMR_INLINE void dft(Complex<S>* x) {
  if constexpr (kPoints == 4) {
    dft4(x[0], x[1], x[2], x[3]);
  } else if constexpr (kPoints == 6) {
    Complex<S> even[3] = {x[0], x[2], x[4]};
    Complex<S> odd[3] = {x[3], x[5], x[1]};
    dft3(even[0], even[1], even[2]);
    dft3(odd[0], odd[1], odd[2]);
    unrolled<3>([&](auto k) __attribute__((always_inline)) {
      constexpr int kEven = k % 2 == 0 ? k : k + 3;
      constexpr int kOdd = k % 2 == 0 ? k + 3 : k;
      x[kEven] = even[k] + odd[k];
      x[kOdd] = even[k] - odd[k];
    });
  } else if constexpr (kPoints == 8) {
    dft8<8>(x);
  } else if constexpr (kPoints == 12) {
    Complex<S> parts[4][3];
    unrolled<4>([&](auto n2) __attribute__((always_inline)) {
      unrolled<3>([&](auto n1) __attribute__((always_inline)) {
        parts[n2][n1] = x[(4 * n1 + 3 * n2) % 12];
      });
      dft3(parts[n2][0], parts[n2][1], parts[n2][2]);
    });
    unrolled<3>([&](auto k1) __attribute__((always_inline)) {
      dft4(parts[0][k1], parts[1][k1], parts[2][k1], parts[3][k1]);
      unrolled<4>([&](auto k2) __attribute__((always_inline)) {
        x[(4 * k1 + 9 * k2) % 12] = parts[k2][k1];
      });
    });
  } else {
    static_assert(kPoints == 16);
    unrolled<4>([&](auto n2) __attribute__((always_inline)) {
      dft4(x[n2], x[4 + n2], x[8 + n2], x[12 + n2]);
      unrolled<4>([&](auto k1) __attribute__((always_inline)) {
        if constexpr (n2 * k1 != 0) {
          constexpr Angle kTurn = angle(n2 * k1, 16);
          x[4 * k1 + n2] =
              times(x[4 * k1 + n2], static_cast<S>(kTurn.cosine), static_cast<S>(-kTurn.sine));
        }
      });
    });
    unrolled<4>([&](auto k1) __attribute__((always_inline)) {
      dft4(x[4 * k1], x[4 * k1 + 1], x[4 * k1 + 2], x[4 * k1 + 3]);
    });
    // x[4 k1 + k2] is the result at k1 + 4 k2.
    unrolled<4>([&](auto k1) __attribute__((always_inline)) {
      unrolled<4>([&](auto k2) __attribute__((always_inline)) {
        if constexpr (k2 < k1) {
          const Complex<S> other = x[4 * k1 + k2];
          x[4 * k1 + k2] = x[k1 + 4 * k2];
          x[k1 + 4 * k2] = other;
        }
      });
    });
  }
}

// ---- the transform ----

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

template <typename S>
struct alignas(64) Zeros {
  S values[static_cast<std::size_t>(kLanes<S>)];
};

// kUsed: 2, 4 or 8, such that all of `from` ends before kUsed * R. kWanted: `to` ends before
// 8 * kWanted.
template <int kSize, int kUsed, int kWanted, typename S>
__attribute__((noinline)) void fft_of(const Sequence<S>& from, const Sequence<S>& to) {
  constexpr int kRadix = kSize / 8;
  static constexpr Twiddles<S, kSize> kTwiddles = make_twiddles<S, kSize>();
  alignas(64) S between[8][kRadix][2][kLanes<S>];
  static constexpr Zeros<S> kZeros = {};
  const auto from_count = static_cast<uint64_t>(from.end - from.begin);
  for (int n2 = 0; n2 < kRadix; ++n2) {
    Complex<S> x[8];
    unrolled<8>([&](auto n1) __attribute__((always_inline)) {
      if constexpr (n1 < kUsed) {
        const int64_t n = n1 * kRadix + n2 - from.begin;
        const bool there = static_cast<uint64_t>(n) < from_count;
        const S* re = there ? from.re + n * from.stride : kZeros.values;
        const S* im = there ? from.im + n * from.stride : kZeros.values;
        x[n1] = Complex<S>{load_vector(re), load_vector(im)};
      } else {
        x[n1] = Complex<S>{};
      }
    });
    dft8<kUsed>(x);
    unrolled<8>([&](auto k1) __attribute__((always_inline)) {
      if constexpr (k1 > 0) {
        x[k1] = times(x[k1], kTwiddles.real[n2][k1], kTwiddles.imag[n2][k1]);
      }
      store_vector(between[k1][n2][0], x[k1].re);
      store_vector(between[k1][n2][1], x[k1].im);
    });
  }
  alignas(64) S nowhere[2][kLanes<S>];
  const auto to_count = static_cast<uint64_t>(to.end - to.begin);
  for (int k1 = 0; k1 < 8; ++k1) {
    Complex<S> x[kRadix];
    unrolled<kRadix>([&](auto n2) __attribute__((always_inline)) {
      x[n2] = Complex<S>{load_vector(between[k1][n2][0]), load_vector(between[k1][n2][1])};
    });
    dft<kRadix>(x);
    unrolled<kWanted>([&](auto k2) __attribute__((always_inline)) {
      const int64_t k = k1 + 8 * k2 - to.begin;
      const bool wanted = static_cast<uint64_t>(k) < to_count;
      store_vector(wanted ? to.re + k * to.stride : nowhere[0], x[k2].re);
      store_vector(wanted ? to.im + k * to.stride : nowhere[1], x[k2].im);
    });
  }
}

// Leaves out what zeros at the end of `from` and unwanted elements at the end of `to` save.
template <int kSize, typename S>
void fft(const Sequence<S>& from, const Sequence<S>& to) {
  constexpr int kRadix = kSize / 8;
  constexpr int kFew = (kRadix + 3) / 4;
  if (to.end <= 8 * kFew) {
    fft_of<kSize, 8, kFew>(from, to);
  } else if (from.end <= 2 * kRadix) {
    fft_of<kSize, 2, kRadix>(from, to);
  } else if (from.end <= 4 * kRadix) {
    fft_of<kSize, 4, kRadix>(from, to);
  } else {
    fft_of<kSize, 8, kRadix>(from, to);
  }
}

template <typename S>
void fft(int64_t size, const Sequence<S>& from, const Sequence<S>& to) {
  switch (size) {
    case 32:
      return fft<32>(from, to);
    case 48:
      return fft<48>(from, to);
    case 64:
      return fft<64>(from, to);
    case 96:
      return fft<96>(from, to);
    default:
      return fft<128>(from, to);
  }
}
template <typename S>
void inverse_fft(int64_t size, const Sequence<S>& from, const Sequence<S>& to) {
  fft(size, from.exchanged(), to.exchanged());
}

}  // namespace
}  // namespace vmr::kernels::VMR_ISA
