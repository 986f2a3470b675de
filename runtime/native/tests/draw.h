// Shapes drawn at random, the same ones in every run.
#ifndef GOSSAMER_TESTS_DRAW_H_
#define GOSSAMER_TESTS_DRAW_H_

#include <cstdint>
#include <cstdlib>
#include <random>

namespace gossamer {

// Numbers from low to high, both included.
class Draw {
 public:
  explicit Draw(int seed) : random_(static_cast<unsigned>(seed)) {}
  int64_t operator()(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_); }

 private:
  std::mt19937 random_;
};

// How many are drawn: `usual`, unless GOSSAMER_TEST_ROUNDS says otherwise.
inline int RoundsOr(int usual) {
  const char* const rounds = std::getenv("GOSSAMER_TEST_ROUNDS");
  return rounds ? std::atoi(rounds) : usual;
}

}  // namespace gossamer

#endif  // GOSSAMER_TESTS_DRAW_H_
