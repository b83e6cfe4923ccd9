// The stages that transform rows, of maps and of kernels. Compiled once per instruction set, with
// VMR_ISA naming the namespace.
#include "kernels/detection_conv_fft.h"
#include "kernels/detection_conv_simd.h"

namespace vmr::kernels::VMR_ISA {
namespace {

using namespace detection_conv;

constexpr int64_t kMostPoints = 128;

// A row under transformation: [point][real, imaginary][lanes].
template <typename S>
struct alignas(64) Row {
  S values[static_cast<std::size_t>(kMostPoints)][2][static_cast<std::size_t>(kLanes<S>)];
  Sequence<S> points(int64_t begin, int64_t end) {
    return {values[begin][0], values[begin][1], 2 * kLanes<S>, begin, end};
  }
};

// Lanes [lane, lane + count) of a row's real or imaginary part belong to channels from `channel` on
// of a tile.
struct Run {
  const Tile* tile;
  int64_t part;
  int64_t lane;
  int64_t channel;
  int64_t count;
};

// Calls function(run) for all that the lanes of a block are.
template <typename S, typename Function>
void for_runs(const Chunk& chunk, const Columns<S>& columns, int64_t block,
              const Function& function) {
  for (int64_t lane = 0; lane < kLanes<S>;) {
    const int64_t flat = block * kLanes<S> + lane;
    const int64_t pair = flat / columns.slot;
    const int64_t channel = flat % columns.slot;
    int64_t count = columns.slot - channel;
    if (count > kLanes<S> - lane) count = kLanes<S> - lane;
    const int64_t live = count < columns.channels - channel ? count : columns.channels - channel;
    for (int64_t part = 0; part < 2; ++part) {
      const int64_t tile = 2 * pair + part;
      if (live > 0 && tile < chunk.count) {
        function(Run{chunk.tiles + tile, part, lane, channel, live});
      }
    }
    lane += count;
  }
}

// Point u of a tile's axis as it is transformed is point u + offset of the map, of which
// [begin, end) are there.
struct Span {
  int64_t offset;
  int64_t begin;
  int64_t end;
};
Span read_span(const Tile& tile, int64_t axis, bool outputs_only, int64_t kernel) {
  if (outputs_only) return {tile.origin[axis] - kernel / 2, tile.begin[axis], tile.end[axis]};
  return {tile.origin[axis], 0, tile.length};
}

template <typename S>
void copy_lanes(const S* from, S* to, int64_t count) {
  if (count == kLanes<S>) {
    store_vector(to, load_vector(from));
  } else {
    for (int64_t l = 0; l < count; ++l) to[l] = from[l];
  }
}

template <typename S>
void map_rows(const MapRows<S>& job, int64_t begin, int64_t end) {
  const Chunk& chunk = job.chunk;
  const Columns<S>& columns = job.columns;
  const int64_t used = columns.used;
  Row<S> row;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t block = i / used;
    const int64_t u = i % used;
    __builtin_memset(&row, 0, static_cast<std::size_t>(used) * sizeof(row.values[0]));
    for_runs(chunk, columns, block, [&](const Run& run) {
      const Span y = read_span(*run.tile, 0, job.outputs_only, chunk.kernel);
      const Span x = read_span(*run.tile, 1, job.outputs_only, chunk.kernel);
      if (u + y.offset < y.begin || u + y.offset >= y.end) return;
      const int64_t first = x.begin > x.offset ? x.begin - x.offset : 0;
      const int64_t last = x.end - x.offset < used ? x.end - x.offset : used;
      const S* from = job.maps + run.channel +
                      ((run.tile->sample * chunk.frames + u + y.offset) * chunk.frames + first +
                       x.offset) *
                          columns.channels;
      for (int64_t point = first; point < last; ++point, from += columns.channels) {
        copy_lanes(from, row.values[point][run.part] + run.lane, run.count);
      }
    });
    S* const to =
        columns.values + ((columns.first_block + block) * columns.rows + u) * 2 * kLanes<S>;
    fft<S>(chunk.size, row.points(0, used), {to, to + kLanes<S>, columns.stride, 0, chunk.size});
  }
}

template <typename S>
void output_rows(const OutputRows<S>& job, int64_t begin, int64_t end) {
  const Chunk& chunk = job.chunk;
  const Columns<S>& columns = job.columns;
  const int64_t half = chunk.kernel / 2;
  Row<S> row;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t block = i / chunk.made;
    const int64_t v = i % chunk.made;
    S* const from =
        columns.values + ((columns.first_block + block) * columns.rows + v) * 2 * kLanes<S>;
    inverse_fft<S>(chunk.size, {from, from + kLanes<S>, columns.stride, 0, chunk.size},
                   row.points(half, half + chunk.made));
    for_runs(chunk, columns, block, [&](const Run& run) {
      const Tile& tile = *run.tile;
      const int64_t y = v + tile.origin[0];
      if (y < tile.begin[0] || y >= tile.end[0]) return;
      S bias[kLanes<S>] = {};
      if (job.bias != nullptr) {
        for (int64_t l = 0; l < run.count; ++l) bias[l] = job.bias[run.channel + l];
      }
      S* to = job.maps + run.channel +
              ((tile.sample * chunk.frames + y) * chunk.frames + tile.begin[1]) * columns.channels;
      for (int64_t x = tile.begin[1]; x < tile.end[1]; ++x, to += columns.channels) {
        const S* const made = row.values[x - tile.origin[1] + half][run.part] + run.lane;
        if (run.count == kLanes<S>) {
          store_vector<S>(to, load_vector(made) + load_vector(bias));
        } else {
          for (int64_t l = 0; l < run.count; ++l) to[l] = made[l] + bias[l];
        }
      }
    });
  }
}

// ---- kernels: two blocks of them are the real and the imaginary part of one transform ----

template <typename S>
struct KernelBlock {
  S* halves;         // of x = 0, at the kernels' row; null beyond the last block
  int64_t strides;   // from one lane's kernel to the next, in the weights
  int64_t first;     // of the weights
  int64_t lanes;     // that are kernels
};

template <typename S>
KernelBlock<S> kernel_block(const KernelRows<S>& job, int64_t block, int64_t row) {
  const Kernels& kernels = job.kernels;
  if (block >= kernel_blocks(kernels, kLanes<S>)) return {};
  const int64_t per_input = round_up(kernels.outputs, kLanes<S>) / kLanes<S>;
  const int64_t input = block / per_input;
  const int64_t output = block % per_input * kLanes<S>;
  const int64_t taps = kernels.kernel * kernels.kernel;
  const int64_t left = kernels.outputs - output;
  S* const halves = job.halves + (block * kernels.kernel + row) * 2 * kLanes<S>;
  const int64_t lanes = left < kLanes<S> ? left : kLanes<S>;
  if (kernels.outputs_are_outer) {
    return {halves, kernels.inputs * taps, (output * kernels.inputs + input) * taps, lanes};
  }
  return {halves, taps, (input * kernels.outputs + output) * taps, lanes};
}

template <typename S>
void kernel_rows(const KernelRows<S>& job, int64_t begin, int64_t end) {
  const Kernels& kernels = job.kernels;
  const int64_t size = job.size;
  const int64_t taps = kernels.kernel;
  const int64_t stride = halves_stride(kernels, kLanes<S>);
  const bool turned = kernels.outputs_are_outer;
  Row<S> row;
  Row<S> transformed;
  for (int64_t r = begin; r < end; ++r) {
    for (int64_t block = 0; block < kernel_blocks(kernels, kLanes<S>); block += 2) {
      const KernelBlock<S> blocks[2] = {kernel_block(job, block, r),
                                        kernel_block(job, block + 1, r)};
      __builtin_memset(&row, 0, static_cast<std::size_t>(taps) * sizeof(row.values[0]));
      for (int64_t part = 0; part < 2; ++part) {
        for (int64_t l = 0; l < blocks[part].lanes; ++l) {
          const S* from = job.weights + blocks[part].first + l * blocks[part].strides +
                          (turned ? taps - 1 - r : r) * taps;
          for (int64_t t = 0; t < taps; ++t) {
            row.values[turned ? taps - 1 - t : t][part][l] = from[t] * job.scale;
          }
        }
      }
      fft<S>(size, row.points(0, taps), transformed.points(0, size));
      for (int64_t x = 0; x <= size / 2; ++x) {
        const auto& plus = transformed.values[x];
        const auto& minus = transformed.values[(size - x) % size];
        const V<S> re = load_vector(plus[0]);
        const V<S> im = load_vector(plus[1]);
        const V<S> other_re = load_vector(minus[0]);
        const V<S> other_im = load_vector(minus[1]);
        store_vector<S>(blocks[0].halves + x * stride, re + other_re);
        store_vector<S>(blocks[0].halves + x * stride + kLanes<S>, im - other_im);
        if (blocks[1].halves == nullptr) continue;
        store_vector<S>(blocks[1].halves + x * stride, im + other_im);
        store_vector<S>(blocks[1].halves + x * stride + kLanes<S>, other_re - re);
      }
    }
  }
}

template <typename S>
void weight_rows(const KernelRows<S>& job, S* weights, int64_t begin, int64_t end) {
  const Kernels& kernels = job.kernels;
  const int64_t size = job.size;
  const int64_t taps = kernels.kernel;
  const int64_t stride = halves_stride(kernels, kLanes<S>);
  Row<S> row;
  Row<S> gradients;
  for (int64_t r = begin; r < end; ++r) {
    for (int64_t block = 0; block < kernel_blocks(kernels, kLanes<S>); block += 2) {
      const KernelBlock<S> blocks[2] = {kernel_block(job, block, r),
                                        kernel_block(job, block + 1, r)};
      for (int64_t x = 0; x <= size / 2; ++x) {
        const S* const first = blocks[0].halves + x * stride;
        const V<S> re = load_vector(first);
        const V<S> im = load_vector(first + kLanes<S>);
        V<S> second_re = {};
        V<S> second_im = {};
        if (blocks[1].halves != nullptr) {
          second_re = load_vector(blocks[1].halves + x * stride);
          second_im = load_vector(blocks[1].halves + x * stride + kLanes<S>);
        }
        auto& minus = row.values[(size - x) % size];
        store_vector<S>(minus[0], re + second_im);
        store_vector<S>(minus[1], second_re - im);
        store_vector<S>(row.values[x][0], re - second_im);
        store_vector<S>(row.values[x][1], im + second_re);
      }
      inverse_fft<S>(size, row.points(0, size), gradients.points(0, taps));
      for (int64_t part = 0; part < 2; ++part) {
        for (int64_t l = 0; l < blocks[part].lanes; ++l) {
          S* to = weights + blocks[part].first + l * blocks[part].strides + r * taps;
          for (int64_t t = 0; t < taps; ++t) to[t] = gradients.values[t][part][l] * job.scale;
        }
      }
    }
  }
}

}  // namespace

template <typename S>
Stages<S> conv_stages() {
  return {kLanes<S>,        &kernel_rows<S>, &conv_kernel_columns<S>, &map_rows<S>,
          &conv_products<S>, &output_rows<S>, &weight_rows<S>};
}

template Stages<float> conv_stages();
template Stages<double> conv_stages();

}  // namespace vmr::kernels::VMR_ISA
