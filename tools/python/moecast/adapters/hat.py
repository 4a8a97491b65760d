"""HAT's latency predictor interface: `predict_lat(config)` in milliseconds."""

import numpy


class LatencyPredictor:
    """Takes HAT's sub-transformer configuration: {"encoder": {...}, "decoder": {...}}, as its search makes it."""

    def __init__(self, times):
        self.times = times

    def genome(self, config):
        space, genes = self.times.space, {}
        for stack in ("encoder", "decoder"):
            side = config[stack]
            layers = side[f"{stack}_layer_num"]
            genes[f"{stack}.hidden"] = side[f"{stack}_embed_dim"]
            genes[f"{stack}.layers"] = layers
            for layer in range(layers):
                genes[f"{stack}.{layer}.width"] = side[f"{stack}_ffn_embed_dim"][layer]
                genes[f"{stack}.{layer}.heads"] = side[f"{stack}_self_attention_heads"][layer]
                if stack == "decoder":
                    genes[f"decoder.{layer}.cross_heads"] = side["decoder_ende_attention_heads"][layer]
                    sources = side["decoder_arbitrary_ende_attn"][layer]
                    genes[f"decoder.{layer}.source_layers"] = 1 if sources == -1 else sources + 1
        known = {name for name in genes if name in space.genes}
        return space.encode({name: genes[name] for name in known})

    def predict_lat(self, config):
        return float(1e3 * self.times.predict(numpy.asarray(self.genome(config)))["latency_s"][0])
