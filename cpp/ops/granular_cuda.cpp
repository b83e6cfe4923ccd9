// The ops of GranAlign on CUDA.
#include "kernels/granular_cuda.h"

#include "ops/cuda.h"
#include "ops/granular.h"

namespace vmr::ops {
namespace {

struct Cuda : CudaDevice {
  explicit Cuda(const Tensor& tensor) : CudaDevice(tensor), like(tensor) {}
  static constexpr bool kScoresInOnePass = false;

  static void check_aware_rows(const char*, const GranularInputs&, const granular::Sizes&) {}

#define VMR_LAUNCH(name)                                                         \
  template <typename T, typename... Arguments>                                   \
  void name(const granular::Sizes& sizes, const Arguments&... arguments) const { \
    launched(granular::cuda::name<T>(sizes, arguments..., stream));              \
  }
  VMR_LAUNCH(query_channels)
  VMR_LAUNCH(query_gradients)
  VMR_LAUNCH(frame_cosines)
  VMR_LAUNCH(aware_cosines)
  VMR_LAUNCH(frame_gradients)
  VMR_LAUNCH(aware_gradients)
  VMR_LAUNCH(add_frame_channel_gradients)
  VMR_LAUNCH(add_aware_channel_gradients)
  VMR_LAUNCH(cosine_gradients)
#undef VMR_LAUNCH

  template <typename T>
  void finish_scores(const granular::Sizes& sizes, const granular::Weights& weights,
                     const kernels::accumulate_t<T>* cosines, T* scores) const {
    const Tensor extremes =
        empty_on(like, {2, sizes.queries * sizes.channels, 2}, accumulate_dtype<T>());
    launched(granular::cuda::finish_scores<T>(
        sizes, weights, cosines, out<kernels::accumulate_t<T>>(extremes), scores, stream));
  }

  template <typename T>
  void proposals(const granular::ProposalRule& rule, const granular::ProposalInput<T>& input,
                 const granular::ProposalOutput<T>& output) const {
    const Tensor means = empty_on(like, {input.queries, output.slots}, ScalarType::Double);
    launched(granular::cuda::proposals(rule, input, output, out<double>(means), stream));
  }

  const Tensor& like;
};

}  // namespace
}  // namespace vmr::ops

STABLE_TORCH_LIBRARY_IMPL(vmr, CUDA, library) {
  using vmr::ops::Cuda;
  library.impl("granular_scores", TORCH_BOX(&vmr::ops::granular_scores<Cuda>));
  library.impl("granular_scores_backward", TORCH_BOX(&vmr::ops::granular_scores_backward<Cuda>));
  library.impl("granular_proposals", TORCH_BOX(&vmr::ops::granular_proposals<Cuda>));
}
