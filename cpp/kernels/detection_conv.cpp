#include "kernels/detection_conv.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>

namespace vmr::kernels::detection_conv {
namespace {

// Maps are transformed in chunks of tiles, whose columns take at most so much memory.
constexpr int64_t kChunkBytes = int64_t{8} << 20;
// Columns under work, which are to stay in the cache.
constexpr int64_t kWorkBytes = int64_t{512} << 10;

// Uninitialised, at the start of a cache line.
template <typename S>
class Memory {
 public:
  explicit Memory(int64_t count)
      : values_(
            static_cast<S*>(::operator new(static_cast<std::size_t>(count) * sizeof(S), kLine))) {}
  ~Memory() { ::operator delete(values_, kLine); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  S* get() const { return values_; }

 private:
  static constexpr std::align_val_t kLine{64};
  S* values_;
};

std::vector<Tile> tiles_of(const Shape& shape, const int64_t* lengths) {
  const int64_t half = shape.kernel / 2;
  std::vector<Tile> tiles;
  for (int64_t b = 0; b < shape.batch; ++b) {
    const int64_t n = lengths[b];
    const bool whole = n + half <= shape.size;
    const int64_t step = whole ? n : shape.size - 2 * half;
    const int64_t margin = whole ? 0 : half;
    for (int64_t y = 0; y < n; y += step) {
      for (int64_t x = 0; x < n; x += step) {
        tiles.push_back({b,
                         n,
                         {y - margin, x - margin},
                         {y, x},
                         {std::min(n, y + step), std::min(n, x + step)}});
      }
    }
  }
  return tiles;
}

// How far from the window's start something may be other than zero.
int64_t used_points(const std::vector<Tile>& tiles, const Shape& shape, bool outputs_only) {
  int64_t used = 1;
  for (const Tile& tile : tiles) {
    for (int axis = 0; axis < 2; ++axis) {
      used = std::max(used, (outputs_only ? tile.end[axis] + shape.kernel / 2 : tile.length) -
                                tile.origin[axis]);
    }
  }
  return std::min(used, shape.size);
}

int64_t made_points(const std::vector<Tile>& tiles) {
  int64_t made = 1;
  for (const Tile& tile : tiles) {
    for (int axis = 0; axis < 2; ++axis) made = std::max(made, tile.end[axis] - tile.origin[axis]);
  }
  return made;
}

int64_t blocks_of(int64_t pairs, int64_t slot, int64_t lanes) {
  return (pairs * slot + lanes - 1) / lanes;
}

// Where the columns that go in begin, such that those that come out, from block 0 on, overwrite
// none that a later group of pairs still reads.
int64_t first_block(int64_t pairs, int64_t in_slot, int64_t out_slot, int64_t lanes) {
  int64_t first = 0;
  for (int64_t p = 1; p < pairs; ++p) {
    first = std::max(first, p * out_slot / lanes - p * in_slot / lanes);
  }
  return first;
}

// All that does not change from chunk to chunk.
template <typename S>
struct Plan {
  Shape shape;
  Kernels kernels;
  std::vector<Tile> tiles;
  int64_t lanes;
  int64_t in_slot;
  int64_t out_slot;
  int64_t maps_slot;  // 0 where weights have no gradients
  int64_t used;
  int64_t maps_used;
  int64_t made;
  int64_t rows;
  int64_t pairs;  // of a chunk at most
  int64_t group;

  int64_t work_size(bool slice, bool sums) const {
    const int64_t other = std::max(out_slot, maps_slot);
    return 2 * shape.size * (work_row(group, in_slot, lanes) + work_row(group, other, lanes)) +
           (slice ? shape.size * spectrum_row(kernels) : 0) +
           (sums ? shape.size * (in_slot * kernels.outputs * 2 + kPadding) : 0);
  }
  int64_t column_stride(int64_t blocks) const { return blocks * rows * 2 * lanes + kPadding; }

  Chunk chunk(int64_t first_tile) const {
    const int64_t count = std::min(static_cast<int64_t>(tiles.size()) - first_tile, 2 * pairs);
    return {tiles.data() + first_tile,
            count,
            (count + 1) / 2,
            shape.frames,
            shape.size,
            shape.kernel,
            made};
  }
  int64_t blocks() const {
    return std::max(first_block(pairs, in_slot, out_slot, lanes) + blocks_of(pairs, in_slot, lanes),
                    pairs * out_slot / lanes);
  }
};

// For kernels' inputs to outputs; with the weights' gradients, from maps of kernels' outputs.
template <typename S>
Plan<S> make_plan(const Shape& shape, const Kernels& kernels, const int64_t* lengths,
                  const Stages<S>& stages, bool weight_gradients) {
  Plan<S> plan = {};
  plan.shape = shape;
  plan.kernels = kernels;
  plan.tiles = tiles_of(shape, lengths);
  plan.lanes = stages.lanes;
  plan.in_slot = weight_gradients ? round_up(kernels.inputs, plan.lanes) : kernels.inputs;
  plan.out_slot = round_up(kernels.outputs, plan.lanes);
  plan.maps_slot = weight_gradients ? kernels.outputs : 0;
  plan.used = used_points(plan.tiles, shape, false);
  plan.maps_used = weight_gradients ? used_points(plan.tiles, shape, true) : 0;
  plan.made = made_points(plan.tiles);
  plan.rows = std::max({plan.used, plan.maps_used, plan.made}) | 1;
  const auto bytes = static_cast<int64_t>(sizeof(S));
  const int64_t per_pair =
      shape.size * plan.rows * 2 * std::max(plan.in_slot, plan.out_slot) * bytes;
  const int64_t all = (static_cast<int64_t>(plan.tiles.size()) + 1) / 2;
  plan.pairs = std::clamp<int64_t>(kChunkBytes / per_pair, 1, std::max<int64_t>(all, 1));
  for (plan.group = 4; plan.group > 1; plan.group /= 2) {
    if (plan.work_size(false, false) * bytes <= kWorkBytes) break;
  }
  return plan;
}

// Sets what lies outside the valid parts to zero. Range over the B * N rows.
template <typename S>
void clear_outside(const Shape& shape, int64_t channels, const int64_t* lengths, S* maps,
                   int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t length = lengths[row / shape.frames];
    const int64_t valid = row % shape.frames < length ? length : 0;
    S* const to = maps + row * shape.frames * channels;
    std::fill(to + valid * channels, to + shape.frames * channels, S(0));
  }
}

template <typename S>
KernelRows<S> kernel_rows_job(const Kernels& kernels, int64_t size, const S* weights, S* halves) {
  return {kernels, size, weights, halves, S(0.5) / static_cast<S>(size * size)};
}

template <typename S>
int64_t halves_size(const Kernels& kernels, int64_t size, const Stages<S>& stages) {
  return (size / 2 + 1) * halves_stride(kernels, stages.lanes);
}

template <typename S>
void bias_gradients(const Backward<S>& problem, const Run& run) {
  const Shape& shape = problem.shape;
  const int64_t channels = shape.outputs;
  std::vector<S> sums(static_cast<std::size_t>(shape.batch * channels));
  run(shape.batch, [&](int64_t begin, int64_t end) {
    std::vector<S> row(static_cast<std::size_t>(channels));
    for (int64_t b = begin; b < end; ++b) {
      for (int64_t y = 0; y < problem.lengths[b]; ++y) {
        std::fill(row.begin(), row.end(), S(0));
        const S* from = problem.gradients + (b * shape.frames + y) * shape.frames * channels;
        for (int64_t x = 0; x < problem.lengths[b]; ++x, from += channels) {
          for (int64_t c = 0; c < channels; ++c) row[static_cast<std::size_t>(c)] += from[c];
        }
        for (int64_t c = 0; c < channels; ++c) {
          sums[static_cast<std::size_t>(b * channels + c)] += row[static_cast<std::size_t>(c)];
        }
      }
    }
  });
  std::fill(problem.bias_gradients, problem.bias_gradients + channels, S(0));
  for (int64_t b = 0; b < shape.batch; ++b) {
    for (int64_t c = 0; c < channels; ++c) {
      problem.bias_gradients[c] += sums[static_cast<std::size_t>(b * channels + c)];
    }
  }
}

}  // namespace

int64_t fft_size(int64_t frames, int64_t kernel) {
  constexpr int64_t kSmallestKernel = 7;
  if (kernel < kSmallestKernel) return 0;
  int64_t best = 0;
  int64_t least = 0;
  for (const int64_t size : kSizes) {
    const int64_t step = size - 2 * (kernel / 2);
    if (step <= 0) continue;
    const int64_t per_axis = frames + kernel / 2 <= size ? 1 : (frames + step - 1) / step;
    const int64_t points = per_axis * per_axis * size * size;
    if (best == 0 || points < least) {
      best = size;
      least = points;
    }
  }
  return best;
}

std::vector<int64_t> spectrum_shape(const Kernels& kernels, int64_t size) {
  return {size / 2 + 1, size, spectrum_row(kernels)};
}

template <typename S>
void make_spectrum(const Kernels& kernels, int64_t size, const S* weights, S* spectrum,
                   const Stages<S>& stages, const Run& run) {
  const Memory<S> halves(halves_size(kernels, size, stages));
  run(kernels.kernel, [&](int64_t begin, int64_t end) {
    stages.kernel_rows(kernel_rows_job(kernels, size, weights, halves.get()), begin, end);
  });
  const int64_t slice = size * spectrum_row(kernels);
  run(size / 2 + 1, [&](int64_t begin, int64_t end) {
    stages.kernel_columns({kernels, size, halves.get(), spectrum + begin * slice}, begin, end);
  });
}

// Two samples that share a transform share what is not finite, too. Only the first and the last
// tile of a sample may be with another's, and a transform spreads NaN over all of a tile.
template <typename S>
bool may_be_spoilt(const Forward<S>& problem, int64_t sample) {
  const Shape& shape = problem.shape;
  const int64_t n = problem.lengths[sample];
  if (shape.batch == 1 || n == 0) return false;
  const S* const first = problem.results + sample * shape.frames * shape.frames * shape.outputs;
  const S* const last = first + ((n - 1) * shape.frames + n - 1) * shape.outputs;
  return !std::isfinite(*first) || !std::isfinite(*last);
}

template <typename S>
void convolve(const Forward<S>& problem, const Stages<S>& stages, const Run& run);

template <typename S>
void convolve_alone(Forward<S> problem, int64_t sample, const Stages<S>& stages, const Run& run) {
  const int64_t points = problem.shape.frames * problem.shape.frames;
  problem.maps += sample * points * problem.shape.inputs;
  problem.results += sample * points * problem.shape.outputs;
  problem.lengths += sample;
  problem.shape.batch = 1;
  convolve(problem, stages, run);
}

template <typename S>
void convolve(const Forward<S>& problem, const Stages<S>& stages, const Run& run) {
  const Shape& shape = problem.shape;
  const Kernels kernels = {shape.inputs, shape.outputs, shape.kernel, true};
  run(shape.batch * shape.frames, [&](int64_t begin, int64_t end) {
    clear_outside(shape, shape.outputs, problem.lengths, problem.results, begin, end);
  });
  const Plan<S> plan = make_plan<S>(shape, kernels, problem.lengths, stages, false);
  if (plan.tiles.empty()) return;
  const auto tile_count = static_cast<int64_t>(plan.tiles.size());
  // Slices are made when they are needed, or all at once where several chunks need them.
  const bool kept = problem.spectrum != nullptr;
  const bool at_once = !kept && tile_count > 2 * plan.pairs;
  const Memory<S> halves(kept || at_once ? 0 : halves_size(kernels, shape.size, stages));
  const Memory<S> made(at_once ? (shape.size / 2 + 1) * shape.size * spectrum_row(kernels) : 0);
  const S* const spectrum = at_once ? made.get() : problem.spectrum;
  if (at_once) {
    make_spectrum(kernels, shape.size, problem.weights, made.get(), stages, run);
  } else if (!kept) {
    run(shape.kernel, [&](int64_t begin, int64_t end) {
      stages.kernel_rows(kernel_rows_job(kernels, shape.size, problem.weights, halves.get()), begin,
                         end);
    });
  }
  const int64_t blocks = plan.blocks();
  const int64_t stride = plan.column_stride(blocks);
  const Memory<S> memory(shape.size * stride);
  for (int64_t first = 0; first < tile_count; first += 2 * plan.pairs) {
    const Chunk chunk = plan.chunk(first);
    const int64_t in_blocks = blocks_of(chunk.pairs, plan.in_slot, plan.lanes);
    const int64_t out_blocks = blocks_of(chunk.pairs, plan.out_slot, plan.lanes);
    const Columns<S> in = {
        memory.get(), stride,
        plan.rows,    first_block(plan.pairs, plan.in_slot, plan.out_slot, plan.lanes),
        in_blocks,    plan.in_slot,
        shape.inputs, plan.used};
    const Columns<S> out = {memory.get(), stride,        plan.rows,     0,
                            out_blocks,   plan.out_slot, shape.outputs, 0};
    run(in_blocks * plan.used, [&](int64_t begin, int64_t end) {
      stages.map_rows({chunk, in, problem.maps, false}, begin, end);
    });
    run(shape.size / 2 + 1, [&](int64_t begin, int64_t end) {
      const Memory<S> work(plan.work_size(spectrum == nullptr, false));
      stages.products({chunk,
                       kernels,
                       in,
                       out,
                       spectrum,
                       halves.get(),
                       plan.group,
                       {},
                       nullptr,
                       false,
                       work.get()},
                      begin, end);
    });
    run(out_blocks * plan.made, [&](int64_t begin, int64_t end) {
      stages.output_rows({chunk, out, problem.bias, problem.results}, begin, end);
    });
  }
  for (int64_t b = 0; b < shape.batch; ++b) {
    if (may_be_spoilt(problem, b)) convolve_alone(problem, b, stages, run);
  }
}

template <typename S>
void convolve_backward(const Backward<S>& problem, const Stages<S>& stages, const Run& run) {
  const Shape& shape = problem.shape;
  const Kernels forward = {shape.inputs, shape.outputs, shape.kernel, true};
  const Kernels kernels = {shape.outputs, shape.inputs, shape.kernel, false};
  const bool maps_wanted = problem.map_gradients != nullptr;
  bias_gradients(problem, run);
  if (maps_wanted) {
    run(shape.batch * shape.frames, [&](int64_t begin, int64_t end) {
      clear_outside(shape, shape.inputs, problem.lengths, problem.map_gradients, begin, end);
    });
  }
  const Plan<S> plan = make_plan<S>(shape, kernels, problem.lengths, stages, true);
  const auto tile_count = static_cast<int64_t>(plan.tiles.size());
  if (tile_count == 0) {
    std::fill(problem.weight_gradients,
              problem.weight_gradients + shape.outputs * shape.inputs * shape.kernel * shape.kernel,
              S(0));
    return;
  }
  const Memory<S> halves(maps_wanted ? halves_size(kernels, shape.size, stages) : 0);
  if (maps_wanted) {
    run(shape.kernel, [&](int64_t begin, int64_t end) {
      stages.kernel_rows(kernel_rows_job(kernels, shape.size, problem.weights, halves.get()), begin,
                         end);
    });
  }
  const int64_t stride = plan.column_stride(plan.blocks());
  const int64_t maps_stride = plan.column_stride(blocks_of(plan.pairs, plan.maps_slot, plan.lanes));
  const Memory<S> memory(shape.size * stride);
  const Memory<S> maps_memory(shape.size * maps_stride);
  const Memory<S> weight_halves(halves_size(forward, shape.size, stages));
  for (int64_t first = 0; first < tile_count; first += 2 * plan.pairs) {
    const Chunk chunk = plan.chunk(first);
    const int64_t in_blocks = blocks_of(chunk.pairs, plan.in_slot, plan.lanes);
    const int64_t out_blocks = blocks_of(chunk.pairs, plan.out_slot, plan.lanes);
    const int64_t maps_blocks = blocks_of(chunk.pairs, plan.maps_slot, plan.lanes);
    const Columns<S> in = {
        memory.get(),  stride,
        plan.rows,     first_block(plan.pairs, plan.in_slot, plan.out_slot, plan.lanes),
        in_blocks,     plan.in_slot,
        shape.outputs, plan.used};
    const Columns<S> out = {maps_wanted ? memory.get() : nullptr,
                            stride,
                            plan.rows,
                            0,
                            out_blocks,
                            plan.out_slot,
                            shape.inputs,
                            0};
    const Columns<S> maps = {maps_memory.get(), maps_stride,    plan.rows,    0,
                             maps_blocks,       plan.maps_slot, shape.inputs, plan.maps_used};
    run(in_blocks * plan.used, [&](int64_t begin, int64_t end) {
      stages.map_rows({chunk, in, problem.gradients, false}, begin, end);
    });
    run(maps_blocks * plan.maps_used, [&](int64_t begin, int64_t end) {
      stages.map_rows({chunk, maps, problem.maps, true}, begin, end);
    });
    run(shape.size / 2 + 1, [&](int64_t begin, int64_t end) {
      const Memory<S> work(plan.work_size(maps_wanted, true));
      stages.products({chunk, kernels, in, out, nullptr, halves.get(), plan.group, maps,
                       weight_halves.get(), first > 0, work.get()},
                      begin, end);
    });
    if (!maps_wanted) continue;
    run(out_blocks * plan.made, [&](int64_t begin, int64_t end) {
      stages.output_rows({chunk, out, nullptr, problem.map_gradients}, begin, end);
    });
  }
  run(shape.kernel, [&](int64_t begin, int64_t end) {
    stages.weight_rows(
        kernel_rows_job<S>(forward, shape.size, problem.weights, weight_halves.get()),
        problem.weight_gradients, begin, end);
  });
}

#define VMR_INSTANTIATE(S)                                                             \
  template void make_spectrum(const Kernels&, int64_t, const S*, S*, const Stages<S>&, \
                              const Run&);                                             \
  template void convolve(const Forward<S>&, const Stages<S>&, const Run&);             \
  template void convolve_backward(const Backward<S>&, const Stages<S>&, const Run&);
VMR_INSTANTIATE(float)
VMR_INSTANTIATE(double)
#undef VMR_INSTANTIATE

}  // namespace vmr::kernels::detection_conv
