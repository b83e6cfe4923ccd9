// What the CPU and the CUDA kernels of background-aware moment detection share.
//
// B videos of up to N frames of D features; lengths[b] says how many frames video b has. What lies
// behind them is never read, but by official_padding. Acc is what T is computed in.
#pragma once

#include <cstdint>

#include "kernels/scalar_types.h"

namespace vmr::kernels::background {

struct Sizes {
  int64_t batch;
  int64_t frames;
  int64_t dim;
  int64_t hidden;  // H, of the matcher
};

// [B, N, D], of which each video's rows stand one behind the other: also the first N rows of a
// longer memory.
template <typename T>
struct Videos {
  const T* data;
  int64_t stride;  // from a video to the next

  VMR_HOST_DEVICE const T* row(int64_t video, int64_t i, int64_t dim) const {
    return data + video * stride + i * dim;
  }
};

// ---- frame attention ----

// Eq. 5 behind its first product: tanh in place (0 in the padding), and the probability.
template <typename Acc>
struct Match {
  Sizes sizes;
  const int64_t* lengths;
  const Acc* score_weight;  // [H]
  Acc* hidden;              // in and out [B, N, H]
  Acc* probabilities;       // out [B, N]; 0 in the padding
};

// Eqs. 6 to 8.
template <typename T>
struct Attend {
  using Acc = accumulate_t<T>;
  Sizes sizes;
  Videos<T> frames;
  const int64_t* lengths;
  const Acc* matched;  // [B, N] P(f | Q+)
  const Acc* against;  // [B, N] P(f | Q-), or null
  bool official_padding;
  Acc* weights;  // out [B, N] o, as it is computed in
  T* attended;   // out [B, N, D]
  T* joint;      // out [B, N]
  T* positive;   // out [B, N]
  T* attention;  // out [B, N]
};

template <typename T>
struct AttendGradient {
  using Acc = accumulate_t<T>;
  Sizes sizes;
  Videos<T> frames;
  const int64_t* lengths;
  const Acc* score_weight;       // [H]
  const Acc* hidden;             // [B, N, H] after tanh
  const Acc* negative_hidden;    // the same, or null
  const T* attended_gradients;   // [B, N, D]
  const T* joint_gradients;      // [B, N]
  const T* positive_gradients;   // [B, N]
  const T* attention_gradients;  // [B, N]
  bool official_padding;
  Acc* numbers;                    // out [B, kNumbers, N]: o, and the scores' two gradients
  Acc* hidden_gradients;           // out [B, N, H], before tanh; 0 in the padding
  Acc* negative_hidden_gradients;  // the same, or null
  Acc* weight_gradients;           // out [B, H], each video's part of score_weight's
};
constexpr int64_t kNumbers = 3;

// What eq. 8 adds to the frames' gradient: o_i times the gradient of v'_i.
template <typename T>
struct AddAttended {
  using Acc = accumulate_t<T>;
  Sizes sizes;
  const int64_t* lengths;
  const T* attended_gradients;
  const Acc* numbers;  // as above
  bool official_padding;
  const Acc* from;  // [B, N, D]
  T* to;            // out [B, N, D]; may be `from`
};

// ---- attentive pooling ----

template <typename T>
struct Pool {
  Sizes sizes;
  Videos<T> features;
  const T* scores;  // [B, N]
  const int64_t* lengths;
  T* pooled;  // out [B, D]
};

template <typename T>
struct PoolGradient {
  Pool<T> inputs;
  const T* pooled_gradients;  // [B, D]
  T* feature_gradients;       // out [B, N, D]
  T* score_gradients;         // out [B, N]
};

// ---- losses on foreground and background ----

// Rows in a window, and the other rows below the length.
template <typename T>
struct Sides {
  const T* scores;         // [B, N]
  const int64_t* windows;  // [B, M, 2] first and last row
  const int64_t* counts;   // [B] of the M, those that count
  const int64_t* lengths;
  int64_t batch;
  int64_t frames;
  int64_t most_windows;
};

template <typename T>
struct SideGradients {
  Sides<T> inputs;
  const T* loss_gradients;  // [B]
  T* gradients;             // out [B, N]
};

}  // namespace vmr::kernels::background
