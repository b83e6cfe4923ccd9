// The stage between the transforms of rows: columns are transformed, multiplied with the kernels'
// spectrum and transformed back while they are in the cache. Compiled once per instruction set,
// with VMR_ISA naming the namespace.
#include "kernels/detection_conv_fft.h"
#include "kernels/detection_conv_simd.h"

namespace vmr::kernels::VMR_ISA {
namespace {

using namespace detection_conv;

#if defined(__AVX512F__)
constexpr int kPairTile = 4;  // pairs whose sums are kept in registers
#else
constexpr int kPairTile = 2;
#endif

// Columns x and size - x of a group of pairs: [y][real, imaginary][lanes] each, with padding after
// each y. Lane p * slot + c is channel c of the group's pair p.
template <typename S>
struct Work {
  S* of[2];
  int64_t lanes;
  int64_t row;
  int64_t slot;
  int64_t skipped;  // lanes of the pair before the group, in the first block
  const S* at(int sign, int64_t y, int64_t pair) const {
    return of[sign] + y * row + skipped + pair * slot;
  }
};

template <typename S>
S* column(const Columns<S>& columns, int64_t x, int64_t block) {
  return columns.values + x * columns.stride +
         (columns.first_block + block) * columns.rows * 2 * kLanes<S>;
}

// Transforms columns x and, where it is another, size - x of pairs [begin, end).
template <typename S>
Work<S> transform_columns(const Chunk& chunk, const Columns<S>& columns, int64_t x, int64_t begin,
                          int64_t end, S* memory) {
  const int64_t first = begin * columns.slot / kLanes<S>;
  const int64_t last = (end * columns.slot + kLanes<S> - 1) / kLanes<S>;
  const int64_t lanes = (last - first) * kLanes<S>;
  const int64_t row = 2 * lanes + kPadding;
  const int64_t other = (chunk.size - x) % chunk.size;
  Work<S> work = {{memory, other == x ? memory : memory + chunk.size * row},
                  lanes,
                  row,
                  columns.slot,
                  begin * columns.slot - first * kLanes<S>};
  for (int sign = 0; sign < (other == x ? 1 : 2); ++sign) {
    for (int64_t block = first; block < last; ++block) {
      S* const from = column(columns, sign == 0 ? x : other, block);
      S* const to = work.of[sign] + (block - first) * kLanes<S>;
      fft<S>(chunk.size, {from, from + kLanes<S>, 2 * kLanes<S>, 0, columns.used},
             {to, to + lanes, row, 0, chunk.size});
    }
  }
  return work;
}

// ---- one frequency and its opposite: outputs = spectrum * inputs ----

// Of kPairs pairs and the lanes of one block of outputs. The spectrum at the opposite frequency is
// the conjugate.
template <int kPairs, typename S>
VMR_INLINE void multiply(const S* const (&in)[2], int64_t in_lanes, int64_t in_slot,
                         int64_t inputs, const S* spectrum, int64_t spectrum_half, S* const (&out)[2],
                         int64_t out_lanes, int64_t out_slot) {
  V<S> re[2][kPairs] = {};
  V<S> im[2][kPairs] = {};
  for (int64_t c = 0; c < inputs; ++c) {
    const V<S> w_re = load_vector(spectrum);
    const V<S> w_im = load_vector(spectrum + spectrum_half);
    spectrum += 2 * spectrum_half;
    unrolled<kPairs>([&](auto p) __attribute__((always_inline)) {
      const S plus_re = in[0][p * in_slot + c];
      const S plus_im = in[0][p * in_slot + in_lanes + c];
      re[0][p] += w_re * plus_re;
      im[0][p] += w_re * plus_im;
      re[0][p] -= w_im * plus_im;
      im[0][p] += w_im * plus_re;
      const S minus_re = in[1][p * in_slot + c];
      const S minus_im = in[1][p * in_slot + in_lanes + c];
      re[1][p] += w_re * minus_re;
      im[1][p] += w_re * minus_im;
      re[1][p] += w_im * minus_im;
      im[1][p] -= w_im * minus_re;
    });
  }
  for (int sign = 0; sign < 2; ++sign) {
    unrolled<kPairs>([&](auto p) __attribute__((always_inline)) {
      store_vector(out[sign] + p * out_slot, re[sign][p]);
      store_vector(out[sign] + p * out_slot + out_lanes, im[sign][p]);
    });
  }
}

template <typename S>
void multiply_all(const Products<S>& job, const Work<S>& in, const Work<S>& out, const S* slice,
                  int64_t pairs) {
  const int64_t size = job.chunk.size;
  const int64_t row = spectrum_row(job.kernels);
  const int64_t half = padded_outputs(job.kernels);
  const int64_t blocks = out.slot / kLanes<S>;
  for (int64_t y = 0; y < size; ++y) {
    const int64_t other = (size - y) % size;
    for (int64_t p = 0; p < pairs;) {
      const S* const from[2] = {in.at(0, y, p), in.at(1, other, p)};
      const int64_t tile = pairs - p >= kPairTile ? kPairTile : 1;
      for (int64_t block = 0; block < blocks; ++block) {
        const S* const spectrum = slice + y * row + block * kLanes<S>;
        S* const to[2] = {out.of[0] + y * out.row + p * out.slot + block * kLanes<S>,
                          out.of[1] + other * out.row + p * out.slot + block * kLanes<S>};
        if (tile == kPairTile) {
          multiply<kPairTile>(from, in.lanes, in.slot, job.kernels.inputs, spectrum, half, to,
                              out.lanes, out.slot);
        } else {
          multiply<1>(from, in.lanes, in.slot, job.kernels.inputs, spectrum, half, to, out.lanes,
                      out.slot);
        }
      }
      p += tile;
    }
  }
}

// ---- the weights' gradients: conj(gradients) * maps, summed over pairs and both signs ----

// Of kMaps channels of the maps and one block of the gradients' channels.
template <int kMaps, typename S>
VMR_INLINE void correlate(const Work<S>& gradients, const Work<S>& maps, int64_t y, int64_t other,
                          int64_t pairs, int64_t block, int64_t channel, bool add, S* to,
                          int64_t to_stride) {
  V<S> re[kMaps];
  V<S> im[kMaps];
  unrolled<kMaps>([&](auto m) __attribute__((always_inline)) {
    re[m] = add ? load_vector(to + m * to_stride) : V<S>{};
    im[m] = add ? load_vector(to + m * to_stride + kLanes<S>) : V<S>{};
  });
  for (int64_t p = 0; p < pairs; ++p) {
    const S* g = gradients.at(0, y, p) + block * kLanes<S>;
    const S* x = maps.at(0, y, p) + channel;
    const V<S> plus_re = load_vector(g);
    const V<S> plus_im = load_vector(g + gradients.lanes);
    unrolled<kMaps>([&](auto m) __attribute__((always_inline)) {
      re[m] += plus_re * x[m];
      im[m] += plus_re * x[maps.lanes + m];
      re[m] += plus_im * x[maps.lanes + m];
      im[m] -= plus_im * x[m];
    });
    g = gradients.at(1, other, p) + block * kLanes<S>;
    x = maps.at(1, other, p) + channel;
    const V<S> minus_re = load_vector(g);
    const V<S> minus_im = load_vector(g + gradients.lanes);
    unrolled<kMaps>([&](auto m) __attribute__((always_inline)) {
      re[m] += minus_re * x[m];
      im[m] -= minus_re * x[maps.lanes + m];
      re[m] += minus_im * x[maps.lanes + m];
      im[m] += minus_im * x[m];
    });
  }
  unrolled<kMaps>([&](auto m) __attribute__((always_inline)) {
    store_vector(to + m * to_stride, re[m]);
    store_vector(to + m * to_stride + kLanes<S>, im[m]);
  });
}

// sums: [y][channel of the maps][block of the gradients'][real, imaginary][lanes], padded after y.
template <typename S>
void correlate_all(const Chunk& chunk, const Work<S>& gradients, const Work<S>& maps,
                   int64_t channels, int64_t pairs, bool add, S* sums, int64_t sums_row) {
  const int64_t blocks = gradients.slot / kLanes<S>;
  const int64_t stride = blocks * 2 * kLanes<S>;
  for (int64_t y = 0; y < chunk.size; ++y) {
    const int64_t other = (chunk.size - y) % chunk.size;
    for (int64_t block = 0; block < blocks; ++block) {
      S* const to = sums + y * sums_row + block * 2 * kLanes<S>;
      int64_t c = 0;
      for (; c + 4 <= channels; c += 4) {
        correlate<4>(gradients, maps, y, other, pairs, block, c, add, to + c * stride, stride);
      }
      for (; c < channels; ++c) {
        correlate<1>(gradients, maps, y, other, pairs, block, c, add, to + c * stride, stride);
      }
    }
  }
}

// Inverse transforms of the sums' columns into the halves of x.
template <typename S>
void finish_sums(const Products<S>& job, int64_t x, S* sums, int64_t sums_row) {
  const Kernels weights = {job.kernels.outputs, job.kernels.inputs, job.kernels.kernel, true};
  const int64_t taps = weights.kernel;
  alignas(64) S made[2 * 128 * kLanes<S>];
  for (int64_t block = 0; block < kernel_blocks(weights, kLanes<S>); ++block) {
    S* const from = sums + block * 2 * kLanes<S>;
    S* const to = job.weight_halves + x * halves_stride(weights, kLanes<S>) +
                  block * taps * 2 * kLanes<S>;
    S* const target = job.add ? made : to;
    inverse_fft<S>(job.chunk.size, {from, from + kLanes<S>, sums_row, 0, job.chunk.size},
                   {target, target + kLanes<S>, 2 * kLanes<S>, 0, taps});
    if (!job.add) continue;
    for (int64_t i = 0; i < taps * 2 * kLanes<S>; ++i) to[i] += made[i];
  }
}

}  // namespace

template <typename S>
void conv_kernel_columns(const KernelColumns<S>& job, int64_t begin, int64_t end) {
  const Kernels& kernels = job.kernels;
  const int64_t row = spectrum_row(kernels);
  const int64_t half = padded_outputs(kernels);
  const int64_t per_input = round_up(kernels.outputs, kLanes<S>) / kLanes<S>;
  for (int64_t x = begin; x < end; ++x) {
    S* const slice = job.slices + (x - begin) * job.size * row;
    for (int64_t block = 0; block < kernel_blocks(kernels, kLanes<S>); ++block) {
      S* const from = job.halves + x * halves_stride(kernels, kLanes<S>) +
                      block * kernels.kernel * 2 * kLanes<S>;
      S* const to = slice + block / per_input * 2 * half + block % per_input * kLanes<S>;
      fft<S>(job.size, {from, from + kLanes<S>, 2 * kLanes<S>, 0, kernels.kernel},
             {to, to + half, row, 0, job.size});
    }
  }
}

template <typename S>
void conv_products(const Products<S>& job, int64_t begin, int64_t end) {
  const Chunk& chunk = job.chunk;
  const int64_t size = chunk.size;
  const int64_t slice_size = size * spectrum_row(job.kernels);
  const int64_t taps = job.kernels.kernel;
  const bool wanted = job.out.values != nullptr;
  // The parts of `work`: see work_size.
  S* const in_memory = job.work;
  S* const other_memory = in_memory + 2 * size * work_row(job.group, job.in.slot, kLanes<S>);
  const int64_t other_slot = job.maps.slot > job.out.slot ? job.maps.slot : job.out.slot;
  S* const slice_memory = other_memory + 2 * size * work_row(job.group, other_slot, kLanes<S>);
  S* const sums = slice_memory + (job.spectrum == nullptr && wanted ? slice_size : 0);
  const int64_t sums_row = job.in.slot * job.kernels.outputs * 2 + kPadding;
  for (int64_t x = begin; x < end; ++x) {
    const S* slice = job.spectrum == nullptr ? slice_memory : job.spectrum + x * slice_size;
    if (wanted && job.spectrum == nullptr) {
      conv_kernel_columns<S>({job.kernels, size, job.halves, slice_memory}, x, x + 1);
    }
    const int64_t other = (size - x) % size;
    for (int64_t p = 0; p < chunk.pairs; p += job.group) {
      const int64_t last = p + job.group < chunk.pairs ? p + job.group : chunk.pairs;
      const Work<S> in = transform_columns(chunk, job.in, x, p, last, in_memory);
      if (wanted) {
        const int64_t lanes = (last - p) * job.out.slot;
        const int64_t row = 2 * lanes + kPadding;
        const Work<S> out = {
            {other_memory, other_memory + size * row}, lanes, row, job.out.slot, 0};
        multiply_all(job, in, out, slice, last - p);
        for (int sign = 0; sign < (other == x ? 1 : 2); ++sign) {
          for (int64_t block = 0; block < lanes / kLanes<S>; ++block) {
            S* const from = out.of[sign] + block * kLanes<S>;
            S* const to = column(job.out, sign == 0 ? x : other,
                                 p * job.out.slot / kLanes<S> + block);
            inverse_fft<S>(size, {from, from + lanes, row, 0, size},
                           {to, to + kLanes<S>, 2 * kLanes<S>, taps / 2, taps / 2 + chunk.made});
          }
        }
      }
      if (job.weight_halves != nullptr) {
        const Work<S> maps = transform_columns(chunk, job.maps, x, p, last, other_memory);
        correlate_all(chunk, in, maps, job.kernels.outputs, last - p, p > 0, sums, sums_row);
      }
    }
    if (job.weight_halves != nullptr) finish_sums(job, x, sums, sums_row);
  }
}

template void conv_kernel_columns(const KernelColumns<float>&, int64_t, int64_t);
template void conv_kernel_columns(const KernelColumns<double>&, int64_t, int64_t);
template void conv_products(const Products<float>&, int64_t, int64_t);
template void conv_products(const Products<double>&, int64_t, int64_t);

}  // namespace vmr::kernels::VMR_ISA
