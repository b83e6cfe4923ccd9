# Hot kernels are one source compiled once per instruction set; cpu_dispatch chooses at run time.
# Each variant sees VMR_ISA as the name of its namespace. Elsewhere than on x86-64 there is the baseline alone.
function(vmr_add_simd_sources target)
  set(isas baseline)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
    list(APPEND isas avx2 avx512)
    target_compile_definitions(${target} PUBLIC VMR_X86_64=1)
  endif()
  set(flags_baseline "")
  set(flags_avx2 -mavx2 -mfma -mf16c)
  set(flags_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c)
  foreach(isa IN LISTS isas)
    # An object library each: the same source with other flags.
    add_library(${target}_${isa} OBJECT ${ARGN})
    target_include_directories(${target}_${isa} PRIVATE cpp)
    target_compile_definitions(${target}_${isa} PRIVATE VMR_ISA=${isa})
    # Products are fused into sums (faster, one rounding less): these loops only accumulate.
    target_compile_options(${target}_${isa} PRIVATE
      ${flags_${isa}} -ffp-contract=fast -fno-math-errno -fno-trapping-math)
    vmr_warnings(${target}_${isa})
    target_sources(${target} PUBLIC $<TARGET_OBJECTS:${target}_${isa}>)
  endforeach()
endfunction()
