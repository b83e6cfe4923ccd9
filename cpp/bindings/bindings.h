// What the files of _core bind.
#pragma once

#include <pybind11/pybind11.h>

namespace vmr::bindings {

void bind_metrics(pybind11::module_& module);

}  // namespace vmr::bindings
