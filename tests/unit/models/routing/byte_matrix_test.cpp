#include "models/routing/byte_matrix.h"

#include <gtest/gtest.h>

#include <cmath>

#include "models/core/error.h"

namespace moecast {
namespace {

TEST(ByteMatrix, RowsSendAndColumnsReceive) {
  const ByteMatrix matrix(2, {5, 3, 7, 1});
  EXPECT_EQ(matrix.egress(0), 3);
  EXPECT_EQ(matrix.ingress(0), 7);
  EXPECT_EQ(matrix.total(), 10);
  EXPECT_EQ(matrix.transposed().egress(0), 7);
  EXPECT_EQ(matrix.scaled(2).at(1, 1), 2);
}

TEST(ByteMatrix, UniformSharesEqually) {
  const ByteMatrix matrix = ByteMatrix::uniform(4, 8);
  EXPECT_EQ(matrix.egress(2), 6);
  EXPECT_EQ(matrix.at(1, 1), 2);
}

TEST(ByteMatrix, RefusesWhatIsNoTraffic) {
  EXPECT_THROW(ByteMatrix(0), InputError);
  EXPECT_THROW(ByteMatrix(2, {1, 2, 3}), InputError);
  EXPECT_THROW(ByteMatrix(1, {-1}), InputError);
  EXPECT_THROW(ByteMatrix(1, {std::nan("")}), InputError);
}

}  // namespace
}  // namespace moecast
