package org.deixis.model;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.model.bert.TextEncoder;
import org.deixis.model.bert.Tokens;
import org.deixis.model.swin.Swin;
import org.deixis.model.swin.SwinConfig;
import org.deixis.nn.RandomState;
import org.deixis.tensor.Tensor;
import org.deixis.testing.Golden;
import org.deixis.testing.TestArrays;
import org.deixis.testing.TestBackends;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** The encoders against timm's Swin and Hugging Face's BERT and RoBERTa: outputs and gradients. */
@Tag("golden")
class EncoderGoldenTest {
  static Stream<Arguments> swins() {
    return across(
        "models/swin_window7",
        "models/swin_padded",
        "models/swin_window12",
        "models/swin_two_stages");
  }

  static Stream<Arguments> texts() {
    return across("models/bert", "models/roberta");
  }

  private static Stream<Arguments> across(String... files) {
    return GoldenModels.backends()
        .flatMap(b -> Stream.of(files).map(file -> Arguments.of(b, file)));
  }

  @ParameterizedTest
  @MethodSource("swins")
  void swin(String device, String file) {
    Golden golden = Golden.load(file);
    SwinConfig config = config(golden, false);
    check(golden, TestBackends.get(device), config);
  }

  /** Activation checkpointing changes where values come from, not what they are. */
  @ParameterizedTest
  @MethodSource("swins")
  void checkpointedSwin(String device, String file) {
    Golden golden = Golden.load(file);
    check(golden, TestBackends.get(device), config(golden, true));
  }

  private static SwinConfig config(Golden golden, boolean checkpointing) {
    ObjectNode json = new ObjectMapper().createObjectNode();
    for (String key : List.of("embed_dim", "depths", "num_heads", "window_size")) {
      json.set(key, golden.json(key));
    }
    if (golden.hasMetadata("always_partition")) {
      json.set("always_partition", golden.json("always_partition"));
    }
    SwinConfig c = GoldenModels.swin(json);
    return new SwinConfig(
        c.embedDim(), c.depths(), c.heads(), c.window(), c.windowRule(), 0, checkpointing);
  }

  private static void check(Golden golden, Backend backend, SwinConfig config) {
    int[] size = golden.ints("image_size");
    try (RandomState random = new RandomState(backend, 0);
        Swin swin =
            new Swin(GoldenModels.weights(backend, golden), config, size[0], size[1], random);
        Scope scope = Scope.open();
        Tape tape = Tape.open()) {
      TestArrays arrays = new TestArrays(backend, DType.F32);
      List<Tensor> maps = swin.forward(Tensor.of(arrays.of(golden, "in.image")));
      List<Variable> outputs = new ArrayList<>();
      List<Array> gradients = new ArrayList<>();
      for (int i = 0; i < maps.size(); i++) {
        GoldenModels.assertClose(
            golden.name() + " stage " + i,
            golden.floats("out.stage" + i),
            maps.get(i).toFloats(),
            GoldenModels.TOLERANCE);
        outputs.add(maps.get(i).variable());
        gradients.add(arrays.of(golden, "up.stage" + i));
      }
      tape.backward(outputs, gradients);
      GoldenModels.assertGradients(golden, swin);
    }
  }

  @ParameterizedTest
  @MethodSource("texts")
  void text(String device, String file) {
    Golden golden = Golden.load(file);
    Backend backend = TestBackends.get(device);
    ObjectNode json = new ObjectMapper().createObjectNode();
    for (String key :
        List.of(
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings")) {
      json.set(key, golden.json(key));
    }
    boolean roberta = golden.json("kind").asText().equals("roberta");
    if (roberta) {
      json.set("pad_token_id", golden.json("pad_token_id"));
      json.set("type_vocab_size", golden.json("type_vocab_size"));
    }
    try (RandomState random = new RandomState(backend, 0);
        TextEncoder encoder =
            new TextEncoder(
                GoldenModels.weights(backend, golden), GoldenModels.text(json, roberta), random);
        Scope scope = Scope.open();
        Tape tape = Tape.open()) {
      Tensor y = encoder.forward(encoder.upload(tokens(golden, "in.ids", "in.mask")));
      GoldenModels.assertClose(file, golden.floats("out.y"), y.toFloats(), GoldenModels.TOLERANCE);
      TestArrays arrays = new TestArrays(backend, DType.F32);
      tape.backward(List.of(y.variable()), List.of(arrays.of(golden, "up.y")));
      GoldenModels.assertGradients(golden, encoder);
    }
  }

  static Tokens tokens(Golden golden, String ids, String mask) {
    return new Tokens(
        ints(golden.longs(ids)),
        ints(golden.longs(mask)),
        golden.shape(ids).dim(0),
        golden.shape(ids).dim(1));
  }

  private static int[] ints(long[] values) {
    return java.util.Arrays.stream(values).mapToInt(Math::toIntExact).toArray();
  }
}
