// Reductions over a block of CUDA threads.
#pragma once

#include <cub/block/block_reduce.cuh>

namespace vmr::kernels::device {

// A block's reductions, whose results all threads get. All threads of the block must take part.
template <typename Value, int kThreads>
struct BlockReduction {
  using Reduce = cub::BlockReduce<Value, kThreads>;
  typename Reduce::TempStorage storage;
  Value result;

  template <typename Operator>
  __device__ Value all(Value value, Operator combine) {
    __syncthreads();  // the previous result has been read by all
    value = Reduce(storage).Reduce(value, combine);
    if (threadIdx.x == 0) result = value;
    __syncthreads();
    return result;
  }
};

struct Plus {
  template <typename Value>
  __device__ Value operator()(Value a, Value b) const {
    return a + b;
  }
};

}  // namespace vmr::kernels::device
