// The ops of anchor-aware feature alignment on CUDA. Products of matrices are torch's.
#include "kernels/alignment_cuda.h"

#include "ops/alignment.h"
#include "ops/alignment_similarity.h"
#include "ops/cuda.h"

namespace vmr::ops {
namespace {

struct Cuda : CudaDevice {
  explicit Cuda(const Tensor& tensor) : CudaDevice(tensor), like(tensor) {}

  static void check_videos(const char*, const Tensor&, int64_t) {}
  static void check_frame_counts(const char*, const Tensor&, int64_t) {}
  static void check_segments(const char*, const Tensor&, int64_t) {}

  // [B, rows, N] of what is accumulated in.
  template <typename T>
  Tensor scratch(const alignment::Sizes& sizes, int64_t rows) const {
    return empty_on(like, {sizes.queries, rows, sizes.frames}, accumulate_dtype<T>());
  }

  // The frames with zeros in the padding.
  template <typename T>
  Tensor masked(const alignment::Sizes& sizes, const T* frames, const int64_t* lengths) const {
    const Tensor to = empty_on(like, {sizes.videos, sizes.frames, sizes.dim}, like.scalar_type());
    launched(alignment::cuda::mask_rows(sizes, frames, lengths, out<T>(to), stream));
    return to;
  }

  template <typename T>
  void gram(const alignment::Gram<T>& problem) const {
    const Tensor rows = masked(problem.sizes, problem.frames, problem.lengths);
    const Tensor products =
        as_contiguous(torch::stable::matmul(rows, torch::stable::transpose(rows, 1, 2)));
    // A frame with NaN makes NaN of zeros too.
    launched(alignment::cuda::mask_gram(problem.sizes, in<T>(products), problem.lengths,
                                        problem.gram, stream));
  }

  template <typename T>
  void gram_gradient(const alignment::GramGradient<T>& problem) const {
    const alignment::Sizes& sizes = problem.sizes;
    const Tensor rows = masked(sizes, problem.frames, problem.lengths);
    const Tensor weights =
        empty_on(like, {sizes.videos, sizes.frames, sizes.frames}, like.scalar_type());
    launched(alignment::cuda::add_transposed(sizes, problem.gradients, problem.lengths,
                                             out<T>(weights), stream));
    const Tensor sums = as_contiguous(torch::stable::matmul(weights, rows));
    launched(alignment::cuda::mask_rows(sizes, in<T>(sums), problem.lengths,
                                        problem.frame_gradients, stream));
  }

  template <typename T>
  void anchors(const alignment::Anchors<T>& problem) const {
    const alignment::Sizes& sizes = problem.sizes;
    const Tensor numbers = empty_on(
        like, {sizes.queries, alignment::cuda::kAnchorRows, sizes.frames}, ScalarType::Double);
    launched(alignment::cuda::anchors(problem, out<double>(numbers), stream));
  }

  // Each fills the outputs of its problem, with scratch memory of so many rows a query.
#define VMR_LAUNCH(name, Problem, sizes, rows)                                                \
  template <typename T>                                                                       \
  void name(const alignment::Problem<T>& problem) const {                                     \
    const Tensor numbers = scratch<T>(problem.sizes, rows);                                   \
    launched(alignment::cuda::name(problem, out<kernels::accumulate_t<T>>(numbers), stream)); \
  }
  VMR_LAUNCH(pool, Pool, sizes, 1)
  VMR_LAUNCH(pool_gradient, PoolGradient, inputs.sizes, 2)
  VMR_LAUNCH(alignment, Alignment, sizes, 3)
  VMR_LAUNCH(alignment_gradient, AlignmentGradient, inputs.sizes, 3)
  VMR_LAUNCH(aligned_frames_gradient, AlignedFramesGradient, inputs.sizes, 1)
  VMR_LAUNCH(similarity, Similarity, sizes, alignment::cuda::kFactorRows)
#undef VMR_LAUNCH

  template <typename T>
  void aligned_frames(const alignment::AlignedFrames<T>& problem) const {
    launched(alignment::cuda::aligned_frames(problem, stream));
  }

  template <typename T>
  void similarity_gradient(const alignment::SimilarityGradient<T>& problem) const {
    using Acc = kernels::accumulate_t<T>;
    const alignment::Sizes& sizes = problem.inputs.sizes;
    const Tensor factors = scratch<T>(sizes, alignment::cuda::kFactorRows);
    const Tensor sums = scratch<T>(sizes, alignment::cuda::kSumRows);
    launched(
        alignment::cuda::similarity_gradient(problem, out<Acc>(factors), out<Acc>(sums), stream));
  }

  const Tensor& like;
};

}  // namespace
}  // namespace vmr::ops

STABLE_TORCH_LIBRARY_IMPL(vmr, CUDA, library) {
  using vmr::ops::Cuda;
  library.impl("gram_matrix", TORCH_BOX(&vmr::ops::gram_matrix<Cuda>));
  library.impl("gram_matrix_backward", TORCH_BOX(&vmr::ops::gram_matrix_backward<Cuda>));
  library.impl("anchor_segment", TORCH_BOX(&vmr::ops::anchor_segment<Cuda>));
  library.impl("attention_pool", TORCH_BOX(&vmr::ops::attention_pool<Cuda>));
  library.impl("attention_pool_backward", TORCH_BOX(&vmr::ops::attention_pool_backward<Cuda>));
  library.impl("frame_alignment", TORCH_BOX(&vmr::ops::frame_alignment<Cuda>));
  library.impl("frame_alignment_backward", TORCH_BOX(&vmr::ops::frame_alignment_backward<Cuda>));
  library.impl("aligned_frames", TORCH_BOX(&vmr::ops::aligned_frames<Cuda>));
  library.impl("aligned_frames_backward", TORCH_BOX(&vmr::ops::aligned_frames_backward<Cuda>));
  library.impl("aligned_similarity", TORCH_BOX(&vmr::ops::aligned_similarity<Cuda>));
  library.impl("aligned_similarity_backward",
               TORCH_BOX(&vmr::ops::aligned_similarity_backward<Cuda>));
}
