// The outcome of an operation on data that somebody else wrote. Nothing in this library throws on such data: the
// functions that sit behind ONNX Runtime's C interface must not.
#ifndef GOSSAMER_FORMAT_STATUS_H_
#define GOSSAMER_FORMAT_STATUS_H_

namespace gossamer {

class [[nodiscard]] Status {
 public:
  static constexpr Status Ok() { return Status(nullptr); }
  // `problem` is a string literal: it names what is wrong and what was expected.
  static constexpr Status Problem(const char* problem) { return Status(problem); }

  constexpr bool ok() const { return problem_ == nullptr; }
  constexpr const char* problem() const { return ok() ? "" : problem_; }

 private:
  explicit constexpr Status(const char* problem) : problem_(problem) {}
  const char* problem_;
};

}  // namespace gossamer

#endif  // GOSSAMER_FORMAT_STATUS_H_
