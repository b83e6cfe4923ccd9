// Which of the compiled instruction sets the hot kernels (NAME.simd.cpp) run with. Chosen in this
// one place, once per process: the best that the CPU and the operating system have, or a lower one
// named by the environment variable VMR_CPU_ISA (baseline, avx2 or avx512), which the tests use.
#pragma once

namespace vmr::kernels {

enum class CpuIsa { kBaseline, kAvx2, kAvx512 };

// Throws std::runtime_error where VMR_CPU_ISA names no instruction set or one that this CPU lacks.
CpuIsa cpu_isa();
const char* cpu_isa_name();

template <typename Function>
Function* select_isa(Function* baseline, Function* avx2, Function* avx512) {
  switch (cpu_isa()) {
    case CpuIsa::kAvx512:
      return avx512;
    case CpuIsa::kAvx2:
      return avx2;
    default:
      return baseline;
  }
}

}  // namespace vmr::kernels

// The variant of `function`, a name that each instruction set's namespace has, for this process.
#ifdef VMR_X86_64
#define VMR_SELECT_ISA(function) \
  ::vmr::kernels::select_isa(&baseline::function, &avx2::function, &avx512::function)
#else
#define VMR_SELECT_ISA(function) (&baseline::function)
#endif
