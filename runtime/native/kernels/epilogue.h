// What happens to a sum before it is stored: + bias, + residual, activation.
#ifndef GOSSAMER_KERNELS_EPILOGUE_H_
#define GOSSAMER_KERNELS_EPILOGUE_H_

#include <cstdint>
#include <limits>

namespace gossamer {

enum class Activation : uint8_t { kNone, kRelu, kClip, kHardSwish, kSilu, kGelu, kLeakyRelu };

// No activation, ReLU and clip are all a clamp to [lower, upper], which costs two instructions a register and no
// branch. The others first store the sum (clamped to everything) and then run over the stored row.
struct Epilogue {
  Activation activation = Activation::kNone;
  float lower = -std::numeric_limits<float>::infinity();
  float upper = std::numeric_limits<float>::infinity();
  float slope = 0.0f;  // of kLeakyRelu, below 0

  static Epilogue Of(Activation activation) {
    Epilogue epilogue;
    epilogue.activation = activation;
    if (activation == Activation::kRelu) epilogue.lower = 0.0f;
    return epilogue;
  }
  static Epilogue Clip(float lower, float upper) { return Epilogue{Activation::kClip, lower, upper, 0.0f}; }
  static Epilogue LeakyRelu(float slope) {
    Epilogue epilogue = Of(Activation::kLeakyRelu);
    epilogue.slope = slope;
    return epilogue;
  }

  bool is_clamp() const { return activation <= Activation::kClip; }
};

}  // namespace gossamer

#endif  // GOSSAMER_KERNELS_EPILOGUE_H_
