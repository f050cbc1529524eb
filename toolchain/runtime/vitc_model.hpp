// vitc: the C interface of a compiled model for C++20. Header only: a model is an object, arrays are spans, errors are
// exceptions.
//
//   vitc::Model model{2};                                      // 2 threads
//   std::vector<float> input = model.preprocess(rgb, height, width);
//   std::vector<float> logits = model.run(input);
//   std::puts(model.label(vitc::best(logits)));
//
// Of a library with --symbol-prefix cats: include this, then cats.h, and make vitc::Model{2, vitc::cats}.
#ifndef VITC_MODEL_HPP
#define VITC_MODEL_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <vector>

#include "vitc_model.h"

namespace vitc {

// The functions of a library, in the order of vitc_model.h.
struct Library {
  decltype(&vitc_get_info) get_info;
  decltype(&vitc_get_preprocessing) get_preprocessing;
  decltype(&vitc_label) label;
  decltype(&vitc_preprocess) preprocess;
  decltype(&vitc_preprocess_u8) preprocess_u8;
  decltype(&vitc_get_entry) get_entry;
  decltype(&vitc_get_port) get_port;
  decltype(&vitc_create) create;
  decltype(&vitc_create_with) create_with;
  decltype(&vitc_threads) threads;
  decltype(&vitc_run) run;
  decltype(&vitc_run_observed) run_observed;
  decltype(&vitc_run_u8) run_u8;
  decltype(&vitc_run_ports) run_ports;
  decltype(&vitc_destroy) destroy;
  decltype(&vitc_status_text) status_text;
};

// Those without a prefix; linked only where it is used.
inline const Library &standard() {
  static const Library library{vitc_get_info,      vitc_get_preprocessing, vitc_label,     vitc_preprocess,
                               vitc_preprocess_u8, vitc_get_entry,         vitc_get_port,  vitc_create,
                               vitc_create_with,   vitc_threads,           vitc_run,       vitc_run_observed,
                               vitc_run_u8,        vitc_run_ports,         vitc_destroy,   vitc_status_text};
  return library;
}

class Error : public std::runtime_error {
 public:
  Error(vitc_status status, const char *text) : std::runtime_error(text), status_(status) {}
  vitc_status status() const { return status_; }

 private:
  vitc_status status_;
};

// A handle: workspace and threads. Moved, not copied; distinct models may run on distinct threads at once.
class Model {
 public:
  explicit Model(std::int32_t threads = 1, const Library &library = standard())
      : library_(&library), handle_(nullptr, library.destroy) {
    vitc_model *made = nullptr;
    check(library.create(threads, &made));
    handle_.reset(made);
    library.get_info(&info_);
  }

  const vitc_info &info() const { return info_; }
  std::int32_t threads() const { return library_->threads(handle_.get()); }
  const char *label(std::size_t index) const { return library_->label(static_cast<std::int32_t>(index)); }

  vitc_preprocessing preprocessing() const {
    vitc_preprocessing how;
    check(library_->get_preprocessing(&how));
    return how;
  }

  // Numbers of the input, and of the output, of one run: all images of the batch.
  std::size_t input_size() const {
    return static_cast<std::size_t>(info_.batch) * static_cast<std::size_t>(info_.channels) *
           static_cast<std::size_t>(info_.height) * static_cast<std::size_t>(info_.width);
  }
  std::size_t output_size() const {
    return static_cast<std::size_t>(info_.batch) * static_cast<std::size_t>(info_.classes);
  }

  // Whether an image is bytes: preprocess_u8 and the runs of std::uint8_t are for such a model, the others for any other.
  bool takes_bytes() const {
    vitc_port port;
    check(library_->get_port(0, 0, &port));
    return port.dtype == VITC_UINT8;
  }

  // fp32 [3, height, width] of an upright picture, 8 bits a colour, rows one after the other.
  std::vector<float> preprocess(std::span<const std::uint8_t> rgb, std::int32_t height, std::int32_t width) const {
    std::vector<float> input(pixels(rgb, height, width));
    check(library_->preprocess(rgb.data(), height, width, 0, input.data()));
    return input;
  }

  // uint8 [3, height, width] of it: resized and cropped, not normalised.
  std::vector<std::uint8_t> preprocess_u8(std::span<const std::uint8_t> rgb, std::int32_t height, std::int32_t width) const {
    std::vector<std::uint8_t> input(pixels(rgb, height, width));
    check(library_->preprocess_u8(rgb.data(), height, width, 0, input.data()));
    return input;
  }

  // Nothing is allocated.
  void run(std::span<const float> input, std::span<float> output) {
    need_sizes(input.size(), output.size());
    check(library_->run(handle_.get(), input.data(), output.data()));
  }
  void run(std::span<const std::uint8_t> input, std::span<float> output) {
    need_sizes(input.size(), output.size());
    check(library_->run_u8(handle_.get(), input.data(), output.data()));
  }

  std::vector<float> run(std::span<const float> input) {
    std::vector<float> output(output_size());
    run(input, output);
    return output;
  }
  std::vector<float> run(std::span<const std::uint8_t> input) {
    std::vector<float> output(output_size());
    run(input, output);
    return output;
  }

  // Any entry: an array for each port, by name.
  void run(std::span<const vitc_array> arrays, const char *entry = nullptr, std::int64_t n = 0) {
    const vitc_call call{sizeof call, entry, arrays.data(), static_cast<std::int32_t>(arrays.size()), n, nullptr, nullptr};
    check(library_->run_ports(handle_.get(), &call));
  }

  vitc_model *handle() const { return handle_.get(); }

 private:
  // Numbers of the input of a picture.
  std::size_t pixels(std::span<const std::uint8_t> rgb, std::int32_t height, std::int32_t width) const {
    if (height < 1 || width < 1 || rgb.size() != std::size_t{3} * static_cast<std::size_t>(height) * static_cast<std::size_t>(width))
      throw Error(VITC_ERROR_ARGUMENT, "The pixels are not 3 x height x width.");
    const vitc_preprocessing how = preprocessing();
    return std::size_t{3} * static_cast<std::size_t>(how.height) * static_cast<std::size_t>(how.width);
  }

  void need_sizes(std::size_t input, std::size_t output) const {
    if (input != input_size() || output != output_size())
      throw Error(VITC_ERROR_PORT, "The input or the output is not of the size that the model has.");
  }

  void check(vitc_status status) const {
    if (status != VITC_OK) throw Error(status, library_->status_text(status));
  }

  const Library *library_;
  std::unique_ptr<vitc_model, decltype(&vitc_destroy)> handle_;
  vitc_info info_{};
};

// The class with the largest logit.
inline std::size_t best(std::span<const float> logits) {
  return static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace vitc
#endif
