#include "profiler/reference/executable.h"

#include <algorithm>
#include <cstring>

#include "models/routing/load.h"
#include "profiler/cpu/stages.h"
#include "profiler/reference/attention_runner.h"
#include "profiler/reference/ffn_runner.h"
#include "profiler/reference/moe_runner.h"
#include "profiler/reference/oracle.h"
#include "profiler/reference/planted.h"
#include "profiler/reference/support.h"

namespace moecast {
namespace {

class Runtime final : public Executable, private Arena::Tenant {
 public:
  Runtime(const Architecture& architecture, const Deployment& deployment, const Workload& workload,
          const ExecutableOptions& options);
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;
  ~Runtime() override { arena_->leave(*this); }

  void prepare() override;
  void run() override;
  void settle() override;
  [[nodiscard]] Matrix output() const override;
  [[nodiscard]] Matrix reference_output() const override;
  [[nodiscard]] std::vector<std::int64_t> rows_per_expert(std::size_t moe_block) const override {
    return moe_.at(moe_block)->router().assignment().rows;
  }
  [[nodiscard]] std::size_t moe_blocks() const override { return moe_.size(); }
  [[nodiscard]] const Counters& counters() const override { return kernels_.counters; }
  [[nodiscard]] Bytes weight_bytes() const override {
    return Bytes(static_cast<double>(weights_.size()) * static_cast<double>(workload_.copies));
  }
  [[nodiscard]] const Workload& workload() const override { return workload_; }
  [[nodiscard]] int threads() const override { return deployment_.threads; }

 private:
  void evicted() override { kernels_.forget(); }
  void add_block(const Block& block);
  void reserve_stream();
  void fill();
  void fill_input();
  void run_blocks(std::byte* weights);
  void run_head(std::byte* weights);
  [[nodiscard]] std::byte* copy_at(std::int64_t copy) const {
    return memory_ + static_cast<std::size_t>(copy) * weights_.size();
  }
  template <class Element>
  [[nodiscard]] Element* scratch(std::size_t offset) const {
    return reinterpret_cast<Element*>(memory_ + weights_.size() * static_cast<std::size_t>(workload_.copies) + offset);
  }

  Architecture architecture_;
  Deployment deployment_;
  Workload workload_;
  ExecutableOptions options_;
  WeightSource source_;
  Kernels kernels_;
  std::shared_ptr<Arena> arena_;
  BatchShape step_;
  bool lone_;
  std::vector<std::unique_ptr<BlockRunner>> blocks_;
  std::vector<MoeRunner*> moe_;
  std::vector<std::vector<float>> shifts_;
  std::vector<std::size_t> norms_;  // in the weights, one a block and the final one
  Linear head_;
  std::int64_t output_rows_ = 0;
  std::int64_t output_width_ = 0;
  Layout weights_;               // of one copy
  std::size_t shared_size_ = 0;  // scratch that blocks use in turns
  std::size_t input_ = 0;        // fp32 [tokens, hidden]
  std::size_t stream_ = 0;       // fp32 residual stream
  std::size_t rows_ = 0;         // dtype rows that enter a block
  std::size_t result_ = 0;       // fp32 rows that leave a block, or logits
  std::size_t total_ = 0;
  std::byte* memory_ = nullptr;
  std::int64_t next_copy_ = 0;
  std::int64_t last_copy_ = 0;
};

Runtime::Runtime(const Architecture& architecture, const Deployment& deployment, const Workload& workload,
                 const ExecutableOptions& options)
    : architecture_(architecture),
      deployment_(deployment),
      workload_(workload),
      options_(options),
      source_(options.seed, options.variety),
      kernels_(deployment.backend, executed_dtype(architecture, deployment), deployment.threads),
      arena_(options.arena ? options.arena : std::make_shared<Arena>()),
      step_{executed_tokens(workload), workload.batch, step_query(workload), workload.context, architecture.hidden},
      lone_(is_lone_block(architecture)) {
  output_rows_ = architecture.vocabulary > 0 ? step_.batch : step_.tokens;
  output_width_ = architecture.vocabulary > 0 ? architecture.vocabulary : architecture.hidden;
  for (const Layer& layer : architecture_.decoder) {
    for (const Block& block : layer.blocks) add_block(block);
  }
  if (lone_ && !moe_.empty()) output_width_ = moe_.front()->output_width();
  if (!lone_) norms_.push_back(weights_.reserve(static_cast<std::size_t>(step_.hidden) * sizeof(float)));
  if (architecture.vocabulary > 0) {
    head_ = {.n = architecture.vocabulary, .k = step_.hidden};
    head_.offset = weights_.reserve(kernels_.packed_bytes(head_.n, head_.k));
  }
  reserve_stream();
}

void Runtime::add_block(const Block& block) {
  if (!lone_) norms_.push_back(weights_.reserve(static_cast<std::size_t>(step_.hidden) * sizeof(float)));
  Layout scratch;
  const auto index = static_cast<std::int64_t>(blocks_.size());
  if (const auto* moe = std::get_if<MoeBlock>(&block)) {
    const std::size_t number = moe_.size();
    MoeOptions options;
    options.block = index;
    options.strategy = deployment_.strategy;
    options.training = options_.training;
    options.fullest = step_.tokens;
    if (options_.planted && moe->router.kind == RouterKind::token_choice) {
      const std::uint64_t seed = options_.seed + 7919 * (number + 1);
      const auto chosen = workload_.rows_per_expert.empty()
                              ? plant_popularity(expert_popularity(workload_.load, moe->expert_count()), moe->router,
                                                 step_.tokens, seed)
                              : plant_histogram(workload_.rows_per_expert, step_.tokens, moe->router.top_k, seed);
      options.planted_shift = shift_for(chosen, step_.tokens, moe->expert_count());
      std::vector<std::int64_t> rows(static_cast<std::size_t>(moe->expert_count()));
      for (const std::int32_t expert : chosen) ++rows[static_cast<std::size_t>(expert)];
      options.fullest = *std::max_element(rows.begin(), rows.end());
      // Overflow to the next best expert may fill any expert up to its slots.
      if (moe->capacity.overflow == Overflow::next_best && moe->capacity.limited()) options.fullest = step_.tokens;
    }
    shifts_.push_back(options.planted_shift);
    auto runner = std::make_unique<MoeRunner>(*moe, step_, options, kernels_, weights_, scratch);
    moe_.push_back(runner.get());
    blocks_.push_back(std::move(runner));
  } else if (const auto* dense = std::get_if<DenseFfnBlock>(&block)) {
    blocks_.push_back(std::make_unique<DenseRunner>(dense->ffn, step_, index, kernels_, weights_, scratch));
  } else {
    const auto& attention = std::get<AttentionBlock>(block);
    blocks_.push_back(std::make_unique<AttentionRunner>(attention, step_, index, kernels_, weights_, scratch));
  }
  shared_size_ = std::max(shared_size_, scratch.size());
}

void Runtime::reserve_stream() {
  Layout layout;
  static_cast<void>(layout.reserve(shared_size_));
  input_ = layout.reserve(step_.tokens, step_.hidden, sizeof(float));
  stream_ = layout.reserve(step_.tokens, step_.hidden, sizeof(float));
  rows_ = layout.reserve(step_.tokens, step_.hidden, kernels_.element_bytes());
  result_ = layout.reserve(std::max(step_.tokens, output_rows_), std::max(step_.hidden, output_width_), sizeof(float));
  total_ = weights_.size() * static_cast<std::size_t>(workload_.copies) + layout.size();
}

void Runtime::prepare() {
  if (arena_->holds(*this)) return;
  memory_ = arena_->claim(*this, total_);
  fill();
}

void Runtime::fill() {
  Filler filler(source_, kernels_);
  for (std::int64_t copy = 0; copy < workload_.copies; ++copy) {
    for (auto& block : blocks_) block->fill(filler, copy, copy_at(copy));
    for (std::size_t i = 0; i < norms_.size(); ++i) {
      const WeightKey key{.part = Part::norm, .copy = copy, .block = static_cast<std::int64_t>(i)};
      Filler::floats(norm_weight(source_, key, step_.hidden), copy_at(copy) + norms_[i]);
    }
    if (head_.n > 0) {
      const WeightKey key{.part = Part::head, .copy = copy, .block = static_cast<std::int64_t>(blocks_.size())};
      filler.linear(head_, key, copy_at(copy));
    }
  }
  fill_input();
}

void Runtime::fill_input() {
  auto* input = scratch<float>(input_);
  if (architecture_.vocabulary == 0) {
    const Matrix x = model_input(source_, step_.tokens, step_.hidden);
    std::copy(x.values.begin(), x.values.end(), input);
  } else {
    // Rows of the embedding of the first copy; timing does not depend on which token it is.
    const Matrix table = source_.draw({.part = Part::embedding}, architecture_.vocabulary, step_.hidden, 1);
    const auto ids = model_token_ids(source_, step_.tokens, architecture_.vocabulary);
    for (std::size_t t = 0; t < ids.size(); ++t) {
      const auto row = table.row(ids[t]);
      for (std::size_t c = 0; c < row.size(); ++c) {
        input[t * row.size() + c] = round_to(row[c], kernels_.dtype());
      }
    }
  }
  if (lone_) {
    to_dtype(input, scratch<std::byte>(rows_), step_.tokens * step_.hidden, kernels_.dtype(), 1);
  }
}

void Runtime::run() {
  kernels_.counters = {};
  last_copy_ = next_copy_;
  next_copy_ = (next_copy_ + 1) % workload_.copies;
  std::byte* weights = copy_at(last_copy_);
  if (lone_) {
    blocks_.front()->run(weights, scratch<std::byte>(0), scratch<std::byte>(rows_), scratch<float>(result_));
    return;
  }
  run_blocks(weights);
  if (head_.n > 0) run_head(weights);
}

void Runtime::settle() {
  std::vector<Region> touched;
  kernels_.touched = &touched;
  for (std::int64_t copy = 0; copy < workload_.copies; ++copy) run();
  kernels_.touched = nullptr;
  double bytes = 0;
  for (const Region& region : touched) bytes += static_cast<double>(region.size());
  settle_caches(touched, bytes, deployment_.threads);
  run();
}

void Runtime::run_blocks(std::byte* weights) {
  const std::int64_t size = step_.tokens * step_.hidden;
  std::memcpy(scratch<float>(stream_), scratch<float>(input_), static_cast<std::size_t>(size) * sizeof(float));
  kernels_.count(Stage::embedding, 4 * size, 4 * size);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    kernels_.norm(scratch<float>(stream_), reinterpret_cast<const float*>(weights + norms_[i]),
                  scratch<std::byte>(rows_), step_.tokens, step_.hidden);
    blocks_[i]->run(weights, scratch<std::byte>(0), scratch<std::byte>(rows_), scratch<float>(result_));
    kernels_.add(Stage::residual, scratch<float>(result_), scratch<float>(stream_), size);
  }
}

void Runtime::run_head(std::byte* weights) {
  // The last token of every sequence, moved to the front of the stream.
  auto* stream = scratch<float>(stream_);
  for (std::int64_t b = 0; b < step_.batch; ++b) {
    const std::int64_t last = (b + 1) * step_.query - 1;
    if (last != b) std::copy_n(stream + last * step_.hidden, step_.hidden, stream + b * step_.hidden);
  }
  kernels_.norm(stream, reinterpret_cast<const float*>(weights + norms_.back()), scratch<std::byte>(rows_), step_.batch,
                step_.hidden);
  kernels_.multiply(Stage::head, head_, weights, step_.batch, scratch<std::byte>(rows_), scratch<float>(result_));
}

Matrix Runtime::output() const {
  Matrix out(output_rows_, output_width_);
  const float* from = scratch<float>(lone_ || head_.n > 0 ? result_ : stream_);
  std::copy_n(from, out.values.size(), out.values.begin());
  return out;
}

Matrix Runtime::reference_output() const {
  OracleOptions options{.copy = last_copy_, .training = options_.training, .planted_shift = shifts_};
  return run_oracle(architecture_, deployment_, workload_, source_, options).output;
}

class LayerJob final : public Job {
 public:
  explicit LayerJob(std::shared_ptr<Executable> executable) : executable_(std::move(executable)) {}
  void prepare() override { executable_->prepare(); }
  void run() override { executable_->run(); }
  void warm_up() override { executable_->settle(); }
  [[nodiscard]] int calls_per_sample() const override { return static_cast<int>(executable_->workload().copies); }
  [[nodiscard]] int threads() const override { return executable_->threads(); }
  [[nodiscard]] double ring_bytes() const override { return executable_->weight_bytes().value(); }

 private:
  std::shared_ptr<Executable> executable_;
};

}  // namespace

std::shared_ptr<Executable> make_executable(const Architecture& architecture, const Deployment& deployment,
                                            const Workload& workload, const ExecutableOptions& options) {
  require_executable(architecture, deployment, workload);
  return std::make_shared<Runtime>(architecture, deployment, workload, options);
}

std::unique_ptr<Job> make_layer_job(std::shared_ptr<Executable> executable) {
  return std::make_unique<LayerJob>(std::move(executable));
}

}  // namespace moecast
