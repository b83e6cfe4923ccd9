// What all ops share: input checks whose messages name the op, the rule and what came; the choice
// of the element type; pointers of the kernels' types.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/scalar.h"

namespace vmr::ops {

using torch::headeronly::IntHeaderOnlyArrayRef;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Throws std::runtime_error, in Python a RuntimeError, with the parts put together as its message.
// A stream and not fmt: torch's copy of fmt refuses to be included beside the stable ABI.
template <typename... Parts>
void check(bool holds, const Parts&... parts) {
  if (holds) return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

// A tensor's shape in a message. It is put into words only where there is a message: every call has
// many checks.
struct ShapeText {
  const Tensor& tensor;
};
inline ShapeText shape_text(const Tensor& tensor) {
  return {tensor};
}
inline std::ostream& operator<<(std::ostream& text, const ShapeText& shape) {
  text << '[';
  for (int64_t d = 0; d < shape.tensor.dim(); ++d) {
    text << (d == 0 ? "" : ", ") << shape.tensor.size(d);
  }
  return text << ']';
}

// A tensor's name in the messages, with the shape that its op asks for: "spans must be [Q, P, 2]".
struct Rule {
  const char* op;
  const char* tensor;
  const char* shape;
};

// Checks the number of dimensions and each size that is not negative in `sizes`.
inline void check_shape(const Rule& rule, const Tensor& tensor, const std::vector<int64_t>& sizes) {
  bool fits = tensor.dim() == static_cast<int64_t>(sizes.size());
  for (std::size_t d = 0; fits && d < sizes.size(); ++d) {
    fits = sizes[d] < 0 || tensor.size(static_cast<int64_t>(d)) == sizes[d];
  }
  check(fits, rule.op, ": ", rule.tensor, " must be ", rule.shape, ", got ", shape_text(tensor));
}

inline const char* dtype_text(ScalarType dtype) {
  return torch::headeronly::toString(dtype);
}

inline void check_int64(const Rule& rule, const Tensor& tensor) {
  check(tensor.scalar_type() == ScalarType::Long, rule.op, ": ", rule.tensor,
        " must be int64, got ", dtype_text(tensor.scalar_type()));
}

inline void check_floating(const Rule& rule, const Tensor& tensor) {
  const ScalarType dtype = tensor.scalar_type();
  check(dtype == ScalarType::Float || dtype == ScalarType::Double || dtype == ScalarType::Half ||
            dtype == ScalarType::BFloat16,
        rule.op, ": ", rule.tensor, " must be float32, float64, float16 or bfloat16, got ",
        dtype_text(dtype));
}

inline void check_same_dtype(const Rule& rule, const Tensor& tensor, const Tensor& first,
                             const char* first_name) {
  check(tensor.scalar_type() == first.scalar_type(), rule.op, ": ", rule.tensor,
        " must have the dtype of ", first_name, ", ", dtype_text(first.scalar_type()), ", got ",
        dtype_text(tensor.scalar_type()));
}

inline void check_same_device(const char* op, const Tensor& first,
                              const std::vector<const Tensor*>& others) {
  for (const Tensor* other : others) {
    check(other->device() == first.device(), op, ": all tensors must be on one device, got ",
          first.is_cuda() ? "cuda" : "cpu", " and ", other->is_cuda() ? "cuda" : "cpu");
  }
}

// Calls function(T{}) with the kernels' type of a dtype that check_floating let through.
template <typename Function>
auto dispatch_floating(ScalarType dtype, const Function& function) {
  switch (dtype) {
    case ScalarType::Double:
      return function(double{});
    case ScalarType::Half:
      return function(kernels::Half{});
    case ScalarType::BFloat16:
      return function(kernels::BFloat16{});
    default:
      return function(float{});
  }
}

template <typename T>
ScalarType accumulate_dtype() {
  return sizeof(kernels::accumulate_t<T>) == sizeof(double) ? ScalarType::Double
                                                            : ScalarType::Float;
}

template <typename T>
const T* in(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <typename T>
T* out(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// Allocation and contiguity go past the dispatcher, whose boxed calls cost a microsecond each: as
// much as a small operator's work.
inline Tensor empty_on(const Tensor& device_of, IntHeaderOnlyArrayRef sizes, ScalarType dtype) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (std::size_t d = sizes.size(); d-- > 0;) {
    strides[d] = stride;
    stride *= sizes[d] > 1 ? sizes[d] : 1;
  }
  const AtenTensorHandle of = device_of.get();
  int32_t device_type = 0;
  int32_t device_index = 0;
  AtenTensorHandle made = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(of, &device_type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(of, &device_index));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(),
      torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)), device_type,
      device_index, &made));
  return Tensor(made);
}
inline Tensor empty_on(const Tensor& device_of, std::initializer_list<int64_t> sizes,
                       ScalarType dtype) {
  return empty_on(device_of, IntHeaderOnlyArrayRef(sizes.begin(), sizes.size()), dtype);
}
inline Tensor empty_as(const Tensor& tensor) {
  return empty_on(tensor, tensor.sizes(), tensor.scalar_type());
}

inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// How many iterations of `work` elements each are worth a thread of their own.
inline int64_t grain(int64_t work) {
  constexpr int64_t kWorthAThread = 32768;
  return work >= kWorthAThread ? 1 : kWorthAThread / (work > 0 ? work : 1);
}

// Calls an operator of torch's that the stable headers lack, through the dispatcher.
template <std::size_t kResults, typename... Arguments>
std::array<Tensor, kResults> call(const char* op, const char* overload,
                                  const Arguments&... arguments) {
  constexpr std::size_t kCount = std::max(kResults, sizeof...(Arguments));
  std::array<StableIValue, kCount> stack = {torch::stable::detail::from(arguments)...};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(op, overload, stack.data(), TORCH_ABI_VERSION));
  std::array<Tensor, kResults> results;
  for (std::size_t i = 0; i < kResults; ++i) {
    results[i] = torch::stable::detail::to<Tensor>(stack[i]);
  }
  return results;
}

}  // namespace vmr::ops
