// The stages of the convolution by FFT (detection_conv.h), compiled for several instruction sets
// (detection_conv*.simd.cpp). S is float or double.
//
// Tiles go in pairs: one is the real, the other the imaginary part of what is transformed, which
// real kernels act on alike. The lanes of a vector are channels. Maps under transformation lie as
// columns: [x][block of lanes][row][real, imaginary][lanes], x over the FFT's size.
#pragma once

#include <cstdint>

namespace vmr::kernels::detection_conv {

// One window of the FFT's size over a sample's map, which makes the outputs [begin, end) of each
// axis. Point u of the window is point u + origin of the map; there are zeros outside the map.
struct Tile {
  int64_t sample;
  int64_t length;  // the map's valid size
  int64_t origin[2];
  int64_t begin[2];
  int64_t end[2];  // y, x
};

// The kernels of one convolution as the weights [outer, inner, kernel, kernel] have them.
struct Kernels {
  int64_t inputs;
  int64_t outputs;
  int64_t kernel;  // odd
  // Forward: outputs are outer, and what is correlated has to be turned round to be convolved. The
  // maps' gradient: inputs are outer, and it is convolved as it is.
  bool outputs_are_outer;
};

// A chunk of tiles with `channels` channels each as columns. Lane p * slot + c of all the blocks'
// lanes is channel c of pair p.
template <typename S>
struct Columns {
  S* values;
  int64_t stride;       // from one x to the next
  int64_t rows;         // of a block
  int64_t first_block;  // where these channels begin
  int64_t blocks;
  int64_t slot;
  int64_t channels;
  int64_t used;  // rows, and points of a row, that may be other than zero
};

struct Chunk {
  const Tile* tiles;
  int64_t count;  // tiles
  int64_t pairs;
  int64_t frames;  // of the maps in memory
  int64_t size;    // of the FFT
  int64_t kernel;
  int64_t made;  // rows of outputs at most
};

// weights -> halves: the rows of all kernels transformed, for x of 0 to size / 2, times `scale`.
// halves: [x][block][kernel row][real, imaginary][lanes] with padding after each x, of blocks
// [inputs, output blocks]. Range over kernel rows.
template <typename S>
struct KernelRows {
  Kernels kernels;
  int64_t size;
  const S* weights;
  S* halves;
  S scale;
};

// The spectrum's slices [size, inputs, 2, padded outputs] with padding after each y, for x in
// [begin, end), from halves.
template <typename S>
struct KernelColumns {
  Kernels kernels;
  int64_t size;
  S* halves;
  S* slices;
};

// maps -> columns: transforms rows of tiles. Of the tiles' windows, or of the points that their
// outputs are at, moved by half a kernel. Range over blocks * columns.used rows.
template <typename S>
struct MapRows {
  Chunk chunk;
  Columns<S> columns;
  const S* maps;  // [B, N, N, channels]
  bool outputs_only;
};

// Columns in, product with the kernels' spectrum, columns out in their place. Range over x of 0 to
// size / 2, each with size - x.
template <typename S>
struct Products {
  Chunk chunk;
  Kernels kernels;
  Columns<S> in;
  Columns<S> out;
  const S* spectrum;  // all slices, or null: then
  S* halves;          // these
  int64_t group;      // pairs at a time
  // The gradients of weights too, where there are maps: sums over the chunk's tiles of what `in`
  // holds (the outputs' gradients) with the maps, as halves. `out` may have no values then.
  Columns<S> maps;
  S* weight_halves;
  bool add;
  S* work;
};

// columns -> maps: inverse transforms of rows, plus the bias where there is one. Range over blocks
// * chunk.made rows.
template <typename S>
struct OutputRows {
  Chunk chunk;
  Columns<S> columns;
  const S* bias;  // or null
  S* maps;        // out [B, N, N, channels], the tiles' outputs only
};

template <typename S>
struct Stages {
  int64_t lanes;
  void (*kernel_rows)(const KernelRows<S>&, int64_t begin, int64_t end);
  void (*kernel_columns)(const KernelColumns<S>&, int64_t begin, int64_t end);
  void (*map_rows)(const MapRows<S>&, int64_t begin, int64_t end);
  void (*products)(const Products<S>&, int64_t begin, int64_t end);
  void (*output_rows)(const OutputRows<S>&, int64_t begin, int64_t end);
  // The way back of kernel_rows: `halves` into `weights`, which are written.
  void (*weight_rows)(const KernelRows<S>&, S* weights, int64_t begin, int64_t end);
};

// ---- sizes in memory, in elements; a cache line's padding keeps strides from powers of two ----

static constexpr int64_t kPadding = 16;

static inline int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
static inline int64_t padded_outputs(const Kernels& kernels) {
  return round_up(kernels.outputs, 16);
}
static inline int64_t spectrum_row(const Kernels& kernels) {
  return kernels.inputs * 2 * padded_outputs(kernels) + kPadding;
}
static inline int64_t kernel_blocks(const Kernels& kernels, int64_t lanes) {
  return kernels.inputs * (round_up(kernels.outputs, lanes) / lanes);
}
static inline int64_t halves_stride(const Kernels& kernels, int64_t lanes) {
  return kernel_blocks(kernels, lanes) * kernels.kernel * 2 * lanes + kPadding;
}
// A row of columns under work: all lanes of `pairs` pairs.
static inline int64_t work_row(int64_t pairs, int64_t slot, int64_t lanes) {
  return 2 * round_up(pairs * slot + lanes - 1, lanes) + kPadding;
}

}  // namespace vmr::kernels::detection_conv

namespace vmr::kernels {

#define VMR_DECLARE_CONV_STAGES(isa)                                                           \
  namespace isa {                                                                              \
  template <typename S>                                                                        \
  detection_conv::Stages<S> conv_stages();                                                     \
  template <typename S>                                                                        \
  void conv_kernel_columns(const detection_conv::KernelColumns<S>&, int64_t, int64_t);         \
  template <typename S>                                                                        \
  void conv_products(const detection_conv::Products<S>&, int64_t, int64_t);                    \
  }
VMR_DECLARE_CONV_STAGES(baseline)
VMR_DECLARE_CONV_STAGES(avx2)
VMR_DECLARE_CONV_STAGES(avx512)
#undef VMR_DECLARE_CONV_STAGES

}  // namespace vmr::kernels
