#include "profiler/reference/oracle.h"

#include "profiler/reference/oracle_blocks.h"
#include "profiler/reference/support.h"

namespace moecast {
namespace {

using oracle::Step;
using oracle::Table;

Table run_block(const Step& step, const Block& block, const OracleOptions& options, const Table& x,
                OracleResult& result) {
  if (const auto* moe = std::get_if<MoeBlock>(&block)) {
    const std::size_t index = result.routes.size();
    const bool planted = index < options.planted_shift.size();
    return oracle::moe(step, *moe, planted ? options.planted_shift[index] : std::vector<float>{}, x, result);
  }
  if (const auto* dense = std::get_if<DenseFfnBlock>(&block)) {
    return oracle::ffn(step, dense->ffn, {.up = Part::ffn_up, .down = Part::ffn_down}, x);
  }
  return oracle::attention(step, std::get<AttentionBlock>(block), x);
}

Table embed(const Step& step, const Architecture& architecture, std::int64_t tokens) {
  if (architecture.vocabulary == 0) {
    return oracle::to_table(model_input(*step.source, tokens, architecture.hidden), DType::fp32);
  }
  const Matrix table =
      step.source->draw({.part = Part::embedding, .copy = step.copy}, architecture.vocabulary, architecture.hidden, 1);
  Table out(tokens, architecture.hidden);
  const std::vector<std::int64_t> ids = model_token_ids(*step.source, tokens, architecture.vocabulary);
  for (Eigen::Index t = 0; t < out.rows(); ++t) {
    for (Eigen::Index c = 0; c < out.cols(); ++c) {
      out(t, c) = static_cast<double>(round_to(table.at(ids[static_cast<std::size_t>(t)], c), step.dtype));
    }
  }
  return out;
}

/// Logits of the last token of each sequence.
Table head(Step step, const Architecture& architecture, const Table& x) {
  Table last(step.batch, x.cols());
  for (std::int64_t b = 0; b < step.batch; ++b) last.row(b) = x.row((b + 1) * step.query - 1);
  return oracle::norm(step, 0, last) * oracle::weights(step, Part::head, 0, 0, x.cols(), architecture.vocabulary);
}

}  // namespace

OracleResult run_oracle(const Architecture& architecture, const Deployment& deployment, const Workload& workload,
                        const WeightSource& source, const OracleOptions& options) {
  require_executable(architecture, deployment, workload);
  Step step{.dtype = executed_dtype(architecture, deployment),
            .batch = workload.batch,
            .query = step_query(workload),
            .context = workload.context,
            .source = &source,
            .copy = options.copy,
            .training = options.training};
  OracleResult result;
  Table x = embed(step, architecture, executed_tokens(workload));
  if (is_lone_block(architecture)) {
    const Table y =
        run_block(step, architecture.decoder.front().blocks.front(), options, oracle::rounded(x, step.dtype), result);
    result.output = oracle::to_matrix(y);
    return result;
  }
  for (const Layer& layer : architecture.decoder) {
    for (const Block& block : layer.blocks) {
      x += run_block(step, block, options, oracle::norm(step, 0, x), result);
      ++step.block;
    }
  }
  result.output = oracle::to_matrix(architecture.vocabulary > 0 ? head(step, architecture, x) : x);
  return result;
}

}  // namespace moecast
