# The CUDA kernels. Of torch only the stable ABI's headers are used, so all of this compiles against a
# CPU build of torch too. Sets vmr_with_cuda.
include(CheckLanguage)
set(vmr_with_cuda ${VMR_CUDA})
if(VMR_CUDA STREQUAL "AUTO")
  set(vmr_with_cuda OFF)
  if(VMR_PYTHON AND NOT vmr_torch_cuda_version STREQUAL "none")
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
      execute_process(COMMAND "${CMAKE_CUDA_COMPILER}" --version OUTPUT_VARIABLE nvcc_says)
      string(REGEX MATCH "^[0-9]+" torch_cuda_major "${vmr_torch_cuda_version}")
      if(nvcc_says MATCHES "release ${torch_cuda_major}\\.")
        set(vmr_with_cuda ON)
      else()
        message(STATUS "vmr: torch is built with CUDA ${vmr_torch_cuda_version} and nvcc is another release, so the CUDA kernels are left out")
      endif()
    else()
      message(STATUS "vmr: torch has CUDA but nvcc was not found, so the CUDA kernels are left out")
    endif()
  endif()
endif()
if(NOT vmr_with_cuda)
  return()
endif()

set(CMAKE_CUDA_ARCHITECTURES ${VMR_CUDA_ARCHITECTURES})
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

add_library(vmr_cuda_kernels OBJECT ${cuda_kernel_sources})
set_target_properties(vmr_cuda_kernels PROPERTIES
  CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_VISIBILITY_PRESET hidden CUDA_RUNTIME_LIBRARY Shared)
target_include_directories(vmr_cuda_kernels PUBLIC cpp)
target_compile_options(vmr_cuda_kernels PRIVATE
  -Xcompiler=-Wall,-Wextra,-Wshadow $<$<BOOL:${VMR_WERROR}>:-Werror=all-warnings>)
# The shared runtime: the one that torch has loaded, so that both agree on the current device.
target_link_libraries(vmr_cuda_kernels PUBLIC CUDA::cudart)
