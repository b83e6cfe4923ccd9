// The ops of anchor-aware feature alignment: their schemas, and the CPU's side of them.
#include "ops/alignment.h"

#include "kernels/alignment.h"
#include "ops/alignment_similarity.h"
#include "ops/cpu.h"

namespace vmr::ops {
namespace {

template <typename Acc>
std::vector<Acc> scratch(int64_t count) {
  return std::vector<Acc>(static_cast<std::size_t>(count));
}

struct Cpu : CpuDevice {
  using CpuDevice::CpuDevice;

  static void check_videos(const char* op, const Tensor& videos, int64_t count) {
    const Tensor row = as_contiguous(videos);
    for (int64_t q = 0; q < row.numel(); ++q) {
      const int64_t video = in<int64_t>(row)[q];
      check(video >= 0 && video < count, op, ": videos must lie in [0, U = ", count, "), got ",
            video, " at query ", q);
    }
  }

  static void check_frame_counts(const char* op, const Tensor& lengths, int64_t most) {
    const Tensor row = as_contiguous(lengths);
    for (int64_t u = 0; u < row.numel(); ++u) {
      const int64_t length = in<int64_t>(row)[u];
      check(length >= 1 && length <= most, op, ": lengths must be between 1 and ", most, ", got ",
            length, " at video ", u);
    }
  }

  static void check_segments(const char* op, const Tensor& segments, int64_t frames) {
    const Tensor rows = as_contiguous(segments);
    for (int64_t q = 0; q < rows.size(0); ++q) {
      const int64_t first = in<int64_t>(rows)[2 * q];
      const int64_t last = in<int64_t>(rows)[2 * q + 1];
      check(first >= 0 && first <= last && last < frames, op,
            ": segments must be (first, last) with 0 <= first <= last < N = ", frames, ", got (",
            first, ", ", last, ") at query ", q);
    }
  }

  // Calls kernel(begin, end) for the parts of [0, count).
  template <typename Kernel>
  static void share(int64_t count, int64_t work, const Kernel& kernel) {
    torch::stable::parallel_for(0, count, grain(work), kernel);
  }

  static alignment::Grouping group(const alignment::Sizes& sizes, const int64_t* videos,
                                   int64_t most) {
    return alignment::group_queries(videos, sizes.queries, most);
  }
  static int64_t count(const alignment::Grouping& groups) {
    return static_cast<int64_t>(groups.splits.size()) - 1;
  }

  template <typename T>
  void gram(const alignment::Gram<T>& problem) const {
    const auto& sizes = problem.sizes;
    share(sizes.videos * alignment::gram_blocks(sizes.frames),
          kernels::kGramBlock * sizes.frames * sizes.dim,
          [&](int64_t begin, int64_t end) { alignment::gram(problem, begin, end); });
  }

  template <typename T>
  void gram_gradient(const alignment::GramGradient<T>& problem) const {
    const auto& sizes = problem.sizes;
    share(sizes.videos * sizes.frames, sizes.frames * sizes.dim,
          [&](int64_t begin, int64_t end) { alignment::gram_gradient(problem, begin, end); });
  }

  template <typename T>
  void anchors(const alignment::Anchors<T>& problem) const {
    const auto& sizes = problem.sizes;
    const auto groups = group(sizes, problem.videos, alignment::kQueriesAtOnce);
    share(count(groups), sizes.frames * sizes.dim,
          [&](int64_t begin, int64_t end) { alignment::anchors(problem, groups, begin, end); });
  }

  template <typename T>
  void pool(const alignment::Pool<T>& problem) const {
    const auto& sizes = problem.sizes;
    share(sizes.queries, sizes.frames * sizes.dim,
          [&](int64_t begin, int64_t end) { alignment::pool(problem, begin, end); });
  }

  template <typename T>
  void pool_gradient(const alignment::PoolGradient<T>& problem) const {
    const auto& inputs = problem.inputs;
    const auto& sizes = inputs.sizes;
    const bool wanted = problem.frame_gradients != nullptr;
    auto coefficients =
        scratch<kernels::accumulate_t<T>>(wanted ? 2 * sizes.queries * sizes.frames : 0);
    share(sizes.queries, sizes.frames * sizes.dim, [&](int64_t begin, int64_t end) {
      alignment::pool_gradient(problem, wanted ? coefficients.data() : nullptr, begin, end);
    });
    if (!wanted) return;
    frame_gradients<T>({sizes,
                        inputs.videos,
                        2,
                        {problem.pooled_gradients, inputs.vectors, nullptr},
                        coefficients.data(),
                        problem.frame_gradients});
  }

  template <typename T>
  void alignment(const alignment::Alignment<T>& problem) const {
    const auto& sizes = problem.sizes;
    const auto groups = group(sizes, problem.videos, alignment::kQueriesAtOnce);
    share(count(groups), sizes.frames * sizes.dim,
          [&](int64_t begin, int64_t end) { alignment::alignment(problem, groups, begin, end); });
  }

  template <typename T>
  void alignment_gradient(const alignment::AlignmentGradient<T>& problem) const {
    const auto& inputs = problem.inputs;
    const auto& sizes = inputs.sizes;
    const bool wanted = problem.frame_gradients != nullptr;
    auto coefficients =
        scratch<kernels::accumulate_t<T>>(wanted ? 3 * sizes.queries * sizes.frames : 0);
    share(sizes.queries, sizes.frames * sizes.dim, [&](int64_t begin, int64_t end) {
      alignment::alignment_gradient(problem, wanted ? coefficients.data() : nullptr, begin, end);
    });
    if (!wanted) return;
    frame_gradients<T>({sizes,
                        inputs.videos,
                        3,
                        {inputs.relevance_vectors, inputs.alignment_vectors, inputs.queries},
                        coefficients.data(),
                        problem.frame_gradients});
  }

  template <typename T>
  void aligned_frames(const alignment::AlignedFrames<T>& problem) const {
    const auto& sizes = problem.sizes;
    share(sizes.queries, sizes.frames * sizes.dim,
          [&](int64_t begin, int64_t end) { alignment::aligned_frames(problem, begin, end); });
  }

  template <typename T>
  void aligned_frames_gradient(const alignment::AlignedFramesGradient<T>& problem) const {
    const auto& sizes = problem.inputs.sizes;
    share(sizes.queries, sizes.frames * sizes.dim, [&](int64_t begin, int64_t end) {
      alignment::aligned_frames_gradient(problem, begin, end);
    });
    if (problem.frame_gradients == nullptr) return;
    const int64_t* const videos = problem.inputs.videos;
    const auto groups = group(sizes, videos, sizes.queries);
    share(count(groups), sizes.frames * sizes.dim, [&](int64_t begin, int64_t end) {
      alignment::aligned_frames_frame_gradient(problem, groups, begin, end);
    });
    alignment::zero_other_videos(videos, groups, sizes.videos, sizes.frames * sizes.dim,
                                 problem.frame_gradients);
  }

  template <typename T>
  void similarity(const alignment::Similarity<T>& problem) const {
    const auto& sizes = problem.sizes;
    const auto factors = cosine_factors(problem);
    const int64_t blocks = alignment::similarity_blocks(sizes.frames);
    share(sizes.queries * blocks, sizes.frames * sizes.frames / blocks,
          [&](int64_t begin, int64_t end) {
            alignment::similarity(problem, factors.data(), begin, end);
          });
  }

  template <typename T>
  void similarity_gradient(const alignment::SimilarityGradient<T>& problem) const {
    const auto& inputs = problem.inputs;
    const auto& sizes = inputs.sizes;
    auto factors = cosine_factors(inputs);
    auto sums = scratch<kernels::accumulate_t<T>>(sizes.queries * alignment::kSums *
                                                  kernels::padded_size(sizes.frames));
    const int64_t blocks = alignment::similarity_blocks(sizes.frames);
    share(sizes.queries * blocks, sizes.frames * sizes.frames / blocks,
          [&](int64_t begin, int64_t end) {
            alignment::similarity_gradient_sums(problem, factors.data(), sums.data(), begin, end);
          });
    share(sizes.queries, sizes.frames, [&](int64_t begin, int64_t end) {
      alignment::similarity_gradient(problem, factors.data(), sums.data(), begin, end);
    });
    if (problem.gram_gradients == nullptr) return;
    const auto groups = group(sizes, inputs.videos, sizes.queries);
    share(count(groups), sizes.frames * sizes.frames, [&](int64_t begin, int64_t end) {
      alignment::similarity_gram_gradient(problem, factors.data(), groups, begin, end);
    });
    alignment::zero_other_videos(inputs.videos, groups, sizes.videos, sizes.frames * sizes.frames,
                                 problem.gram_gradients);
  }

 private:
  template <typename T>
  static void frame_gradients(const alignment::FrameGradients<T>& problem) {
    const auto& sizes = problem.sizes;
    const auto groups = group(sizes, problem.videos, sizes.queries);
    share(count(groups), sizes.frames * sizes.dim, [&](int64_t begin, int64_t end) {
      alignment::frame_gradients(problem, groups, begin, end);
    });
    alignment::zero_other_videos(problem.videos, groups, sizes.videos, sizes.frames * sizes.dim,
                                 problem.gradients);
  }

  template <typename T>
  static auto cosine_factors(const alignment::Similarity<T>& problem) {
    const auto& sizes = problem.sizes;
    auto factors = scratch<kernels::accumulate_t<T>>(sizes.queries * alignment::kFactors *
                                                     kernels::padded_size(sizes.frames));
    share(sizes.queries, sizes.frames, [&](int64_t begin, int64_t end) {
      alignment::cosine_factors(problem, factors.data(), begin, end);
    });
    return factors;
  }
};

}  // namespace
}  // namespace vmr::ops

STABLE_TORCH_LIBRARY_FRAGMENT(vmr, library) {
  library.def("gram_matrix(Tensor frames, Tensor lengths) -> Tensor");
  library.def(
      "gram_matrix_backward(Tensor output_gradients, Tensor frames, Tensor lengths) -> Tensor");
  library.def(
      "anchor_segment(Tensor frames, Tensor queries, Tensor lengths, Tensor videos, "
      "bool normalize, bool reach_end) -> (Tensor, Tensor)");
  library.def(
      "attention_pool(Tensor frames, Tensor vectors, Tensor segments, Tensor videos) "
      "-> (Tensor, Tensor)");
  library.def(
      "attention_pool_backward(Tensor pooled_gradients, Tensor weight_gradients, Tensor frames, "
      "Tensor vectors, Tensor segments, Tensor videos, bool frames_wanted) -> (Tensor, Tensor)");
  library.def(
      "frame_alignment(Tensor frames, Tensor queries, Tensor relevance_vectors, "
      "Tensor relevance_offsets, Tensor alignment_vectors, Tensor alignment_offsets, "
      "Tensor segments, Tensor lengths, Tensor videos, bool reweight, bool align) "
      "-> (Tensor, Tensor, Tensor)");
  library.def(
      "frame_alignment_backward(Tensor relevance_gradients, Tensor weight_gradients, "
      "Tensor dot_gradients, Tensor frames, Tensor queries, Tensor relevance_vectors, "
      "Tensor relevance_offsets, Tensor alignment_vectors, Tensor alignment_offsets, "
      "Tensor segments, Tensor lengths, Tensor videos, bool reweight, bool align, "
      "bool frames_wanted, bool queries_wanted) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "aligned_frames(Tensor frames, Tensor queries, Tensor relevance, Tensor weights, "
      "Tensor lengths, Tensor videos) -> Tensor");
  library.def(
      "aligned_frames_backward(Tensor output_gradients, Tensor frames, Tensor queries, "
      "Tensor relevance, Tensor weights, Tensor lengths, Tensor videos, bool frames_wanted) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "aligned_similarity(Tensor gram, Tensor query_dots, Tensor query_norms, Tensor relevance, "
      "Tensor weights, Tensor lengths, Tensor videos) -> Tensor");
  library.def(
      "aligned_similarity_backward(Tensor output_gradients, Tensor gram, Tensor query_dots, "
      "Tensor query_norms, Tensor relevance, Tensor weights, Tensor lengths, Tensor videos, "
      "bool gram_wanted) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(vmr, CPU, library) {
  using vmr::ops::Cpu;
  library.impl("gram_matrix", TORCH_BOX(&vmr::ops::gram_matrix<Cpu>));
  library.impl("gram_matrix_backward", TORCH_BOX(&vmr::ops::gram_matrix_backward<Cpu>));
  library.impl("anchor_segment", TORCH_BOX(&vmr::ops::anchor_segment<Cpu>));
  library.impl("attention_pool", TORCH_BOX(&vmr::ops::attention_pool<Cpu>));
  library.impl("attention_pool_backward", TORCH_BOX(&vmr::ops::attention_pool_backward<Cpu>));
  library.impl("frame_alignment", TORCH_BOX(&vmr::ops::frame_alignment<Cpu>));
  library.impl("frame_alignment_backward", TORCH_BOX(&vmr::ops::frame_alignment_backward<Cpu>));
  library.impl("aligned_frames", TORCH_BOX(&vmr::ops::aligned_frames<Cpu>));
  library.impl("aligned_frames_backward", TORCH_BOX(&vmr::ops::aligned_frames_backward<Cpu>));
  library.impl("aligned_similarity", TORCH_BOX(&vmr::ops::aligned_similarity<Cpu>));
  library.impl("aligned_similarity_backward",
               TORCH_BOX(&vmr::ops::aligned_similarity_backward<Cpu>));
}
