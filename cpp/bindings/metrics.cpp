// vmr._core's metrics: NumPy in and out, checked; the loops run without the GIL on threads of their
// own.
#include "kernels/metrics.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <exception>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "bindings/bindings.h"

namespace py = pybind11;

namespace vmr::bindings {
namespace {

namespace metrics = kernels::metrics;

using Doubles = py::array_t<double, py::array::c_style>;
using Integers = py::array_t<int64_t, py::array::c_style>;

// Threads cost more than they save below this many queries each.
constexpr int64_t kQueriesPerThread = 128;

[[noreturn]] void refuse(const char* function, const std::string& rule) {
  throw std::invalid_argument(std::string(function) + ": " + rule);
}

std::string shape_of(const py::array& array) {
  std::ostringstream text;
  text << "[";
  for (py::ssize_t i = 0; i < array.ndim(); ++i) text << (i > 0 ? ", " : "") << array.shape(i);
  text << "]";
  return text.str();
}

// Rows of a query and where each query's begin, checked so that a kernel cannot leave the arrays.
metrics::Rows rows_of(const char* function, const char* name, const Doubles& values,
                      const Integers& offsets, int64_t queries) {
  if (offsets.ndim() != 1 || offsets.shape(0) != queries + 1) {
    refuse(function, std::string(name) + "' offsets must be [" + std::to_string(queries + 1) +
                         "], got " + shape_of(offsets));
  }
  const int64_t* const starts = offsets.data();
  const auto total = static_cast<int64_t>(values.shape(0));
  if (starts[0] != 0 || starts[queries] != total || !std::is_sorted(starts, starts + queries + 1)) {
    refuse(function, std::string(name) + "' offsets must run from 0 to " + std::to_string(total) +
                         " without going back");
  }
  return {values.data(), starts};
}

void require_columns(const char* function, const char* name, const Doubles& values,
                     py::ssize_t columns) {
  if (values.ndim() != 2 || values.shape(1) != columns) {
    refuse(function, std::string(name) + " must be [N, " + std::to_string(columns) + "], got " +
                         shape_of(values));
  }
}

int64_t queries_of(const char* function, const char* name, const Integers& offsets) {
  if (offsets.ndim() != 1 || offsets.shape(0) < 1) {
    refuse(function, std::string(name) + "' offsets must be [Q + 1], got " + shape_of(offsets));
  }
  return static_cast<int64_t>(offsets.shape(0)) - 1;
}

template <typename Array>
int64_t length_of(const char* function, const char* name, const Array& array) {
  if (array.ndim() != 1) {
    refuse(function, std::string(name) + " must have one dimension, got " + shape_of(array));
  }
  return static_cast<int64_t>(array.shape(0));
}

// Shares queries out in as many ranges as threads; the calling thread takes the first.
template <typename Work>
void share_out(int64_t queries, int threads, const Work& work) {
  const int64_t most = (queries + kQueriesPerThread - 1) / kQueriesPerThread;
  const int64_t parts = std::clamp<int64_t>(threads, 1, std::max<int64_t>(most, 1));
  std::vector<std::exception_ptr> errors(static_cast<size_t>(parts));
  const auto run = [&](int64_t part) {
    try {
      work(queries * part / parts, queries * (part + 1) / parts);
    } catch (...) {
      errors[static_cast<size_t>(part)] = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> others;  // joined wherever this block is left
    others.reserve(static_cast<size_t>(parts));
    for (int64_t part = 1; part < parts; ++part) {
      try {
        others.emplace_back(run, part);
      } catch (const std::system_error&) {
        run(part);  // the system has no thread left
      }
    }
    run(0);
  }
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

metrics::MomentProblem moment_problem(const char* function, const Doubles& predictions,
                                      const Integers& prediction_offsets, const Doubles& truths,
                                      const Integers& truth_offsets, const py::object& length_range,
                                      bool as_published) {
  const int64_t queries = queries_of(function, "truths", truth_offsets);
  require_columns(function, "predictions", predictions, 3);
  require_columns(function, "truths", truths, 2);
  metrics::LengthRange range = {0, 0, true};
  if (!length_range.is_none()) {
    const auto bounds = length_range.cast<std::pair<double, double>>();
    range = {bounds.first, bounds.second, false};
  }
  return {rows_of(function, "predictions", predictions, prediction_offsets, queries),
          rows_of(function, "truths", truths, truth_offsets, queries), range,
          as_published ? metrics::Undefined::kAsPublished : metrics::Undefined::kZero};
}

Doubles average_precisions(const Doubles& predictions, const Integers& prediction_offsets,
                           const Doubles& truths, const Integers& truth_offsets,
                           const Doubles& thresholds, int64_t most_predictions,
                           const py::object& length_range, bool as_published, int threads) {
  const char* const name = "average_precisions";
  const metrics::MomentProblem problem = moment_problem(
      name, predictions, prediction_offsets, truths, truth_offsets, length_range, as_published);
  if (most_predictions < 0) refuse(name, "most_predictions must not be negative");
  const int64_t queries = queries_of(name, "truths", truth_offsets);
  const int64_t count = length_of(name, "thresholds", thresholds);
  Doubles precisions({queries, count});
  double* const out = precisions.mutable_data();
  const double* const levels = thresholds.data();
  {
    const py::gil_scoped_release unlocked;
    share_out(queries, threads, [&](int64_t begin, int64_t end) {
      metrics::average_precisions(problem, levels, count, most_predictions, out, begin, end);
    });
  }
  return precisions;
}

Doubles best_overlaps(const Doubles& predictions, const Integers& prediction_offsets,
                      const Doubles& truths, const Integers& truth_offsets, const Integers& tops,
                      const py::object& length_range, bool as_published, int threads) {
  const char* const name = "best_overlaps";
  const metrics::MomentProblem problem = moment_problem(
      name, predictions, prediction_offsets, truths, truth_offsets, length_range, as_published);
  const int64_t queries = queries_of(name, "truths", truth_offsets);
  const int64_t count = length_of(name, "tops", tops);
  Doubles overlaps({queries, count});
  double* const out = overlaps.mutable_data();
  const int64_t* const firsts = tops.data();
  if (std::any_of(firsts, firsts + count, [](int64_t top) { return top < 0; })) {
    refuse(name, "tops must not be negative");
  }
  {
    const py::gil_scoped_release unlocked;
    share_out(queries, threads, [&](int64_t begin, int64_t end) {
      metrics::best_overlaps(problem, firsts, count, out, begin, end);
    });
  }
  return overlaps;
}

metrics::HighlightProblem highlight_problem(const char* function, const Doubles& scores,
                                            const Integers& score_offsets, const Doubles& labels,
                                            const Integers& label_offsets) {
  const int64_t queries = queries_of(function, "labels", label_offsets);
  if (labels.ndim() != 2 || labels.shape(1) < 1) {
    refuse(function, "labels must be [N, annotators >= 1], got " + shape_of(labels));
  }
  length_of(function, "scores", scores);
  return {rows_of(function, "scores", scores, score_offsets, queries),
          rows_of(function, "labels", labels, label_offsets, queries),
          static_cast<int64_t>(labels.shape(1))};
}

py::tuple highlight_precisions(const Doubles& scores, const Integers& score_offsets,
                               const Doubles& labels, const Integers& label_offsets,
                               const Doubles& levels, int threads) {
  const char* const name = "highlight_precisions";
  const metrics::HighlightProblem problem =
      highlight_problem(name, scores, score_offsets, labels, label_offsets);
  const int64_t queries = queries_of(name, "labels", label_offsets);
  const int64_t count = length_of(name, "levels", levels);
  Doubles precisions({queries, count});
  Doubles hits({queries, count});
  double* const precision_out = precisions.mutable_data();
  double* const hit_out = hits.mutable_data();
  const double* const least = levels.data();
  {
    const py::gil_scoped_release unlocked;
    share_out(queries, threads, [&](int64_t begin, int64_t end) {
      metrics::highlight_precisions(problem, least, count, precision_out, hit_out, begin, end);
    });
  }
  return py::make_tuple(precisions, hits);
}

Doubles ranked_precisions(const Doubles& scores, const Integers& score_offsets,
                          const Doubles& labels, const Integers& label_offsets, int64_t top,
                          bool above_median, int threads) {
  const char* const name = "ranked_precisions";
  const metrics::HighlightProblem problem =
      highlight_problem(name, scores, score_offsets, labels, label_offsets);
  if (top < 0) refuse(name, "top must not be negative");
  const int64_t queries = queries_of(name, "labels", label_offsets);
  Doubles precisions(queries);
  double* const out = precisions.mutable_data();
  {
    const py::gil_scoped_release unlocked;
    share_out(queries, threads, [&](int64_t begin, int64_t end) {
      metrics::ranked_precisions(problem, top, above_median, out, begin, end);
    });
  }
  return precisions;
}

}  // namespace

void bind_metrics(py::module_& module) {
  module.def("average_precisions", &average_precisions, py::arg("predictions").noconvert(),
             py::arg("prediction_offsets").noconvert(), py::arg("truths").noconvert(),
             py::arg("truth_offsets").noconvert(), py::arg("thresholds").noconvert(), py::kw_only(),
             py::arg("most_predictions"), py::arg("length_range"), py::arg("as_published"),
             py::arg("threads"),
             "Average precision of each query's predictions at IoU thresholds, [Q, T].");
  module.def("best_overlaps", &best_overlaps, py::arg("predictions").noconvert(),
             py::arg("prediction_offsets").noconvert(), py::arg("truths").noconvert(),
             py::arg("truth_offsets").noconvert(), py::arg("tops").noconvert(), py::kw_only(),
             py::arg("length_range"), py::arg("as_published"), py::arg("threads"),
             "Highest IoU among each query's first predictions, [Q, K].");
  module.def("highlight_precisions", &highlight_precisions, py::arg("scores").noconvert(),
             py::arg("score_offsets").noconvert(), py::arg("labels").noconvert(),
             py::arg("label_offsets").noconvert(), py::arg("levels").noconvert(), py::kw_only(),
             py::arg("threads"), "Average precision and hit of clips at levels, each [Q, L].");
  module.def("ranked_precisions", &ranked_precisions, py::arg("scores").noconvert(),
             py::arg("score_offsets").noconvert(), py::arg("labels").noconvert(),
             py::arg("label_offsets").noconvert(), py::kw_only(), py::arg("top"),
             py::arg("above_median"), py::arg("threads"),
             "Average precision over the clips ranked highest, [Q].");
}

}  // namespace vmr::bindings
