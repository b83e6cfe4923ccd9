// A forward reader of one video file on OpenCV's FFmpeg backend. Free of Python.
//
// Times are seconds of presentation time on the clock of OpenCV (0 is the stream's start time,
// which need not be the time of the first frame), strictly increasing while reading forward.
#ifndef VMR_VIDEO_READER_H_
#define VMR_VIDEO_READER_H_

#include <cstdint>
#include <opencv2/videoio.hpp>
#include <string>

namespace vmr::video {

// Where a run of grabbing ended.
struct Grabbed {
  double time;         // of the last frame grabbed; NaN if the run began at the end
  double longest_gap;  // between two frames that followed each other in this run, s
  bool ended;          // the file gave no further frame
};

class Reader {
 public:
  // Opens `path` with FFmpeg alone (OpenCV's other backends read "%d" in a name as a pattern).
  explicit Reader(const std::string& path);

  [[nodiscard]] bool is_open() const { return capture_.isOpened(); }

  // A property of cv::VideoCaptureProperties; the orientation is degrees clockwise.
  [[nodiscard]] double property(int id) const;

  // Grabs at least one frame, then on until a frame later than `limit`, `most` frames or the end.
  Grabbed grab_past(double limit, int64_t most);

  // Writes the frame grabbed last, upright, as RGB into `rgb` [height, width, 3], scaled if its own
  // size differs. False where there is none.
  bool retrieve_into(uint8_t* rgb, int height, int width);

  // Asks for `seconds`; the next frame grabbed may lie before or after it.
  void seek(double seconds);

 private:
  cv::VideoCapture capture_;
  cv::Mat frame_;
  cv::Mat scaled_;
  double rate_ = 0.0;
  double last_ = -1.0;
};

}  // namespace vmr::video

#endif  // VMR_VIDEO_READER_H_
