// vmr._video: the reader of cpp/video for Python. Every call that may decode lets go of the GIL.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <opencv2/core/version.hpp>
#include <stdexcept>
#include <string>

#include "video/reader.h"

namespace py = pybind11;
using vmr::video::Grabbed;
using vmr::video::Reader;

namespace {

using Image = py::array_t<uint8_t, py::array::c_style>;

py::tuple grab_past(Reader& reader, double limit, int64_t most) {
  Grabbed run{};
  {
    const py::gil_scoped_release unlocked;
    run = reader.grab_past(limit, most);
  }
  return py::make_tuple(run.time, run.longest_gap, run.ended);
}

bool retrieve_into(Reader& reader, Image& out) {
  if (out.ndim() != 3 || out.shape(2) != 3) {
    throw std::invalid_argument(
        fmt::format("retrieve_into: out must be a C-contiguous uint8 [H, W, 3] array, got [{}]",
                    fmt::join(out.shape(), out.shape() + out.ndim(), ", ")));
  }
  uint8_t* const rgb = out.mutable_data();
  const int height = static_cast<int>(out.shape(0));
  const int width = static_cast<int>(out.shape(1));
  const py::gil_scoped_release unlocked;
  return reader.retrieve_into(rgb, height, width);
}

}  // namespace

PYBIND11_MODULE(_video, m) {
  m.doc() = "A video reader on OpenCV's C++ library; see vmr.video.";
  m.attr("opencv_version") = CV_VERSION;
  m.attr("knows_last_times") = CV_VERSION_MAJOR > 4 || CV_VERSION_MINOR >= 7;
  py::class_<Reader>(m, "Reader")
      .def(py::init<const std::string&>(), py::arg("path"),
           py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("is_open", &Reader::is_open)
      .def("property", &Reader::property, py::arg("id"))
      .def("grab_past", &grab_past, py::arg("limit"), py::arg("most"))
      .def("retrieve_into", &retrieve_into, py::arg("out").noconvert())
      .def("seek", &Reader::seek, py::arg("seconds"), py::call_guard<py::gil_scoped_release>());
}
