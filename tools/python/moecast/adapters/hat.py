"""HAT's latency predictor interface: `predict_lat(config)` in milliseconds."""

import numbers

from moecast._core import InputError


class LatencyPredictor:
    """Takes HAT's sub-transformer configuration: {"encoder": {...}, "decoder": {...}}, as its search makes it.

    `times`: a SpaceTimes of an encoder-decoder space. A configuration has no experts: layers are dense. Raises
    InputError where the space has no such architecture, or the configuration lacks a value.
    """

    def __init__(self, times):
        self.times = times

    def genome(self, config):
        """The genome of the architecture."""
        space, genes, values = self.times.space, {}, self._values(config)
        for name, value in values.items():
            if name in space.genes:
                genes[name] = value
                continue
            # A value for all layers, or one that is no choice here.
            stack, _, rest = name.partition(".")
            field = space.fields.get(name) or space.fields.get(f"{stack}.{rest.partition('.')[2]}")
            if field is None:
                raise InputError(f"{name}: {space.name} has no such field")
            held = genes.setdefault(field.name, value) if field.genes else field.choices[0]
            if held is None and field.name == "decoder.cross_heads":  # as many as those of self-attention
                held = values[name.replace("cross_heads", "heads")]
            if held != value:
                raise InputError(f"{name}: {value!r}: {space.name} has {held!r} there")
        return space.encode(genes)

    def _values(self, config):
        """Values by gene, of the layers that are there."""
        space, values = self.times.space, {}
        for stack in ("encoder", "decoder"):
            side = self._of(config, stack)
            values[f"{stack}.hidden"] = self._of(side, f"{stack}_embed_dim")
            layers = values[f"{stack}.layers"] = self._of(side, f"{stack}_layer_num")
            most = space.layers.get(stack, 0)
            if not isinstance(layers, numbers.Integral) or not 1 <= layers <= most:
                raise InputError(
                    f"{stack}_layer_num: {layers!r} is out of range ({space.name} has up to {most} layers)"
                )
            for layer in range(layers):
                at = f"{stack}.{layer}"
                values[f"{at}.width"] = self._layer(side, f"{stack}_ffn_embed_dim", layer)
                values[f"{at}.heads"] = self._layer(side, f"{stack}_self_attention_heads", layer)
                if f"{stack}.experts" in space.fields:
                    values[f"{at}.experts"] = 1
                if stack == "decoder":
                    values[f"{at}.cross_heads"] = self._layer(side, "decoder_ende_attention_heads", layer)
                    sources = self._layer(side, "decoder_arbitrary_ende_attn", layer)
                    values[f"{at}.source_layers"] = 1 if sources == -1 else sources + 1
        return values

    @staticmethod
    def _of(config, name):
        if not isinstance(config, dict) or name not in config:
            raise InputError(f"{name}: is missing in HAT's configuration")
        return config[name]

    def _layer(self, side, name, layer):
        values = self._of(side, name)
        held = values[layer] if isinstance(values, (list, tuple)) and layer < len(values) else None
        if not isinstance(held, numbers.Integral):
            raise InputError(f"{name}: {values!r} has no whole number of layer {layer}")
        return held

    def predict_lat(self, config):
        """Milliseconds of the space's workload."""
        return float(1e3 * self.times.predict(self.genome(config))["latency_s"][0])
