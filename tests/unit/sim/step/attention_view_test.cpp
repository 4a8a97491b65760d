#include "sim/step/attention_view.h"

#include <gtest/gtest.h>

namespace moecast {
namespace {

/// Pairs of `fresh` new tokens after `context`, one after the other.
template <class Keys>
double counted(int fresh, int context, Keys keys) {
  double pairs = 0;
  for (int at = context; at < context + fresh; ++at) pairs += keys(at);
  return pairs;
}

StepShape prompts(double count, double fresh, double context) {
  StepShape shape;
  shape.prompts = count;
  shape.context = count * fresh;
  shape.prefix = count * context;
  return shape;
}

StepShape generating(double kv) {
  StepShape shape;
  shape.decodes = 3;
  shape.decode_kv = kv;
  return shape;
}

AttentionBlock windowed(std::int64_t window, AttentionKind kind = AttentionKind::sliding_window) {
  AttentionBlock block;
  block.kind = kind;
  block.window = window;
  return block;
}

TEST(AttentionView, AWindowLimitsPromptsAndWhatTheyRead) {
  const AttentionView view{windowed(16), true};
  for (const int context : {0, 5, 100}) {
    const double pairs = counted(40, context, [](int at) { return std::min(at + 1, 16); });
    const StepShape shape = prompts(2, 40, context);
    EXPECT_DOUBLE_EQ(pairs_of(shape, view), pairs) << context;
    EXPECT_EQ(keys_read(shape, view), std::min(context + 40, 16 + 39)) << context;
    // The same pairs without a prefix under the same window, count by count.
    const EqualPrompts equal = equal_prompts(shape, view);
    EXPECT_EQ(equal.count, 2);
    EXPECT_NEAR(16 * 17 / 2.0 + (equal.length - 16) * 16, pairs, 1e-9) << context;
  }
  // Without a prefix a prompt is itself.
  EXPECT_NEAR(equal_prompts(prompts(2, 40, 0), view).length, 40, 1e-12);
  EXPECT_NEAR(equal_prompts(prompts(2, 10, 0), view).length, 10, 1e-12);
}

TEST(AttentionView, ChunksArePromptsOfTheirOwn) {
  const AttentionView view{windowed(16, AttentionKind::chunked), true};
  // 64 tokens: four chunks of 16 with 136 pairs each.
  EXPECT_DOUBLE_EQ(pairs_of(prompts(1, 64, 0), view), 4 * 136);
  const EqualPrompts equal = equal_prompts(prompts(3, 64, 0), view);
  EXPECT_DOUBLE_EQ(equal.count, 12);
  EXPECT_DOUBLE_EQ(equal.length, 16);
  EXPECT_DOUBLE_EQ(pairs_of(prompts(1, 20, 7), view), counted(20, 7, [](int at) { return at % 16 + 1; }));
  // Sequences of 21 tokens in the mean are anywhere in their chunks: 1 to 16 keys.
  const AttentionView decode{windowed(16, AttentionKind::chunked), false};
  EXPECT_DOUBLE_EQ(pairs_of(generating(21), decode), 8.5);
  EXPECT_DOUBLE_EQ(keys_read(generating(21), decode), 8.5);
  EXPECT_DOUBLE_EQ(pairs_of(generating(12), decode), 12);
}

TEST(AttentionView, AnIndexerShowsTheBestKeysOnceThereAreMore) {
  AttentionBlock sparse;
  sparse.indexer = IndexerSpec{4, 16, 20};
  EXPECT_EQ(pairs_of(generating(100), {sparse, false}), 20);
  EXPECT_EQ(pairs_of(generating(7), {sparse, false}), 7);
  // 1 + 2 + .. + 20, then 20 each of the other 10.
  EXPECT_EQ(pairs_of(prompts(1, 30, 0), {sparse, true}), 210 + 200);
  EXPECT_EQ(keys_read(prompts(1, 30, 0), {sparse, true}), 30);
  // Behind a compressed cache: the best of the rows of four tokens each, and the last 8 tokens.
  sparse.kv_compression = 4;
  sparse.window = 8;
  EXPECT_EQ(pairs_of(generating(40), {sparse, false}), 10 + 8);
  EXPECT_EQ(pairs_of(generating(400), {sparse, false}), 20 + 8);
  EXPECT_EQ(keys_read(generating(400), {sparse, false}), 20 + 8);
}

TEST(AttentionView, WorkIsBytesOfTheKeysAndOperationsOfThePairs) {
  const auto work = attention_work({windowed(16), false}, {256, 2, 0}, 1000);
  const StepWork three = work(generating(50));
  EXPECT_DOUBLE_EQ(three.bytes, 3 * 16 * 256 * 2);
  EXPECT_DOUBLE_EQ(three.flops, 3 * 16 * 1000);
  EXPECT_EQ(work(StepShape{}).bytes, 0);
  // A cache of one byte an element; queries and results are activations.
  const auto compact = attention_work({windowed(16), false}, {256, 1, 100}, 1000);
  EXPECT_DOUBLE_EQ(compact(generating(50)).bytes, 3 * (16 * 256 + 100 * 2));
}

}  // namespace
}  // namespace moecast
