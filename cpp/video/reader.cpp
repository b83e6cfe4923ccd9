#include "video/reader.h"

#include <algorithm>
#include <limits>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/core/version.hpp>
#include <opencv2/imgproc.hpp>

namespace vmr::video {
namespace {

// A packet that cannot be decoded makes a grab fail though good frames may follow. At the end of
// the file each try costs next to nothing.
constexpr int kTries = 64;

// OpenCV 4.6 takes the angle of a display matrix for its opposite (opencv#22088): what it turns by
// 90 degrees stands on its head.
constexpr bool kTurnsBackwards = CV_VERSION_MAJOR == 4 && CV_VERSION_MINOR == 6;

}  // namespace

Reader::Reader(const std::string& path) {
  namespace logging = cv::utils::logging;
  const logging::LogLevel before = logging::setLogLevel(logging::LOG_LEVEL_SILENT);
  capture_.open(path, cv::CAP_FFMPEG);
  logging::setLogLevel(before);
  const double rate = is_open() ? property(cv::CAP_PROP_FPS) : 0.0;
  rate_ = rate > 0.0 ? rate : 25.0;
}

double Reader::property(int id) const {
  const double value = capture_.get(id);
  if (kTurnsBackwards && id == cv::CAP_PROP_ORIENTATION_META) return 360.0 - value;
  return value;
}

Grabbed Reader::grab_past(double limit, int64_t most) {
  Grabbed run{std::numeric_limits<double>::quiet_NaN(), 0.0, false};
  for (int64_t count = 0; count < most; ++count) {
    int tries = 0;
    while (!capture_.grab()) {
      if (++tries == kTries) {
        run.ended = true;
        return run;
      }
    }
    // Streams without time stamps report 0 for each frame, and OpenCV reports the decoding time of
    // a frame whose stamp is exactly 0: the nominal rate stands in.
    const double stamp = std::max(property(cv::CAP_PROP_POS_MSEC) / 1000.0, 0.0);
    const double time = last_ >= 0.0 && stamp <= last_ ? last_ + 1.0 / rate_ : stamp;
    if (last_ >= 0.0) run.longest_gap = std::max(run.longest_gap, time - last_);
    run.time = last_ = time;
    if (time > limit) break;
  }
  return run;
}

bool Reader::retrieve_into(uint8_t* rgb, int height, int width) {
  if (!capture_.retrieve(frame_) || frame_.empty()) return false;
  if (kTurnsBackwards && static_cast<int>(property(cv::CAP_PROP_ORIENTATION_META)) % 180 == 90) {
    cv::flip(frame_, frame_, -1);
  }
  cv::Mat out(height, width, CV_8UC3, rgb);
  const bool fits = frame_.rows == height && frame_.cols == width;
  if (!fits) cv::resize(frame_, scaled_, out.size(), 0.0, 0.0, cv::INTER_AREA);
  cv::cvtColor(fits ? frame_ : scaled_, out, cv::COLOR_BGR2RGB);
  return true;
}

void Reader::seek(double seconds) {
  capture_.set(cv::CAP_PROP_POS_MSEC, seconds * 1000.0);
  last_ = -1.0;
}

}  // namespace vmr::video
