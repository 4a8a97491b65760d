#include "models/architecture/fingerprint.h"

#include <type_traits>

#include "models/architecture/block_fields.h"

namespace moecast {
namespace {

using schema::Tag;

void append(const std::string& text, std::string& key) {
  key += text;
  key += '\0';
}

template <class M>
  requires std::is_arithmetic_v<M> || std::is_enum_v<M>
void append(const M& member, std::string& key) {
  key.append(reinterpret_cast<const char*>(&member), sizeof(member));
}

template <class M>
void append(const std::optional<M>& member, std::string& key) {
  key += member ? '\1' : '\0';
  if (member) append(*member, key);
}

template <class M>
void append(const std::vector<M>& members, std::string& key) {
  append(members.size(), key);
  for (const M& member : members) append(member, key);
}

/// Visits the members of one structure.
template <class T>
struct Appender {
  const T& object;
  std::string& key;

  template <class M, class Low, class High>
  void operator()(std::string_view, M T::* member, Low, High) {
    append(object.*member, key);
  }
  template <class M>
  void operator()(std::string_view, M T::* member) {
    append(object.*member, key);
  }
  template <class M>
  void nested(std::string_view, M T::* member) {
    structure(object.*member);
  }
  template <class M>
  void list(std::string_view, std::vector<M> T::* member) {
    append((object.*member).size(), key);
    for (const M& element : object.*member) structure(element);
  }

 private:
  template <class M>
  void structure(const std::optional<M>& member) {
    key += member ? '\1' : '\0';
    if (member) structure(*member);
  }
  template <class M>
  void structure(const M& member) {
    Appender<M> inner{member, key};
    describe(inner, Tag<M>());
  }
};

}  // namespace

void append_fingerprint(const Layer& layer, std::string& key) {
  append(layer.blocks.size(), key);
  for (const Block& block : layer.blocks) {
    key += static_cast<char>(block.index());
    std::visit(
        [&]<class B>(const B& b) {
          Appender<B> appender{b, key};
          describe(appender, Tag<B>());
        },
        block);
  }
}

void append_frame_fingerprint(const Architecture& a, std::string& key) {
  append(a.hidden, key);
  append(a.encoder_hidden, key);
  append(a.vocabulary, key);
  append(a.tied_embeddings, key);
  append(a.dtype, key);
  append(a.expert_dtype, key);
  append(a.kv_dtype, key);
  append(a.other_parameters + a.position_embedding_parameters, key);
}

}  // namespace moecast
