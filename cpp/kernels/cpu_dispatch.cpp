#include "kernels/cpu_dispatch.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace vmr::kernels {
namespace {

constexpr const char* kNames[] = {"baseline", "avx2", "avx512"};

CpuIsa best_isa() {
#ifdef VMR_X86_64
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return CpuIsa::kAvx512;
  }
  if (avx2) return CpuIsa::kAvx2;
#endif
  return CpuIsa::kBaseline;
}

CpuIsa choose_isa() {
  const CpuIsa best = best_isa();
  const char* wanted = std::getenv("VMR_CPU_ISA");
  if (wanted == nullptr || *wanted == '\0') return best;
  for (int isa = 0; isa <= static_cast<int>(best); ++isa) {
    if (std::string(wanted) == kNames[isa]) return static_cast<CpuIsa>(isa);
  }
  throw std::runtime_error(
      std::string("VMR_CPU_ISA must be baseline, avx2 or avx512, and no more ") +
      "than this CPU has (" + kNames[static_cast<int>(best)] + "), got \"" + wanted + "\"");
}

}  // namespace

CpuIsa cpu_isa() {
  static const CpuIsa isa = choose_isa();
  return isa;
}

const char* cpu_isa_name() {
  return kNames[static_cast<int>(cpu_isa())];
}

}  // namespace vmr::kernels
