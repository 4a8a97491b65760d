// What a compiler did wrong once, and the build works around.
#include <gtest/gtest.h>

#include <vector>

namespace moecast {
namespace {

/// GCC 12 with AVX-512: constants that end in zeros came out as copies of the first one.
TEST(Compiler, ConstantsThatEndInZerosAreWhatTheyAre) {
  volatile double one = 1;
  volatile double zero = 0;
  const std::vector<double> half{1, 1, 0, 0};
  const std::vector<double> three{1, 1, 1, 0};
  const std::vector<double> two{2, 2, 0, 0};
  EXPECT_EQ(half, (std::vector<double>{one, one, zero, zero}));
  EXPECT_EQ(three, (std::vector<double>{one, one, one, zero}));
  EXPECT_EQ(two, (std::vector<double>{2 * one, 2 * one, zero, zero}));
}

}  // namespace
}  // namespace moecast
