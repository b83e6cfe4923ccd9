// Compiled once per instruction set, with VMR_ISA naming the namespace. See docs/adding-an-op.md
// for what may be included and defined in such a file.
#include "kernels/dropout_simd.h"
#include "kernels/simd_vectors.h"

namespace vmr::kernels::VMR_ISA {
namespace {

using dropout::Activation;
using dropout::ActivationGradient;
using dropout::hash_of;
using dropout::Keys;
using dropout::kPart;
using dropout::Mask;
using dropout::Residual;

constexpr int kBlock = 256;

template <typename Acc>
using V = typename Vector<Acc>::type;
template <typename Acc>
constexpr int kLanes = Vector<Acc>::kLanes;

// As many words of 32 bits as a vector of Acc has lanes, and truth values for these lanes.
template <typename Acc>
using Words = typename Vector<uint32_t, kLanes<Acc> * 4>::type;
template <typename Acc>
struct Integer {
  using type = int32_t;
};
template <>
struct Integer<double> {
  using type = int64_t;
};
template <typename Acc>
using Truths = typename Vector<typename Integer<Acc>::type>::type;

// What the loops need to know about a mask. GCC left them as branches where they were not written
// with vectors, which took ten times as long.
template <typename Acc>
struct Drop {
  Keys keys;
  uint32_t threshold;
  Acc scale;
  Words<Acc> lanes;

  explicit Drop(const Mask& mask)
      : keys(mask.threshold != 0 ? dropout::keys_of(*mask.seed) : Keys{0, 0}),
        threshold(mask.threshold),
        scale(static_cast<Acc>(mask.scale)) {
    for (int lane = 0; lane < kLanes<Acc>; ++lane) lanes[lane] = static_cast<uint32_t>(lane);
  }

  // The elements from a place on: 0, also of NaN, where they are dropped.
  template <bool drops>
  V<Acc> of(V<Acc> values, int64_t place) const {
    if constexpr (!drops) return values;
    const Words<Acc> hashes = hash_of<Words<Acc>>(keys, lanes + static_cast<uint32_t>(place));
    const auto dropped = __builtin_convertvector(hashes < threshold, Truths<Acc>);
    return dropped ? V<Acc>{} : values * scale;
  }
};

// A block of elements in the type that is computed in; zeros follow the first `count`.
template <typename T, typename Acc>
const Acc* block_of(const T* from, int count, Acc* scratch) {
  return unpack(from, count, kBlock, scratch);
}

template <typename T, typename Acc>
void narrow(const Acc* from, int count, T* to) {
  int j = 0;
#ifdef __F16C__
  if constexpr (__is_same(T, Half)) {
    for (; j + 8 <= count; j += 8) {
      const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(from + j), _MM_FROUND_TO_NEAREST_INT);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + j), halves);
    }
  }
#endif
  for (; j < count; ++j) store(to + j, from[j]);
}

// Calls compute(first, count, block) for blocks of elements, whose results it leaves at `block`.
template <typename T, typename Compute>
void over_blocks(T* results, int64_t begin, int64_t end, const Compute& compute) {
  using Acc = accumulate_t<T>;
  Acc block[kBlock];
  for (int64_t first = begin; first < end; first += kBlock) {
    const int count = static_cast<int>(end - first < kBlock ? end - first : kBlock);
    if constexpr (__is_same(T, Acc)) {
      if (count == kBlock) {
        compute(first, count, results + first);
        continue;
      }
    }
    compute(first, count, block);
    narrow(block, count, results + first);
  }
}

template <bool drops, bool sloped, typename T>
void activate_all(const Activation<T>& problem, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const Drop<Acc> drop(problem.mask);
  const Acc slope = sloped ? load(problem.slope) : Acc(0);
  over_blocks(problem.results, begin, end, [&](int64_t first, int count, Acc* to) {
    Acc scratch[kBlock];
    const Acc* const rows = block_of(problem.rows + first, count, scratch);
    for (int j = 0; j < kBlock; j += kLanes<Acc>) {
      const V<Acc> x = load_vector(rows + j);
      const V<Acc> below = sloped ? x * slope : V<Acc>{};
      const V<Acc> active = x < 0 ? below : x;  // NaN stays NaN
      store_vector<Acc>(to + j, drop.template of<drops>(active, first + j));
    }
  });
}

template <bool drops, bool sloped, typename T>
void activate_gradient_all(const ActivationGradient<T>& problem, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const Drop<Acc> drop(problem.inputs.mask);
  const Acc slope = sloped ? load(problem.inputs.slope) : Acc(0);
  double sum = 0;
  over_blocks(problem.row_gradients, begin, end, [&](int64_t first, int count, Acc* to) {
    Acc row_scratch[kBlock];
    Acc gradient_scratch[kBlock];
    const Acc* const rows = block_of(problem.inputs.rows + first, count, row_scratch);
    const Acc* const gradients =
        block_of(problem.output_gradients + first, count, gradient_scratch);
    V<Acc> own{};
    for (int j = 0; j < kBlock; j += kLanes<Acc>) {
      const V<Acc> x = load_vector(rows + j);
      const V<Acc> kept = drop.template of<drops>(load_vector(gradients + j), first + j);
      if constexpr (sloped) {
        // A NaN counts as below 0, as torch has it.
        store_vector<Acc>(to + j, x > 0 ? kept : kept * slope);
        own += x > 0 ? V<Acc>{} : kept * x;
      } else {
        store_vector<Acc>(to + j, x <= 0 ? V<Acc>{} : kept);
      }
    }
    if constexpr (sloped) {
      if (first % kPart == 0) sum = 0;
      sum += static_cast<double>(sum_lanes(own));
      problem.slope_parts[first / kPart] = sum;
    }
  });
}

template <bool drops, bool adds, typename T>
void add_all(const Residual<T>& problem, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const Drop<Acc> drop(problem.mask);
  over_blocks(problem.results, begin, end, [&](int64_t first, int count, Acc* to) {
    Acc row_scratch[kBlock];
    Acc scratch[kBlock];
    const Acc* const found = block_of(problem.found + first, count, scratch);
    const Acc* const rows = adds ? block_of(problem.rows + first, count, row_scratch) : found;
    for (int j = 0; j < kBlock; j += kLanes<Acc>) {
      const V<Acc> kept = drop.template of<drops>(load_vector(found + j), first + j);
      store_vector<Acc>(to + j, adds ? load_vector(rows + j) + kept : kept);
    }
  });
}

}  // namespace

template <typename T>
void activate(const Activation<T>& problem, int64_t begin, int64_t end) {
  const bool drops = problem.mask.threshold != 0;
  if (problem.slope != nullptr) {
    drops ? activate_all<true, true>(problem, begin, end)
          : activate_all<false, true>(problem, begin, end);
  } else {
    drops ? activate_all<true, false>(problem, begin, end)
          : activate_all<false, false>(problem, begin, end);
  }
}

template <typename T>
void activate_gradient(const ActivationGradient<T>& problem, int64_t begin, int64_t end) {
  const bool drops = problem.inputs.mask.threshold != 0;
  if (problem.inputs.slope != nullptr) {
    drops ? activate_gradient_all<true, true>(problem, begin, end)
          : activate_gradient_all<false, true>(problem, begin, end);
  } else {
    drops ? activate_gradient_all<true, false>(problem, begin, end)
          : activate_gradient_all<false, false>(problem, begin, end);
  }
}

template <typename T>
void add_dropped(const Residual<T>& problem, int64_t begin, int64_t end) {
  const bool drops = problem.mask.threshold != 0;
  if (problem.rows != nullptr) {
    drops ? add_all<true, true>(problem, begin, end) : add_all<false, true>(problem, begin, end);
  } else {
    drops ? add_all<true, false>(problem, begin, end) : add_all<false, false>(problem, begin, end);
  }
}

#define VMR_INSTANTIATE(T)                                                         \
  template void activate(const Activation<T>&, int64_t, int64_t);                  \
  template void activate_gradient(const ActivationGradient<T>&, int64_t, int64_t); \
  template void add_dropped(const Residual<T>&, int64_t, int64_t);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
VMR_INSTANTIATE(Half)
VMR_INSTANTIATE(BFloat16)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::VMR_ISA
