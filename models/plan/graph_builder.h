#pragma once
#include <optional>
#include <string>
#include <vector>

#include "models/plan/graph.h"

namespace moecast {

/// Collects operators of one step in order and the bytes between two uses of a weight.
/// Where the rows of the experts of a block lie.
struct ExpertReuse {
  std::optional<Bytes> input;   ///< bytes touched since an expert's input rows were written
  bool scratch_output = false;  ///< every expert writes its result to the same place
};

class GraphBuilder {
 public:
  GraphBuilder(const Architecture& architecture, const Deployment& deployment, const Workload& workload);

  /// Blocks of a layer; `repeat` equal layers are folded into it.
  void layer(const Layer& layer, const std::string& name, double repeat, bool transformer);
  void embedding();
  void head();
  /// A MoE block on its own, without norm and residual.
  void moe(const MoeBlock& block, const std::string& name);
  OperatorGraph finish();

 private:
  void attention(const AttentionBlock& block, const std::string& name);
  void dense(const ExpertSpec& spec, const std::string& name, const std::string& stage);
  void expert_layers(const ExpertSpec& spec, const std::string& name, const std::string& stage,
                     const std::vector<RowGroup>& rows, std::int64_t hidden, const ExpertReuse& reuse);
  Operator& add(OperatorKind kind, std::string name, std::string stage);
  Operator& gemm(std::string name, std::string stage, std::int64_t m, std::int64_t n, std::int64_t k,
                 std::optional<Bytes> input_reuse);
  Operator& grouped_gemm(std::string name, std::string stage, const std::vector<RowGroup>& rows, std::int64_t n,
                         std::int64_t k);
  /// Stored weights of an expert and the rows that its GEMMs and activation touch.
  [[nodiscard]] double expert_bytes(const ExpertSpec& spec, double rows, std::int64_t hidden) const;
  void norm(const std::string& name, std::int64_t rows);
  void residual(const std::string& name, std::int64_t rows);
  void collective(OperatorKind kind, std::string name, std::string stage, double bytes);
  /// Bytes of a stored [k, n] matrix: columns padded as the backend pads them.
  [[nodiscard]] double stored_bytes(std::int64_t n, std::int64_t k) const;
  /// @throws InputError at `degree` ("tp", "ep", ...) when it leaves a remainder.
  [[nodiscard]] std::int64_t divide(std::int64_t what, int ranks, const std::string& name,
                                    const std::string& degree) const;

  /// A norm has just written the input of a transformer's block; a lone block finds it where the last step left it.
  [[nodiscard]] std::optional<Bytes> block_input() const;
  [[nodiscard]] ExpertReuse reuse_of_experts(const ExpertSpec& spec, const std::vector<RowGroup>& rows,
                                             std::int64_t hidden) const;

  const Architecture& architecture_;
  const Deployment& deployment_;
  const Workload& workload_;
  DType dtype_;
  double element_;
  std::int64_t tokens_;
  double repeat_ = 1;
  bool normed_ = false;
  double stored_weights_ = 0;  ///< of the whole step
  double layer_weights_ = 0;   ///< of the layer with the most
  double current_layer_ = 0;
  double kv_bytes_ = 0;
  double layer_activations_ = 0;  ///< largest over layers
  double current_activations_ = 0;
  OperatorGraph graph_;
};

}  // namespace moecast
