package org.deixis.weights;

import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.deixis.autograd.Tape;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.core.InputException;
import org.deixis.core.Shape;
import org.deixis.infer.ModelFolder;
import org.deixis.io.HostTensor;
import org.deixis.io.Safetensors;
import org.deixis.model.bert.TextEncoder;
import org.deixis.model.bert.Tokens;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.swin.Swin;
import org.deixis.nn.CheckpointSource;
import org.deixis.nn.RandomState;
import org.deixis.tensor.Tensor;

/**
 * Compares the encoders of a model folder with what somebody's Python computed with the checkpoint
 * that they came from ({@code weights-tools/export_reference.py}).
 *
 * <p>The reference holds {@code vision.image} (1, 3, H, W) with {@code vision.level.0…3} (1, h, w,
 * C), or {@code text.input_ids} (1, T) and {@code text.attention_mask} with {@code text.hidden} (1,
 * T, C), or both.
 */
public final class Verification {
  /** Largest relative difference, ‖ours − theirs‖ / ‖theirs‖. */
  public static final double TOLERANCE = 1e-3;

  private static final String IMAGE = "vision.image";
  private static final String LEVEL = "vision.level.";
  private static final String IDS = "text.input_ids";
  private static final String MASK = "text.attention_mask";
  private static final String HIDDEN = "text.hidden";

  private Verification() {}

  /**
   * @return relative difference of each output by name
   * @throws InputException when the reference lacks something or is of another size
   */
  public static Map<String, Double> run(Path model, Path reference, Backend backend) {
    Map<String, HostTensor> theirs = Safetensors.read(reference).tensors();
    if (!theirs.containsKey(IMAGE) && !theirs.containsKey(IDS)) {
      throw new InputException(
          reference
              + ": holds neither "
              + IMAGE
              + " nor "
              + IDS
              + "; make it with export_reference.py");
    }
    GresConfig config = GresConfig.load(model.resolve(ModelFolder.CONFIG));
    CheckpointSource source = ModelFolder.source(model.resolve(ModelFolder.WEIGHTS), backend);
    Map<String, Double> off = new LinkedHashMap<>();
    try (RandomState random = new RandomState(backend, 0);
        Tape paused = Tape.pause()) {
      if (theirs.containsKey(IMAGE)) {
        vision(config, source, backend, random, reference, theirs, off);
      }
      if (theirs.containsKey(IDS)) {
        text(config, source, backend, random, reference, theirs, off);
      }
    }
    return off;
  }

  private static void vision(
      GresConfig config,
      CheckpointSource source,
      Backend backend,
      RandomState random,
      Path reference,
      Map<String, HostTensor> theirs,
      Map<String, Double> off) {
    HostTensor image = theirs.get(IMAGE);
    int h = config.imageHeight();
    int w = config.imageWidth();
    Shape shape = image.shape();
    if (shape.rank() != 4
        || shape.dim(0) < 1
        || !shape.equals(Shape.of(shape.dim(0), 3, h, w))
        || !image.dtype().isFloating()) {
      throw new InputException(
          "%s: its picture is %s %s, the model takes (1, 3, %d, %d); give both the same --image-size"
              .formatted(reference, image.dtype(), shape, h, w));
    }
    try (Swin swin = new Swin(source.part("vision"), config.swin(), h, w, random);
        Scope scope = Scope.open()) {
      List<Tensor> maps =
          swin.forward(Tensor.floats(backend, image.toFloats(), image.shape().dim(0), 3, h, w));
      for (int i = 0; i < maps.size(); i++) {
        compare(reference, theirs, LEVEL + i, maps.get(i).toFloats(), null, off);
      }
    }
  }

  private static void text(
      GresConfig config,
      CheckpointSource source,
      Backend backend,
      RandomState random,
      Path reference,
      Map<String, HostTensor> theirs,
      Map<String, Double> off) {
    Shape shape = need(reference, theirs, IDS).shape();
    if (shape.rank() != 2 || shape.size() == 0 || shape.dim(1) > config.text().maxTokens()) {
      throw new InputException(
          "%s: %s is %s; phrases by tokens are needed, at most %d of those"
              .formatted(reference, IDS, shape, config.text().maxTokens()));
    }
    int[] ids = numbers(reference, theirs, IDS, shape, config.text().vocab());
    int[] mask = numbers(reference, theirs, MASK, shape, 2);
    for (int row = 0; row < shape.dim(0); row++) {
      if (mask[row * shape.dim(1)] == 0) {
        throw new InputException(
            "%s: %s of phrase %d begins with padding; tokens come first"
                .formatted(reference, MASK, row));
      }
    }
    Tokens tokens = new Tokens(ids, mask, shape.dim(0), shape.dim(1));
    try (TextEncoder encoder = new TextEncoder(source.part("text"), config.text(), random);
        Scope scope = Scope.open()) {
      float[] ours = encoder.forward(encoder.upload(tokens)).toFloats();
      compare(reference, theirs, HIDDEN, ours, mask, off);
    }
  }

  /** Whole numbers of that shape, each at least 0 and below {@code end}. */
  private static int[] numbers(
      Path reference, Map<String, HostTensor> theirs, String name, Shape shape, int end) {
    HostTensor t = need(reference, theirs, name);
    if (!t.shape().equals(shape) || t.dtype().isFloating()) {
      throw new InputException(
          "%s: %s is %s %s; whole numbers of shape %s are needed"
              .formatted(reference, name, t.dtype(), t.shape(), shape));
    }
    long[] values = t.toLongs();
    int[] numbers = new int[values.length];
    for (int i = 0; i < values.length; i++) {
      if (values[i] < 0 || values[i] >= end) {
        throw new InputException(
            "%s: %s holds %d; 0 to %d fit the model"
                .formatted(reference, name, values[i], end - 1));
      }
      numbers[i] = (int) values[i];
    }
    return numbers;
  }

  private static HostTensor need(Path reference, Map<String, HostTensor> theirs, String name) {
    HostTensor t = theirs.get(name);
    if (t == null) {
      throw new InputException(
          reference + ": has no " + name + "; make it with export_reference.py");
    }
    return t;
  }

  /**
   * @param mask 0 for rows that are not compared, or null for all
   */
  private static void compare(
      Path reference,
      Map<String, HostTensor> theirs,
      String name,
      float[] ours,
      int[] mask,
      Map<String, Double> off) {
    float[] expected = need(reference, theirs, name).toFloats();
    if (expected.length != ours.length || !theirs.get(name).dtype().isFloating()) {
      throw new InputException(
          "%s: %s is %s, and ours has %d values; is it of this configuration?"
              .formatted(reference, name, theirs.get(name).shape(), ours.length));
    }
    int width = mask == null ? 1 : ours.length / mask.length;
    double difference = 0;
    double norm = 0;
    for (int i = 0; i < ours.length; i++) {
      if (mask == null || mask[i / width] != 0) {
        difference += (double) (ours[i] - expected[i]) * (ours[i] - expected[i]);
        norm += (double) expected[i] * expected[i];
      }
    }
    off.put(name, Math.sqrt(difference / norm));
  }
}
