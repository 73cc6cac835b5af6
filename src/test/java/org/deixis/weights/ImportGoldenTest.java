package org.deixis.weights;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.net.URISyntaxException;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.deixis.autograd.Tape;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.io.Checkpoint;
import org.deixis.io.Checkpoints;
import org.deixis.model.GoldenModels;
import org.deixis.model.bert.TextConfig;
import org.deixis.model.bert.TextEncoder;
import org.deixis.model.bert.Tokens;
import org.deixis.model.swin.Swin;
import org.deixis.model.swin.SwinConfig;
import org.deixis.nn.CheckpointSource;
import org.deixis.nn.Module;
import org.deixis.nn.RandomState;
import org.deixis.tensor.Tensor;
import org.deixis.testing.Golden;
import org.deixis.testing.TestArrays;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** PyTorch's outputs, by encoders imported from every format that it was saved in. */
@Tag("golden")
class ImportGoldenTest {
  private static final Backend CPU = Backends.get("cpu");

  private static Path file(String name) throws URISyntaxException {
    return Path.of(ImportGoldenTest.class.getResource("/golden/checkpoints/" + name).toURI());
  }

  /** Names and shapes of a module that was built from the golden weights themselves. */
  private static Map<String, Shape> shapes(Module module) {
    Map<String, Shape> shapes = new LinkedHashMap<>();
    module.parameters().forEach((name, p) -> shapes.put(name, p.shape()));
    return shapes;
  }

  private static CheckpointSource imported(
      String file, String encoder, Map<String, Shape> wanted, Checkpoint checkpoint) {
    NameMap map =
        NameMap.recognise(
            file, checkpoint.entries().keySet(), encoder, encoder.equals("text") ? "BERT" : "");
    WeightImport found = new WeightImport(file, checkpoint, map, wanted, name -> false);
    return new CheckpointSource(
        CPU,
        file,
        new CheckpointSource.Tensors() {
          @Override
          public Shape shape(String name) {
            return wanted.get(name);
          }

          @Override
          public float[] values(String name) {
            return found.tensor(name, name).toFloats();
          }
        });
  }

  private static Tokens tokens(Golden golden) {
    Shape shape = golden.shape("in.ids");
    int[] ids = ints(golden.longs("in.ids"));
    int[] mask = ints(golden.longs("in.mask"));
    return new Tokens(ids, mask, shape.dim(0), shape.dim(1));
  }

  private static int[] ints(long[] values) {
    return Arrays.stream(values).mapToInt(Math::toIntExact).toArray();
  }

  // What fp16 and bf16 round off the weights is theirs.
  @ParameterizedTest
  @CsvSource({
    "swin.safetensors, 1e-4",
    "swin_zip.pth, 1e-4",
    "swin_zip_nested.pth, 1e-4",
    "swin_legacy.pth, 1e-4",
    "swin_numpy.pkl, 1e-4",
    "swin_fp16.pth, 2e-3",
    "swin_bf16.pth, 2e-2"
  })
  void swin(String name, double tolerance) throws Exception {
    Golden golden = Golden.load("models/swin_two_stages");
    ObjectNode json = new ObjectMapper().createObjectNode();
    for (String key : List.of("embed_dim", "depths", "num_heads", "window_size")) {
      json.set(key, golden.json(key));
    }
    SwinConfig config = GoldenModels.swin(json);
    int[] size = golden.ints("image_size");
    try (RandomState random = new RandomState(CPU, 0);
        Checkpoint checkpoint = Checkpoints.unwrapped(Checkpoints.open(file(name)));
        Swin model = new Swin(GoldenModels.weights(CPU, golden), config, size[0], size[1], random);
        Swin swin =
            new Swin(
                imported(name, "vision", shapes(model), checkpoint),
                config,
                size[0],
                size[1],
                random);
        Tape off = Tape.pause();
        Scope scope = Scope.open()) {
      TestArrays arrays = new TestArrays(CPU, DType.F32);
      List<Tensor> maps = swin.forward(Tensor.of(arrays.of(golden, "in.image")));
      for (int i = 0; i < maps.size(); i++) {
        GoldenModels.assertClose(
            name + " stage " + i,
            golden.floats("out.stage" + i),
            maps.get(i).toFloats(),
            tolerance);
      }
    }
  }

  @ParameterizedTest
  @CsvSource({"bert.safetensors", "bert_legacy_names.bin"})
  void bert(String name) throws Exception {
    Golden golden = Golden.load("models/bert");
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
    TextConfig config = GoldenModels.text(json, false);
    try (RandomState random = new RandomState(CPU, 0);
        Checkpoint checkpoint = Checkpoints.unwrapped(Checkpoints.open(file(name)));
        TextEncoder model = new TextEncoder(GoldenModels.weights(CPU, golden), config, random);
        TextEncoder encoder =
            new TextEncoder(imported(name, "text", shapes(model), checkpoint), config, random);
        Tape off = Tape.pause();
        Scope scope = Scope.open()) {
      float[] ours = encoder.forward(encoder.upload(tokens(golden))).toFloats();
      GoldenModels.assertClose(name, golden.floats("out.y"), ours, GoldenModels.TOLERANCE);
    }
  }
}
