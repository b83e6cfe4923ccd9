# torch's headers and libraries as an imported target of ours. find_package(Torch) is not used: with a
# CUDA build of torch and no fitting toolkit it stops fatally, and only the stable ABI is needed here.
execute_process(
  COMMAND "${Python_EXECUTABLE}" "${CMAKE_CURRENT_LIST_DIR}/torch_paths.py"
  RESULT_VARIABLE status OUTPUT_VARIABLE facts ERROR_VARIABLE problem OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "vmr: ${problem}")
endif()
string(REPLACE "\n" ";" facts "${facts}")
list(GET facts 0 vmr_torch_version)
list(GET facts 1 vmr_torch_cuda_version)
list(GET facts 2 torch_library_dir)
list(SUBLIST facts 3 -1 torch_include_dirs)

# fmt without its library: torch carries the headers, and a system libfmt of another version would clash.
add_library(vmr_fmt INTERFACE)
target_include_directories(vmr_fmt SYSTEM INTERFACE ${torch_include_dirs})
target_compile_definitions(vmr_fmt INTERFACE FMT_HEADER_ONLY)

add_library(vmr_torch INTERFACE)
target_link_libraries(vmr_torch INTERFACE vmr_fmt "${torch_library_dir}/libtorch_cpu.so")
# The oldest torch whose stable ABI the binary may use: 2.10.
target_compile_definitions(vmr_torch INTERFACE TORCH_TARGET_VERSION=0x020a000000000000ULL)
# torch is on the path of the process that loads us; no folder of the build machine is written into the binary.
set(CMAKE_SKIP_RPATH ON)
