# Warnings of our own code; other people's headers are included as SYSTEM.
function(vmr_warnings target)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wconversion>)
  if(VMR_WERROR)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
  endif()
endfunction()

# A compiled module: warnings, a name without prefix, installed into the package.
# The optional second argument is the suffix of a module that is free of Python.
function(vmr_python_module target)
  vmr_warnings(${target})
  set_target_properties(${target} PROPERTIES PREFIX "")
  if(ARGC GREATER 1)
    set_target_properties(${target} PROPERTIES SUFFIX "${ARGV1}")
  endif()
  install(TARGETS ${target} LIBRARY DESTINATION vmr)
endfunction()
