#pragma once
#include <optional>
#include <string>
#include <vector>

#include "models/plan/graph.h"
#include "models/plan/stages.h"

namespace moecast {

/// Width of what an expert or dense network returns.
std::int64_t output_width(const ExpertSpec& spec, std::int64_t inputs);

/// Experts of all groups.
double expert_sum(const std::vector<RowGroup>& rows);

/// Where the input rows of a GEMM come from.
struct GemmInput {
  std::optional<Bytes> reuse;   ///< bytes touched since they were; nullopt: a layer
  bool of_block = true;         ///< they are the block's, or another stack's, and not the result of its own operators
  GemmInput(std::nullopt_t) {}  // NOLINT(google-explicit-constructor): what is no result of the block
  GemmInput(Bytes bytes) : reuse(bytes), of_block(false) {}  // NOLINT(google-explicit-constructor): a result
  GemmInput(std::optional<Bytes> bytes, bool block) : reuse(bytes), of_block(block) {}
};

/// Where the rows of the experts of a block lie.
struct ExpertReuse {
  std::optional<Bytes> input;   ///< bytes touched since an expert's input rows were written
  bool scratch_output = false;  ///< every expert writes its result to the same place
  bool of_block = true;         ///< the rows are those of the block, and not of a projection before the experts
};

/// Sequences of a step that are alike: each adds `query` new tokens to `context` earlier ones.
struct SequencePart {
  std::int64_t batch = 0;  ///< on one data-parallel rank
  std::int64_t query = 1;
  std::int64_t context = 0;
  bool decode = false;
  std::int64_t source = 0;  ///< encoded tokens that cross attention sees
  bool encodes = false;     ///< the encoded tokens are new: their keys and values are projected now
  friend bool operator==(const SequencePart&, const SequencePart&) = default;
};

/// Collects operators of one step in order and the bytes between two uses of a weight.
class GraphBuilder {
 public:
  GraphBuilder(const Architecture& architecture, const Deployment& deployment, const Workload& workload);

  /// What the layers that follow compute: the encoder's tokens or the decoder's.
  void begin_stack(bool encoder);
  /// Blocks of a layer; `repeat` equal layers are folded into it.
  void layer(const Layer& layer, const std::string& name, double repeat, bool transformer);
  void embedding();
  void head();
  /// Cross entropy of the head's rows.
  void loss();
  /// Hidden states that pipeline stages hand on.
  void stage_transfers();
  OperatorGraph finish();

 private:
  void moe(const MoeBlock& block, const std::string& name);
  /// Scores and top-k, the GEMM apart.
  void choose(const std::string& name, std::int64_t tokens, std::int64_t experts, int top_k, int groups);
  /// Coarse experts first, then the fine ones of those that were chosen.
  void hierarchical_scores(const MoeBlock& block, const std::string& name, std::int64_t tokens, std::int64_t width,
                           const GemmInput& input);
  /// Attention of the block's tokens to each other, whose result is scored.
  void route_by_attention(const RouterSpec& router, const std::string& name);
  void attention(const AttentionBlock& block, const std::string& name);
  void grouped_query(const AttentionBlock& block, const std::string& name);
  void cross(const AttentionBlock& block, const std::string& name);
  void latent(const AttentionBlock& block, const std::string& name);
  void linear(const AttentionBlock& block, const std::string& name);
  void indexer(const AttentionBlock& block, const std::string& name);
  void query_projection(std::int64_t rank, std::int64_t columns, const std::string& name);
  void attention_core(const AttentionBlock& block, const std::string& name, const SequencePart& part,
                      std::int64_t heads, std::int64_t kv_heads, std::int64_t key_dim, std::int64_t value_dim,
                      double visible, std::int64_t read);
  void rotary(const std::string& name, std::int64_t columns);
  void state_space(const StateSpaceBlock& block, const std::string& name);
  void recurrent(const RecurrentBlock& block, const std::string& name);
  void convolution(const ConvolutionBlock& block, const std::string& name);
  void own_cost(const OwnCostBlock& block, const std::string& name);
  /// Depthwise convolution over the last `size` positions.
  void depthwise(const std::string& name, std::int64_t channels, std::int64_t size);
  /// A recurrent state of `elements` fp32 numbers a sequence, decayed, updated and read for every token.
  void state_update(const std::string& name, std::int64_t heads, std::int64_t key_dim, std::int64_t value_dim);
  void dense(const ExpertSpec& spec, const std::string& name, const std::string& stage);
  void expert_layers(const ExpertSpec& spec, const std::string& name, const std::string& stage,
                     const std::vector<RowGroup>& rows, std::int64_t hidden, const ExpertReuse& reuse);
  Operator& add(OperatorKind kind, std::string name, std::string stage);
  Operator& gemm(std::string name, std::string stage, std::int64_t m, std::int64_t n, std::int64_t k,
                 const GemmInput& input);
  Operator& grouped_gemm(std::string name, std::string stage, const std::vector<RowGroup>& rows, std::int64_t n,
                         std::int64_t k);
  /// Stored weights of an expert and the rows that its GEMMs and activation touch.
  [[nodiscard]] double expert_bytes(const ExpertSpec& spec, double rows, std::int64_t hidden) const;
  void norm(const std::string& name, std::int64_t rows, std::int64_t width);
  void residual(const std::string& name, std::int64_t rows);
  void collective(OperatorKind kind, std::string name, std::string stage, double bytes);
  void reduce(const std::string& name, const std::string& stage);  ///< what tensor parallelism adds up
  void refuse(const std::string& name, const std::string& what);   ///< OperatorGraph::not_executed
  /// Bytes of a stored [k, n] matrix: columns padded as the backend pads them.
  [[nodiscard]] double stored_bytes(std::int64_t n, std::int64_t k) const;
  /// @throws InputError at `degree` ("tp", "ep", ...) when it leaves a remainder.
  [[nodiscard]] std::int64_t divide(std::int64_t what, int ranks, const std::string& name,
                                    const std::string& degree) const;

  /// A norm has just written the input of a transformer's block; a lone block finds it where the last step left it.
  [[nodiscard]] GemmInput block_input() const;
  [[nodiscard]] ExpertReuse reuse_of_experts(const ExpertSpec& spec, const std::vector<RowGroup>& rows,
                                             std::int64_t hidden) const;

  const Architecture& architecture_;
  const Deployment& deployment_;
  const Workload& workload_;
  DType dtype_;
  std::int64_t hidden_ = 0;  ///< width of a token in the present stack
  double element_;
  std::vector<SequencePart> parts_;
  std::int64_t tokens_ = 0;  ///< new ones of all parts
  double repeat_ = 1;
  bool normed_ = false;
  int blocks_ = 0;             ///< so far
  int block_ = -1;             ///< under construction
  double stored_weights_ = 0;  ///< of the whole step
  double layer_weights_ = 0;   ///< of the layer with the most
  double current_layer_ = 0;
  double kv_bytes_ = 0;
  double layer_activations_ = 0;  ///< largest over layers
  double current_activations_ = 0;
  OperatorGraph graph_;
};

/// One step without what training adds: the forward pass of a step in any phase.
OperatorGraph forward_graph(const Architecture& architecture, const Deployment& deployment, const Workload& workload,
                            const StackEnds& ends = {});

}  // namespace moecast
