// Background-aware moment detection on the CPU: loops over raw pointers for a range [begin, end) of
// their outermost index, which the caller shares out among threads. A result does not depend on
// how. T is float, double, Half or BFloat16; Acc is what it is computed in.
#pragma once

#include "kernels/background_types.h"

namespace vmr::kernels::background {

// Range over the B * N rows.
template <typename Acc>
void match(const Match<Acc>& problem, int64_t begin, int64_t end);

// Ranges over videos.
template <typename T>
void attend(const Attend<T>& problem, int64_t begin, int64_t end);
template <typename T>
void attend_gradient(const AttendGradient<T>& problem, int64_t begin, int64_t end);

// Range over the B * N rows.
template <typename T>
void add_attended(const AddAttended<T>& problem, int64_t begin, int64_t end);

// The rows [B, N, D], with zeros for the padding. Range over the B * N rows.
template <typename T>
void mask_rows(const Sizes& sizes, const Videos<T>& videos, const int64_t* lengths,
               accumulate_t<T>* to, int64_t begin, int64_t end);

// Ranges over videos.
template <typename T>
void pool(const Pool<T>& problem, int64_t begin, int64_t end);
template <typename T>
void pool_gradient(const PoolGradient<T>& problem, int64_t begin, int64_t end);

template <typename T>
void margin_loss(const Sides<T>& problem, double margin, T* losses, int64_t begin, int64_t end);
template <typename T>
void margin_loss_gradient(const SideGradients<T>& problem, double margin, int64_t begin,
                          int64_t end);
template <typename T>
void probability_loss(const Sides<T>& problem, T* losses, int64_t begin, int64_t end);
template <typename T>
void probability_loss_gradient(const SideGradients<T>& problem, int64_t begin, int64_t end);

}  // namespace vmr::kernels::background
